"""Plan: what the library should hold, as keys, and what of it is stale. Opens no table and loads no model."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgv import versioning
from mgv.config import MaterializeParams
from mgv.encoders.parts import part_revisions
from mgv.errors import WorkspaceError
from mgv.library.folders import names_in
from mgv.library.ingest import stored_files
from mgv.library.manifest import Item, Manifest, read_manifest
from mgv.library.tables import has_versions
from mgv.media.probe import header_seconds
from mgv.media.sidecars import find_sidecars
from mgv.workspace import VIDEOS_POINTER, Workspace

logger = logging.getLogger(__name__)

SUBTITLE_RULES = 2
"""Goes up whenever subtitles are read otherwise: the words of videos that have some are then read again."""

SCHEMA_VERSION = 1
"""Part of every key: a change of the tables' columns, or of their meaning, redoes every video."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A video as the library should hold it: where it is, and the keys of what is to be computed of it."""

    path: Path
    names: tuple[str, ...]
    """The names beside it that begin as its own does: among them are its subtitles."""
    video_id: str
    frames_key: str
    cues_key: str
    segments_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One video's work: what is wanted, and its row as the tables hold it (None for a new video)."""

    wanted: Wanted
    row: dict[str, Any] | None

    def stale(self, key: str) -> bool:
        """Whether what goes by this key (`frames_key`, `cues_key`, `segments_key`) has to be computed."""
        return self.row is None or self.row[key] != getattr(self.wanted, key)


def up_to_date(workspace: Workspace, wanted: Iterable[Wanted]) -> Manifest | None:
    """The library's manifest when materialising what is wanted would change nothing, else None."""
    manifest = read_manifest(workspace.manifest)
    if manifest is None or manifest.store != workspace.params.materialize.store:
        return None
    if not has_versions(workspace.store_uri, manifest.versions):
        return None
    items = sorted((_item(each) for each in wanted), key=lambda item: item.name)
    if items != sorted(manifest.items, key=lambda item: item.name):
        return None
    return manifest


def want(workspace: Workspace) -> list[Wanted]:
    """What the library should hold: each content in data/videos once, by name.

    Raises WorkspaceError where data/videos is empty or missing though DVC knows of videos in it: a disk that is not
    mounted takes no library away.
    """
    params = workspace.params.materialize
    revisions = part_revisions(params)
    there = names_in(workspace.videos_dir)
    by_id: dict[str, Wanted] = {}
    for stored in stored_files(workspace):
        if stored.video_id in by_id:
            logger.warning(
                "%s has the same content as %s", stored.name, by_id[stored.video_id].path.name
            )
            continue
        path = workspace.videos_dir / stored.name
        by_id[stored.video_id] = _wanted(
            path, there.alike(path), stored.video_id, params, revisions
        )
    if not by_id:
        _check_emptied(workspace)
    return list(by_id.values())


def _check_emptied(workspace: Workspace) -> None:
    md5 = versioning.tracked_version(workspace.root, VIDEOS_POINTER)
    held = versioning.listing(workspace.root, md5) if md5 else None
    if held:
        raise WorkspaceError(
            f"{workspace.videos_dir} holds no video, but {VIDEOS_POINTER} names {len(held)} files: mount its disk, or "
            f"bring them back by `dvc checkout {VIDEOS_POINTER}`; videos leave the library by `mgv remove NAME`"
        )


def _wanted(
    path: Path,
    names: tuple[str, ...],
    video_id: str,
    params: MaterializeParams,
    revisions: dict[str, str],
) -> Wanted:
    decode = {
        name: getattr(params, name)
        for name in ("reader", "frame_interval_s", "frame_size_px", "thumbnail_px")
    }
    frames_key = key_of(
        video=video_id, decode=decode, embedder=revisions["frame_embedder"], ocr=revisions["ocr"]
    )
    sidecars = [sidecar.path for sidecar in find_sidecars(path, names) if not sidecar.refusal]
    digest = _digest(sidecars)
    words = f"{SUBTITLE_RULES}/{digest}" if sidecars else revisions["transcriber"]
    cues_key = key_of(video=video_id, words=words)
    segments_key = key_of(
        cues=cues_key, length_s=params.segment_length_s, embedder=revisions["text_embedder"]
    )
    return Wanted(
        path=path,
        names=names,
        video_id=video_id,
        frames_key=frames_key,
        cues_key=cues_key,
        segments_key=segments_key,
    )


def _digest(sidecars: Iterable[Path]) -> str:
    """Of the content of subtitle files; one that cannot be read at the moment has none."""
    contents = []
    for sidecar in sidecars:
        try:
            contents.append(sidecar.read_bytes())
        except OSError as error:
            logger.warning("%s cannot be read: %s", sidecar.name, error.strerror)
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _item(wanted: Wanted) -> Item:
    return Item(
        video_id=wanted.video_id,
        name=wanted.path.name,
        frames_key=wanted.frames_key,
        segments_key=wanted.segments_key,
    )


def estimated_seconds(plan: Iterable[Work]) -> dict[str, float]:
    """About how long the videos last, by name: as known from before, as the first ones' headers say, else by size."""
    seconds: dict[str, float] = {}
    sizes: dict[str, int] = {}
    num_asked = 0
    for work in plan:
        name = work.wanted.path.name
        sizes[name] = _size(work.wanted.path)
        known_s = work.row["duration_s"] if work.row else 0.0
        if not known_s and num_asked < _MOST_HEADERS:
            num_asked += 1
            known_s = header_seconds(work.wanted.path)
        if known_s:
            seconds[name] = known_s
    bytes_per_s = sum(sizes[name] for name in seconds) / max(sum(seconds.values()), 1e-9)
    return {
        name: seconds.get(name) or max(size / max(bytes_per_s, 1.0), 0.1)
        for name, size in sizes.items()
    }


_MOST_HEADERS = 200
"""Opening a file takes some milliseconds."""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def key_of(**facts: Any) -> str:
    """The key of something computed: a digest of all that it was computed from."""
    return hashlib.sha256(
        json.dumps({"schema": SCHEMA_VERSION, **facts}, sort_keys=True).encode()
    ).hexdigest()[:32]
