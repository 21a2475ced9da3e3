"""Compute: one video → its rows. Nothing here writes: the result goes to whoever keeps the tables."""

from __future__ import annotations

import errno
import io
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from mgv.config import MaterializeParams
from mgv.encoders.base import Float32, Uint8
from mgv.encoders.loaded import Parts
from mgv.encoders.parts import chosen_transcriber
from mgv.errors import AccessError, MediaError
from mgv.library.plan import Wanted, Work
from mgv.library.schema import CUE, frames_schema, rows_digest, segments_schema
from mgv.media.audio import read_audio
from mgv.media.frames import FrameBatch, interval_times, read_frames
from mgv.media.probe import probe
from mgv.media.segments import split_segments
from mgv.media.words import read_words
from mgv.records import Cue, Video

logger = logging.getLogger(__name__)

OnStep = Callable[[str, float], None]
"""Told what is being done to a video (`frames`, `sound`) and how far that is, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoRows:
    """One video's rows; frames and segments are None where they stay as they are (none, if the video failed)."""

    row: dict[str, Any]
    frames: pa.Table | None
    segments: pa.Table | None


def compute_video(
    work: Work, parts: Parts, params: MaterializeParams, on_step: OnStep = lambda *_: None
) -> VideoRows:
    """What is stale of one video. An unreadable video gives a row that says why."""
    wanted = work.wanted
    try:
        video = probe(wanted.path, wanted.video_id)
        row: dict[str, Any] = {**(work.row or {}), **_facts(video, wanted)}
        frames = segments = None
        if work.stale("frames_key"):
            frames = _frame_rows(wanted.path, video, parts, params, on_step)
            row |= {"num_frames": frames.num_rows, "frames_digest": rows_digest(frames, "time_s")}
        if work.stale("cues_key"):
            source, cues = _hear(wanted, video, parts, params, on_step)
            row |= {"subtitles": source, "cues": [_cue_row(cue) for cue in cues]}
        if work.stale("segments_key"):
            cues = [Cue(**cue) for cue in row["cues"]]
            segments = _segment_rows(cues, video, parts, params)
            row |= {
                "num_segments": segments.num_rows,
                "segments_digest": rows_digest(segments, "start_s"),
            }
        return VideoRows(row=row, frames=frames, segments=segments)
    except MediaError as error:
        return failed_rows(work, str(error), try_again=not _can_be_read(wanted.path, error))


def _can_be_read(path: Path, error: MediaError) -> bool:
    """Whether a fault is of the content: the file's first and last bytes can be read, so access is not what failed."""
    if isinstance(error, AccessError):
        return False
    try:
        with path.open("rb") as file:
            file.read(1)
            file.seek(-1, os.SEEK_END)
            file.read(1)
    except OSError as fault:
        return fault.errno == errno.EINVAL  # an empty file
    return True


def use_cores(num_cpus: int | None) -> None:
    """Have this thread compute with so many cores: sums over other numbers of them are rounded otherwise."""
    if num_cpus is not None:
        import torch

        torch.set_num_threads(num_cpus)


def failed_rows(work: Work, reason: str, *, try_again: bool = False) -> VideoRows:
    """The row of a video that could not be computed. With try_again the next run takes it up again."""
    wanted = work.wanted
    keys = {"frames_key": "", "cues_key": "", "segments_key": ""}
    if not try_again:
        keys = {name: getattr(wanted, name) for name in keys}
    row: dict[str, Any] = {
        "video_id": wanted.video_id, "name": wanted.path.name, "start_s": 0.0, "duration_s": 0.0, "width": 0,
        "height": 0, "frame_rate": 0.0, "video_codec": "", "audio_codec": None, "size_bytes": 0,
        "state": "failed", "reason": reason, "subtitles": "none", "cues": [], "num_frames": 0,
        "num_segments": 0, "frames_digest": "", "segments_digest": "", **keys,
    }  # fmt: skip
    return VideoRows(row=row, frames=None, segments=None)


def _facts(video: Video, wanted: Wanted) -> dict[str, Any]:
    names = (
        "video_id", "start_s", "duration_s", "width", "height",
        "frame_rate", "video_codec", "audio_codec", "size_bytes",
    )  # fmt: skip
    keys = {name: getattr(wanted, name) for name in ("frames_key", "cues_key", "segments_key")}
    facts = {name: getattr(video, name) for name in names}
    return {**facts, **keys, "name": wanted.path.name, "state": "ready", "reason": ""}


