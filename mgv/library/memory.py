"""Memory: what ingest knows of files that are not in the library, in data/ingest.json.

A file that was rejected is not tried again until it changes; a video that a person removed does not come back by the
next walk through its folder. Lost, it costs no more than that.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mgv.errors import MgvError
from mgv.files import write_json
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A file that could not be taken in, as it was then."""

    size_bytes: int
    modified_ns: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What is remembered; changed in place, written by write_memory."""

    rejected: dict[str, Rejected] = field(default_factory=dict)
    """By path."""
    removed: dict[str, str] = field(default_factory=dict)
    """Content of videos that a person removed → the name that each had."""

    def reject(self, path: Path, reason: str) -> None:
        """Remember a file as it is now; one that cannot be looked at is not remembered."""
        facts = _facts(path)
        if facts is not None:
            self.rejected[str(path.absolute())] = Rejected(
                size_bytes=facts[0], modified_ns=facts[1], reason=reason
            )

    def rejection(self, path: Path) -> str | None:
        """Why this file was rejected; None where it was not, or has changed since."""
        known = self.rejected.get(str(path.absolute()))
        if known is None or _facts(path) != (known.size_bytes, known.modified_ns):
            return None
        return known.reason

    def forget(self, path: Path) -> None:
        """The file was taken in."""
        self.rejected.pop(str(path.absolute()), None)

    def still_rejected(self) -> Mapping[str, str]:
        """The rejected files that are still there as they were, and why."""
        return {
            path: known.reason
            for path, known in sorted(self.rejected.items())
            if _facts(Path(path)) == (known.size_bytes, known.modified_ns)
        }


def read_memory(workspace: Workspace) -> Memory:
    """What is remembered; nothing where the file is missing or damaged."""
    try:
        raw = json.loads(workspace.ingest_memory.read_text(encoding="utf-8"))
        return TypeAdapter(Memory).validate_python(raw)
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, RecursionError, ValidationError):
        logger.warning("%s cannot be read; rejected files are tried again", workspace.ingest_memory)
        return Memory()


def write_memory(workspace: Workspace, memory: Memory) -> None:
    """Write it; where that fails it is not remembered, with a warning."""
    try:
        write_json(workspace.ingest_memory, asdict(memory))
    except MgvError as error:
        logger.warning("%s", error)


def _facts(path: Path) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return None
    return facts.st_size, facts.st_mtime_ns
