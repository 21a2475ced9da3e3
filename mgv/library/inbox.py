"""Inbox: a folder that new videos are put into; what a run takes in leaves it.

inbox/talk.mp4 (talk.vtt)       waits, until it has not changed for a while
inbox/done/                     taken in, or in the library already
inbox/rejected/                 could not be read; talk.mp4.reason.txt says why

A run that was killed finds its videos in the inbox again, known by their content.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mgv.errors import WorkspaceError
from mgv.files import file_digest
from mgv.library.folders import fitting, names_in
from mgv.library.ingest import IngestResult, ingest
from mgv.media.probe import is_video_name
from mgv.workspace import Workspace

LOOK_TWICE_S = 0.5
"""A file is looked at again after this time: the clock of a network disk need not be ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What became of the files of an inbox."""

    results: tuple[IngestResult, ...]
    waiting: tuple[str, ...]
    """Files that are still being written."""


def inbox_folder(workspace: Workspace) -> Path:
    """Where new videos are put (`retrain.inbox`); made when it is not there. Raises WorkspaceError where that fails."""
    inbox = workspace.root / workspace.params.retrain.inbox
    try:
        inbox.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(
            f"retrain.inbox: {inbox} cannot be made a folder: {error.strerror}"
        ) from error
    return inbox


def take_in(workspace: Workspace, inbox: Path, settle_s: float) -> Taken:
    """Take in the videos of an inbox that have settled, with their subtitles, and clear them away.

    Raises WorkspaceError without such a folder, BusyError when another process is writing to the workspace.
    """
    if not inbox.is_dir():
        raise WorkspaceError(f"{inbox}: no such folder; new videos are put there")
    ready, waiting = _settled(list(_videos(inbox)), settle_s)
    results = ingest(workspace, ready, keep_sources=False) if ready else []
    for video, result in zip(ready, results, strict=True):
        _clear_away(inbox, video, result)
    return Taken(
        results=tuple(results), waiting=tuple(str(video.relative_to(inbox)) for video in waiting)
    )


def _videos(inbox: Path) -> Iterator[Path]:
    cleared = (inbox / "done", inbox / "rejected")
    for path in sorted(inbox.rglob("*")):
        if (
            is_video_name(path)
            and not path.is_dir()
            and not any(path.is_relative_to(c) for c in cleared)
        ):
            yield path


def _settled(videos: list[Path], settle_s: float) -> tuple[list[Path], list[Path]]:
    """The videos that are whole, and those that are still being written (or whose subtitles are)."""
    if not videos:
        return [], []
    before = {video: _facts(video) for video in videos}
    time.sleep(LOOK_TWICE_S)
    now = time.time()
    ready = [
        video
        for video in videos
        if _facts(video) == before[video]
        and all(now - seen >= settle_s for _, seen in before[video])
    ]
    return ready, [video for video in videos if video not in ready]


def _facts(video: Path) -> list[tuple[int, float]]:
    """Size and time of a video and of its subtitles."""
    facts = []
    for path in (video, names_in(video.parent).sidecar(video)):
        if path is not None and os.path.lexists(path):
            status = path.lstat()
            facts.append((status.st_size, status.st_mtime))
    return facts


def _clear_away(inbox: Path, video: Path, result: IngestResult) -> None:
    folder = inbox / ("rejected" if result.outcome == "rejected" else "done")
    folder.mkdir(exist_ok=True)
    for path in (names_in(video.parent).sidecar(video), video):
        if path is not None:
            os.replace(path, place := _free_name(folder, path))
    if result.outcome == "rejected":
        reason = folder / fitting(place.name, ".reason.txt")
        reason.write_text(f"{result.reason}\n", encoding="utf-8", errors="backslashreplace")


def _free_name(folder: Path, path: Path) -> Path:
    """The file's own name, or one with part of its content's id where another has it, or with a number after that."""
    place = folder / path.name
    if place.exists():
        addition = f"-{file_digest(path)[:8]}"
        place, number = folder / fitting(path.stem, path.suffix, addition), 1
        while place.exists():
            number += 1
            place = folder / fitting(path.stem, path.suffix, f"{addition}-{number}")
    return place
