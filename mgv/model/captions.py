"""Captions: which words go with which frame. The published rules, and the even one.

A caption is the text written after a frame's visual tokens. Upstream walks every source frame, adds a cue to a buffer
when it is first seen, and writes the buffer after the next sampled frame; so a frame carries what was said since the
frame before it, and words after the last sampled frame are lost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from mgv.records import Cue

CaptionRule = Literal["inference", "evaluation", "training"]


def nearest_captions(cues: Sequence[Cue], frame_times_s: Sequence[float]) -> list[str]:
    """Each cue once, in order, with the frame nearest to its middle. Frame times ascend."""
    borders = [(a + b) / 2 for a, b in pairwise(frame_times_s)]
    captions = [""] * len(frame_times_s)
    for cue in sorted(cues, key=lambda cue: (cue.start_s, cue.end_s)):
        text = " ".join(cue.text.split())
        frame = bisect_right(borders, (cue.start_s + cue.end_s) / 2)
        captions[frame] = f"{captions[frame]} {text}".strip()
    return captions


def movie_captions(cues: Sequence[Cue], frame_times_s: Sequence[float]) -> list[str]:
    """LLaMA-VID's captions of a movie: a cue goes with the last frame ahead of its end, cues joined by a space.

    As load_video_input in scripts/extra_tool/extract_video_features_subtitles.py; a cue that ends before the first
    frame lands, by Python's index -1, on the last one.
    """
    texts: list[list[str]] = [[] for _ in frame_times_s]
    frame = 0
    for cue in cues:
        while frame < len(frame_times_s) and frame_times_s[frame] < cue.end_s:
            frame += 1
        texts[frame - 1].append(cue.text.removeprefix(" "))
    return [" ".join(text) for text in texts]


def cut_evenly(lengths: Sequence[int], budget: int) -> list[int]:
    """How much of each length may stay so that the sum is within the budget: the longest are cut first, to one cap."""
    if sum(lengths) <= budget:
        return list(lengths)
    left, kept = max(budget, 0), [0] * len(lengths)
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for place, i in enumerate(by_length):
        kept[i] = min(lengths[i], left // (len(lengths) - place))
        left -= kept[i]
    return kept


def upstream_captions(
    cues: Sequence[Cue],
    frame_indices: Sequence[int],
    frame_rate: float,
    max_words: int,
    rule: CaptionRule = "inference",
) -> list[str]:
    """MiniGPT4-Video's captions of the sampled frames: text with a space after each cue (or word), or "".

    `inference` is match_frames_and_subtitles of minigpt4_video_inference.py: true frame rate, times in milliseconds.
    `evaluation` (also Goldfish) and `training` are the loops of datasets/video_datasets.py and goldfish_lv.py: the
    frame rate is cut to a whole number, so times drift (below 1 they fail; it is taken as 1 here). max_words is tested
    before a caption is added, so it may be overshot by one; the space at a caption's end counts as a word.
    """
    add = _ADD[rule]
    rate = frame_rate if rule == "inference" else max(1, int(frame_rate))
    sampled, seen = set(frame_indices), set[str]()
    buffer, previous, num_words = "", "", 0
    by_frame: dict[int, str] = {}
    for index in range(frame_indices[-1] + 1 if frame_indices else 0):
        buffer = add(cues, index / rate, buffer, previous, seen)
        if index in sampled:
            fits = buffer != "" and num_words < max_words
            by_frame[index] = buffer if fits else ""
            if fits:
                num_words += len(buffer.split(" "))
                buffer, previous = "", buffer
    return [by_frame[index] for index in frame_indices]


def _add_inference(
    cues: Sequence[Cue], time_s: float, buffer: str, previous: str, seen: set[str]
) -> str:
    """One cue at most, by binary search over cues taken to be sorted and apart."""
    time_ms = time_s * 1000
    left, right = 0, len(cues) - 1
    while left <= right:
        middle = (left + right) // 2
        cue = cues[middle]
        if _cut_ms(cue.start_s) <= time_ms <= _cut_ms(cue.end_s):
            text = cue.text.strip().replace("\n", " ")
            if text and text not in seen:
                seen.add(text)
                buffer += text + " "
            return buffer
        if time_ms < _cut_ms(cue.start_s):
            right = middle - 1
        else:
            left = middle + 1
    return buffer


def _add_evaluation(
    cues: Sequence[Cue], time_s: float, buffer: str, previous: str, seen: set[str]
) -> str:
    """The first cue under way that is no part of the buffer's text."""
    for cue in cues:
        text = cue.text.replace("\n", " ")
        if _seconds(cue.start_s) <= time_s <= _seconds(cue.end_s) and text not in buffer:
            if text not in seen:
                buffer += text + " "
            seen.add(text)
            break
    return buffer


def _add_training(
    cues: Sequence[Cue], time_s: float, buffer: str, previous: str, seen: set[str]
) -> str:
    """Every cue under way, word by word; a word that is part of the buffer or of the last caption is dropped."""
    for cue in cues:
        text = cue.text.replace("\n", " ")
        if _seconds(cue.start_s) <= time_s <= _seconds(cue.end_s):
            if text not in seen:
                for word in text.split(" "):
                    if word not in buffer and word not in previous:
                        buffer += word + " "
            seen.add(text)
    return buffer


_ADD: dict[str, Callable[[Sequence[Cue], float, str, str, set[str]], str]] = {
    "inference": _add_inference,
    "evaluation": _add_evaluation,
    "training": _add_training,
}


def _seconds(time_s: float) -> float:
    """A time as WebVTT writes it, to the millisecond, read back as webvtt-py does."""
    total_ms = round(time_s * 1000)
    return total_ms // 1000 + (total_ms % 1000) / 1000


def _cut_ms(time_s: float) -> int:
    """A WebVTT time in whole milliseconds as upstream reads it: 1.001 s is int(1.001 * 1000) = 1000."""
    total_ms = round(time_s * 1000)
    hours, minutes = total_ms // 3_600_000, total_ms // 60_000 % 60
    seconds = float(f"{total_ms // 1000 % 60}.{total_ms % 1000:03}")
    return int((hours * 3600 + minutes * 60 + seconds) * 1000)
