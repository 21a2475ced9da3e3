"""Frames: which instants of a video to look at, and their pixels."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from mgv.errors import MediaError
from mgv.media.container import (
    DECODE_ERRORS,
    FrameIndex,
    Orientation,
    one_line,
    open_container,
    packets,
    read_track,
    shown,
    video_stream,
)
from mgv.media.hdr import is_hdr, tone_mapped

logger = logging.getLogger(__name__)

Reader = Literal["auto", "decord", "pyav"]
MAX_PIXELS = 2**26
"""Of one picture: 8192 x 8192, 200 MB as RGB."""
MAX_HOLE_S = 1.0
"""Where decoding ends so long before a wanted frame, it is lost; nearer, the last picture stands for it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FrameBatch:
    """Some frames of a video, T of them."""

    times_s: tuple[float, ...]
    """When each frame begins, from the video's beginning: at or before the instant that was wanted."""
    frames: NDArray[np.uint8]
    """[T, H, W, 3] RGB as displayed: upright, with square pixels."""


def frame_times(start_s: float, end_s: float, num_frames: int) -> list[float]:
    """The middle of each of num_frames equal parts of [start_s, end_s]."""
    step_s = (end_s - start_s) / num_frames
    return [start_s + step_s * (i + 0.5) for i in range(num_frames)]


def interval_times(start_s: float, end_s: float, interval_s: float) -> list[float]:
    """The middle of every interval_s of [start_s, end_s]; at least one.

    A rest at the end counts as an interval when it is at least half as long, or the only one.
    """
    num_whole = int((end_s - start_s) / interval_s + 1e-9)
    times_s = [start_s + interval_s * (i + 0.5) for i in range(num_whole)]
    rest_s = end_s - start_s - num_whole * interval_s
    if not times_s or rest_s >= interval_s / 2:
        times_s.append(end_s - rest_s / 2)
    return times_s


def read_frames(
    path: Path,
    times_s: Sequence[float],
    *,
    size_px: int,
    reader: Reader = "auto",
    batch_size: int = 32,
) -> Iterator[FrameBatch]:
    """For every wanted time the frame on screen at that instant, in batches; times_s must not decrease.

    Before the first frame the first is given, after the last the last. The short side has size_px pixels, the
    other keeps the aspect as displayed. `auto` takes decord where it is installed and agrees about the file's
    frames, and PyAV for the rest. Memory depends on batch_size, not on the video's length. Where a file
    is cut short the frames before the cut are given and a warning logged.

    Raises MediaError when no frame can be read, or `decord` was asked for and cannot read the file.
    """
    assert all(a <= b for a, b in pairwise(times_s)), "times_s must not decrease"
    if not times_s:
        return
    plan = _plan(path, times_s, size_px)
    num_given = 0
    if reader == "decord" or (reader == "auto" and importlib.util.find_spec("decord") is not None):
        try:
            for batch in _read_decord(plan, batch_size):
                num_given += len(batch.times_s)
                yield batch
            return
        except _DecordError as error:
            if reader == "decord":
                raise MediaError(
                    f"{shown(path)}: decord cannot read it ({error}); use reader auto or pyav"
                ) from error
            logger.info("%s: PyAV from frame %d on, for decord: %s", shown(path), num_given, error)
    for batch in _read_pyav(plan, num_given, batch_size):
        num_given += len(batch.times_s)
        yield batch
    if num_given == 0:
        raise MediaError(
            f"{shown(path)}: none of {len(times_s)} frames can be decoded; copy or download it again"
        )
    if num_given < len(times_s):
        logger.warning(
            "%s: frames end at %.2f s; %d of %d are missing",
            shown(path), times_s[num_given - 1], len(times_s) - num_given, len(times_s),
        )  # fmt: skip


def read_all_frames(path: Path, times_s: Sequence[float], *, size_px: int) -> FrameBatch:
    """The frames on screen at these times in one batch; fewer where the file is cut short."""
    batches = list(read_frames(path, times_s, size_px=size_px))
    begin_s = tuple(time_s for batch in batches for time_s in batch.times_s)
    return FrameBatch(times_s=begin_s, frames=np.concatenate([batch.frames for batch in batches]))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """What to read of a file."""

    path: Path
    container_format: str
    index: FrameIndex
    wanted: NDArray[np.int64]
    """[T] the frame of each wanted time, as its place in the index."""
    orientation: Orientation
    is_hdr: bool
    width: int
    """Of the frames given: as displayed."""
    height: int


