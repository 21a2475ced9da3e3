"""Search: a query → ranked hits of each channel, from the tables of a finished run.

frames    cosine of the query and the frames, in the frame embedder's space
segments  cosine of the query and what is said, in the text embedder's space
text      BM25 of the query's words and what is said
screen    BM25 of the query's words and what is written on screen

Every channel has a floor below which a hit means nothing; a channel with nothing above it gives no hits, so
it cannot push the longest or most talkative video up (as plain rank fusion does).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lancedb.query import MatchQuery

from mgv.encoders.base import Float32, Relevance
from mgv.library.store import has_vector_index, only_videos

MAX_QUERY_CHARS = 2_000
"""Of a longer query the beginning is used."""
_NUM_PROBES = 64
_REFINE = 10

_STOP_WORDS = frozenset(
    "a about after all also am an and any are as at be because been before being between both but by can could did "
    "do does doing down during each few for from further had has have having he her here hers him his how i if in "
    "into is it its just like me more most my no nor not now of off on once only or other our out over own said same "
    "say says she should so some such than that the their them then there these they this those through to too "
    "under until up very was we were what when where which while who whom whose why will with would you your "
    "clip clips find footage frame frames moment moments part picture scene scenes shot shots show shown shows "
    "somebody someone something talk talks video videos".split()
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A stretch of a video that a channel found, with how sure the channel is, 0 to 1."""

    video_id: str
    start_s: float
    end_s: float
    relevance: float


def vector_hits(
    table: Any, vector: Float32, scale: Relevance, limit: int, video_ids: Sequence[str] | None = None
) -> list[Hit]:
    """The nearest rows of a table to a unit vector [D] that lie above the floor, best first."""
    if table.schema.field("vector").type.list_size != len(vector):
        return []  # an empty table, made before any part said how wide its vectors are
    query = table.search(vector, vector_column_name="vector").distance_type("cosine")
    if has_vector_index(table):
        query = query.nprobes(_NUM_PROBES).refine_factor(_REFINE)
    rows = _rows(query, video_ids, limit, "_distance")
    return _hits((row, _relevance(1.0 - row["_distance"], scale)) for row in rows)


def text_hits(table: Any, query: str, limit: int, video_ids: Sequence[str] | None = None) -> list[Hit]:
    """Rows whose text holds more than half of the query's words that mean something, best first."""
    words = content_words(query)
    if not words:
        return []
    search = table.search(MatchQuery(" ".join(words), "text"), query_type="fts")
    rows = _rows(search, video_ids, limit, "_score")
    hits = _hits((row, _relevance(coverage(words, row["text"]), WORDS)) for row in rows)
    return sorted(hits, key=lambda hit: -hit.relevance)


WORDS = Relevance(floor=0.5, ceiling=1.0)
"""For word search: the share of the query's content words that a text holds."""


def content_words(query: str) -> list[str]:
    """The query's words that mean something, in order and once each: without function words and "scene where …"."""
    words = re.findall(r"\w+", query[:MAX_QUERY_CHARS].lower())
    return list(dict.fromkeys(word for word in words if word not in _STOP_WORDS))


def coverage(words: Sequence[str], text: str) -> float:
    """The share of words that text holds, by their stems."""
    held = {stem(word) for word in re.findall(r"\w+", text.lower())}
    return sum(stem(word) in held for word in words) / len(words)


def stem(word: str) -> str:
    """A word without its English ending, roughly: enough for "lifts", "lifted" and "lifting" to meet."""
    for ending in ("ingly", "edly", "ing", "ies", "ied", "ed", "es", "ly", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            base = word.removesuffix(ending) + ("y" if ending in ("ies", "ied") else "")
            return base[:-1] if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "ls" else base
    return word


def _rows(query: Any, video_ids: Sequence[str] | None, limit: int, score: str) -> list[dict[str, Any]]:
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
