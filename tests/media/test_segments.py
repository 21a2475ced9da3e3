"""Segments hold every word once and are never longer than asked for."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgv.media.segments import split_segments
from mgv.records import Cue, Segment


def cue(start_s: float, end_s: float, text: str) -> Cue:
    return Cue(start_s=start_s, end_s=end_s, text=text)


def segment(start_s: float, end_s: float, text: str) -> Segment:
    return Segment(start_s=start_s, end_s=end_s, text=text)


def test_neighbours_are_joined_while_they_fit():
    cues = [cue(0, 2, "one"), cue(2, 4, "two"), cue(5, 8, "three"), cue(8, 9, "four")]
    assert split_segments(cues, 8.0) == [segment(0, 8, "one two three"), segment(8, 9, "four")]


def test_a_pause_of_two_seconds_ends_a_segment():
    assert split_segments([cue(0, 1, "one"), cue(2.9, 4, "two"), cue(6, 7, "three")], 8.0) == [
        segment(0, 4, "one two"),
        segment(6, 7, "three"),
    ]


def test_a_full_segment_ends_with_a_sentence():
    cues = [cue(0, 3, "It"), cue(3, 5, 'flies."'), cue(5, 7, "Then it"), cue(7, 9, "lands.")]
    assert split_segments(cues, 8.0) == [
        segment(0, 5, 'It flies."'),
        segment(5, 9, "Then it lands."),
    ]


def test_a_sentence_that_ends_too_early_does_not_cut():
    cues = [cue(0, 1, "Yes."), cue(1, 7, "and then"), cue(7, 9, "more")]
    assert split_segments(cues, 8.0) == [segment(0, 7, "Yes. and then"), segment(7, 9, "more")]


def test_a_long_cue_is_cut_at_words_with_time_by_characters():
    # "aaa bbb ccc ddd": each word with its space is 4 of 16 characters, so 4 of 16 s
    assert split_segments([cue(10, 26, "aaa bbb ccc ddd")], 8.0) == [
        segment(10, 18, "aaa bbb"),
        segment(18, 26, "ccc ddd"),
    ]


def test_a_single_word_that_stays_too_long_is_brought_in():
    assert split_segments([cue(0, 100, "[Music]")], 8.0) == [segment(0, 8, "[Music]")]


def test_nothing_said_gives_nothing():
    assert split_segments([], 8.0) == []
    assert split_segments([cue(0, 1, " \n ")], 8.0) == []


CUES = st.lists(
    st.builds(
        lambda start, length, words: cue(start, start + length, " ".join(words)),
        st.floats(0, 300),
        st.floats(0, 60),
        st.lists(st.text("ab.?", min_size=1, max_size=8), max_size=12),
    ),
    max_size=12,
)


@given(cues=CUES, length_s=st.floats(0.5, 30))
def test_every_word_once_in_order_and_no_segment_too_long(cues: list[Cue], length_s: float):
    segments = split_segments(cues, length_s)
    said = [
        word for c in sorted(cues, key=lambda c: (c.start_s, c.end_s)) for word in c.text.split()
    ]
    if all(c.end_s - c.start_s <= length_s for c in cues):
        assert [word for s in segments for word in s.text.split()] == said
    assert sorted(word for s in segments for word in s.text.split()) == sorted(said)
    assert all(0 <= s.end_s - s.start_s <= length_s + 1e-6 and s.text for s in segments)
    assert all(a.start_s <= b.start_s for a, b in pairwise(segments))


@given(cues=CUES)
def test_segments_lie_within_what_is_said(cues: list[Cue]):
    for s in split_segments(cues, 8.0):
        assert s.start_s >= min(c.start_s for c in cues) - 1e-9
        assert s.end_s <= max(c.end_s for c in cues) + 1e-9


def test_times_may_not_be_negative_lengths():
    assert split_segments([cue(5, 4, "odd")], 8.0) == [segment(5, 5, "odd")]
    with pytest.raises(AssertionError):
        split_segments([], 0.0)
