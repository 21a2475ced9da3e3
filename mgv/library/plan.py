"""Plan: what the library should hold, as keys, and what of it is stale. Opens no table and loads no model."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgv.config import MaterializeParams
from mgv.encoders.parts import part_revisions
from mgv.library.ingest import stored_files
from mgv.library.manifest import Item, Manifest, read_manifest
from mgv.media.sidecars import find_sidecars
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)

SUBTITLE_RULES = 2
"""Goes up whenever subtitles are read otherwise: the words of videos that have some are then read again."""

SCHEMA_VERSION = 1
"""Part of every key: a change of the tables' columns, or of their meaning, redoes every video."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A video as the library should hold it: where it is, and the keys of what is to be computed of it."""

    path: Path
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


def up_to_date(workspace: Workspace) -> Manifest | None:
    """The library's manifest when materialising it would change nothing, else None."""
    manifest = read_manifest(workspace.manifest)
    if manifest is None or manifest.store != workspace.params.materialize.store:
        return None
    if "://" not in workspace.store_uri and not _has_versions(Path(workspace.store_uri), manifest.versions):
        return None
    items = sorted((_item(wanted) for wanted in want(workspace)), key=lambda item: item.name)
    if items != sorted(manifest.items, key=lambda item: item.name):
        return None
    return manifest


def _has_versions(store: Path, versions: dict[str, int]) -> bool:
    """Whether a local store has these versions of its tables (Lance names a version's file from the top down)."""
    return all(
        Path(store, f"{name}.lance", "_versions", f"{2**64 - 1 - version}.manifest").exists()
        for name, version in versions.items()
    )


def want(workspace: Workspace) -> list[Wanted]:
    """What the library should hold: each content in data/videos once, by name."""
    params = workspace.params.materialize
    revisions = part_revisions(params)
    found: dict[str, Wanted] = {}
    for stored in stored_files(workspace):
        if stored.video_id in found:
            logger.warning("%s has the same content as %s", stored.name, found[stored.video_id].path.name)
            continue
        path = workspace.videos_dir / stored.name
        found[stored.video_id] = _wanted(path, stored.video_id, params, revisions)
    return list(found.values())


def _wanted(path: Path, video_id: str, params: MaterializeParams, revisions: dict[str, str]) -> Wanted:
    decode = {
        name: getattr(params, name)
        for name in ("reader", "frame_interval_s", "frame_size_px", "thumbnail_px")
    }
    frames_key = key_of(
        video=video_id, decode=decode, embedder=revisions["frame_embedder"], ocr=revisions["ocr"]
    )
    sidecars = [sidecar.path for sidecar in find_sidecars(path) if not sidecar.refusal]
    digest = hashlib.sha256(b"".join(sidecar.read_bytes() for sidecar in sidecars)).hexdigest()
    words = f"{SUBTITLE_RULES}/{digest}" if sidecars else revisions["transcriber"]
    cues_key = key_of(video=video_id, words=words)
    segments_key = key_of(
        cues=cues_key, length_s=params.segment_length_s, embedder=revisions["text_embedder"]
    )
    return Wanted(
        path=path, video_id=video_id, frames_key=frames_key, cues_key=cues_key, segments_key=segments_key
    )


def _item(wanted: Wanted) -> Item:
    return Item(
        video_id=wanted.video_id,
        name=wanted.path.name,
        frames_key=wanted.frames_key,
        segments_key=wanted.segments_key,
    )


def key_of(**facts: Any) -> str:
    """The key of something computed: a digest of all that it was computed from."""
    return hashlib.sha256(
        json.dumps({"schema": SCHEMA_VERSION, **facts}, sort_keys=True).encode()
    ).hexdigest()[:32]
