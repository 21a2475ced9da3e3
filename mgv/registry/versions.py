"""Versions: the files of published models, their digests, and the lock of those who write."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgv import versioning
from mgv.errors import WeightsError, WorkspaceError
from mgv.files import file_digests, holding
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)

FORMAT = 1
LOCK_TIMEOUT_S = 120.0
"""How long one waits for another's publishing or promotion."""
VERSION = re.compile(r"v([1-9][0-9]*)")
RESTORE = (
    "bring the version back by `dvc checkout --force models/published/{0}.dvc`, or `mgv rollback`"
)


def version_names(workspace: Workspace) -> list[str]:
    folder = workspace.published_dir
    numbers = [
        int(match[1])
        for path in folder.glob("v*")
        if path.is_dir() and (match := VERSION.fullmatch(path.name))
    ]
    return [f"v{number}" for number in sorted(numbers)]


def read_lineage(folder: Path) -> dict[str, Any]:
    """What made a published version. Raises WeightsError when it cannot be read."""
    try:
        lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
        if lineage["format"] != FORMAT:
            raise ValueError(f"its format is {lineage['format']}, expected {FORMAT}")
        return dict(lineage)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder}/lineage.json: cannot be read ({error}); {RESTORE.format(folder.name)}"
        ) from error


def verify(folder: Path) -> None:
    """Hold a version's files against their digests. Raises WeightsError that names what is damaged."""
    expected = read_lineage(folder)["files"]
    digests = {
        name: digest for name, digest in file_digests(folder).items() if name != "lineage.json"
    }
    faults = [f"{name} is missing" for name in sorted(expected.keys() - digests.keys())]
    faults += [f"{name} was added" for name in sorted(digests.keys() - expected.keys())]
    faults += [
        f"{name} has changed"
        for name in sorted(expected)
        if digests.get(name, expected[name]) != expected[name]
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{folder.name} is damaged: {', '.join(faults[:3])}{more}; {RESTORE.format(folder.name)}"
        )


def track(workspace: Workspace, version: str) -> None:
    """Have DVC keep a version too; the version stands whether or not that works."""
    folder = workspace.published_dir / version
    if folder.with_name(f"{version}.dvc").is_file():
        return
    try:
        versioning.track(workspace.root, folder, relink=False)
    except WorkspaceError as error:
        logger.warning("%s is published, but DVC does not keep it yet: %s", version, error)


@contextmanager
def writing(workspace: Workspace) -> Iterator[None]:
    """Hold the registry. Raises BusyError when another process holds it for too long."""
    folder = workspace.published_dir
    busy = f"{folder}: another process has been publishing for {LOCK_TIMEOUT_S:.0f} s; try again"
    with holding(folder / ".lock", busy, timeout_s=LOCK_TIMEOUT_S):
        yield
