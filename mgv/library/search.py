"""Search: a query → ranked hits of each channel, from the tables of a finished run.

frames    cosine of the query and the frames, in the frame embedder's space
segments  cosine of the query and what is said, in the text embedder's space
text      BM25 of the query's words and what is said
screen    BM25 of the query's words and what is written on screen

Every channel has a floor below which a hit means nothing; a channel with nothing above it gives no hits, so
it cannot push the longest or most talkative video up (as plain rank fusion does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from lancedb.expr import col, lit
from lancedb.query import BooleanQuery, MatchQuery, Occur

from mgv.encoders.base import Float32, Relevance
from mgv.library.store import has_vector_index, only_videos
from mgv.library.words import content_words, coverage, pairs, stem

_TOUCH_S = 0.05
"""Stretches that share less than this only touch."""
_MAX_ROWS = 100_000
_MAX_PAIRS = 64
_NUM_PROBES = 24
"""Partitions of about 1,000 rows that an indexed search looks through."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A stretch of a video that a channel found, with how sure the channel is, 0 to 1."""

    video_id: str
    start_s: float
    end_s: float
    relevance: float


def vector_hits(
    table: Any,
    vector: Float32,
    scale: Relevance,
    limit: int,
    video_ids: Sequence[str] | None = None,
) -> list[Hit]:
    """The nearest rows of a table to a unit vector [D] that lie above the floor, best first."""
    if table.schema.field("vector").type.list_size != len(vector):
        return []  # an empty table, made before any part said how wide its vectors are
    query = table.search(vector, vector_column_name="vector").distance_type("cosine")
    if has_vector_index(table):
        query = query.nprobes(_NUM_PROBES)
    rows = _rows(query, video_ids, limit, "_distance")
    return _hits((row, _relevance(1.0 - row["_distance"], scale)) for row in rows)


def text_hits(
    table: Any, query: str, limit: int, video_ids: Sequence[str] | None = None
) -> list[Hit]:
    """Rows whose text holds more than half of the query's words that mean something, best first."""
    words = content_words(query)
    spaced = [word for word in words if not pairs(word)]
    rows = _matching(table, spaced, limit, video_ids) if spaced else []
    if pieces := [piece for word in words for piece in pairs(word)][:_MAX_PAIRS]:
        rows += _holding(table, pieces, limit, video_ids)
    hits = _hits((row, _relevance(coverage(words, row["text"]), WORDS)) for row in _each_once(rows))
    return sorted(hits, key=lambda hit: -hit.relevance)


def _matching(
    table: Any, words: Sequence[str], limit: int, video_ids: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Rows that the full-text index finds for words, or words spelt a letter apart."""
    exact = MatchQuery(" ".join(words), "text")
    spelt = MatchQuery(
        " ".join(map(stem, words)), "text", fuzziness=1, prefix_length=2
    )  # LanceDB stems no fuzzy word
    either = BooleanQuery([(Occur.SHOULD, exact), (Occur.SHOULD, spelt)])
    search = table.search(either, query_type="fts")
    return _rows(search, video_ids, limit, "_score")


def _holding(
    table: Any, pieces: Sequence[str], limit: int, video_ids: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Rows whose text holds any of these pairs of characters, which no index knows as words."""
    held = reduce(or_, [col("text").contains(lit(piece)) for piece in pieces])
    query = table.search().where(held if video_ids is None else held & only_videos(video_ids))
    rows: list[dict[str, Any]] = (
        query.select(["video_id", "start_s", "end_s", "text"]).limit(limit).to_list()
    )
    return rows


def _each_once(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(row["video_id"], row["start_s"], row["end_s"]): row for row in rows}.values())


WORDS = Relevance(floor=0.5, ceiling=1.0)
"""For word search: the share of the query's content words that a text holds."""


def rows_within(
    table: Any, spans: Sequence[tuple[str, float, float]], columns: Sequence[str]
) -> list[list[dict[str, Any]]]:
    """For each stretch (video id, start, end) the rows of its video that overlap it, in order of time."""
    if not spans:
        return []
    inside = [
        (col("video_id") == lit(video_id))
        & (col("start_s") < lit(end_s - _TOUCH_S))
        & (col("end_s") > lit(start_s + _TOUCH_S))
        for video_id, start_s, end_s in spans
    ]
    names = ["video_id", "start_s", "end_s", *columns]
    among = only_videos(
        {video_id for video_id, *_ in spans}
    )  # what the index on video_id can answer
    query = table.search().where(among & reduce(or_, inside)).select(names).limit(_MAX_ROWS)
    rows = sorted(query.to_list(), key=lambda row: float(row["start_s"]))
    return [
        [
            row
            for row in rows
            if row["video_id"] == video_id
            and row["start_s"] < end_s - _TOUCH_S
            and row["end_s"] > start_s + _TOUCH_S
        ]
        for video_id, start_s, end_s in spans
    ]


def _rows(
    query: Any, video_ids: Sequence[str] | None, limit: int, score: str
) -> list[dict[str, Any]]:
    if video_ids is not None:
        query = query.where(only_videos(video_ids), prefilter=True)
    columns = ["video_id", "start_s", "end_s", score]
    if score == "_score":
        columns.append("text")
    rows: list[dict[str, Any]] = query.limit(limit).select(columns).to_list()
    return rows


def _relevance(value: float, scale: Relevance) -> float:
    return min(1.0, (value - scale.floor) / (scale.ceiling - scale.floor))


def _hits(rows: Any) -> list[Hit]:
    names = ("video_id", "start_s", "end_s")
    return [
        Hit(relevance=relevance, **{name: row[name] for name in names})
        for row, relevance in rows
        if relevance > 0
    ]
