"""Answers: citations that exist, and at least one of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mgv.ask.answer import answer, cite
from mgv.records import Moment, clock


def moment(video: str, text: str = "", labels: tuple[str, ...] = ()) -> Moment:
    return Moment(
        video=video,
        video_id=video,
        start_s=61.0,
        end_s=3725.9,
        score=0.5,
        channels=("text",),
        text=text,
        labels=labels,
    )


MOMENTS = [
    moment("a.mp4", "Eighteen grams of coffee."),
    moment("b.mp4", "The cat eats salmon.", ("tabby",)),
]


class Says:
    """An answerer that writes what it is told to."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def write(self, question: str, moments: Sequence[Moment]) -> str | None:
        return self.text


def test_a_citation_stands_for_its_moment():
    given = answer("what does the cat eat?", MOMENTS, Says("Salmon [2]."))
    assert given.text == "Salmon [2]."
    assert [(c.number, c.video, c.start_s, c.end_s) for c in given.citations] == [
        (2, "b.mp4", 61.0, 3725.9)
    ]


@pytest.mark.parametrize(
    ("written", "cited", "numbers"),
    [
        ("Salmon [2, 7] and [9].", "Salmon [2] and.", [2]),
        ("Coffee [1][2].", "Coffee [1] [2].", [1, 2]),
        ("The cat eats salmon.", "The cat eats salmon. [2]", [2]),
        ("Salmon [0] [3] [99999].", "Salmon. [2]", [2]),
    ],
)
def test_only_citations_that_exist_are_kept_and_one_is_always_given(
    written: str, cited: str, numbers: list[int]
):
    assert cite(written, MOMENTS) == (cited, numbers)


@pytest.mark.parametrize("nothing", [None, "", "  \n"])
def test_an_answerer_that_finds_nothing_gives_no_answer(nothing: str | None):
    given = answer("why?", MOMENTS, Says(nothing))
    assert (given.text, given.citations) == (None, ())


def test_no_moments_give_no_answer_and_ask_nobody():
    assert answer("why?", [], Says("invented")).text is None


def test_times_are_written_as_people_do():
    assert [clock(t) for t in (0, 59.9, 61, 3725.9, -1)] == [
        "0:00",
        "0:59",
        "1:01",
        "1:02:05",
        "0:00",
    ]
