"""Doctor: what is installed, which weights are at hand, which device, and what to do about each thing missing."""

from __future__ import annotations

import importlib.util
import logging
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from mgv.errors import MgvError, WorkspaceError
from mgv.operations.health import HealthCheck, check
from mgv.operations.kept import kept_checks
from mgv.packages import install_command
from mgv.starter.weights import cache_dir, starter_status
from mgv.workspace import find_workspace

logger = logging.getLogger(__name__)

_PACKAGES = (
    "torch", "transformers", "prefect", "dvc", "lancedb", "av", "faster-whisper", "pillow",
)  # fmt: skip
_EXTRAS = {
    "rapidocr-onnxruntime": ("ocr", "words on screen", "materialize.ocr.name rapidocr"),
}
"""By package: the extra that holds it, what it is good for, and the setting that then turns it on."""


def fix(start: Path, on_step: Callable[[HealthCheck], None] = lambda _: None) -> list[HealthCheck]:
    """Make again what can be made again, a thing at a time, and examine the result.

    on_step is given each check whose fault is about to be mended. A mending that fails leaves its check as it was.
    """
    tried: set[str] = set()
    while True:
        checks = examine(start)
        todo = next(
            (each for each in checks if each.fix and not each.ok and each.name not in tried), None
        )
        if todo is None:
            return checks
        tried.add(todo.name)
        on_step(todo)
        assert todo.fix is not None, "asked for above"
        try:
            todo.fix()
        except MgvError as error:
            logger.warning("%s: %s", todo.name, error)


def examine(start: Path) -> list[HealthCheck]:
    """Every check, for the workspace at or above start."""
    return [*_programs(), *_packages(), *_weights(), _device(), *_workspace(start)]


def _programs() -> Iterator[HealthCheck]:
    version = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield check("python", supported, version, "use Python 3.11, 3.12 or 3.13")
    git = shutil.which("git")
    yield check(
        "git", git is not None, git or "not found", "install git; a workspace is a git repository"
    )


def _packages() -> Iterator[HealthCheck]:
    for name in _PACKAGES:
        version = _version(name)
        yield check(name, version is not None, version or "not installed", f"pip install {name}")
    decord = importlib.util.find_spec("decord") is not None
    yield check(
        "decord", decord, _version("decord") or "not installed",
        "nothing to do: it has no wheel for this machine, PyAV reads instead", optional=True,
    )  # fmt: skip
    for name, (extra, use, setting) in _EXTRAS.items():
        version = _version(name)
        advice = f"{use}: {install_command(extra)}, then mgv config set {setting}"
        yield check(name, version is not None, version or "not installed", advice, optional=True)


def _weights() -> Iterator[HealthCheck]:
    for part in starter_status():
        if not part.at_hand:
            state, advice = f"{part.package} is not installed", "mgv setup"
        elif not part.converted:
            state, advice = f"{part.package} {part.version}, not converted yet", "mgv setup"
        else:
            state, advice = f"{part.what}, {(part.size_bytes or 0) / 1e6:.0f} MB in {part.path}", ""
        yield check(f"starter {part.word}", not advice, state, advice)
    yield check("cache", True, str(cache_dir()), "")


def _device() -> HealthCheck:
    from mgv.encoders.devices import choose_device

    device = choose_device("auto")
    named = "cpu (larger models want a GPU)" if device == "cpu" else device
    return check("device", True, named, "")


def _workspace(start: Path) -> Iterator[HealthCheck]:
    try:
        workspace = find_workspace(start)
    except WorkspaceError as error:
        yield check("workspace", False, str(error), "mgv init DIR", optional=True)
        return
    except MgvError as error:
        yield check("workspace", False, str(error), "fix params.yaml")
        return
    yield check("workspace", True, str(workspace.root), "")
    yield from kept_checks(workspace)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
