"""Answerers that look at the moments' frames: our video language model, any of transformers, any OpenAI endpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgv.errors import MediaError
from mgv.media.frames import frame_times, read_all_frames
from mgv.records import Locate, Look, Moment

logger = logging.getLogger(__name__)

T = TypeVar("T")
FRAME_SIZE_PX = 448
"""Short side of the frames that are shown."""
INSTRUCTION = (
    "Answer the question about the video moments in one or two sentences, from what they show and say. "
    "Write [n] after what you take from moment n. If they do not hold the answer, write only: none"
)


def moment_frames(
    moment: Moment, locate: Locate, num_frames: int, size_px: int = FRAME_SIZE_PX
) -> tuple[NDArray[np.uint8], list[float], list[float]]:
    """num_frames frames [T, H, W, 3] spread evenly over a moment, the times wanted, and when each frame begins."""
    times_s = frame_times(moment.start_s, moment.end_s, num_frames)
    batch = read_all_frames(locate(moment), times_s, size_px=size_px)
    return (
        batch.frames,
        times_s[: len(batch.frames)],
        [round(time_s, 6) for time_s in batch.times_s],
    )


def shown(
    moments: Sequence[Moment],
    locate: Locate,
    num_frames: int,
    part: Callable[[NDArray[np.uint8]], dict[str, Any]],
) -> tuple[list[dict[str, Any]], tuple[Look, ...]]:
    """The moments as the parts of a chat's message, `part` for a frame, and the frames that were looked at."""
    parts: list[dict[str, Any]] = []
    looks: list[Look] = []
    read = partial(moment_frames, locate=locate, num_frames=num_frames)
    for number, moment, (frames, _, begin_s) in readable(moments, read):
        looks.append(Look(number=number, times_s=tuple(begin_s)))
        parts += [{"type": "text", "text": caption(number, moment)}, *map(part, frames)]
    return parts, tuple(looks)


def readable(
    moments: Sequence[Moment], read: Callable[[Moment], T]
) -> Iterator[tuple[int, Moment, T]]:
    """Moments by their number, with what was read of each; one that cannot be read is left out, with a warning.

    Raises MediaError where none can.
    """
    unread: MediaError | None = None
    has_read = False
    for number, moment in enumerate(moments, start=1):
        try:
            content = read(moment)
        except MediaError as error:
            logger.warning("moment %d is left out: %s", number, error)
            unread = error
            continue
        has_read = True
        yield number, moment, content
    if unread and not has_read:
        raise unread


def caption(number: int, moment: Moment) -> str:
    """A moment's number and words, ahead of its frames."""
    words = f' Words: "{moment.text}"' if moment.text else ""
    return (
        f"Moment [{number}], {moment.video}, {moment.start_s:.1f} s to {moment.end_s:.1f} s.{words}"
    )


def said(text: str) -> str | None:
    """What a model wrote; None when it says that the moments hold no answer."""
    text = text.strip()
    return None if text.lower().strip(" .") in ("", "none") else text
