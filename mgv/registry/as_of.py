"""Live: what answers now, or did at another time."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from pathlib import Path

from mgv import versioning
from mgv.errors import UsageError, WorkspaceError
from mgv.library.manifest import (
    NEWEST,
    Manifest,
    find_library,
    is_tag,
    newest_library,
    parse_manifest,
    versions,
)
from mgv.registry.promotion import Promotion, champion, find_published, history, parse_history
from mgv.registry.versions import VERSION, verify, version_names
from mgv.workspace import LIBRARY_POINTER, VIDEOS_POINTER, Workspace

CHAMPION = "champion"
"""Stands for the live model wherever a video language model is named."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """What answers: a library, and the champion's folder and version where there is one."""

    manifest: Manifest
    model: Path | None
    version: str | None
    commit: str | None = None
    """The git commit that it was asked for by: that commit's params.yaml then counts too."""


def live(workspace: Workspace) -> Live:
    """The champion's library and model; without a champion the newest library and no model."""
    current = champion(workspace)
    if current is None:
        return Live(manifest=newest_library(workspace), model=None, version=None)
    return _live_with(workspace, current)


def live_at(workspace: Workspace, as_of: str) -> Live:
    """What answered, or would have answered, at another point.

    as_of: `newest` (the newest library with the live model), a library's tag or a model version (each with what it was
    last live with), a date or time (what was live then; a date means its end; UTC unless it says otherwise), or a git
    commit, branch or tag. Raises UsageError when it is none of these, WorkspaceError when what it names is not kept.
    """
    last_live = next(
        (e for e in reversed(history(workspace)) if as_of in (e.library_tag, e.version)), None
    )
    if last_live is not None:
        return _live_with(workspace, last_live)
    if as_of == NEWEST or is_tag(as_of):
        current = champion(workspace)
        version = current.version if current else None
        return _live(workspace, find_library(workspace, as_of), version)
    if VERSION.fullmatch(as_of) and as_of in version_names(workspace):
        tag = find_published(workspace, as_of).library_tag
        return _live(workspace, find_library(workspace, tag), as_of)
    if (moment := _moment(as_of)) is not None:
        return _live_when(workspace, moment)
    if (commit := versioning.find_commit(workspace.root, as_of)) is not None:
        return replace(_live_in(workspace, commit), commit=commit)
    raise UsageError(
        f"{as_of!r}: expected `newest`, a library's tag, a published version, a date or time, or a git commit"
    )


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        moment = datetime.combine(moment, time.max)
    elif not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _live_when(workspace: Workspace, moment: datetime) -> Live:
    for entry in reversed(history(workspace)):
        if datetime.fromisoformat(entry.at) <= moment:
            return _live_with(workspace, entry)
    for manifest in reversed(versions(workspace)):
        if manifest.finished_at and datetime.fromisoformat(manifest.finished_at) <= moment:
            return Live(manifest=manifest, model=None, version=None)
    raise WorkspaceError(
        f"nothing that was live at {moment.isoformat(timespec='seconds')} is kept here"
    )


def _live_in(workspace: Workspace, commit: str) -> Live:
    """What was live when a commit was made: its champion.json, else its library.

    That is its data/library.json where the DVC stage made it, else the newest one of its data/videos.dvc.
    """
    root = workspace.root
    kept = versioning.read_at(root, commit, "models/published/champion.json")
    if kept is not None and (entries := parse_history(kept, f"champion.json of {commit[:12]}")):
        return _live_with(workspace, entries[-1])
    text = versioning.read_at(root, commit, LIBRARY_POINTER)
    manifest = None if text is None else parse_manifest(text, f"library.json of {commit[:12]}")
    listing = versioning.tracked_version_at(root, commit, VIDEOS_POINTER)
    if (
        manifest is None or manifest.listing != listing
    ):  # `mgv materialize` made it, not the DVC stage
        manifest = _made_of(workspace, listing) or manifest
    if manifest is None:
        raise WorkspaceError(
            f"commit {commit[:12]} names no library that is kept here: its data/videos.dvc is not that of any; "
            "`git log data/videos.dvc` lists the commits that have one"
        )
    return Live(manifest=manifest, model=None, version=None)


def _made_of(workspace: Workspace, listing: str | None) -> Manifest | None:
    """The newest library that was made of this version of data/videos."""
    kept = versions(workspace) if listing else []
    return next((manifest for manifest in reversed(kept) if manifest.listing == listing), None)


def _live_with(workspace: Workspace, entry: Promotion) -> Live:
    return _live(workspace, find_library(workspace, entry.library_tag), entry.version)


def _live(workspace: Workspace, manifest: Manifest, version: str | None) -> Live:
    model = workspace.published_dir / version if version else None
    return Live(manifest=manifest, model=model, version=version)


def find_model(workspace: Workspace, name: str) -> Path:
    """The folder of a video language model: `champion`, a published version, `starter`, or a folder.

    A published one is checked first. Raises WeightsError when it is damaged, WorkspaceError without a champion.
    """
    if name == CHAMPION:
        current = champion(workspace)
        if current is None:
            raise WorkspaceError("there is no champion yet; run `mgv publish` and `mgv promote`")
        name = current.version
    if name in version_names(workspace):
        folder = workspace.published_dir / name
        verify(folder)
        return folder
    from mgv.model.checkpoint import model_folder

    return model_folder(name, workspace.root)
