"""Manifest: data/library.json, which says what the finished library is. Readers start from it, DVC pins it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mgv.config import MaterializeParams
from mgv.errors import WorkspaceError
from mgv.workspace import write_json

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Item:
    """A video of the library, with the keys of what was computed of it."""

    video_id: str
    name: str
    frames_key: str
    segments_key: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A finished run of materialise."""

    store: str
    """As in params.yaml: relative to the workspace, or a URI."""
    tag: str
    """The name that all tables carry at these versions."""
    versions: dict[str, int]
    digest: str
    """Digest of the content: equal for equal libraries, however they were made."""
    parts: dict[str, str]
    """Revision of every part that made it."""
    params: MaterializeParams
    """What it was made with: a search asks it with the same parts, whatever params.yaml says by now."""
    num_frames: int
    num_segments: int
    duration_s: float
    items: tuple[Item, ...]
    """Every video, by name; those that failed too."""
    failed: dict[str, str]
    """File name of each unreadable video → the reason."""


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write data/library.json, whole or not at all."""
    write_json(path, {"format": FORMAT, **asdict(manifest)})


def read_manifest(path: Path) -> Manifest | None:
    """The manifest; None when there is none yet. Raises WorkspaceError when it cannot be understood."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        return TypeAdapter(Manifest).validate_python(raw)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        fault = error.errors()[0]
        reason = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise WorkspaceError(f"{path}: not a library manifest ({reason}); run `mgv materialize --rebuild`")
