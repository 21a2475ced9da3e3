"""Scores: what each item or query is worth, and what they come to. Pure.

An answer that failed counts as wrong. A judgement that failed counts as nothing: it is listed, and left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mgv.evaluate.answering import Given
from mgv.evaluate.metrics import (
    accuracy_at_coverage,
    auroc,
    bootstrap_interval,
    calibration_error,
    citation_precision,
    citation_recall,
    exact_match,
    normalise,
    token_f1,
    yes_or_no,
)
from mgv.evaluate.sets.annotations import plain_name
from mgv.evaluate.sets.questions import ASPECTS, EvaluationItem
from mgv.evaluate.spans import Span

COVERAGES = (0.5, 0.8)
TASKS = {"question": "qa", "ask": "ask", "query": "retrieval", "transcript": "transcripts"}
"""What a row can be, and how its metrics' names begin: asked of a model, asked of the library, searched, heard."""
Scores = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One item or query of a run, with what it is worth: a line of items.jsonl."""

    task: str
    """One of TASKS, or `query.CONTROL`."""
    key: str
    """Its id: unique within a task."""
    group: str
    """The video: items of one are drawn together when chance is reckoned."""
    kind: str
    text: str
    reference: str | None = None
    answer: str | None = None
    scores: Scores = field(default_factory=dict)
    confidence: float | None = None
    error: str = ""
    judge_error: str = ""
    place: Span | None = None
    """What to show of it: the file, and the stretch."""
    gold: tuple[Span, ...] = ()
    found: tuple[Span, ...] = ()
    """Cited, or ranked."""
    weight: float = 1.0
    """How much it counts in a mean: a transcript by its words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A metric of a run."""

    value: float
    low: float
    """Of a 95 % bootstrap interval."""
    high: float
    count: int
    """How many items it is the mean of."""


def score_item(
    item: EvaluationItem,
    given: Given,
    verdicts: Mapping[str, Mapping[str, Any]],
    task: str = "question",
) -> Scored:
    """An answered question; verdicts by protocol."""
    answer = given.answer or ""
    scores: Scores = {}
    judge_error = ""
    if item.answer is None:
        scores["abstained"] = scores["accuracy"] = float(given.answer is None and not given.error)
    elif item.choices:
        right = given.choice is not None and item.choices[given.choice] == item.answer
        scores["accuracy"] = float(right)
    else:
        scores = {
            "exact_match": exact_match(answer, item.answer),
            "token_f1": token_f1(answer, item.answer),
        }
        for protocol in item.protocols:
            verdict = verdicts.get(protocol)
            if verdict is None:  # nothing was said, so nothing was judged
                scores |= (
                    {"accuracy": 0.0, "score": 0.0} if protocol == "match" else {protocol: 0.0}
                )
            elif verdict["error"]:
                judge_error = str(verdict["error"])
            elif protocol == "match":
                scores |= {"accuracy": float(verdict["correct"]), "score": float(verdict["score"])}
            else:
                scores[protocol] = float(verdict["score"])
        if normalise(item.answer) in ("yes", "no") and "accuracy" in scores:
            scores["yes_no_accuracy"] = float(yes_or_no(answer) is yes_or_no(item.answer))
    gold, cited = _plain(item.moments), _plain(given.citations)
    if gold and cited:
        scores["citation_precision"] = citation_precision(cited, gold)
    if gold and (
        cited or task == "ask"
    ):  # a library that cites nothing has found none of it; a model never cites
        scores["citation_recall"] = citation_recall(cited, gold)
    return Scored(
        task=task,
        key=item.item_id,
        group=plain_name(item.videos[0]),
        kind=item.kind,
        text=item.question,
        reference=item.answer,
        answer=given.answer,
        scores=scores,
        confidence=given.confidence,
        error=given.error,
        judge_error=judge_error,
        place=Span(video=item.videos[0], start_s=item.start_s, end_s=item.end_s),
        gold=item.moments,
        found=given.citations,
    )


def _plain(spans: Iterable[Span]) -> list[Span]:
    """Spans whose videos are named without suffix, so that a data set's names meet a library's."""
    return [
        Span(video=plain_name(span.video), start_s=span.start_s, end_s=span.end_s) for span in spans
    ]


def needs_judge(item: EvaluationItem, given: Given) -> bool:
    """Whether an answer is compared by a judge: open questions with an answer."""
    return item.answer is not None and not item.choices and bool(given.answer)


def summarise(
    rows: Sequence[Scored], *, prefix: str, num_bootstrap: int, seed: int
) -> dict[str, Figure]:
    """The mean of every score with its interval, over all rows and by kind; `PREFIX.NAME`, `PREFIX.kind.KIND.NAME`."""
    figures = _means(rows, prefix, num_bootstrap, seed)
    kinds = sorted({row.kind for row in rows if row.kind})
    if len(kinds) > 1:
        for kind in kinds:
            own = [row for row in rows if row.kind == kind]
            figures |= _means(own, f"{prefix}.kind.{_word(kind)}", num_bootstrap, seed)
    return figures


def _word(kind: str) -> str:
    """A kind as a part of a metric's name: DVC reads a dot as a level."""
    return "_".join("".join(c if c.isalnum() else " " for c in kind).split()) or "none"


def _means(rows: Sequence[Scored], prefix: str, num_bootstrap: int, seed: int) -> dict[str, Figure]:
    names = sorted({name for row in rows for name in row.scores})
    figures = {}
    for name in names:
        with_it = [row for row in rows if name in row.scores]
        values = [row.scores[name] for row in with_it]
        groups, weights = [row.group for row in with_it], [row.weight for row in with_it]
        low, high = bootstrap_interval(
            values, num_resamples=num_bootstrap, seed=seed, groups=groups, weights=weights
        )
        value = mean(values, weights)
        figures[f"{prefix}.{name}"] = Figure(value=value, low=low, high=high, count=len(values))
    return figures


def mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted mean."""
    return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights)


def aspect_average(figures: Mapping[str, Figure], prefix: str) -> float | None:
    """The mean of Video-ChatGPT's five aspects, where all of them were judged."""
    aspects = [figures.get(f"{prefix}.{aspect}") for aspect in ASPECTS]
    return (
        math.fsum(each.value for each in aspects if each) / len(aspects) if all(aspects) else None
    )


def failures(rows: Sequence[Scored], prefix: str) -> dict[str, float]:
    """How many could not be answered, and how many not be judged."""
    return {
        f"{prefix}.failed": float(sum(bool(row.error) for row in rows)),
        f"{prefix}.judge_failed": float(sum(bool(row.judge_error) for row in rows)),
    }


def confidence_metrics(rows: Sequence[Scored], prefix: str, correct: str) -> dict[str, float]:
    """How well confidence tells right from wrong; `correct` names the score of 0 or 1."""
    sure, right = confidences(rows, correct)
    if not sure:
        return {}
    metrics = {"auroc": auroc(sure, right), "calibration_error": calibration_error(sure, right)}
    for coverage in COVERAGES:
        metrics[f"accuracy_at_coverage_{coverage:.1f}".replace(".", "_")] = accuracy_at_coverage(
            sure, right, coverage
        )
    return {f"{prefix}.{name}": value for name, value in metrics.items() if not math.isnan(value)}


def confidences(rows: Sequence[Scored], correct: str) -> tuple[list[float], list[float]]:
    """(confidence, right or wrong) of the rows that have both."""
    known = [
        (row.confidence, row.scores[correct])
        for row in rows
        if row.confidence is not None and correct in row.scores
    ]
    return [sure for sure, _ in known], [right for _, right in known]
