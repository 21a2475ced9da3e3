"""Container: opening a video file safely, and the times of its frames before any of them is decoded."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mgv.errors import AccessError, MediaError
from mgv.media.clock import Clock, ClockReader
from mgv.media.hdr import is_hdr

logger = logging.getLogger(__name__)

DECODE_ERRORS = (
    av.FFmpegError,
    ValueError,
    EOFError,
    OSError,
    LookupError,
    OverflowError,
    MemoryError,
)
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
    """The size in bytes of a readable, non-empty, ordinary file. Raises MediaError if it is none; never blocks."""
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
        raise AccessError(f"{shown(path)}: cannot be read: {one_line(error)}") from error
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
        raise AccessError(f"{shown(path)}: no permission to read it; try chmod u+r") from error
    except OSError as error:
        raise AccessError(f"{shown(path)}: cannot be read: {one_line(error)}") from error
    return facts.st_size


def ticks_s(ticks: int, time_base: Fraction | None) -> float:
    """A time stamp in seconds."""
    assert time_base is not None
    return ticks * float(time_base)


def one_line(error: BaseException) -> str:
    """An error's own words on one line, for use inside ours."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())


_LOOK_FAR = {"probesize": str(32 * 2**20), "analyzeduration": "600000000"}
"""How far a file without a table of its tracks is looked into for them: bytes, microseconds. In FLV and MPEG-TS sound
may begin minutes after the pictures, and PyAV fails on a track that it meets late."""