_DECORD_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "ogg"}
"""Where its seeking was found to be right; in MPEG-TS and ASF it gives other frames and does not say so."""


class _DecordError(Exception):
    """decord cannot be used for this file; the reason."""


def _plan(path: Path, times_s: Sequence[float], size_px: int) -> _Plan:
    track = read_track(path)
    width, height = displayed_size(
        track.width, track.height, track.pixel_aspect, track.orientation.is_turned
    )
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{shown(path)}: pictures of {width:.0f} x {height:.0f} pixels, expected at most {MAX_PIXELS:,} in all"
        )
    scale = min(
        size_px / min(width, height), 1.0
    )  # nothing is gained by enlarging, and memory is lost
    return _Plan(
        path=path,
        container_format=track.container_format,
        index=track.index,
        wanted=np.asarray([track.index.frame_at(time_s) for time_s in times_s], dtype=np.int64),
        orientation=track.orientation,
        is_hdr=track.is_hdr,
        width=max(round(width * scale), 1),
        height=max(round(height * scale), 1),
    )


def displayed_size(
    width: int, height: int, pixel_aspect: float, is_turned: bool
) -> tuple[float, float]:
    """Width and height as displayed, in square pixels."""
    square = (width * pixel_aspect, float(height))
    return (square[1], square[0]) if is_turned else square


