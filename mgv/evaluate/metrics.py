"""Metrics: of ranked lists, moments, answers, confidences and words. Pure; a score is 0 to 1 unless it says otherwise.

A ranked list is given as `relevant`: whether each result, best first, is one that was looked for.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgv.evaluate.spans import Span, iou, overlap

CITED = 0.5
"""A cited moment is right when at least this much of it, or of the gold moment if that is shorter, is shared."""


# ranked lists


def recall_at(relevant: Sequence[bool], num_relevant: int, k: int) -> float:
    """The share of what was looked for that is among the first k. With one thing to find it is 0 or 1."""
    return sum(relevant[:k]) / num_relevant


def reciprocal_rank(relevant: Sequence[bool]) -> float:
    """1 / the rank of the first that is relevant; 0 when none is. Its mean over queries is MRR."""
    return next((1.0 / rank for rank, hit in enumerate(relevant, start=1) if hit), 0.0)


def ndcg_at(relevant: Sequence[bool], num_relevant: int, k: int) -> float:
    """Normalised discounted cumulative gain, gains of 0 and 1, discount log2(1 + rank) (Järvelin, Kekäläinen 2002)."""
    discounts = [1.0 / math.log2(1 + rank) for rank in range(1, k + 1)]
    gained = sum(discount for discount, hit in zip(discounts, relevant, strict=False) if hit)
    return gained / sum(discounts[:num_relevant])


def average_precision(relevant: Sequence[bool], num_relevant: int) -> float:
    """The mean, over all that was looked for, of the precision where it is found (not found: 0)."""
    hits = np.asarray(relevant, dtype=np.float64)
    if not hits.size:
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, hits.size + 1)
    return float((precision * hits).sum() / num_relevant)


# moments


def matched(ranked: Sequence[Span], gold: Sequence[Span], threshold: float) -> list[bool]:
    """Whether each ranked span meets a gold one, of IoU at least `threshold`, that none before it has met.

    A span takes the gold one that it shares most with, as in QVHighlights' released evaluation (moment_detr,
    standalone_eval).
    """
    free = list(gold)
    met: list[bool] = []
    for span in ranked:
        best = max(free, key=lambda each: iou(span, each), default=None)
        hit = best is not None and iou(span, best) >= threshold
        if hit and best is not None:
            free.remove(best)
        met.append(hit)
    return met


def moment_recall(ranked: Sequence[Span], gold: Sequence[Span], k: int, threshold: float) -> float:
    """`R@k, IoU=threshold`: 1 when any of the first k spans has that IoU with any gold one, else 0."""
    return float(any(iou(span, each) >= threshold for span in ranked[:k] for each in gold))


def best_iou(ranked: Sequence[Span], gold: Sequence[Span]) -> float:
    """The IoU of the first span with the gold one nearest to it; 0 when nothing was found. Its mean is mIoU."""
    return max((iou(ranked[0], each) for each in gold), default=0.0) if ranked else 0.0


def moment_average_precision(ranked: Sequence[Span], gold: Sequence[Span], threshold: float) -> float:
    """Average precision of spans at an IoU, each gold one counted once."""
    return average_precision(matched(ranked, gold, threshold), len(gold))


def clip_recall(ranked: Sequence[Span], gold: Span, k: int, clip_s: float) -> float:
    """Goldfish's retrieval accuracy: 1 when one of the first k clips of clip_s seconds holds a part of the gold span.

    Goldfish cuts TVQA into clips of 45 frames at 3 a second (15 s) and ranks clips (eval_retrieval_acc_tvqa.py). Here
    a moment stands for the clip that its middle lies in, and clips found again do not count as a further rank.
    """
    clips: list[tuple[str, int]] = []
    for span in ranked:
        assert span.end_s is not None, "a search gives moments with an end"
        clip = (span.video, int((span.start_s + span.end_s) / 2 // clip_s))
        if clip not in clips:
            clips.append(clip)
    assert gold.end_s is not None, "the protocol is about moments"
    first, last = int(gold.start_s // clip_s), int(gold.end_s // clip_s)
    return float(any(video == gold.video and first <= place <= last for video, place in clips[:k]))


def citation_precision(cited: Sequence[Span], gold: Sequence[Span]) -> float:
    """The share of cited spans that meet a gold one (CITED). Citing nothing is 0."""
    met = [any(overlap(span, each) >= CITED for each in gold) for span in cited]
    return sum(met) / len(met) if met else 0.0


def citation_recall(cited: Sequence[Span], gold: Sequence[Span]) -> float:
    """The share of gold spans that a cited one meets (CITED)."""
    met = [any(overlap(span, each) >= CITED for span in cited) for each in gold]
    return sum(met) / len(met)


# answers


def normalise(text: str) -> str:
    """As SQuAD's evaluation: lower case, no ASCII punctuation, no articles (a, an, the), single spaces."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(given: str, reference: str) -> float:
    """1 when both are the same after `normalise` (SQuAD)."""
    return float(normalise(given) == normalise(reference))


