"""Kept: everything that mgv keeps in a workspace, looked at, with what makes it again where something can."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from mgv import versioning
from mgv.errors import MgvError
from mgv.library.ingest import keep_versions, stored_files
from mgv.library.manifest import Manifest, is_tag, keep_version, read_manifest, versions
from mgv.library.memory import Memory, write_memory
from mgv.operations.health import HealthCheck, check
from mgv.registry import champion, live, verify
from mgv.workspace import VIDEOS_POINTER, Workspace

logger = logging.getLogger(__name__)

_OLD_S = 600.0
"""A lock of git's that is older belongs to a process that has died."""
_FIX = "mgv doctor --fix"


def kept_checks(workspace: Workspace) -> Iterator[HealthCheck]:
    """Every check of a workspace's own files; none reads a video or a table through."""
    yield _git(workspace)
    yield _stages(workspace)
    yield from _videos(workspace)
    yield _remembered(workspace)
    yield from _manifests(workspace)
    yield from _library(workspace)
    yield from _champion(workspace)
    yield _receipts(workspace)


def _git(workspace: Workspace) -> HealthCheck:
    lock = workspace.root / ".git" / "index.lock"
    try:
        age_s = time.time() - lock.stat().st_mtime
    except OSError:
        age_s = 0.0
    if not (workspace.root / ".git").exists():
        return check(
            "git repository",
            False,
            "no .git here",
            f"mgv init {workspace.root}",
            fix=partial(versioning.init_repository, workspace.root),
        )
    return check(
        "git repository",
        age_s < _OLD_S,
        f".git/index.lock is {age_s / 60:.0f} minutes old"
        if age_s >= _OLD_S
        else "no lock was left behind",
        f"when no git command is running: rm {lock}",
    )


def _stages(workspace: Workspace) -> HealthCheck:
    for name in ("dvc.yaml", "dvc.lock"):
        path = workspace.root / name
        try:
            if path.exists() and not isinstance(
                yaml.safe_load(path.read_text(encoding="utf-8")), dict
            ):
                raise ValueError("it holds no stages")
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:120]
            return check(
                "stages", False, f"{name} cannot be read ({reason})", f"git checkout HEAD -- {name}"
            )
    return check("stages", True, "dvc.yaml and dvc.lock can be read", "")


def _videos(workspace: Workspace) -> Iterator[HealthCheck]:
    """data/videos as it is, beside what DVC knows and keeps of it."""
    root = workspace.root
    names = {file.name for file in stored_files(workspace)}
    md5 = versioning.tracked_version(root, VIDEOS_POINTER)
    held = versioning.listing(root, md5) if md5 else None
    track = partial(_track, workspace)
    if held is None:
        is_new = not names and not (root / VIDEOS_POINTER).exists()
        state = f"{len(names)} videos, none tracked by DVC" if names else "no video yet"
        if md5:
            state = f"DVC's cache has lost the list of {VIDEOS_POINTER}"
        yield check("videos", is_new, state, _FIX, optional=is_new, fix=track if names else None)
        return
    gone = sorted(name for name in held if not (workspace.videos_dir / name).is_file())
    advice = f"dvc checkout {VIDEOS_POINTER} (brings them back), or mgv materialize (lets them go)"
    if len(gone) == len(held):
        advice = f"dvc checkout {VIDEOS_POINTER} (or mount the disk that data/videos is on)"
    state = f"{len(names)} videos" + (
        f"; {len(gone)} files are gone: {', '.join(gone[:3])}" if gone else ""
    )
    yield check("videos", not gone, state, advice)
    lost = [name for name, own in held.items() if versioning.cached(root, own) is None]
    can_fix = bool(lost) and all((workspace.videos_dir / name).is_file() for name in lost)
    yield check(
        "DVC cache",
        not lost,
        f"{len(lost)} of {len(held)} files are not in it"
        if lost
        else f"holds all {len(held)} files",
        _FIX if can_fix else f"dvc fetch {VIDEOS_POINTER} (from a remote, where there is one)",
        fix=track if can_fix else None,
    )


def _track(workspace: Workspace) -> None:
    with workspace.writing():
        pointer = workspace.root / VIDEOS_POINTER
        if versioning.tracked_version(workspace.root, VIDEOS_POINTER) is None and pointer.exists():
            pointer.rename(
                pointer.with_suffix(".dvc.broken")
            )  # DVC would not write over what it cannot read
        versioning.track(workspace.root, workspace.videos_dir)
        keep_versions(workspace)


def _remembered(workspace: Workspace) -> HealthCheck:
    path = workspace.ingest_memory
    try:
        if path.exists():
            json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return check(
            "ingest memory",
            False,
            f"{path.name} cannot be read ({type(error).__name__})",
            _FIX,
            optional=True,
            fix=partial(write_memory, workspace, Memory()),
        )
    return check("ingest memory", True, "can be read", "")


