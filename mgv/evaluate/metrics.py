"""Metrics: of ranked lists, moments, answers, confidences and words. Pure; a score is 0 to 1 unless it says otherwise.

A ranked list is given as `relevant`: whether each result, best first, is one that was looked for.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

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


def moment_average_precision(
    ranked: Sequence[Span], gold: Sequence[Span], threshold: float
) -> float:
    """QVHighlights' average precision of the first 10 spans at an IoU (moment_detr, standalone_eval/utils.py).

    Each gold span is counted once, and the precision where it is found is the best from there on (interpolated, as
    VOC's). Its mean over MAP_THRESHOLDS is what papers report as the mAP of a query.
    """
    hits = np.asarray(matched(ranked[:10], gold, threshold), np.float64)
    if not hits.size:
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, hits.size + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * hits).sum() / len(gold))


MAP_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""0.5 to 0.95."""
GOLDFISH_FRAME_RATE = 3.0
"""Goldfish looks at 3 frames a second."""


def clip_recall(ranked: Sequence[Span], gold: Span, k: int, clip_s: float) -> float:
    """Goldfish's retrieval accuracy: 1 when one of the first k clips of clip_s seconds holds a part of the gold span.

    Goldfish cuts TVQA into clips of 45 frames at 3 a second (15 s) and ranks clips (eval_retrieval_acc_tvqa.py). Here
    a moment stands for the clip that its middle lies in, and clips found again do not count as a further rank.
    """
    clips: list[tuple[str, int]] = []
    for span in ranked:
        clip = (span.video, int((span.start_s + _end_s(span)) / 2 // clip_s))
        if clip not in clips:
            clips.append(clip)
    meant = _gold_clips(gold.start_s, _end_s(gold), round(clip_s * GOLDFISH_FRAME_RATE))
    return float(any(video == gold.video and place in meant for video, place in clips[:k]))


def _gold_clips(start_s: float, end_s: float, num_frames: int) -> set[int]:
    """The clips of num_frames with a frame of the gold span, in get_ground_truth_clip's own counting.

    It gives the first frame of each clip but the first to the clip before it, so that a span which ends as a clip
    begins does not reach into it. A span between two frames lies in no clip.
    """
    frames = range(
        math.ceil(start_s * GOLDFISH_FRAME_RATE - 1e-6),
        math.floor(end_s * GOLDFISH_FRAME_RATE + 1e-6) + 1,
    )
    return {max(0, (frame - 1) // num_frames) for frame in frames}


DIDEMO_CHUNK_S = 5.0
"""DiDeMo counts time in chunks of this length."""
DIDEMO_SEGMENTS = (*((chunk, chunk) for chunk in range(6)), *combinations(range(6), 2))
"""What DiDeMo ranks: all 21 runs of its six chunks, as (first, last)."""
DIDEMO_AGREEING = 3
"""Of DiDeMo's annotators (four or more) the three count that an answer agrees with best."""
Chunks = tuple[int, int]


def didemo_ranking(ranked: Sequence[Span]) -> list[Chunks]:
    """DiDeMo's 21 segments as a search ranks them; empty when it found nothing in the first 30 s.

    A search gives moments of any length, so each in turn stands for the segment of highest IoU that is not ranked
    yet; the segments that no moment stands for follow by their IoU with the first. Among equals the shorter, then
    the earlier one.
    """
    shares = [
        [didemo_iou((span.start_s / DIDEMO_CHUNK_S, _end_s(span) / DIDEMO_CHUNK_S - 1), each)
         for each in DIDEMO_SEGMENTS]
        for span in ranked
    ]  # fmt: skip
    shares = [each for each in shares if max(each) > 0]
    if not shares:
        return []
    places: list[int] = []
    for row in shares[: len(DIDEMO_SEGMENTS)]:
        free = [place for place in range(len(row)) if place not in places]
        best = max(free, key=row.__getitem__)
        if row[best] > 0:
            places.append(best)
    rest = sorted(
        set(range(len(DIDEMO_SEGMENTS))) - set(places), key=lambda place: (-shares[0][place], place)
    )
    return [DIDEMO_SEGMENTS[place] for place in (*places, *rest)]


def _end_s(span: Span) -> float:
    assert span.end_s is not None, "a search gives moments with an end"
    return span.end_s


def didemo_iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection over union of two segments, given as their first and last chunk, both within."""
    shared = max(0.0, min(one[1], other[1]) + 1 - max(one[0], other[0]))
    return shared / ((one[1] + 1 - one[0]) + (other[1] + 1 - other[0]) - shared)


def didemo_scores(
    ranking: Sequence[Chunks], annotated: Sequence[Chunks]
) -> tuple[float, float, float]:
    """DiDeMo's own Rank@1, Rank@5 and IoU of one description (Hendricks et al. 2017, arXiv 1708.01641, utils/eval.py).

    Rank@k is 1 when the mean rank of the segments that the three best agreeing annotators marked is at most k; IoU
    is that of the first segment with the three annotators' nearest to it, mean. The means over all descriptions are
    the paper's figures. A segment that is not ranked has the rank after the last.
    """
    order = {segment: rank for rank, segment in enumerate(ranking, start=1)}
    ranks = sorted(order.get(segment, len(DIDEMO_SEGMENTS) + 1) for segment in annotated)[
        :DIDEMO_AGREEING
    ]
    ious = sorted((didemo_iou(ranking[0], each) if ranking else 0.0) for each in annotated)[
        -DIDEMO_AGREEING:
    ]
    rank = sum(ranks) / len(ranks)
    return float(rank <= 1), float(rank <= 5), sum(ious) / len(ious)


def citation_precision(cited: Sequence[Span], gold: Sequence[Span]) -> float:
    """The share of cited spans, of which there is one at least, that meet a gold one (CITED)."""
    met = [any(overlap(span, each) >= CITED for each in gold) for span in cited]
    return sum(met) / len(met)


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
_ANOTHER = re.compile(r"\W*(?:or|and|&|/)\W*[A-Z]\b")
_LATER = re.compile(
    r"(?i:\b(?:answer|option|choice)(?:\s+is)?\s*:?)\s*\W*([A-Z])\b(?!')|\(([A-Z])\)"
)


def chosen(text: str, choices: Sequence[str]) -> int | None:
    """Which of the choices a text takes, by its letter (`B`, `(B) a dog`, `The answer is B.`) or by its words.

    By words: the text is one choice, or names exactly one of them. By a letter further on (`I think the answer is
    B`): when it is the only one. None when it takes none, or several.
    """
    words = normalise(text)
    for alike in (_bare, normalise):
        whole = [
            place for place, choice in enumerate(choices) if alike(choice) == alike(text) and words
        ]
        if len(whole) == 1:
            return whole[0]
    letter = _ONLY.match(text) or _LED.match(text)
    if letter and _ANOTHER.match(text, letter.end(1)):
        return None
    if letter and not _is_word(letter, text):
        return _place(letter[1], choices)
    padded = f" {words} "
    named = [
        place
        for place, choice in enumerate(choices)
        if f" {normalise(choice)} " in padded and normalise(choice)
    ]
    inside = [
        place
        for place in named
        if not any(
            other != place and normalise(choices[place]) in normalise(choices[other])
            for other in named
        )
    ]
    if len(inside) == 1:
        return inside[0]
    later = {match[1] or match[2] for match in _LATER.finditer(text) if not _is_word(match, text)}
    return _place(later.pop(), choices) if len(later) == 1 else None


def _bare(text: str) -> str:
    return text.strip().casefold()


def _place(letter: str, choices: Sequence[str]) -> int | None:
    place = LETTERS.index(letter.upper())
    return place if place < len(choices) else None


def _is_word(letter: re.Match[str], text: str) -> bool:
    """Whether a lone A or I is the article or the pronoun ("A dog runs") and not a letter ("A", "A. dog")."""
    group = letter.lastindex or 0
    rest = text[letter.end(group) :]
    return letter[group].upper() in ("A", "I") and bool(re.match(r"\s+\w", rest))


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
        (ranks[labels].sum() - num_positive * (num_positive + 1) / 2)
        / (num_positive * num_negative)
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
        abs(right - sure) * share
        for sure, right, share in calibration_bins(confidences, correct, num_bins)
    )


def calibration_bins(
    confidences: ArrayLike, correct: ArrayLike, num_bins: int = 10
) -> list[tuple[float, float, float]]:
    """(mean confidence, accuracy, share of the items) of each bin that holds any; a bin has its upper edge."""
    confidence, right = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    place = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        (
            float(confidence[place == b].mean()),
            float(right[place == b].mean()),
            float((place == b).mean()),
        )
        for b in range(num_bins)
        if (place == b).any()
    ]


# words


def spoken_words(text: str) -> list[str]:
    """The words that a word error rate counts: lower case, without punctuation; numbers stay as they are written.

    What is one word in writing is one here: `don't` is, `twenty-one` is two. For languages that part words by spaces.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    return re.findall(r"\w+(?:'\w+)*", text)


def edit_distance(given: Sequence[str], reference: Sequence[str]) -> int:
    """How many words must be put in, taken out or replaced (Levenshtein 1966).

    Over the number of words of the reference it is the word error rate, which may exceed 1.
    """
    places = np.arange(len(reference) + 1)
    row = places.copy()
    names = {word: place for place, word in enumerate(dict.fromkeys(reference))}
    theirs = np.asarray([names[word] for word in reference], np.int64)
    for count, word in enumerate(given, start=1):
        replaced = row[:-1] + (theirs != names.get(word, -1))
        row[1:] = np.minimum(row[1:] + 1, replaced)
        row[0] = count
        row = np.minimum.accumulate(row - places) + places  # words that the given text lacks
    return int(row[-1])


# chance


def bootstrap_interval(
    values: ArrayLike,
    *,
    num_resamples: int,
    seed: int,
    groups: Sequence[str] | None = None,
    weights: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979). NaN values are left out.

    groups: items of one group (a video) are drawn together, as their scores hang together. weights: how much each
    value counts in the mean (a word error rate by its words).
    """
    means = _resampled_means(np.asarray(values, np.float64), num_resamples, seed, groups, weights)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap(
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    num_resamples: int,
    seed: int,
    groups: Sequence[str] | None = None,
    weights: ArrayLike | None = None,
) -> tuple[float, float, float]:
    """Of the mean of ours - theirs, item by item: a 95 % interval, and a two-sided p value (Koehn 2004)."""
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    means = _resampled_means(difference, num_resamples, seed, groups, weights)
    low, high = np.quantile(means, [0.025, 0.975])
    against = min((means <= 0).sum(), (means >= 0).sum())
    p_value = 2 * (against + 1) / (num_resamples + 1)  # never 0: so many resamples cannot show less
    return float(low), float(high), float(min(1.0, p_value))


def _resampled_means(
    values: NDArray[np.float64],
    num_resamples: int,
    seed: int,
    groups: Sequence[str] | None,
    weights: ArrayLike | None,
) -> NDArray[np.float64]:
    """Means of samples drawn with replacement, [num_resamples]; whole groups at a time."""
    names = (
        np.arange(values.size)
        if groups is None
        else np.unique(np.asarray(groups), return_inverse=True)[1]
    )
    known = ~np.isnan(values)
    if not known.any():
        return np.full(num_resamples, math.nan)
    _, names = np.unique(names[known], return_inverse=True)
    weight = np.ones(values.size) if weights is None else np.asarray(weights, np.float64)
    sums = np.bincount(names, weights=(values * weight)[known])
    counts = np.bincount(names, weights=weight[known])
    random = np.random.default_rng(seed)
    draws = (random.integers(0, sums.size, sums.size) for _ in range(num_resamples))
    return np.asarray([sums[draw].sum() / counts[draw].sum() for draw in draws])
