"""Container: opening a video file safely, and the times of its frames before any of them is decoded."""

from __future__ import annotations

import json
import logging
import os
import stat
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mgv.errors import MediaError

logger = logging.getLogger(__name__)

DECODE_ERRORS = (av.FFmpegError, ValueError, EOFError, OSError)
"""What PyAV raises on bytes that it cannot read; av.FFmpegError alone leaves out a few of its own checks."""

_NOT_VIDEO = {
    "tty": "text",
    "image2": "a still picture",
    "hls": "a playlist",
    "dash": "a playlist",
    "concat": "a playlist",
    "sdp": "a session description",
}
"""Formats that FFmpeg opens as video but that are none, or that name other files."""


def shown(path: Path) -> str:
    """The path as one printable line: names with control characters or quotes are quoted and escaped."""
    text = str(path)
    if text.isprintable() and not set(text) & set("\"'\\"):
        return text
    return json.dumps(text, ensure_ascii=not text.replace("\n", "").isprintable())


def check_file(path: Path) -> int:
    """The size in bytes of a readable, ordinary, non-empty file. Raises MediaError saying why not; never blocks."""
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise MediaError(
                f"{shown(path)}: a link to {shown(Path(os.readlink(path)))}, which does not exist; "
                "mend the link or give the file itself"
            ) from error
        raise MediaError(f"{shown(path)}: no such file; check the name") from error
    except (OSError, ValueError) as error:
        raise MediaError(f"{shown(path)}: cannot be read: {one_line(error)}") from error
    if stat.S_ISDIR(facts.st_mode):
        raise MediaError(f"{shown(path)}: a folder, expected a file; give the files in it")
    if not stat.S_ISREG(facts.st_mode):
        raise MediaError(
            f"{shown(path)}: a device, pipe or socket, expected an ordinary file; copy it to one"
        )
    if facts.st_size == 0:
        raise MediaError(f"{shown(path)}: the file is empty (0 bytes); copy or download it again")
    try:
        path.open("rb").close()
    except PermissionError as error:
        raise MediaError(f"{shown(path)}: no permission to read it; try chmod u+r") from error
    except OSError as error:
        raise MediaError(f"{shown(path)}: cannot be read: {one_line(error)}") from error
    return facts.st_size


def ticks_s(ticks: int, time_base: Fraction | None) -> float:
    """A time stamp in seconds."""
    assert time_base is not None
    return ticks * float(time_base)


def one_line(error: BaseException) -> str:
    """An error's own words on one line, for use inside ours."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())


def open_container(path: Path) -> InputContainer:
    """Open a media file for reading. Raises MediaError when it is none.

    The name is given as a `file:` address, so that `http:x.mp4` is a file name; a playlist is refused, since
    it could make FFmpeg open other files.
    """
    check_file(path)
    try:
        container = av.open(
            f"file:{path.absolute()}", metadata_errors="replace", options={"protocol_whitelist": "file"}
        )
    except DECODE_ERRORS as error:
        raise MediaError(
            f"{shown(path)}: not a readable video ({one_line(error)}), expected a video file with its header; "
            "it may be cut short, damaged or of another kind: copy or download it again"
        ) from error
    for name in container.format.name.split(","):
        kind = "a still picture" if name.endswith("_pipe") else _NOT_VIDEO.get(name)
        if kind:
            container.close()
            raise MediaError(f"{shown(path)}: {kind} (format {name}), expected a video file")
    return container


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The video track that a player shows: FFmpeg's best that is no cover picture. Raises MediaError if none."""
    cover = av.stream.Disposition.attached_pic
    tracks = [track for track in container.streams.video if not track.disposition & cover]
    best = container.streams.best("video")
    track = best if best in tracks else (tracks[0] if tracks else None)
    if track is None:
        kinds = ["cover picture" if other.type == "video" else str(other.type) for other in container.streams]
        raise MediaError(
            f"{shown(path)}: no video stream (streams: {', '.join(kinds) or 'none'}); is it an audio file?"
        )
    if track.codec_context is None or track.time_base is None:
        raise MediaError(f"{shown(path)}: no decoder for its video; convert it, for example to H.264")
    assert isinstance(track, VideoStream)
    return track


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameIndex:
    """When each frame of a video begins, from its packets, in presentation order; P packets."""

    pts: NDArray[np.int64]
    """[P] presentation times in units of time_base_s."""
    is_key: NDArray[np.bool_]
    """[P] whether decoding can begin there."""
    time_base_s: float
    end_s: float
    """End of the last frame."""
    is_exact: bool
    """Every packet has a presentation time of its own and the first is a key frame."""

    @property
    def times_s(self) -> NDArray[np.float64]:
        """[P] presentation times in seconds on the video's own clock."""
        return self.pts * self.time_base_s

    def frame_at(self, time_s: float) -> int:
        """The frame on screen at an instant: the last that begins at or before it; the first if none does."""
        tick = int(np.floor(time_s / self.time_base_s + 1e-6))
        return max(int(np.searchsorted(self.pts, tick, side="right")) - 1, 0)


def read_index(container: InputContainer, stream: VideoStream) -> FrameIndex | None:
    """Walk the packets without decoding them, as far as the file goes; None when there is none."""
    pts: list[int] = []
    keys: list[bool] = []
    num_guessed, last_duration = 0, 0
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                num_guessed += packet.dts is not None
                continue
            moment = packet.pts if packet.pts is not None else packet.dts
            if moment is None:
                num_guessed += 1
                continue
            num_guessed += packet.pts is None
            pts.append(moment)
            keys.append(packet.is_keyframe)
            last_duration = packet.duration or last_duration
    except DECODE_ERRORS as error:
        logger.info("%s: packets end early: %s", container.name, one_line(error))
    if not pts:
        return None
    order = np.argsort(np.asarray(pts, dtype=np.int64), kind="stable")
    ticks = np.asarray(pts, dtype=np.int64)[order]
    is_key = np.asarray(keys, dtype=np.bool_)[order]
    assert stream.time_base is not None
    mean_duration = int((ticks[-1] - ticks[0]) / (len(ticks) - 1)) if len(ticks) > 1 else 0
    time_base_s = float(stream.time_base)
    return FrameIndex(
        pts=ticks,
        is_key=is_key,
        time_base_s=time_base_s,
        end_s=float(ticks[-1] + (last_duration or mean_duration)) * time_base_s,
        is_exact=num_guessed == 0 and bool(is_key[0]) and bool(np.all(np.diff(ticks) > 0)),
    )