def token_f1(given: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words after `normalise`, repeated words counted (SQuAD)."""
    ours, theirs = normalise(given).split(), normalise(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


LETTERS = string.ascii_uppercase
_LED = re.compile(
    r"^\W*(?i:(?:the\s+)?(?:correct\s+|right\s+|best\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*)?\W*([A-Z])\b"
)
_ONLY = re.compile(r"^\W*([A-Za-z])\W*$")


def chosen(text: str, choices: Sequence[str]) -> int | None:
    """Which of the choices a text takes, by its letter (`B`, `(B) a dog`, `The answer is B.`) or by its words.

    By words: the text is one choice, or names exactly one of them. None when it takes none, or several.
    """
    letter = _ONLY.match(text) or _LED.match(text)
    said = normalise(text)
    whole = [place for place, choice in enumerate(choices) if normalise(choice) == said and said]
    if len(whole) == 1:
        return whole[0]
    if letter and (letter[1].upper() not in ("A", "I") or not _is_word(letter, text)):
        place = LETTERS.index(letter[1].upper())
        return place if place < len(choices) else None
    padded = f" {said} "
    named = [
        place
        for place, choice in enumerate(choices)
        if f" {normalise(choice)} " in padded and normalise(choice)
    ]
    inside = [
        place
        for place in named
        if not any(
            other != place and normalise(choices[place]) in normalise(choices[other]) for other in named
        )
    ]
    return inside[0] if len(inside) == 1 else None


def _is_word(letter: re.Match[str], text: str) -> bool:
    """Whether a lone A or I is the article or the pronoun ("A dog runs") and not a letter ("A", "A. dog")."""
    rest = text[letter.end(1) :]
    return bool(re.match(r"\s+\w", rest))


def yes_or_no(text: str) -> bool | None:
    """True for an answer that begins with yes, False for no; None when it says neither."""
    first = re.match(r"\W*(yes|no|true|false)\b", text.lower())
    return None if first is None else first[1] in ("yes", "true")


# confidence


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """The chance that a positive scores above a negative, ties counting half (Mann-Whitney). NaN with one class."""
    given, labels = np.asarray(scores, np.float64), np.asarray(positive, bool)
    num_positive, num_negative = int(labels.sum()), int((~labels).sum())
    if not num_positive or not num_negative:
        return math.nan
    _, places, counts = np.unique(given, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[places]  # ties share the mean of their ranks
    return float(
        (ranks[labels].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)
    )


def accuracy_at_coverage(confidences: ArrayLike, correct: ArrayLike, coverage: float) -> float:
    """Accuracy over the surest share of the items; of those equally sure at the border, their mean counts."""
    confidence, right = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    kept = max(1, math.ceil(coverage * confidence.size - 1e-9))
    border = np.sort(confidence)[::-1][kept - 1]
    above, at = confidence > border, confidence == border
    return float((right[above].sum() + right[at].mean() * (kept - above.sum())) / kept)


def calibration_error(confidences: ArrayLike, correct: ArrayLike, num_bins: int = 10) -> float:
    """Expected calibration error: |accuracy - confidence| over bins of equal width, by their size (Guo et al. 2017)."""
    return sum(
        abs(right - sure) * share for sure, right, share in calibration_bins(confidences, correct, num_bins)
    )


def calibration_bins(
    confidences: ArrayLike, correct: ArrayLike, num_bins: int = 10
) -> list[tuple[float, float, float]]:
    """(mean confidence, accuracy, share of the items) of each bin that holds any; a bin has its upper edge."""
    confidence, right = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    place = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        (float(confidence[place == b].mean()), float(right[place == b].mean()), float((place == b).mean()))
        for b in range(num_bins)
        if (place == b).any()
    ]


# words


def word_error_rate(given: Sequence[str], references: Sequence[str]) -> float:
    """Word edits / words of the references, over all texts together; may exceed 1. Lower case, without punctuation."""
    pairs = [(_words(one), _words(other)) for one, other in zip(given, references, strict=True)]
    total = sum(len(reference) for _, reference in pairs)
    edits = sum(edit_distance(ours, reference) for ours, reference in pairs)
    return edits / total if total else float(edits > 0)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def edit_distance(given: Sequence[str], reference: Sequence[str]) -> int:
    """How many words must be put in, taken out or replaced (Levenshtein 1966)."""
    row = list(range(len(reference) + 1))
    for i, ours in enumerate(given, start=1):
        before, row[0] = row[0], i
        for j, theirs in enumerate(reference, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (ours != theirs))
    return row[-1]


# chance


def bootstrap_interval(
    values: ArrayLike,
    *,
    num_resamples: int,
    seed: int,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979). NaN values are left out.

    groups: items of one group (a video) are drawn together, as their scores hang together.
    """
    means = _resampled_means(np.asarray(values, np.float64), num_resamples, seed, groups)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap(
    ours: ArrayLike, theirs: ArrayLike, *, num_resamples: int, seed: int, groups: Sequence[str] | None = None
) -> tuple[float, float, float]:
    """Of the mean of ours - theirs, item by item: a 95 % interval, and a two-sided p value (Koehn 2004)."""
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    means = _resampled_means(difference, num_resamples, seed, groups)
    low, high = np.quantile(means, [0.025, 0.975])
    against = min((means <= 0).sum(), (means >= 0).sum())
    p_value = 2 * (against + 1) / (num_resamples + 1)  # never 0: so many resamples cannot show less
    return float(low), float(high), float(min(1.0, p_value))


def _resampled_means(
    values: NDArray[np.float64], num_resamples: int, seed: int, groups: Sequence[str] | None
) -> NDArray[np.float64]:
    """Means of samples drawn with replacement, [num_resamples]; whole groups at a time."""
    names = (
        np.arange(values.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    )
    known = ~np.isnan(values)
    if not known.any():
        return np.full(num_resamples, math.nan)
    _, names = np.unique(names[known], return_inverse=True)
    sums, counts = np.bincount(names, weights=values[known]), np.bincount(names)
    random = np.random.default_rng(seed)
    draws = (random.integers(0, sums.size, sums.size) for _ in range(num_resamples))
    return np.asarray([sums[draw].sum() / counts[draw].sum() for draw in draws])
