"""Grounding: whether a written claim is carried by a sentence that was said. Rules over words; no model. Pure.

A claim stands when one sentence (or it and its neighbour) holds everything that the claim says: every word that means
something, in the same order; every number with its unit, `twelfth` being no `thirteenth`; and the same yes or no.
Words in common are not enough: "the man drinks cockatoo" has many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mgv.ask.evidence import Passage, Sentence
from mgv.ask.numbers import MONTHS, Number, numbers, tokens
from mgv.library.words import alike, content_words, stem

CITATION = re.compile(r"\s*\[(\d+(?:\s*,\s*\d+)*)\]")
_NEGATIONS = frozenset(
    "no not never none nobody nothing nowhere neither nor without hardly barely cannot fail fails failed unable".split()  # noqa: SIM905
)
_DIRECTIONS = frozenset(
    "more most less least before after up down over under on off above below until only all few".split()  # noqa: SIM905
)
"""Function words that turn a claim round; the word search leaves them out."""
_WORD = re.compile(r"\w+(?:['’]t)?")
_NUMBER_WORDS = re.compile(r"\d")


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """A claim's evidence: sentences of one passage that follow each other."""

    number: int
    sentences: tuple[Sentence, ...]


def claims(written: str) -> list[str]:
    """The sentences of an answer, without their citations."""
    plain = CITATION.sub("", written).strip()
    return [part.strip() for part in re.split(r"(?<=[.!?…])\s+", plain) if part.strip()]


def carrier(claim: str, passages: Sequence[Passage]) -> Carried | None:
    """What carries a claim: the first sentence, else the first two neighbours, that hold all of it."""
    for length in (1, 2):
        for passage in passages:
            for first in range(len(passage.sentences) - length + 1):
                window = passage.sentences[first : first + length]
                if carries(" ".join(each.text for each in window), claim):
                    return Carried(number=passage.number, sentences=window)
    return None


def carries(sentence: str, claim: str) -> bool:
    """Whether a sentence holds everything that a claim says."""
    words = [word for word in content_words(claim) if not _is_number(word)]
    return (
        bool(content_words(claim))
        and '"' not in claim
        and _in_order(words, sentence)
        and _numbers_agree(sentence, claim)
        and _negates(sentence) == _negates(claim)
        and _directions(claim) <= _directions(sentence)
    )


def _in_order(words: Sequence[str], sentence: str) -> bool:
    """Whether all words are in the sentence, by their stems, in this order."""
    held = [stem(word) for word in re.findall(r"\w+", sentence.lower())]
    places: list[int] = []
    for word in words:
        at = [place for place, other in enumerate(held) if alike(stem(word), other)]
        if not at:
            return False
        later = [place for place in at if not places or place > places[-1]]
        places.append(later[0] if later else at[0])
    return all(one <= other for one, other in pairwise(places))


def _is_number(word: str) -> bool:
    return bool(_NUMBER_WORDS.search(word)) or bool(numbers([word]))


def _numbers_agree(sentence: str, claim: str) -> bool:
    """Whether each number of the claim is in the sentence, with the same word after it."""
    said, claimed = tokens(sentence), tokens(claim)
    there = numbers(said)
    return all(
        any(
            _same(number, other, said) and _same_unit(claimed, number, said, other)
            for other in there
        )
        for number in numbers(claimed)
    )


def _same(one: Number, other: Number, said: Sequence[str]) -> bool:
    """Equal values; a first and a one are the same in a date only."""
    return one.value == other.value and (
        one.is_ordinal == other.is_ordinal or bool(MONTHS & set(said))
    )


def _same_unit(claimed: Sequence[str], one: Number, said: Sequence[str], other: Number) -> bool:
    unit = claimed[one.after] if one.after < len(claimed) else ""
    if not content_words(unit) or _is_number(unit):
        return True
    near = said[other.after : other.after + 3]
    return any(alike(stem(unit), stem(word)) for word in near)


def _negates(text: str) -> bool:
    words = _WORD.findall(text.lower().replace("’", "'"))
    return bool(sum(word in _NEGATIONS or word.endswith("n't") for word in words) % 2)


def _directions(text: str) -> set[str]:
    return set(_DIRECTIONS) & set(re.findall(r"\w+", text.lower()))
