"""Retrieval: how well a library finds moments, always beside controls that say what the search itself adds.

all               the library as params.yaml has it
subtitles_only    what is said: its meaning and its words
frames_only       what is seen
text_only         word search in what is said and written on screen; no embedding
position_prior    the same list for every query: what a search gains that does not read it
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from mgv.evaluate.answering import OnPlan, OnStep
from mgv.evaluate.metrics import (
    MAP_THRESHOLDS,
    average_precision,
    best_iou,
    clip_recall,
    didemo_ranking,
    didemo_scores,
    matched,
    moment_average_precision,
    moment_recall,
    ndcg_at,
    recall_at,
    reciprocal_rank,
)
from mgv.evaluate.scores import Scored, Scores
from mgv.evaluate.sets.annotations import plain_name, say_missing
from mgv.evaluate.sets.queries import Query
from mgv.evaluate.spans import Span

if TYPE_CHECKING:
    from mgv.ask.library import Library
    from mgv.records import Video

CONTROLS: Mapping[str, Mapping[str, float]] = {
    "subtitles_only": {"frames": 0.0, "screen": 0.0},
    "frames_only": {"segments": 0.0, "text": 0.0, "screen": 0.0},
    "text_only": {"frames": 0.0, "segments": 0.0},
}
"""Which channels a control leaves out."""
PRIOR = "position_prior"
RANKS = (1, 5, 10)
THRESHOLDS = (0.3, 0.5, 0.7)
DIDEMO_NAMES = ("didemo_rank_at_1", "didemo_rank_at_5", "didemo_iou")
HIT = 0.5
"""IoU from which a moment counts as found where one number is to say so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrieved:
    """Every query's scores, for the library and each control."""

    rows: list[Scored]
    missing: dict[str, int]
    """Video that the library lacks → how many queries were left out for it."""


def evaluate_retrieval(
    library: Library,
    queries: Sequence[Query],
    *,
    depth: int,
    on_plan: OnPlan = lambda count: None,
    on_step: OnStep = lambda name, step, done: None,
) -> Retrieved:
    """Search for every query, with all channels and with each control's, and score the first `depth` moments."""
    known, missing = resolve(queries, library.videos())
    say_missing("queries", missing)
    library.warm_up()
    setups = {"": library} | {
        name: library.with_weights(**weights) for name, weights in CONTROLS.items()
    }
    prior = position_prior(known, library.videos())
    floor = library.workspace.params.ask.min_score
    on_plan(len(known))
    rows: list[Scored] = []
    for query in known:
        videos = [span.video for span in query.moments] if query.within else None
        for name, setup in setups.items():
            moments = setup.search(query.query, limit=depth, videos=videos)
            ranked = [
                Span(video=each.video, start_s=each.start_s, end_s=each.end_s) for each in moments
            ]
            top = moments[0].score if moments else 0.0
            rows.append(_row(query, name, ranked, top, floor))
        inside = [span for span in prior if videos is None or span.video in videos]
        rows.append(_row(query, PRIOR, inside[:depth], 1.0, floor))
        on_step(query.query_id, "done", 1.0)
    return Retrieved(rows=rows, missing=missing)


def resolve(
    queries: Iterable[Query], videos: Sequence[Video]
) -> tuple[list[Query], dict[str, int]]:
    """Queries with the library's own names for their videos; those of videos it lacks are left out and counted."""
    names = {plain_name(video.name): video.name for video in videos}
    known: list[Query] = []
    missing: Counter[str] = Counter()
    for query in queries:
        absent = {span.video for span in query.moments if plain_name(span.video) not in names}
        missing.update(absent)
        if not absent:
            moments = tuple(
                Span(video=names[plain_name(span.video)], start_s=span.start_s, end_s=span.end_s)
                for span in query.moments
            )
            known.append(replace(query, moments=moments))
    return known, dict(missing)


