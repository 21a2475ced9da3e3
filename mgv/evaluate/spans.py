"""Spans: stretches of videos, and how much two of them share. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A stretch of a video, the thing that a search finds or an answer cites."""

    video: str
    """File name, or the name that a data set gives the video."""
    start_s: float = 0.0
    end_s: float | None = None
    """None: to the end of the video."""

    @property
    def is_whole(self) -> bool:
        """Whether it stands for the video as such: then only the video is to be found."""
        return self.end_s is None


def shared_s(one: Span, other: Span) -> float:
    """How long two spans overlap, in seconds; 0 in different videos. Both must have an end."""
    assert one.end_s is not None, "a whole video has no length here"
    assert other.end_s is not None, "a whole video has no length here"
    if one.video != other.video:
        return 0.0
    return max(0.0, min(one.end_s, other.end_s) - max(one.start_s, other.start_s))


def iou(one: Span, other: Span) -> float:
    """Temporal intersection over union, 0 to 1; of a whole video and a span of it: 1."""
    if one.is_whole or other.is_whole:
        return float(one.video == other.video)
    shared = shared_s(one, other)
    assert one.end_s is not None, "checked above"
    assert other.end_s is not None, "checked above"
    union = (one.end_s - one.start_s) + (other.end_s - other.start_s) - shared
    return shared / union if union > 0 else float(one == other)


def overlap(one: Span, other: Span) -> float:
    """How much of the shorter span lies in the other, 0 to 1."""
    if one.is_whole or other.is_whole:
        return float(one.video == other.video)
    assert one.end_s is not None, "checked above"
    assert other.end_s is not None, "checked above"
    shorter = min(one.end_s - one.start_s, other.end_s - other.start_s)
    return shared_s(one, other) / shorter if shorter > 0 else float(iou(one, other) > 0)
