"""Fusion: expected scores are worked out by hand."""

from __future__ import annotations

import pytest

from mgv.ask.retrieve import Reach, fuse, merge
from mgv.library.search import Hit
from mgv.library.words import alike, content_words, coverage, stem

REACH = Reach(merge_gap_s=2.0, moment_length_s=20.0)
EVEN = {"frames": 1.0, "segments": 1.0, "text": 1.0}


def hit(video_id: str, start_s: float, end_s: float, relevance: float = 1.0) -> Hit:
    return Hit(video_id=video_id, start_s=start_s, end_s=end_s, relevance=relevance)


def test_a_sure_first_hit_in_every_channel_scores_one():
    hits = {name: [hit("a", 0, 8)] for name in EVEN}
    (found,) = fuse(hits, EVEN, rrf_k=20, reach=REACH)
    assert found.score == pytest.approx(1.0)


def test_a_share_is_weight_times_relevance_over_k_plus_rank():
    hits = {"frames": [hit("a", 0, 1), hit("b", 0, 1, 0.5)], "segments": [], "text": []}
    first, second = fuse(hits, {"frames": 2.0, "segments": 1.0, "text": 1.0}, rrf_k=9, reach=REACH)
    assert first.score == pytest.approx((2 * 1.0 / 10) / (4 / 10))
    assert second.score == pytest.approx((2 * 0.5 / 11) / (4 / 10))


def test_a_channel_with_nothing_relevant_adds_nothing():
    alone = fuse(
        {"frames": [hit("a", 0, 1)], "segments": [], "text": []}, EVEN, rrf_k=20, reach=REACH
    )
    assert [(m.video_id, m.channels) for m in alone] == [("a", ("frames",))]


def test_a_talkative_video_with_weak_hits_does_not_overtake_a_sure_sight():
    weak = [hit("talk", 10.0 * i, 10.0 * i + 8, 0.1) for i in range(50)]
    hits = {"frames": [hit("parrot", 0, 1)], "segments": weak, "text": weak}
    assert fuse(hits, EVEN, rrf_k=20, reach=REACH)[0].video_id == "parrot"


def test_a_long_scene_takes_one_rank_in_its_channel():
    scene = [hit("long", float(i), i + 1.0) for i in range(10)]
    _, other = fuse(
        {"frames": [*scene, hit("other", 0, 1)]}, {"frames": 1.0}, rrf_k=20, reach=REACH
    )
    assert other.score == pytest.approx(21 / 22)


def test_hits_of_one_video_near_in_time_become_one_moment_found_by_both_channels():
    hits = {"frames": [hit("a", 10, 11)], "text": [hit("a", 12.5, 16)]}
    (found,) = fuse(hits, {"frames": 1.0, "text": 1.0}, rrf_k=20, reach=REACH)
    assert (found.start_s, found.end_s) == (10, 16)
    assert set(found.channels) == {"frames", "text"}


@pytest.mark.parametrize(("relevance", "end_s"), [(0.69, 11), (0.71, 16)])
def test_a_faint_hit_of_another_channel_counts_for_a_moment_and_does_not_widen_it(
    relevance: float, end_s: float
):
    hits = {"frames": [hit("a", 10, 11)], "text": [hit("a", 12.5, 16, relevance)]}
    (found,) = fuse(hits, {"frames": 1.0, "text": 1.0}, rrf_k=20, reach=REACH)
    assert (found.start_s, found.end_s) == (10, end_s)
    assert found.score == pytest.approx((1 + relevance) / 2)


def test_hits_further_apart_than_the_gap_or_of_other_videos_stay_apart():
    hits = {"frames": [hit("a", 0, 1), hit("a", 3.5, 4.5), hit("b", 0, 1)]}
    assert len(fuse(hits, {"frames": 1.0}, rrf_k=20, reach=REACH)) == 3


def test_no_moment_grows_longer_than_it_may():
    merged = merge([hit("a", float(i), i + 1.0) for i in range(60)], REACH)
    assert [(m.start_s, m.end_s) for m in merged] == [(0, 20), (20, 40), (40, 60)]


def test_a_weak_neighbour_does_not_lengthen_a_moment():
    assert merge([hit("a", 5, 6, 1.0), hit("a", 6, 7, 0.4)], REACH) == [hit("a", 5, 6, 1.0)]


def test_a_videos_further_moments_count_less_and_less():
    apart = [hit("a", 100.0 * i, 100.0 * i + 5) for i in range(3)]
    found = fuse({"frames": apart}, {"frames": 1.0}, rrf_k=20, reach=REACH)
    assert [m.score for m in found] == pytest.approx([21 / 21, 21 / 22 * 0.3, 21 / 23 * 0.09])


def test_a_channel_of_weight_zero_is_silent():
    hits = {"frames": [hit("a", 0, 1)], "text": [hit("b", 0, 1)]}
    assert [
        m.video_id for m in fuse(hits, {"frames": 0.0, "text": 1.0}, rrf_k=20, reach=REACH)
    ] == ["b"]


def test_content_words_leave_out_what_any_query_holds():
    assert content_words("Show me the scene where the Rocket lifts off, the rocket!") == [
        "rocket",
        "lifts",
    ]
    assert content_words("what is it?") == []


@pytest.mark.parametrize("word", ["lift", "lifts", "lifted", "lifting"])
def test_stems_of_one_word_meet(word: str):
    assert stem(word) == stem("lift")


def test_coverage_is_the_share_of_the_words_held():
    assert coverage(["rocket", "lifts"], "The rocket is lifting.") == 1.0
    assert coverage(["rocket", "parrot"], "A rocket.") == 0.5


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("licenc", "licens", True),  # one letter another
        ("color", "colour", True),  # one letter more
        ("rocket", "rockets", True),
        ("rocket", "socket", True),
        ("rocket", "pocked", False),  # two letters
        ("cat", "car", False),  # short words must be the same
        ("12345", "12346", False),  # and so must numbers
        ("abcdef", "abcdefgh", False),
    ],
)
def test_long_words_a_letter_apart_meet(one: str, other: str, meet: bool):
    assert alike(one, other) is meet
    assert alike(other, one) is meet