def position_prior(queries: Sequence[Query], videos: Sequence[Video]) -> list[Span]:
    """One list for all queries: every video at the usual place of a gold moment, often meant ones first.

    It is fitted to the very queries that it is scored on, so it is the best that a fixed list of this kind can do.
    """
    by_name = {video.name: video for video in videos}
    gold = [span for query in queries for span in query.moments]
    places = [_place(span, by_name[span.video]) for span in gold if not span.is_whole]
    first, last = (
        (median(place[side] for place in places) for side in (0, 1)) if places else (0.0, 1.0)
    )
    often = Counter(span.video for span in gold)
    ordered = sorted(videos, key=lambda video: (-often[video.name], video.name))
    return [
        Span(
            video=video.name,
            start_s=first * video.duration_s,
            end_s=last * video.duration_s,
        )
        for video in ordered
    ]


def _place(span: Span, video: Video) -> tuple[float, float]:
    """Where in its video a span begins and ends, 0 to 1."""
    assert span.end_s is not None, "a whole video has no place"
    return span.start_s / video.duration_s, span.end_s / video.duration_s


def _row(query: Query, control: str, ranked: Sequence[Span], top: float, floor: float) -> Scored:
    return Scored(
        task=f"query.{control}" if control else "query",
        key=query.query_id,
        group=query.moments[0].video if query.moments else query.query_id,
        kind=query.kind,
        text=query.query,
        scores=score_query(query, ranked, says_nothing=not ranked or top < floor),
        confidence=top if ranked else 0.0,
        place=ranked[0] if ranked else None,
        gold=query.moments,
        found=tuple(ranked[:5]),
    )


def score_query(query: Query, ranked: Sequence[Span], *, says_nothing: bool) -> Scores:
    """What a ranked list is worth. Where nothing is meant, it is right when no answer would rest on it."""
    if not query.moments:
        return {"nothing_found": float(says_nothing)}
    scores: Scores = {}
    if not query.within:
        gold = {span.video for span in query.moments}
        relevant = [video in gold for video in dict.fromkeys(span.video for span in ranked)]
        scores = {f"recall_at_{k}": recall_at(relevant, len(gold), k) for k in RANKS}
        scores |= {
            "mrr": reciprocal_rank(relevant),
            "ndcg_at_10": ndcg_at(relevant, len(gold), 10),
            "map": average_precision(relevant, len(gold)),
        }
    if not any(span.is_whole for span in query.moments):
        scores |= _moment_scores(query, ranked)
    return scores


def _moment_scores(query: Query, ranked: Sequence[Span]) -> Scores:
    gold = query.moments
    scores = {
        f"moment_recall_at_{k}_iou_{threshold:.1f}".replace(".", "_"): moment_recall(
            ranked, gold, k, threshold
        )
        for k in RANKS[:2]
        for threshold in THRESHOLDS
    }
    scores |= {
        "iou": best_iou(ranked, gold),
        "moment_map": sum(moment_average_precision(ranked, gold, each) for each in MAP_THRESHOLDS)
        / len(MAP_THRESHOLDS),
        "moment_map_iou_0_5": moment_average_precision(ranked, gold, HIT),
        "moment_ndcg_at_10": ndcg_at(matched(ranked, gold, HIT), len(gold), 10),
    }
    if query.clip_s is not None:
        scores |= {
            f"clip_recall_at_{k}": clip_recall(ranked, gold[0], k, query.clip_s) for k in (1, 3)
        }
    if query.annotated:
        values = didemo_scores(didemo_ranking(ranked), query.annotated)
        scores |= dict(zip(DIDEMO_NAMES, values, strict=True))
    return scores


def is_hit(row: Scored) -> float:
    """Whether a query's first result is right: the moment at IoU 0.5, or the video where only it counts."""
    for name in ("nothing_found", "moment_recall_at_1_iou_0_5", "recall_at_1"):
        if name in row.scores:
            return row.scores[name]
    return math.nan
