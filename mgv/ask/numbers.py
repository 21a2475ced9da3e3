"""Numbers as they are said: "twelve thousand" is 12,000, "the twelfth" is 12th and not 13th. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12,
    **{f"{name}th": value for value, name in enumerate(_UNITS) if value in (4, 6, 7, 10, 11, *range(13, 20))},
    **{f"{name[:-1]}ieth": 10 * value for value, name in enumerate(_TENS, start=2)},
}  # fmt: skip
_CARDINALS = {name: value for value, name in enumerate(_UNITS)} | {
    name: 10 * value for value, name in enumerate(_TENS, start=2)
}
_TOKEN = re.compile(
    r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:[.:]\d+)*(?:st|nd|rd|th)?(?![\w])|\w+(?:['’]\w+)?|[$€£%]"
)
_DIGITS = re.compile(r"(\d+(?:,\d{3})*(?:\.\d+)?)(st|nd|rd|th)?")
MONTHS = frozenset(
    "january february march april may june july august september october november december".split()  # noqa: SIM905
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A number in a text."""

    value: str
    """Digits without separators: `12000`, `3.5`; a clock's as written, `8:30`."""
    is_ordinal: bool
    first: int
    """Its first token's place in `tokens`, and the place after its last."""
    after: int


def tokens(text: str) -> list[str]:
    """Words, numbers and money signs in order, in lower case; "twenty-one" is two words."""
    return _TOKEN.findall(text.lower())


def numbers(words: Sequence[str]) -> list[Number]:
    """The numbers among tokens, in digits or in words, each as long as it reaches."""
    read: list[Number] = []
    place = 0
    while place < len(words):
        number = _digits(words, place) or _spelled(words, place)
        if number is None:
            place += 1
        else:
            read.append(number)
            place = number.after
    return read


def _digits(words: Sequence[str], place: int) -> Number | None:
    word = words[place]
    if not word[0].isdigit():
        return None
    match = _DIGITS.fullmatch(word)
    if match is None:
        return Number(value=word, is_ordinal=False, first=place, after=place + 1)
    value, after = match[1].replace(",", ""), place + 1
    if after < len(words) and words[after] in _SCALES and not match[2]:
        value, after = _plain(float(value) * _SCALES[words[after]]), after + 1
    return Number(value=value, is_ordinal=bool(match[2]), first=place, after=after)


def _spelled(words: Sequence[str], place: int) -> Number | None:
    """A number in words: "two hundred and five", "eighty"; an ordinal ends it."""
    total, part, after, is_ordinal = 0, 0, place, False
    for word in _number_words(words, place):
        if word in _SCALES:
            scale = _SCALES[word]
            part = max(part, 1) * scale
            total, part = (total, part) if scale == 100 else (total + part, 0)
        elif word in _CARDINALS or word in _ORDINALS:
            value = _CARDINALS.get(word, _ORDINALS.get(word, 0))
            if not _fits(part, value):  # "nine eight seven" counts down: three numbers
                break
            part += value
            is_ordinal = word in _ORDINALS
        after += 1
        if is_ordinal:
            break
    while after > place and words[after - 1] == "and":
        after -= 1
    if after == place or words[place] == "and":
        return None
    return Number(value=str(total + part), is_ordinal=is_ordinal, first=place, after=after)


def _fits(part: int, value: int) -> bool:
    """Whether a value goes on with a number: a unit after tens, anything below 100 after hundreds."""
    rest = part % 100
    return rest == 0 or (rest >= 20 and rest % 10 == 0 and 0 < value < 10)


def _number_words(words: Sequence[str], place: int) -> Iterator[str]:
    for at in range(place, len(words)):
        word = words[at]
        is_number = word in _SCALES or word in _CARDINALS or word in _ORDINALS
        if not is_number and not (word == "and" and at > place and words[at - 1] in _SCALES):
            return
        yield word


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