def _read_decord(plan: _Plan, batch_size: int) -> Iterator[FrameBatch]:
    """Frames by decord. Raises _DecordError where it is missing, fails, or disagrees with the index.

    decord goes on decoding while it is idle, gigabytes of frames in seconds (dmlc/decord#157), until it is sent
    elsewhere. So it is asked for some batches at once, then sent to where the next ones begin: where they can, they
    begin with a group of pictures, so that nothing is decoded twice.
    """
    try:
        import decord
    except (ImportError, OSError) as error:
        raise _DecordError(f"not installed ({one_line(error)})") from error
    index = plan.index
    if not index.has_own_times:
        raise _DecordError("frames without time stamps of their own")
    if plan.container_format not in _DECORD_FORMATS:
        raise _DecordError(f"it seeks wrongly in {plan.container_format}")
    if len(index.is_key) != len(index.pts):
        raise _DecordError("frames hidden by an edit list")
    if plan.is_hdr or plan.orientation.is_mirrored:
        raise _DecordError("colours of high dynamic range, or mirrored pictures")
    if not index.has_closed_gops:
        raise _DecordError("open groups of pictures, after which it gives wrong frames")
    decord.logging.set_level(decord.logging.QUIET)
    times_s = index.times_s
    keys = np.flatnonzero(
        index.is_key
    )  # in closed groups a key frame has the same place in the file and on screen
    try:
        video: Any = decord.VideoReader(
            str(plan.path.absolute()), width=plan.width, height=plan.height, fault_tol=1e-9
        )
        if len(video) != len(times_s):
            raise _DecordError(f"{len(video)} frames, expected {len(times_s)}")
        own_s = video.get_frame_timestamp(range(len(video)))[:, 0].astype(np.float64)
        if np.abs((own_s - own_s[0]) - (times_s - times_s[0])).max() > 0.002:
            raise _DecordError("other time stamps than PyAV")
        at_once = max(_DECORD_BYTES // (plan.width * plan.height * 3), batch_size)
        first = 0
        while first < len(plan.wanted):
            stop = _batch_end(plan.wanted, first, at_once, keys)
            frames = video.get_batch(plan.wanted[first:stop]).asnumpy()
            if frames.shape[1:] != (plan.height, plan.width, 3):
                raise _DecordError(f"frames of shape {frames.shape[1:]}")
            if stop < len(plan.wanted):
                video.seek(int(keys[np.searchsorted(keys, plan.wanted[stop], side="right") - 1]))
            else:
                del video
            for start in range(first, stop, batch_size):
                part = slice(start, min(start + batch_size, stop))
                yield FrameBatch(
                    times_s=tuple(times_s[plan.wanted[part]].tolist()),
                    frames=frames[part.start - first : part.stop - first],
                )
            first = stop
    except (decord.DECORDError, decord.DECORDLimitReachedError, *_DECORD_ERRORS) as error:
        raise _DecordError(str(error).strip().split("\n")[0].rpartition("]")[2].strip()) from error


_DECORD_BYTES = 64 * 2**20
"""Frames that are asked for at once."""
_DECORD_ERRORS = (RuntimeError, AssertionError, ValueError, IndexError, StopIteration)


def _batch_end(
    wanted: NDArray[np.int64], first: int, batch_size: int, keys: NDArray[np.int64]
) -> int:
    """Where a batch from `first` on ends: where a group of pictures does, in its second half, else when full."""
    full = min(first + batch_size, len(wanted))
    if full == len(wanted):
        return full
    groups = np.searchsorted(keys, wanted[first : full + 1], side="right")
    ends = first + 1 + np.flatnonzero(np.diff(groups))
    return int(ends[-1]) if len(ends) and ends[-1] - first > batch_size // 2 else full


def _read_pyav(plan: _Plan, num_given: int, batch_size: int) -> Iterator[FrameBatch]:
    """Frames by PyAV from the wanted one of that number on; ends early where nothing more can be decoded."""
    times_s: list[float] = []
    frames: list[NDArray[np.uint8]] = []
    for pts, frame in _on_screen(plan, plan.wanted[num_given:]):
        times_s.append(pts * plan.index.time_base_s)
        frames.append(_pixels(plan, frame))
        if len(frames) == batch_size:
            yield FrameBatch(times_s=tuple(times_s), frames=np.stack(frames))
            times_s, frames = [], []
    if frames:
        yield FrameBatch(times_s=tuple(times_s), frames=np.stack(frames))


def _on_screen(plan: _Plan, wanted: NDArray[np.int64]) -> Iterator[tuple[int, VideoFrame]]:
    """(presentation time in ticks, frame) for each wanted frame in turn: it, or the last one decoded before it."""
    targets = plan.index.pts[wanted].tolist()
    here = 0
    before: tuple[int, VideoFrame] | None = None
    for pts, frame in _decode(plan, wanted):
        while targets[here] < pts:
            yield before or (pts, frame)
            here += 1
            if here == len(targets):
                return
        before = pts, frame
        while targets[here] == pts:
            yield before
            here += 1
            if here == len(targets):
                return
    for target in targets[here:]:
        if before is None or (target - before[0]) * plan.index.time_base_s > MAX_HOLE_S:
            return
        yield before


def _decode(plan: _Plan, wanted: NDArray[np.int64]) -> Iterator[tuple[int, VideoFrame]]:
    """(presentation time in ticks, frame) in order; of the frames that are not wanted only what the others need."""
    index = plan.index
    num_bad = num_decoded = 0
    needed = np.ones(
        len(index.is_key), dtype=np.bool_
    )  # all, where frames are told apart by their number
    if index.has_own_times:
        needed = index.packets_for(wanted)
    exact = set(index.pts[wanted].tolist())
    last = int(np.flatnonzero(needed)[-1])
    fed = -1
    with open_container(plan.path) as container:
        stream = video_stream(container, plan.path)
        decoder = stream.codec_context
        decoder.thread_type = "SLICE"  # threads over frames conceal damage another way every time
        for place, packet in enumerate(chain(packets(container, stream), [None])):
            if packet is not None and not needed[place] and place <= last:
                continue
            decoded: list[VideoFrame] = []
            try:
                if packet is None or place > last or place != fed + 1:  # the end, or a jump
                    decoded += decoder.decode(None)
                    decoder.flush_buffers()
                if packet is not None and place <= last:
                    fed = place
                    if index.has_own_times and packet.pts is not None:
                        decoder.skip_frame = (
                            "DEFAULT" if packet.pts - index.origin in exact else "NONREF"
                        )
                    decoded += packet.decode()
            except DECODE_ERRORS:
                num_bad += 1
            for frame in decoded:
                pts = None if frame.pts is None else frame.pts - index.origin
                if not index.has_own_times:
                    pts = int(index.pts[min(num_decoded, len(index.pts) - 1)])
                num_decoded += 1
                if pts is not None:
                    yield pts, frame
            if place > last:
                break
    if num_bad:
        logger.warning("%s: skipped %d damaged packets", shown(plan.path), num_bad)


def _pixels(plan: _Plan, frame: VideoFrame) -> NDArray[np.uint8]:
    """A decoded frame as [H, W, 3]: scaled, then turned upright."""
    is_turned = plan.orientation.is_turned
    width, height = (plan.height, plan.width) if is_turned else (plan.width, plan.height)
    if is_hdr(frame):
        return plan.orientation.upright(tone_mapped(frame, width, height))
    pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    return plan.orientation.upright(np.asarray(pixels, dtype=np.uint8))
