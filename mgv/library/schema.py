"""Schema: the columns of the three LanceDB tables, and the digest of what they hold.

videos    one row a video: facts, keys of what was computed, cues, state
frames    one row a sampled frame: time, vector, labels, words on screen, thumbnail
segments  one row a stretch of speech: times, text, vector

Rows of `frames` and `segments` name their video by id only, so renaming a video touches one row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

CUE = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())])

VIDEOS = pa.schema(
    [
        ("video_id", pa.string()),
        ("name", pa.string()),
        ("start_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("frame_rate", pa.float64()),
        ("video_codec", pa.string()),
        ("audio_codec", pa.string()),  # null: no sound
        ("size_bytes", pa.int64()),
        ("state", pa.string()),  # ready | failed | pending
        ("reason", pa.string()),  # why it failed, else empty
        ("subtitles", pa.string()),  # where its words come from: sidecar | whisper | … | none
        ("frames_key", pa.string()),
        ("cues_key", pa.string()),
        ("segments_key", pa.string()),
        ("cues", pa.list_(CUE)),
        ("num_frames", pa.int32()),
        ("num_segments", pa.int32()),
        ("frames_digest", pa.string()),
        ("segments_digest", pa.string()),
    ]
)


def frames_schema(dim: int) -> pa.Schema:
    """Columns of `frames` with vectors of this width."""
    return pa.schema(
        [
            ("video_id", pa.string()),
            ("time_s", pa.float64()),  # of the frame itself
            ("start_s", pa.float64()),  # of the interval that it stands for
            ("end_s", pa.float64()),
            ("vector", pa.list_(pa.float32(), dim)),
            ("labels", pa.list_(pa.string())),
            ("probabilities", pa.list_(pa.float32())),
            ("text", pa.string()),  # words on screen
            ("thumbnail", pa.binary()),  # JPEG
        ]
    )


def segments_schema(dim: int) -> pa.Schema:
    """Columns of `segments` with vectors of this width."""
    return pa.schema(
        [
            ("video_id", pa.string()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("text", pa.string()),
            ("vector", pa.list_(pa.float32(), dim)),
        ]
    )


def rows_digest(rows: pa.Table, order_by: str) -> str:
    """Digest of a video's rows, whatever their order or chunks: every column, to the last bit of its vectors."""
    digest = hashlib.sha256()
    for column in rows.sort_by(order_by).columns:
        values = column.combine_chunks()
        if isinstance(values, pa.ChunkedArray):  # an empty column stays chunked
            values = (
                pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
            )
        if pa.types.is_fixed_size_list(values.type):
            digest.update(values.flatten().to_numpy(zero_copy_only=False).tobytes())
        elif pa.types.is_binary(values.type):
            for value in values.to_pylist():
                digest.update(hashlib.sha256(value).digest())
        else:
            digest.update(repr(values.to_pylist()).encode())
    return digest.hexdigest()


def library_digest(videos: Iterable[Mapping[str, Any]]) -> str:
    """Digest of the library's content: names, facts, state and rows of every video, whatever the order."""
    facts = ("video_id", "name", "start_s", "duration_s", "state", "reason", "subtitles", "cues")
    digests = ("frames_digest", "segments_digest")
    rows = sorted(
        ({name: v[name] for name in (*facts, *digests)} for v in videos),
        key=lambda v: v["video_id"],
    )
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
