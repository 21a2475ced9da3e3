"""Chapters: a video's parts, where what is said and what is seen turn to something else. No model writes anything.

A video's segments and frames are steps on one line of time, each with a vector of what is said and one of what is seen.
Chapters are the cut of that line whose parts hang together best: dynamic programming over the spread inside each part,
with a price for every further part (Utiyama and Isahara 2001 cut text so; the price is our own). Computed from the
library's tables when they are first asked for: nothing is kept on disk. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgv.records import clock

Float = NDArray[np.float64]

SHORTEST_S = 20.0
"""No chapter is shorter, where the video is longer than two of them."""
PICTURE_WEIGHT = 0.5
"""How much the picture counts beside what is said."""
PRICE = 1.0
"""A further chapter has to explain more of the spread than so many mean steps of sqrt(steps)."""
MAX_STEPS = 1_200
"""A longer line is thinned: neighbours are averaged. Memory and time do not grow with the video then."""
TITLE_CHARS = 72


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A stretch with what is said and seen in it."""

    start_s: float
    end_s: float
    vector: Float
    """[D]: said and seen beside each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chapter:
    """A part of a video."""

    start_s: float
    end_s: float
    title: str
    """Said in it, or what its picture looks like: taken from the video, never written."""


def cut(
    times_s: Sequence[float],
    vectors: Float,
    *,
    shortest_s: float = SHORTEST_S,
    price: float = PRICE,
) -> list[int]:
    """Where chapters begin: places among N steps that begin at times_s [N], with vectors [N, D]; the first is 0."""
    steps, starts = len(vectors), np.asarray(times_s, dtype=np.float64)
    if steps < 2:
        return [0]
    sums = np.vstack([np.zeros(vectors.shape[1]), np.cumsum(vectors, axis=0)])
    squares = np.concatenate([[0.0], np.cumsum((vectors**2).sum(axis=1))])
    mean_step = (squares[-1] - (sums[-1] ** 2).sum() / steps) / steps
    fee = price * mean_step * np.sqrt(steps)
    best = np.full(steps + 1, np.inf)
    best[0], back = -fee, np.zeros(steps + 1, dtype=np.int64)
    ends = np.append(starts[1:], starts[-1] + (starts[-1] - starts[0]) / max(1, steps - 1))
    for after in range(1, steps + 1):
        first = np.arange(after)
        spread = (
            squares[after]
            - squares[:after]
            - ((sums[after] - sums[:after]) ** 2).sum(axis=1) / (after - first)
        )
        too_short = (ends[after - 1] - starts[:after] < shortest_s) & (first > 0)
        total = np.where(too_short, np.inf, best[:after] + spread + fee)
        back[after] = int(total.argmin())
        best[after] = total[back[after]]
        if after < steps and ends[after - 1] - starts[0] < shortest_s:
            best[after] = np.inf  # nothing ends so early
    return _followed(back)


def _followed(back: NDArray[np.int64]) -> list[int]:
    places, at = [], len(back) - 1
    while at > 0:
        at = int(back[at])
        places.append(at)
    return places[::-1]


def joined(
    said: Sequence[tuple[float, float, Float]], seen: Sequence[tuple[float, float, Float]]
) -> list[Step]:
    """Steps of a video from its segments and frames, each (start, end, unit vector), in order of time.

    A segment is a step, with the mean of the frames in it; where nothing is said, frames are by themselves.
    """
    wide_said, wide_seen = (len(rows[0][2]) if rows else 0 for rows in (said, seen))
    centre_said, centre_seen = (
        np.mean([v for *_, v in rows], axis=0) if rows else np.zeros(0) for rows in (said, seen)
    )
    steps: list[Step] = []
    waiting = list(seen)
    for start_s, end_s, vector in said:
        before = [row for row in waiting if row[1] <= start_s]
        within = [row for row in waiting if row[1] > start_s and row[0] < end_s]
        waiting = waiting[len(before) + len(within) :]
        steps += _silent(before, wide_said, centre_seen)
        look = (
            np.mean([v for *_, v in within], axis=0) - centre_seen
            if within
            else np.zeros(wide_seen)
        )
        steps.append(
            Step(
                start_s=start_s,
                end_s=end_s,
                vector=np.concatenate([vector - centre_said, PICTURE_WEIGHT * look]),
            )
        )
    return _thinned(steps + _silent(waiting, wide_said, centre_seen))


def _silent(
    frames: Sequence[tuple[float, float, Float]], wide_said: int, centre: Float
) -> list[Step]:
    return [
        Step(
            start_s=start_s,
            end_s=end_s,
            vector=np.concatenate([np.zeros(wide_said), PICTURE_WEIGHT * (vector - centre)]),
        )
        for start_s, end_s, vector in frames
    ]


def _thinned(steps: Sequence[Step]) -> list[Step]:
    group = -(-len(steps) // MAX_STEPS)
    if group <= 1:
        return list(steps)
    parts = [steps[first : first + group] for first in range(0, len(steps), group)]
    return [
        Step(
            start_s=part[0].start_s,
            end_s=part[-1].end_s,
            vector=np.mean([step.vector for step in part], axis=0),
        )
        for part in parts
    ]


def central(vectors: Float, others: Float) -> int:
    """Which of N vectors [N, D] stands best for all of them, and not for the others' mean [D]."""
    return int((vectors @ (vectors.mean(axis=0) - 0.5 * others)).argmax())


def title(text: str) -> str:
    """A sentence as a title: without its full stop, cut at a word."""
    plain = " ".join(text.split()).rstrip(".")
    if len(plain) <= TITLE_CHARS:
        return plain
    return plain[:TITLE_CHARS].rsplit(" ", 1)[0].rstrip(",;:") + " …"


def webvtt(chapters: Sequence[Chapter]) -> str:
    """Chapters as a WebVTT chapters track, as <track kind="chapters"> takes it."""
    blocks = [
        f"{_stamp(each.start_s)} --> {_stamp(max(each.end_s, each.start_s + 0.001))}\n{_cue_text(each.title)}"
        for each in chapters
    ]
    return "\n\n".join(["WEBVTT", *blocks]) + "\n"


def outline(chapters: Sequence[Chapter]) -> str:
    """Chapters as lines to paste under a video."""
    return "\n".join(f"{clock(each.start_s)} {each.title}" for each in chapters)


def _stamp(time_s: float) -> str:
    millis = round(max(0.0, time_s) * 1000)
    return f"{millis // 3_600_000:02}:{millis // 60_000 % 60:02}:{millis // 1000 % 60:02}.{millis % 1000:03}"


def _cue_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
