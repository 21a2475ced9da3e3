"""Doctor: what is installed, which weights are at hand, which device, and what to do about each thing missing."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from mgv.errors import MgvError, WorkspaceError
from mgv.library.manifest import read_manifest
from mgv.packages import install_command
from mgv.registry import champion, live, verify
from mgv.starter.weights import cache_dir, starter_status
from mgv.workspace import Workspace, find_workspace

_PACKAGES = (
    "torch", "transformers", "prefect", "dvc", "lancedb", "av", "faster-whisper", "pillow",
)  # fmt: skip
_EXTRAS = {
    "rapidocr-onnxruntime": ("ocr", "words on screen", "materialize.ocr.name rapidocr"),
}
"""By package: the extra that holds it, what it is good for, and the setting that then turns it on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthCheck:
    """One thing that was looked at."""

    name: str
    ok: bool
    level: Literal["missing", "optional"]
    """How much it matters when it is not ok."""
    found: str
    advice: str
    """What to do about it; empty when it is ok."""


def examine(start: Path) -> list[HealthCheck]:
    """Every check, for the workspace at or above start."""
    return [*_programs(), *_packages(), *_weights(), _device(), *_workspace(start)]


def _check(name: str, ok: bool, found: str, advice: str, *, optional: bool = False) -> HealthCheck:
    return HealthCheck(
        name=name,
        ok=ok,
        level="optional" if optional else "missing",
        found=found,
        advice="" if ok else advice,
    )


def _programs() -> Iterator[HealthCheck]:
    version = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield _check("python", supported, version, "use Python 3.11, 3.12 or 3.13")
    git = shutil.which("git")
    yield _check("git", git is not None, git or "not found", "install git; a workspace is a git repository")


def _packages() -> Iterator[HealthCheck]:
    for name in _PACKAGES:
        version = _version(name)
        yield _check(name, version is not None, version or "not installed", f"pip install {name}")
    decord = importlib.util.find_spec("decord") is not None
    yield _check(
        "decord", decord, _version("decord") or "not installed",
        "nothing to do: it has no wheel for this machine, PyAV reads instead", optional=True,
    )  # fmt: skip
    for name, (extra, use, setting) in _EXTRAS.items():
        version = _version(name)
        advice = f"{use}: {install_command(extra)}, then mgv config set {setting}"
        yield _check(name, version is not None, version or "not installed", advice, optional=True)


def _weights() -> Iterator[HealthCheck]:
    for part in starter_status():
        if not part.at_hand:
            found, advice = f"{part.package} is not installed", "mgv setup"
        elif not part.converted:
            found, advice = f"{part.package} {part.version}, not converted yet", "mgv setup"
        else:
            found, advice = f"{part.what}, {(part.size_bytes or 0) / 1e6:.0f} MB in {part.path}", ""
        yield _check(f"starter {part.word}", not advice, found, advice)
    yield _check("cache", True, str(cache_dir()), "")


def _device() -> HealthCheck:
    from mgv.encoders.devices import choose_device

    device = choose_device("auto")
    found = "cpu (larger models want a GPU)" if device == "cpu" else device
    return _check("device", True, found, "")


def _workspace(start: Path) -> Iterator[HealthCheck]:
    try:
        workspace = find_workspace(start)
    except WorkspaceError as error:
        yield _check("workspace", False, str(error), "mgv init DIR", optional=True)
        return
    except MgvError as error:
        yield _check("workspace", False, str(error), "fix params.yaml")
        return
    yield _check("workspace", True, str(workspace.root), "")
    yield _library(workspace)
    yield _champion(workspace)


def _library(workspace: Workspace) -> HealthCheck:
    from mgv.library.plan import up_to_date, want

    try:
        manifest = read_manifest(workspace.manifest)
        current = up_to_date(workspace, want(workspace)) is not None
    except MgvError as error:
        return _check("library", False, str(error), "mgv materialize --rebuild")
    if manifest is None:
        return _check(
            "library", False, "nothing materialised yet", "mgv ingest FILES && mgv materialize", optional=True
        )
    found = f"{len(manifest.items)} videos, {manifest.num_frames} frames, {manifest.num_segments} segments"
    return _check(
        "library", current, found, "mgv materialize (videos, parts or parameters have changed)", optional=True
    )


def _champion(workspace: Workspace) -> HealthCheck:
    try:
        current = champion(workspace)
        if current is None:
            return _check("champion", True, "none; searches answer from the newest library", "")
        verify(workspace.published_dir / current.version)
        library = live(workspace).manifest.tag
        newest = read_manifest(workspace.manifest)
    except MgvError as error:
        return _check("champion", False, str(error), "mgv models")
    current_one = newest is not None and newest.tag == library
    advice = "mgv promote --library-tag newest (a newer library waits)"
    return _check("champion", current_one, f"{current.version} with library {library}", advice, optional=True)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