def _manifests(workspace: Workspace) -> Iterator[HealthCheck]:
    """data/library.json and data/manifests/TAG.json: each can stand in for the other."""
    damaged = [
        path
        for path in workspace.manifests_dir.glob("*.json")
        if is_tag(path.stem) and not _reads(path)
    ]
    yield check(
        "libraries",
        not damaged,
        f"{len(damaged)} manifests cannot be read: {', '.join(path.name for path in damaged[:3])}"
        if damaged
        else f"{len(list(workspace.manifests_dir.glob('*.json')))} kept",
        _FIX,
        fix=partial(_mend_manifests, workspace, damaged),
    )
    if not _reads(workspace.manifest):
        yield check(
            "library.json", False, "cannot be read", _FIX, fix=partial(_mend_newest, workspace)
        )


def _reads(path: Path) -> bool:
    try:
        read_manifest(path)
    except MgvError:
        return False
    return True


def _mend_manifests(workspace: Workspace, damaged: list[Path]) -> None:
    for path in damaged:
        path.rename(path.with_suffix(".json.broken"))
    newest = read_manifest(workspace.manifest)
    if newest is not None and newest.tag in {path.stem for path in damaged}:
        keep_version(workspace, newest)


def _mend_newest(workspace: Workspace) -> None:
    """Put data/library.json together again: the newest that is kept, else all of it is computed."""
    from mgv.library.manifest import write_version
    from mgv.library.materialize import materialize

    kept = versions(workspace)
    workspace.manifest.rename(workspace.manifest.with_suffix(".json.broken"))
    if kept:
        write_version(workspace, kept[-1])
    else:
        materialize(workspace)


def _library(workspace: Workspace) -> Iterator[HealthCheck]:
    from mgv.library.plan import up_to_date, want
    from mgv.library.store import damage

    try:
        manifest = read_manifest(workspace.manifest)
    except MgvError:
        return  # said above
    if manifest is None:
        yield check(
            "library",
            False,
            "nothing materialised yet",
            "mgv ingest FILES && mgv materialize",
            optional=True,
        )
        return
    fault = damage(workspace.store_uri, manifest.versions) or _missing(workspace, manifest)
    if fault:
        yield check("library", False, fault, _FIX, fix=partial(_rebuild, workspace))
        return
    try:
        is_current = up_to_date(workspace, want(workspace)) is not None
    except MgvError as error:
        yield check("library", False, str(error), "see videos, above", optional=True)
        return
    state = f"{len(manifest.items)} videos, {manifest.num_frames} frames, {manifest.num_segments} segments"
    if manifest.failed:
        state += f"; {len(manifest.failed)} failed (`mgv videos` says why)"
    advice = "mgv materialize (videos, parts or parameters have changed)"
    yield check("library", is_current, state, advice, optional=True)


def _missing(workspace: Workspace, manifest: Manifest) -> str:
    store = workspace.store_uri
    return f"{store} is gone" if "://" not in store and not Path(store).is_dir() else ""


def _rebuild(workspace: Workspace) -> None:
    """Compute the library again; where a champion's library went with the tables, it is the same again by content."""
    from mgv.library.materialize import materialize

    materialize(workspace, rebuild=True)


def _champion(workspace: Workspace) -> Iterator[HealthCheck]:
    from mgv.library.store import damage

    advice = "mgv models"
    try:
        current = champion(workspace)
        if current is None:
            yield check("champion", True, "none; searches answer from the newest library", "")
            return
        advice = f"dvc checkout models/published/{current.version}.dvc, or mgv rollback"
        verify(workspace.published_dir / current.version)
        advice = "mgv promote --library-tag newest"
        manifest = live(workspace).manifest
        newest = read_manifest(workspace.manifest)
    except MgvError as error:
        yield check("champion", False, str(error), advice)
        return
    if fault := damage(workspace.store_uri, manifest.versions):
        state = f"its library {manifest.tag} is damaged: {fault}"
        yield check(
            "champion",
            False,
            state,
            "mgv materialize --rebuild && mgv promote --library-tag newest",
        )
        return
    is_newest = newest is not None and newest.tag == manifest.tag
    state = f"{current.version} with library {manifest.tag}"
    advice = "mgv promote --library-tag newest (a newer library waits)"
    yield check("champion", is_newest, state, advice, optional=True)


def _receipts(workspace: Workspace) -> HealthCheck:
    damaged = []
    for path in sorted(workspace.receipts_dir.glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            damaged.append(path.name)
    return check(
        "receipts",
        not damaged,
        f"{len(damaged)} cannot be read: {', '.join(damaged[:3])}" if damaged else "can be read",
        "delete them: an answer's receipt cannot be made again",
        optional=True,
    )
