"""Answer: moments → an answer whose every citation exists.

An answerer is a part, chosen by name. It reads the question and the moments' evidence and may write [1], [2], …
for the moments it used; what it writes is then held against the evidence, whoever wrote it: numbers that name
no moment are taken out, and an answer that cites nothing is given the moment it shares most words with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from mgv.ask.evidence import Passage
from mgv.ask.grounding import CITATION
from mgv.library.words import content_words, coverage
from mgv.records import Answer, Citation, Moment, Quote, Written, clock


class Answerer(Protocol):
    """Writes an answer from evidence. One that looks at frames has an attribute `watches` that is true."""

    def write(self, question: str, moments: Sequence[Moment]) -> Written | str | None:
        """The answer, with [n] for the n-th moment (from 1); None when the moments do not hold one.

        Who looks at frames says at which (Written.looks).
        """
        ...


@runtime_checkable
class Phraser(Protocol):
    """Words an answer from sentences. Its words count only where a sentence carries them (mgv/ask/grounding.py)."""

    def phrase(self, question: str, passages: Sequence[Passage]) -> str | None:
        """The answer in its own words; None where it has none."""
        ...


def describe(moment: Moment) -> str:
    """A moment's evidence in one line: where, what is said, what is seen."""
    parts = [f"{moment.video} at {clock(moment.start_s)}-{clock(moment.end_s)}."]
    if moment.text:
        parts.append(f'Words: "{moment.text}"')
    if moment.labels:
        parts.append(f"Picture: {', '.join(moment.labels)}.")
    return " ".join(parts)


def answer(question: str, moments: Sequence[Moment], answerer: Answerer) -> Answer:
    """A cited answer from ranked moments. Without moments, or when they hold none, `text` is None."""
    written = answerer.write(question, moments) if moments else None
    if not isinstance(written, Written):
        written = Written(text=written)
    nothing = Answer(
        question=question, text=None, citations=(), moments=tuple(moments), looks=written.looks
    )
    if not written.text or not written.text.strip():
        return nothing
    text, numbers = cite(written.text.strip(), moments)
    return replace(nothing, text=text, citations=citations(numbers, moments, written.quotes))


def citations(
    numbers: Sequence[int], moments: Sequence[Moment], quotes: Sequence[Quote] = ()
) -> tuple[Citation, ...]:
    """The citations of these moments: of the sentences quoted from them, else of all of each."""
    return tuple(
        _citation(
            number, moments[number - 1], [quote for quote in quotes if quote.number == number]
        )
        for number in sorted(set(numbers))
    )


def cite(text: str, moments: Sequence[Moment]) -> tuple[str, list[int]]:
    """The text with only citations that exist, and their numbers in order. At least one, where there are moments."""
    numbers: list[int] = []

    def keep(match: re.Match[str]) -> str:
        given = [int(number) for number in match[1].split(",")]
        known = [number for number in given if 1 <= number <= len(moments)]
        numbers.extend(known)
        return "".join(f" [{number}]" for number in dict.fromkeys(known))

    cited = CITATION.sub(keep, text).strip()
    if not numbers:
        words = content_words(cited)
        shared = [coverage(words, describe(moment)) if words else 0.0 for moment in moments]
        numbers = [shared.index(max(shared)) + 1]
        cited = f"{cited} [{numbers[0]}]"
    return cited, sorted(set(numbers))


def _citation(number: int, moment: Moment, quotes: Sequence[Quote]) -> Citation:
    return Citation(
        number=number,
        video=moment.video,
        video_id=moment.video_id,
        start_s=min((quote.start_s for quote in quotes), default=moment.start_s),
        end_s=max((quote.end_s for quote in quotes), default=moment.end_s),
        quote=" … ".join(quote.text for quote in quotes),
    )
