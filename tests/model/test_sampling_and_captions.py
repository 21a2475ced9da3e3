"""Which frames, and which words with them: worked out by hand."""

from __future__ import annotations

import pytest

from mgv.model.captions import cut_evenly, movie_captions, nearest_captions, upstream_captions
from mgv.model.sampling import (
    even_subset,
    floor_step_indices,
    linspace_indices,
    per_second_indices,
)
from mgv.records import Cue


def cue(start_s: float, end_s: float, text: str) -> Cue:
    return Cue(start_s=start_s, end_s=end_s, text=text)


def test_minigpt4_video_takes_a_fixed_stride_and_loses_the_tail():
    assert floor_step_indices(89, 45) == list(range(45))  # step 1: the second half is never seen
    assert floor_step_indices(300, 45) == [6 * i for i in range(45)]
    assert floor_step_indices(30, 45) == list(range(30))
    minute = int(60 * 29.97)  # 1798 frames
    assert floor_step_indices(minute, 45) == [39 * i for i in range(45)]
    assert floor_step_indices(minute, 90) == [19 * i for i in range(90)]
    assert floor_step_indices(0, 45) == []


def test_the_peers_sample_the_last_frame_or_once_a_second():
    assert linspace_indices(100) == [0, 14, 28, 42, 56, 70, 84, 99]  # i * 99 / 7, cut
    assert linspace_indices(3) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert per_second_indices(100, 29.97) == [0, 30, 60, 90]
    assert per_second_indices(3, 0.4) == [0, 1, 2]


def test_the_even_rule_covers_every_part():
    assert even_subset(10, 5) == [1, 3, 5, 7, 9]
    assert even_subset(4, 4) == [0, 1, 2, 3]


def test_upstream_writes_words_with_the_frame_after_they_begin():
    # 10 frames a second, a frame every 10: at 0 s, 1 s, 2 s
    cues = [
        cue(0.0, 0.4, "zero"),
        cue(0.55, 0.9, "one"),
        cue(1.0, 1.5, "two"),
        cue(2.05, 3.0, "lost"),
    ]
    assert upstream_captions(cues, [0, 10, 20], 10.0, 400) == ["zero ", "one two ", ""]


def test_upstream_says_a_repeated_line_once_and_misses_what_is_said_between_frames():
    cues = [
        cue(0.0, 0.1, "la"),
        cue(0.5, 0.6, "la"),
        cue(0.62, 0.68, "blink"),
    ]  # no frame from 0.62 to 0.68
    assert upstream_captions(cues, [0, 10], 10.0, 400) == ["la ", ""]


def test_the_word_budget_is_tested_before_and_counts_the_last_space():
    cues = [cue(0.0, 0.05, "a b c"), cue(0.1, 0.15, "d"), cue(0.2, 0.25, "e")]
    # "a b c " counts 4 words: 4 < 5, so "d " (2) still goes in and overshoots to 6
    assert upstream_captions(cues, [0, 1, 2], 10.0, 5) == ["a b c ", "d ", ""]
    assert upstream_captions(cues, [0, 1, 2], 10.0, 4) == ["a b c ", "", ""]


def test_times_are_cut_to_milliseconds_as_upstream_cuts_them():
    # int(1.001 * 1000) is 1000, so a cue from 1.001 s is already there at 1.000 s
    assert upstream_captions([cue(1.001, 1.5, "early")], [0, 30], 30.0, 9) == ["", "early "]


def test_the_evaluation_clock_drifts_at_29_97_frames_a_second():
    # frame 2398 is at 80.01 s; counted at 29 a second it is taken for 82.69 s
    cues = [cue(80.0, 80.02, "now"), cue(82.68, 82.70, "later")]
    assert upstream_captions(cues, [2398], 29.97, 400) == ["now "]
    early = upstream_captions(cues, [2398], 29.97, 400, "evaluation")
    assert early == ["now later "]  # frame 2320 / 29 is exactly 80.0 s


def test_a_clock_slower_than_one_frame_a_second_is_taken_as_one():
    # frames 0 to 2 at 0.4 a second; upstream divides by int(0.4) = 0
    assert upstream_captions([cue(2.0, 2.0, "two")], [0, 1, 2], 0.4, 9, "evaluation") == [
        "",
        "",
        "two ",
    ]


def test_the_training_rule_drops_words_that_are_part_of_others():
    cues = [cue(0.0, 0.0, "that is the theatre"), cue(0.1, 0.1, "the hat is a cat")]
    # of the second line: "the" and "hat" and "is" and "a" are inside "that is the theatre ", "cat" is new
    assert upstream_captions(cues, [0, 1], 10.0, 400, "training") == [
        "that is the theatre ",
        "cat ",
    ]


def test_overlapping_cues_are_taken_by_each_rule_in_its_way():
    cues = [cue(0.0, 1.0, "left"), cue(0.0, 1.0, "right")]
    assert upstream_captions(cues, [0], 10.0, 9, "training") == ["left right "]
    assert upstream_captions(cues, [0, 1], 10.0, 9, "evaluation") == ["left ", ""]
    assert upstream_captions(cues, [1], 10.0, 9, "evaluation") == ["left right "]


def test_llama_vid_puts_a_cue_with_the_last_frame_ahead_of_its_end():
    cues = [
        cue(0.0, 0.5, " first"),
        cue(0.6, 1.5, "second"),
        cue(1.6, 1.9, "third"),
        cue(9, 99, "last"),
    ]
    assert movie_captions(cues, [0.0, 1.0, 2.0]) == ["first", "second third", "last"]
    assert movie_captions([cue(-1.0, 0.0, "ahead")], [0.0, 1.0]) == ["", "ahead"]


def test_the_even_rule_keeps_every_cue_once_with_its_nearest_frame():
    cues = [cue(2.4, 3.4, "c\nd"), cue(0.0, 0.9, "a"), cue(0.0, 3.0, "b"), cue(50.0, 60.0, "z")]
    assert nearest_captions(cues, [0.0, 1.0, 2.0, 3.0]) == ["a", "", "b", "c d z"]
    assert nearest_captions([], [0.0]) == [""]


@pytest.mark.parametrize(
    ("lengths", "budget", "kept"),
    [
        ([5, 1, 9], 20, [5, 1, 9]),
        ([5, 1, 9], 9, [4, 1, 4]),
        ([3, 3], 0, [0, 0]),
        ([10, 0, 10], 5, [2, 0, 3]),
    ],
)
def test_the_longest_captions_are_cut_first(lengths: list[int], budget: int, kept: list[int]):
    assert cut_evenly(lengths, budget) == kept