def _frame_rows(
    path: Path, video: Video, parts: Parts, params: MaterializeParams, on_step: OnStep
) -> pa.Table:
    """One decode pass: sample, embed, read the screen, shrink; a batch of pixels at a time."""
    wanted_s = interval_times(0.0, video.duration_s, params.frame_interval_s)
    schema = frames_schema(parts.frame_embedder.dim)
    batches: list[pa.RecordBatch] = []
    num_done = 0
    for batch in read_frames(
        path,
        wanted_s,
        size_px=params.frame_size_px,
        reader=params.reader,
        batch_size=params.batch_size,
    ):
        here_s = wanted_s[num_done : num_done + len(batch.times_s)]
        batches.append(_frame_batch(video, batch, here_s, parts, params, schema))
        num_done += len(batch.times_s)
        on_step("frames", num_done / len(wanted_s))
    return pa.Table.from_batches(batches, schema)


def _frame_batch(
    video: Video,
    batch: FrameBatch,
    wanted_s: list[float],
    parts: Parts,
    params: MaterializeParams,
    schema: pa.Schema,
) -> pa.RecordBatch:
    embedded = parts.frame_embedder.embed_frames(batch.frames)
    reader = parts.screen_reader
    half_s = params.frame_interval_s / 2
    columns = [
        pa.array([video.video_id] * len(wanted_s)),
        pa.array(batch.times_s, pa.float64()),
        pa.array([max(0.0, t - half_s) for t in wanted_s]),
        pa.array([min(video.duration_s, t + half_s) for t in wanted_s]),
        _vectors(embedded.vectors),
        pa.array(
            [[label.name for label in labels] for labels in embedded.labels], pa.list_(pa.string())
        ),
        pa.array(
            [[label.probability for label in labels] for labels in embedded.labels],
            pa.list_(pa.float32()),
        ),
        pa.array(reader.read(batch.frames) if reader else [""] * len(wanted_s)),
        pa.array([thumbnail(frame, params.thumbnail_px) for frame in batch.frames], pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def thumbnail(frame: Uint8, long_side_px: int) -> bytes:
    """A frame [H, W, 3] as a small JPEG."""
    image = Image.fromarray(frame)
    image.thumbnail((long_side_px, long_side_px), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def _hear(
    wanted: Wanted, video: Video, parts: Parts, params: MaterializeParams, on_step: OnStep
) -> tuple[str, list[Cue]]:
    """Where a video's words come from, and its cues: subtitles win over recognition."""
    path = wanted.path
    words = read_words(path, video, wanted.names)
    for note in words.notes:
        logger.warning("%s: %s", path.name, note)
    if words.cues:
        return words.source, list(words.cues)
    if video.audio_codec is None:
        return "none", []
    cues: list[Cue] = []
    try:
        for chunk in read_audio(path):
            with parts.transcribing:
                heard = parts.transcriber.transcribe(chunk.samples)
            cues += [_shifted(cue, chunk.start_s) for cue in heard]
            end_s = chunk.start_s + len(chunk.samples) / 16_000
            on_step("sound", min(1.0, end_s / max(video.duration_s, 1e-9)))
    except MediaError as error:
        logger.warning("%s: its sound is left out from there on: %s", path.name, error)
    return chosen_transcriber(params.transcriber).name, cues


def _shifted(cue: Cue, by_s: float) -> Cue:
    return Cue(
        start_s=round(cue.start_s + by_s, 3), end_s=round(cue.end_s + by_s, 3), text=cue.text
    )


def _cue_row(cue: Cue) -> dict[str, Any]:
    return {name: getattr(cue, name) for name in CUE.names}


def _segment_rows(
    cues: list[Cue], video: Video, parts: Parts, params: MaterializeParams
) -> pa.Table:
    segments = split_segments(cues, params.segment_length_s)
    embedder = parts.text_embedder
    schema = segments_schema(embedder.dim)
    if not segments:
        return schema.empty_table()
    columns = [
        pa.array([video.video_id] * len(segments)),
        pa.array([segment.start_s for segment in segments]),
        pa.array([segment.end_s for segment in segments]),
        pa.array([segment.text for segment in segments]),
        _vectors(embedder.embed([segment.text for segment in segments])),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _vectors(vectors: Float32) -> pa.Array:
    """[T, D] → a column of D-wide vectors."""
    flat = np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors.shape[1])
