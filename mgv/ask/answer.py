"""Answer: moments → an answer whose every citation exists.

An answerer is a part, chosen by name. It reads the question and the moments' evidence and may write [1], [2], …
for the moments it used; what it writes is then held against the evidence, whoever wrote it: numbers that name
no moment are taken out, and an answer that cites nothing is given the moment it shares most words with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from mgv.library.words import content_words, coverage
from mgv.records import Answer, Citation, Moment, Written, clock

CITATION = re.compile(r"\s*\[(\d+(?:\s*,\s*\d+)*)\]")


class Answerer(Protocol):
    """Writes an answer from evidence. One that looks at frames has an attribute `watches` that is true."""

    def write(self, question: str, moments: Sequence[Moment]) -> Written | str | None:
        """The answer, with [n] for the n-th moment (from 1); None when the moments do not hold one.

        Who looks at frames says at which (Written.looks).
        """
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
    nothing = Answer(question=question, text=None, citations=(), moments=tuple(moments), looks=written.looks)
    if not written.text or not written.text.strip():
        return nothing
    text, numbers = cite(written.text.strip(), moments)
    citations = tuple(_citation(number, moments[number - 1]) for number in numbers)
    return replace(nothing, text=text, citations=citations)


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


def _citation(number: int, moment: Moment) -> Citation:
    return Citation(
        number=number,
        video=moment.video,
        video_id=moment.video_id,
        start_s=moment.start_s,
        end_s=moment.end_s,
    )