def open_container(path: Path) -> InputContainer:
    """Open a media file for reading. Raises MediaError when it is none.

    The name is given as a `file:` address, so that `http:x.mp4` is a file name; a playlist is refused, since
    it could make FFmpeg open other files.
    """
    check_file(path)
    try:
        container: InputContainer = av.open(
            f"file:{path.absolute()}",
            metadata_errors="replace",
            options={"protocol_whitelist": "file"} | _LOOK_FAR,
        )
    except DECODE_ERRORS as error:
        raise MediaError(
            f"{shown(path)}: not a readable video ({one_line(error)}), expected a video with its header; "
            "it may be cut short, damaged or of another kind: copy or download it again"
        ) from error
    for name in container.format.name.split(","):
        kind = "a still picture" if name.endswith("_pipe") else _NOT_VIDEO.get(name)
        if kind:
            container.close()
            raise MediaError(f"{shown(path)}: {kind} (format {name}), expected a video file")
    return container


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The video track that a player shows: FFmpeg's best that is no cover picture. Raises MediaError without."""
    cover = av.stream.Disposition.attached_pic
    tracks = [track for track in container.streams.video if not track.disposition & cover]
    best = container.streams.best("video")
    track = best if best in tracks else (tracks[0] if tracks else None)
    if track is None:
        kinds = [
            "cover picture" if other.type == "video" else str(other.type)
            for other in container.streams
        ]
        if not kinds:
            raise MediaError(
                f"{shown(path)}: not a readable video (no streams), expected a video stream; "
                "it may be cut short: copy or download it again"
            )
        raise MediaError(
            f"{shown(path)}: no video stream (streams: {', '.join(kinds)}); is it an audio file?"
        )
    if track.codec_context is None or track.time_base is None:
        raise MediaError(
            f"{shown(path)}: no decoder for its video; convert it, for example to H.264"
        )
    assert isinstance(track, VideoStream)
    return track


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameIndex:
    """When each frame of a video begins and what it takes to decode it, from its packets; P packets, F frames.

    F is P less the packets that an edit list hides.
    """

    pts: NDArray[np.int64]
    """[F] presentation times of the frames in order, in units of time_base_s, from the video's beginning."""
    packet_of: NDArray[np.int64]
    """[F] the packet of each frame, as its place in the file."""
    packet_pts: NDArray[np.int64]
    """[P] presentation times by place in the file."""
    origin: int
    """The video's beginning on the container's own clock: what `pts` is less than the packets' time stamps."""
    is_key: NDArray[np.bool_]
    """[P] by place in the file: whether decoding can begin with the packet."""
    time_base_s: float
    end_s: float
    """End of the last frame."""
    has_own_times: bool
    """Every packet's time stamp is its own, and less the origin its presentation time. Without, as where the clock
    jumps, frames are told apart by their order only."""
    has_closed_gops: bool
    """The first packet is a key frame, and none shows a frame from before the key frame it follows."""

    @property
    def times_s(self) -> NDArray[np.float64]:
        """[F] presentation times in seconds on the video's own clock."""
        return np.multiply(self.pts, self.time_base_s, dtype=np.float64)

    def frame_at(self, time_s: float) -> int:
        """The frame on screen at an instant: the last that begins at or before it; the first if none does."""
        tick = np.floor(time_s / self.time_base_s + 1e-6)
        return max(int(np.searchsorted(self.pts, tick, side="right")) - 1, 0)

    def packets_for(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[P] by place in the file: whether a packet must be decoded to see any of some frames.

        From the key frame before a frame's packet up to that packet; where the frame is shown before that key
        frame (an open group of pictures), from the key frame before. Gaps too short to be worth a jump are filled.
        """
        keys = np.flatnonzero(self.is_key)
        needed = np.zeros(len(self.packet_pts), dtype=np.bool_)
        for packet in np.unique(self.packet_of[frames]):
            group = int(np.searchsorted(keys, packet, side="right")) - 1
            if group >= 0 and self.packet_pts[packet] < self.packet_pts[keys[group]]:
                group -= 1
            needed[keys[group] if group >= 0 else 0 : packet + 1] = True
        for before, after in pairwise(np.flatnonzero(needed).tolist()):
            if after - before <= _SHORT_GAP:
                needed[before:after] = True
        return needed


_SHORT_GAP = 8
"""Packets; fewer are decoded rather than jumped over, which would empty the decoder's threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Orientation:
    """How a picture is turned and mirrored from coded to displayed: exchange of rows and columns, then flips."""

    is_turned: bool = False
    """Rows become columns."""
    flips_rows: bool = False
    flips_columns: bool = False

    @property
    def is_mirrored(self) -> bool:
        """Whether no rotation alone does the same."""
        return self.is_turned ^ self.flips_rows ^ self.flips_columns

    def upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, 3] as displayed."""
        shown = pixels.swapaxes(0, 1) if self.is_turned else pixels
        shown = shown[::-1] if self.flips_rows else shown
        return np.ascontiguousarray(shown[:, ::-1] if self.flips_columns else shown)


def _orientation(frame: VideoFrame) -> Orientation:
    """From the frame's display matrix: where its axes x (right) and y (down) point on the screen."""
    sides: Iterable[Any] = frame.side_data
    data = next((side for side in sides if side.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return Orientation()
    a, b, _, c, d, *_ = np.frombuffer(memoryview(data), dtype=np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(flips_rows=d < 0, flips_columns=a < 0)
    return Orientation(is_turned=True, flips_rows=b < 0, flips_columns=c < 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """What a video track holds, as its first frame and its packets say."""

    first_s: float
    """Time of the first frame that can be decoded, from the video's beginning."""
    end_s: float
    """End of the track that lasts longest."""
    clock: Clock
    width: int
    """Of the frames as coded, before rotation and scaling to square pixels."""
    height: int
    pixel_aspect: float
    """Width of a pixel over its height."""
    orientation: Orientation
    is_hdr: bool
    codec: str
    audio_codec: str | None
    container_format: str
    """FFmpeg's name for it, such as `mov,mp4,m4a,3gp,3g2,mj2`."""
    index: FrameIndex


def read_track(path: Path) -> Track:
    """Decode the first frame, then walk the packets. Raises MediaError when either is missing."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        frame = _first_frame(container, stream, path)
        audio = container.streams.best("audio")
        audio_codec = (
            audio.codec_context.codec.canonical_name if audio and audio.codec_context else None
        )
        ratio = stream.codec_context.sample_aspect_ratio
        codec = stream.codec_context.codec.canonical_name
        may_reorder, is_avi = stream.codec_context.has_b_frames, container.format.name == "avi"
        container_format = container.format.name
    with open_container(path) as container:
        index, clock, end_s = _read_index(container, video_stream(container, path), path)
    if may_reorder and (is_avi or bool(np.all(np.diff(index.packet_pts) > 0))):
        # AVI and careless MP4 writers give packets the times of decoding: the frames then come out in disorder
        index = replace(index, has_own_times=index.has_own_times and _come_in_order(path))
    return Track(
        first_s=float(index.times_s[0])
        if frame.pts is None or not index.has_own_times
        else (frame.pts - index.origin) * index.time_base_s,
        end_s=end_s,
        clock=clock,
        width=frame.width,
        height=frame.height,
        pixel_aspect=float(ratio) if ratio else 1.0,
        orientation=_orientation(frame),
        is_hdr=is_hdr(frame),
        codec=codec,
        audio_codec=audio_codec,
        container_format=container_format,
        index=index,
    )


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    """Decode until a picture comes. Raises MediaError when none does."""
    reason = "no packet gives one"
    try:
        for packet in packets(container, stream):
            try:
                frames = packet.decode()
            except DECODE_ERRORS as error:
                reason = one_line(error)
                continue
            for frame in frames:
                return frame
        for frame in stream.codec_context.decode(None):
            return frame
    except DECODE_ERRORS as error:
        reason = one_line(error)
    raise MediaError(
        f"{shown(path)}: no frame can be decoded ({reason}), expected at least one; "
        "the file may be cut short: copy or download it again"
    )


def _come_in_order(path: Path) -> bool:
    """Whether the times of the first frames rise as they are decoded."""
    with open_container(path) as container:
        frames = container.decode(video_stream(container, path))
        times: list[int] = []
        try:
            for frame in islice(frames, _NUM_TRIED):
                if frame.pts is None or (times and frame.pts <= times[-1]):
                    return False
                times.append(frame.pts)
        except DECODE_ERRORS as error:
            logger.info("%s: decoding ends early: %s", shown(path), one_line(error))
    return True


_NUM_TRIED = 48
"""Frames."""


def _read_index(
    container: InputContainer, stream: VideoStream, path: Path
) -> tuple[FrameIndex, Clock, float]:
    """Walk the packets without decoding them, as far as the file goes: the frames, the clock, and when all ends.

    Raises MediaError for more packets than MAX_PACKETS.
    """
    audio = container.streams.best("audio")
    reader = ClockReader(container.format.name)
    raw_pts: list[int] = []
    shifts: list[int] = []
    keys: list[bool] = []
    hidden: list[bool] = []
    has_own_times = True
    last_duration = 0
    time_base_s = ticks_s(1, stream.time_base)
    for packet in packets(container, *filter(None, [stream, audio])):
        if packet.stream_index != stream.index:
            reader.sound(packet)
            continue
        moment = packet.pts if packet.pts is not None else packet.dts
        has_own_times &= packet.pts is not None
        if moment is None:
            moment = raw_pts[-1] + (last_duration or 1) if raw_pts else 0
        shifts.append(round(reader.picture(packet, moment) / time_base_s))
        raw_pts.append(moment)
        keys.append(packet.is_keyframe)
        hidden.append(packet.is_discard)
        last_duration = min(packet.duration or last_duration, round(MAX_FRAME_S / time_base_s))
        if len(raw_pts) > MAX_PACKETS:
            raise MediaError(f"{shown(path)}: more than {MAX_PACKETS} pictures; cut it into parts")
    assert raw_pts, "a packet gave a frame"
    clock = reader.clock()
    origin = round(clock.origin_s / time_base_s)
    packet_pts, is_key = np.asarray(raw_pts, dtype=np.int64), np.asarray(keys, dtype=np.bool_)
    packet_pts += np.asarray(shifts, dtype=np.int64) - origin
    shown_packets = np.flatnonzero(~np.asarray(hidden, dtype=np.bool_))
    if not len(shown_packets):
        shown_packets = np.arange(len(raw_pts))
    packet_of = shown_packets[np.argsort(packet_pts[shown_packets], kind="stable")]
    pts = packet_pts[packet_of]
    mean_duration = int(pts[-1] - pts[0]) // max(len(pts) - 1, 1)
    since_key = np.maximum.accumulate(np.where(is_key, packet_pts, np.iinfo(np.int64).min))
    end_s = float(pts[-1] + (last_duration or mean_duration)) * time_base_s
    index = FrameIndex(
        pts=pts,
        packet_of=packet_of,
        packet_pts=packet_pts,
        is_key=is_key,
        origin=origin,
        time_base_s=time_base_s,
        end_s=end_s,
        has_own_times=has_own_times and not clock.jumps and bool(np.all(np.diff(pts) > 0)),
        has_closed_gops=bool(is_key[0]) and bool(np.all(packet_pts >= since_key)),
    )
    outlasts = clock.sound_end_s is not None and clock.sound_end_s > end_s + OUTLASTS_S
    return index, clock, clock.sound_end_s if outlasts and clock.sound_end_s else end_s


MAX_PACKETS = 20_000_000
"""Two days of 100 frames a second."""
MAX_FRAME_S = 3600.0
"""A last picture is shown no longer than this, whatever its packet says."""
OUTLASTS_S = 1.0
"""Sound that ends so much later than the pictures lengthens the video; less is an encoder's padding."""


def read_clock(path: Path) -> Clock:
    """The clock of a file with pictures or sound, from its packets. Raises MediaError when it cannot be opened."""
    with open_container(path) as container:
        best = [container.streams.best("video"), container.streams.best("audio")]
        reader = ClockReader(container.format.name)
        for packet in packets(container, *filter(None, best)):
            moment = packet.pts if packet.pts is not None else packet.dts
            if packet.stream.type == "audio":
                reader.sound(packet)
            elif moment is not None:
                reader.picture(packet, moment)
    return reader.clock()


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Any]]:
    """The packets of these tracks that hold anything, to where the file ends or breaks off."""
    try:
        for packet in container.demux(*streams):
            if packet.size > 0:  # an empty one would tell the decoder that the video ends
                yield packet
    except DECODE_ERRORS as error:
        logger.info("%s: packets end early: %s", container.name, one_line(error))
