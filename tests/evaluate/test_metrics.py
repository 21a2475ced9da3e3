"""Metrics: worked by hand, and against scikit-learn or another way of computing them on random inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mgv.evaluate.metrics import (
    DIDEMO_SEGMENTS,
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
    didemo_iou,
    didemo_ranking,
    didemo_scores,
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
    spoken_words,
    token_f1,
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
    assert matched([span(0, 10), span(0, 9)], gold, 0.5) == [
        True,
        False,
    ]  # a gold moment is found once
    assert moment_average_precision(ranked, gold, 0.5) == pytest.approx(
        (2 / 3 + 2 / 3) / 2
    )  # 1/2, but 2/3 later
    late = [span(100, 101)] * 10 + gold  # only the first ten count
    assert moment_average_precision(late, gold, 0.5) == 0
    assert moment_average_precision([], gold, 0.5) == 0


def test_goldfish_counts_clips_of_15_seconds():
    gold = span(14, 31)  # lies in clips 0, 1 and 2
    ranked = [span(46, 50), span(50, 56), span(44, 46), span(20, 24)]  # middles in clips 3, 3, 3, 1
    assert clip_recall(ranked, gold, 1, 15) == 0
    assert clip_recall(ranked, gold, 2, 15) == 1
    assert clip_recall([span(20, 24, "b.mp4")], gold, 1, 15) == 0
    first_of_the_next = span(20, 30)  # its last frame, at 30 s, is counted to the clip before
    assert clip_recall([span(30, 40)], first_of_the_next, 1, 15) == 0
    assert clip_recall([span(30, 40)], span(20, 30.4), 1, 15) == 1
    assert clip_recall([span(0, 3)], span(1.4, 1.6), 1, 15) == 0  # between two frames


def test_citations_are_right_when_half_of_the_shorter_is_shared():
    gold = [span(0, 4), span(20, 30)]
    cited = [span(0, 20), span(28, 40), span(50, 60)]  # holds the first; shares 2 of 10 s; wrong
    assert citation_precision(cited, gold) == pytest.approx(1 / 3)
    assert citation_recall(cited, gold) == 0.5
    assert citation_recall([], gold) == 0


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Based on the video, the answer is B.", 1),
        ("I think it is (C).", 2),
        ("I think the answer is A", 0),
        ("Answer: A bird", None),
        ("B or C", None),
        ("It could be (A) or (B)", None),
    ],
)
def test_a_letter_further_on_is_taken_when_it_is_the_only_one(text: str, expected: int | None):
    assert chosen(text, ("a dog", "a cat", "a red bird")) == expected


def test_choices_that_differ_in_punctuation_only_are_told_apart():
    assert [chosen(text, ("1.5", "15", "-15")) for text in ("1.5", "15", "-15")] == [0, 1, 2]


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
    assert calibration_error([0.95, 0.85, 0.15], [1, 0, 0]) == pytest.approx(
        (0.05 + 0.85 + 0.15) / 3
    )
    assert calibration_bins([1.0, 0.95], [1, 0]) == [(pytest.approx(0.975), 0.5, 1.0)]


def test_didemo_counts_the_three_annotators_that_agree_best():
    ranking = [(1, 2), (0, 0), (3, 3), (1, 1)]
    # ranks 1, 1, 2, 3: the best three are 1, 1, 2, mean 4/3; IoU of (1, 2) with them is 1, 1, 0, 0
    assert didemo_scores(ranking, [(1, 2), (1, 2), (0, 0), (3, 3)]) == (0, 1, pytest.approx(2 / 3))
    assert didemo_scores(ranking, [(1, 2), (1, 2), (1, 2), (5, 5)]) == (1, 1, 1)
    # nobody marked the first: ranks 2, 3, 4 are 3 on the mean; IoU of (1, 2) with (1, 1) is 1/2
    assert didemo_scores(ranking, [(0, 0), (3, 3), (1, 1), (5, 5)]) == (
        0,
        1,
        pytest.approx(0.5 / 3),
    )
    assert didemo_scores([], [(0, 0)] * 4) == (0, 0, 0)
    assert didemo_iou((1, 4), (2, 5)) == pytest.approx(3 / 5)


def test_didemo_agrees_with_its_released_code_on_random_rankings():
    """The released arithmetic: intersection and hull of the chunks, means of sorted lists."""

    def released(
        ranking: list[tuple[int, int]], times: list[tuple[int, int]]
    ) -> tuple[float, float, float]:
        def share(one: tuple[int, int], other: tuple[int, int]) -> float:
            both = max(0, min(one[1], other[1]) + 1 - max(one[0], other[0]))
            return both / (max(one[1], other[1]) + 1 - min(one[0], other[0]))

        rank = np.mean(np.sort([ranking.index(each) + 1 for each in times])[:3])
        iou_ = np.mean(np.sort([share(ranking[0], each) for each in times])[-3:])
        return float(rank <= 1), float(rank <= 5), float(iou_)

    random = np.random.default_rng(5)
    for _ in range(50):
        ranking = [DIDEMO_SEGMENTS[place] for place in random.permutation(21)]
        times = [DIDEMO_SEGMENTS[place] for place in random.integers(0, 21, 4)]
        assert didemo_scores(ranking, times) == pytest.approx(released(ranking, times))


def test_a_search_becomes_a_ranking_of_didemos_segments():
    assert len(set(DIDEMO_SEGMENTS)) == 21
    ranking = didemo_ranking([span(6, 14), span(5, 15), span(0, 4)])
    # 6 to 14 s is nearest to chunks 1 and 2 (IoU 8/10); 5 to 15 s, its own place taken, to chunks 0 to 2 (10/15)
    assert ranking[:3] == [(1, 2), (0, 2), (0, 0)]
    assert sorted(ranking) == sorted(DIDEMO_SEGMENTS)
    assert ranking[3:6] == [(1, 3), (1, 1), (2, 2)]  # by IoU with 6 to 14 s: 8/15, 4/9, 4/9
    assert didemo_ranking([]) == didemo_ranking([span(31, 40)]) == []


def test_words_are_compared_in_lower_case_without_punctuation_and_numbers_as_they_are():
    assert spoken_words("Lift off! It’s 5:30, 'Twenty-one' (570)…") == [
        "lift", "off", "it's", "5", "30", "twenty", "one", "570",
    ]  # fmt: skip


def test_word_errors_by_hand():
    assert edit_distance(["the", "cat", "sat"], spoken_words("The cat sat.")) == 0
    assert (
        edit_distance(["the", "cat", "sat", "down"], ["a", "cat", "sat"]) == 2
    )  # one replaced, one put in
    assert edit_distance([], ["one", "two", "three"]) == 3
    assert edit_distance(["x"], []) == 1


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
        pairs = [
            float(p > n) + 0.5 * float(p == n) for p in scores[labels] for n in scores[~labels]
        ]
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


def test_a_weighted_mean_is_drawn_with_its_weights():
    low, high = bootstrap_interval(
        [0.0, 1.0], num_resamples=400, seed=0, groups=["a", "b"], weights=[3, 1]
    )
    assert (low, high) == (0.0, 1.0)
    assert bootstrap_interval([0.5, 0.5], num_resamples=20, seed=0, weights=[9, 1]) == (0.5, 0.5)
    values, weights = (
        [0.2] * 50 + [0.8],
        [1.0] * 50 + [50.0],
    )  # as many words in one as in all others
    low, high = bootstrap_interval(values, num_resamples=400, seed=0, weights=weights)
    assert low == pytest.approx(0.2)
    assert high > 0.5


def test_unknown_values_are_left_out():
    assert bootstrap_interval([1.0, math.nan, 1.0], num_resamples=20, seed=0) == (1.0, 1.0)
    assert all(
        math.isnan(bound) for bound in bootstrap_interval([math.nan], num_resamples=20, seed=0)
    )


def test_a_paired_difference_is_seen_where_items_vary_more_than_systems():
    theirs = np.random.default_rng(4).random(200)
    low, high, p_value = paired_bootstrap(theirs + 0.01, theirs, num_resamples=500, seed=0)
    assert (low, high) == (pytest.approx(0.01), pytest.approx(0.01))
    assert p_value == pytest.approx(2 / 501)
    assert paired_bootstrap(theirs, theirs, num_resamples=50, seed=0) == (0, 0, 1)
