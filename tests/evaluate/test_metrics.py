"""Metrics: worked by hand, and against scikit-learn or another way of computing them on random inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mgv.evaluate.metrics import (
    accuracy_at_coverage,
    auroc,
    average_precision,
    best_iou,
    bootstrap_interval,
    calibration_bins,
    calibration_error,
    chosen,
    citation_precision,
    citation_recall,
    clip_recall,
    edit_distance,
    exact_match,
    matched,
    moment_average_precision,
    moment_recall,
    ndcg_at,
    normalise,
    paired_bootstrap,
    recall_at,
    reciprocal_rank,
    token_f1,
    word_error_rate,
    yes_or_no,
)
from mgv.evaluate.spans import Span, iou, overlap


def span(start_s: float, end_s: float | None, video: str = "a.mp4") -> Span:
    return Span(video=video, start_s=start_s, end_s=end_s)


def test_ranked_lists_by_hand():
    ranked = [False, True, False, True]  # two of three relevant ones are found, at 2 and 4
    assert recall_at(ranked, 3, 1) == 0
    assert recall_at(ranked, 3, 4) == pytest.approx(2 / 3)
    assert reciprocal_rank(ranked) == 0.5
    assert reciprocal_rank([False]) == 0
    assert average_precision(ranked, 3) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert average_precision([], 1) == 0
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at(ranked, 3, 10) == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert ndcg_at([True], 5, 1) == 1


def test_spans_share_time_only_within_a_video():
    assert iou(span(0, 10), span(5, 15)) == pytest.approx(5 / 15)
    assert iou(span(0, 10), span(0, 10, "b.mp4")) == 0
    assert iou(span(0, 10), span(0, None)) == 1  # a whole video is found by any moment of it
    assert overlap(span(0, 10), span(8, 10)) == 1
    assert overlap(span(0, 10), span(9, 11)) == 0.5


def test_moments_by_hand():
    gold = [span(0, 10), span(20, 30)]
    ranked = [span(40, 50), span(0, 6), span(20, 30)]  # IoU 0, .6, 1
    assert moment_recall(ranked, gold, 1, 0.5) == 0
    assert moment_recall(ranked, gold, 5, 0.5) == 1
    assert moment_recall(ranked[:2], gold, 5, 0.7) == 0
    assert best_iou(ranked[1:], gold) == pytest.approx(0.6)
    assert best_iou([], gold) == 0
    assert matched(ranked, gold, 0.5) == [False, True, True]
    assert matched([span(0, 10), span(0, 9)], gold, 0.5) == [True, False]  # a gold moment is found once
    assert moment_average_precision(ranked, gold, 0.5) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_goldfish_counts_clips_of_15_seconds():
    gold = span(14, 31)  # lies in clips 0, 1 and 2
    ranked = [span(46, 50), span(50, 56), span(44, 46), span(20, 24)]  # middles in clips 3, 3, 3, 1
    assert clip_recall(ranked, gold, 1, 15) == 0
    assert clip_recall(ranked, gold, 2, 15) == 1
    assert clip_recall([span(20, 24, "b.mp4")], gold, 1, 15) == 0


def test_citations_are_right_when_half_of_the_shorter_is_shared():
    gold = [span(0, 4), span(20, 30)]
    cited = [span(0, 20), span(28, 40), span(50, 60)]  # holds the first; shares 2 of 10 s; wrong
    assert citation_precision(cited, gold) == pytest.approx(1 / 3)
    assert citation_recall(cited, gold) == 0.5
    assert citation_precision([], gold) == 0


def test_answers_are_compared_as_squad_does():
    assert normalise("The  Dog's a Bone!") == "dogs bone"
    assert exact_match("a red car.", "Red car") == 1
    assert token_f1("a small red car", "red car") == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert token_f1("dog", "cat") == 0
    assert token_f1("", "") == 1
    assert token_f1("", "cat") == 0
    assert token_f1("red red", "red") == pytest.approx(2 / 3)  # a repeated word counts once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1),
        ("b", 1),
        (" (C) ", 2),
        ("B. a cat", 1),
        ("The answer is C.", 2),
        ("Answer: B", 1),
        ("a dog", 0),
        ("A dog runs past", 0),
        ("It is a cat, I think", 1),
        ("I see a red bird", 2),
        ("a bird", None),  # no choice holds "bird" alone
        ("a dog and a cat", None),
        ("E", None),
        ("", None),
        ("no idea", None),
    ],
)
def test_a_choice_is_taken_by_letter_or_by_words(text: str, expected: int | None):
    assert chosen(text, ("a dog", "a cat", "a red bird")) == expected


def test_the_longer_of_two_choices_that_hold_each_other_is_meant():
    assert chosen("it is dark red", ("red", "dark red")) == 1


def test_yes_and_no():
    assert [yes_or_no(t) for t in ("Yes, it is.", "no", "False", "maybe yes", "nothing")] == [
        True,
        False,
        False,
        None,
        None,
    ]


def test_confidence_by_hand():
    assert auroc([0.9, 0.8, 0.3, 0.3], [1, 0, 1, 0]) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert math.isnan(auroc([1, 2], [1, 1]))
    assert accuracy_at_coverage([0.9, 0.8, 0.7, 0.1], [1, 1, 0, 0], 0.5) == 1
    assert accuracy_at_coverage([0.9, 0.8, 0.7, 0.1], [1, 1, 0, 0], 1) == 0.5
    assert accuracy_at_coverage([0.5, 0.5], [1, 0], 0.5) == 0.5  # equally sure: their mean
    assert calibration_error([0.95, 0.85, 0.15], [1, 0, 0]) == pytest.approx((0.05 + 0.85 + 0.15) / 3)
    assert calibration_bins([1.0, 0.95], [1, 0]) == [(pytest.approx(0.975), 0.5, 1.0)]


def test_word_errors_by_hand():
    assert word_error_rate(["the cat sat"], ["The cat sat."]) == 0
    assert word_error_rate(["the cat sat down"], ["a cat sat"]) == pytest.approx(
        2 / 3
    )  # one replaced, one too many
    assert word_error_rate(["", "x"], ["one two three", "x"]) == pytest.approx(3 / 4)
    assert word_error_rate(["x"], [""]) == 1


def slow_edits(given: list[str], reference: list[str]) -> int:
    """Levenshtein by its recursive definition."""
    if not given or not reference:
        return len(given) + len(reference)
    if given[-1] == reference[-1]:
        return slow_edits(given[:-1], reference[:-1])
    return 1 + min(
        slow_edits(given[:-1], reference),
        slow_edits(given, reference[:-1]),
        slow_edits(given[:-1], reference[:-1]),
    )


def test_edit_distance_is_levenshteins():
    random = np.random.default_rng(0)
    for _ in range(60):
        one, other = ([*map(str, random.integers(0, 3, random.integers(0, 6)))] for _ in range(2))
        assert edit_distance(one, other) == slow_edits(one, other)


def test_auroc_counts_every_pair():
    random = np.random.default_rng(1)
    for _ in range(20):
        scores, labels = random.integers(0, 6, 30) / 5, random.integers(0, 2, 30).astype(bool)
        pairs = [float(p > n) + 0.5 * float(p == n) for p in scores[labels] for n in scores[~labels]]
        assert auroc(scores, labels) == pytest.approx(sum(pairs) / len(pairs))


def test_ranks_and_confidences_agree_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(2)
    for _ in range(20):
        scores = random.permutation(40) / 40.0
        labels = random.integers(0, 2, 40)
        ranked = [bool(label) for label in labels[np.argsort(-scores)]]
        num_relevant = int(labels.sum())
        assert auroc(scores, labels) == pytest.approx(sklearn.roc_auc_score(labels, scores))
        assert average_precision(ranked, num_relevant) == pytest.approx(
            sklearn.average_precision_score(labels, scores)
        )
        for k in (1, 5, 10):
            assert ndcg_at(ranked, num_relevant, k) == pytest.approx(
                sklearn.ndcg_score([labels], [scores], k=k)
            )
        ties = random.integers(0, 5, 40) / 4
        assert auroc(ties, labels) == pytest.approx(sklearn.roc_auc_score(labels, ties))


def test_the_bootstrap_interval_is_that_of_the_normal_law_for_many_values():
    values = np.random.default_rng(3).normal(2.0, 1.0, 2000)
    low, high = bootstrap_interval(values, num_resamples=2000, seed=0)
    error = values.std() / math.sqrt(values.size)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.005)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.005)
    assert bootstrap_interval(values, num_resamples=50, seed=0) == bootstrap_interval(
        values, num_resamples=50, seed=0
    )


def test_values_of_one_group_are_drawn_together():
    values = [0.0] * 10 + [1.0] * 10
    groups = ["a"] * 10 + ["b"] * 10
    assert bootstrap_interval(values, num_resamples=200, seed=0, groups=groups) == (0.0, 1.0)
    low, high = bootstrap_interval(values, num_resamples=200, seed=0)
    assert 0.2 < low < high < 0.8


def test_unknown_values_are_left_out():
    assert bootstrap_interval([1.0, math.nan, 1.0], num_resamples=20, seed=0) == (1.0, 1.0)
    assert all(math.isnan(bound) for bound in bootstrap_interval([math.nan], num_resamples=20, seed=0))


def test_a_paired_difference_is_seen_where_items_vary_more_than_systems():
    theirs = np.random.default_rng(4).random(200)
    low, high, p_value = paired_bootstrap(theirs + 0.01, theirs, num_resamples=500, seed=0)
    assert (low, high) == (pytest.approx(0.01), pytest.approx(0.01))
    assert p_value == pytest.approx(2 / 501)
    assert paired_bootstrap(theirs, theirs, num_resamples=50, seed=0) == (0, 0, 1)
