"""Kinds of questions and the numbers in them, by hand."""

from __future__ import annotations

import pytest

from mgv.ask.kinds import holds, understand
from mgv.ask.numbers import numbers, tokens


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("is there a rocket in any video?", "presence"),
        ("does anyone mention salmon?", "presence"),
        ("is a dog shown?", "presence"),
        ("when does the rocket leave the ground?", "when"),
        ("when is the exam?", "when"),
        ("which video is about coffee?", "where"),
        ("scene where the rocket lifts off", "where"),
        ("where do they talk about galaxies?", "where"),
        ("where was it filmed?", "said"),
        ("how many videos show a cat?", "count"),
        ("how many times is coffee mentioned?", "count"),
        ("how many volunteers were there?", "said"),
        ("which video is the longest?", "library"),
        ("how many videos are there?", "library"),
        ("what came in this week?", "library"),
        ("how long is talk.mp4?", "library"),
        ("how long does the journey take?", "said"),
        ("what's this lecture about?", "whole"),
        ("summarise rocket.mp4", "whole"),
        ("what happens after the lift-off?", "whole"),
        ("what is said at 0:22?", "whole"),
        ("what is shown in cat.mp4?", "seen"),
        ("what colour is the cup?", "seen"),
        ("do the videos agree on the weight?", "comparison"),
        ("Hello!", "chat"),
        ("thanks", "chat"),
        ("", "said"),
    ],
)
def test_a_question_is_of_the_kind_that_its_words_say(question: str, kind: str):
    assert understand(question).kind == kind


@pytest.mark.parametrize(
    ("question", "sentence", "answers"),
    [
        ("how old is Kiwi?", "This is Kiwi, our cockatoo.", False),
        ("how old is Kiwi?", "She is nine years old.", True),
        ("how old is Kiwi?", "We found her four years ago.", False),
        ("how much did a cart cost?", "The price of a cart rose from three to five dollars.", True),
        ("how much did a cart cost?", "They bought a cart.", False),
        ("when is the exam?", "The exam is on the twelfth.", True),
        ("when is the exam?", "The exam is hard.", False),
        ("how long does it take?", "It takes one hundred ten days.", True),
        ("how long does it take?", "It takes courage.", False),
        ("how much does the payload weigh?", "The payload weighs 570 kilograms.", True),
    ],
)
def test_a_sentence_answers_only_with_what_is_asked_for(
    question: str, sentence: str, answers: bool
):
    assert holds(understand(question), sentence) is answers


def test_a_question_knows_its_subject_its_names_and_its_instant():
    asked = understand("How old is Kiwi in the video?")
    assert (asked.subject, asked.names) == (("kiwi",), ("kiwi",))
    assert understand("what is said at 1:02:03?").at_s == 3723.0
    assert (
        understand("what happens after the lift-off?").order,
        understand("what is said first?").order,
    ) == (
        "after",
        "first",
    )


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("twelve thousand pictures", ["12000"]),
        ("on the twelfth", ["12th"]),
        ("five hundred seventy kilograms", ["570"]),
        ("two hundred and five", ["205"]),
        ("ten, nine, eight", ["10", "9", "8"]),
        ("12,000 or 3.5 million", ["12000", "3500000"]),
        ("twenty-one of the 3rd", ["21", "3th"]),
        ("rose and fell", []),
    ],
)
def test_numbers_are_read_in_words_and_digits(text: str, values: list[str]):
    found = numbers(tokens(text))
    assert [number.value + "th" * number.is_ordinal for number in found] == values
