"""Evidence: what is said, in whole sentences with their own times.

Subtitles are cut where a line is full, and segments where a stretch is long; neither is where a sentence ends. Here the
cues of a video are read as one text and cut at sentence ends. Where nothing marks an end (captions without full stops)
a sentence ends at the longest pause. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mgv.records import Cue, Moment

MAX_WORDS = 45
"""A sentence without an end is cut within so many words, at its longest pause."""
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s+[^\sa-z])|[。！？]+[”」』）]*|[.!?…]+[\"'”’)\]]*$")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:mr|mrs|ms|dr|prof|st|no|vs|etc|e\.g|i\.e|cf|fig|vol|jr|sr|inc|ltd|co|approx|[a-z]|(?:[a-z]\.)+[a-z])\.$",
    re.IGNORECASE,
)
_TOUCH_S = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """A whole sentence of one video."""

    start_s: float
    """Where it begins and ends inside a cue its time is that share of the cue's."""
    end_s: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """The sentences in and around one moment, which is the n-th of an answer's, from 1."""

    number: int
    moment: Moment
    sentences: tuple[Sentence, ...]


def sentences(cues: Sequence[Cue]) -> list[Sentence]:
    """Whole sentences of a video's cues, in order of time."""
    text, starts = "", []
    kept = [cue for cue in cues if cue.text.strip()]
    for cue in kept:
        starts.append(len(text))
        text += " ".join(cue.text.split()) + " "
    whole: list[Sentence] = []
    for first, after in _spans(text, starts, kept):
        words = text[first:after].strip()
        if words:
            begin = first + len(text[first:after]) - len(text[first:after].lstrip())
            whole.append(
                Sentence(
                    start_s=_time(begin, kept, starts),
                    end_s=_time(begin + len(words) - 1, kept, starts, ends=True),
                    text=words,
                )
            )
    return whole


def _spans(text: str, starts: Sequence[int], cues: Sequence[Cue]) -> list[tuple[int, int]]:
    """Where sentences begin and end in the text."""
    ends = [
        match.end()
        for match in _END.finditer(text.rstrip())
        if not _ABBREVIATION.search(text[: match.end()][-12:])
    ]
    borders = [0, *ends, len(text)]
    spans: list[tuple[int, int]] = []
    for first, after in pairwise(borders):
        if text[first:after].strip():
            spans += _cut(text, first, after, starts, cues)
    return spans


def _cut(
    text: str, first: int, after: int, starts: Sequence[int], cues: Sequence[Cue]
) -> list[tuple[int, int]]:
    """A stretch, cut at its longest pauses until no piece is longer than MAX_WORDS."""
    spans: list[tuple[int, int]] = []
    waiting = [(first, after)]
    while waiting:
        begin, end = waiting.pop()
        inside = range(bisect_right(starts, begin), bisect_right(starts, end - 1))
        borders = [
            n for n in inside if text[begin : starts[n]].strip() and text[starts[n] : end].strip()
        ]
        if len(text[begin:end].split()) <= MAX_WORDS or not borders:
            spans.append((begin, end))
            continue
        middle = (begin + end) / 2
        best = max(
            borders,
            key=lambda n: (round(cues[n].start_s - cues[n - 1].end_s, 1), -abs(starts[n] - middle)),
        )
        waiting += [(starts[best], end), (begin, starts[best])]
    return spans


def _time(place: int, cues: Sequence[Cue], starts: Sequence[int], *, ends: bool = False) -> float:
    """When the character at this place is said: its share of its cue; `ends`: when it is over."""
    number = bisect_right(starts, place) - 1
    cue, length = cues[number], len(" ".join(cues[number].text.split()))
    share = min(1.0, (place - starts[number] + ends) / length)
    return round(cue.start_s + share * (cue.end_s - cue.start_s), 3)


def around(
    said: Sequence[Sentence], start_s: float, end_s: float, *, more: int = 1
) -> tuple[Sentence, ...]:
    """The sentences that overlap a stretch, and so many more on either side."""
    inside = [
        n
        for n, each in enumerate(said)
        if each.start_s < end_s - _TOUCH_S and each.end_s > start_s + _TOUCH_S
    ]
    if not inside:
        return ()
    return tuple(said[max(0, inside[0] - more) : inside[-1] + 1 + more])
