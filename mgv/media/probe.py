"""Probe: a video file's facts, and whether it can be read at all."""

from __future__ import annotations

from pathlib import Path

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mgv.errors import MediaError
from mgv.media.container import (
    DECODE_ERRORS,
    check_file,
    one_line,
    open_container,
    packets,
    read_index,
    shown,
    ticks_s,
    video_stream,
)
from mgv.records import Video

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"}
    | {".mts", ".mxf", ".ogg", ".ogm", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"}
)
"""What a folder is searched for. A file named outright may have any suffix."""


def is_video_name(path: Path) -> bool:
    """Whether the name looks like a video's; hidden files (such as macOS's `._talk.mp4`) do not."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    """Decode until a picture comes. Raises MediaError when none does."""
    reason = "no packet gives one"
    for packet in packets(container, stream):
        try:
            found = packet.decode()
        except DECODE_ERRORS as error:
            reason = one_line(error)
            continue
        for frame in found:
            return frame
    for frame in stream.codec_context.decode(None):
        return frame
    raise MediaError(
        f"{shown(path)}: no frame can be decoded ({reason}), expected at least one; "
        "the file may be cut short: copy or download it again"
    )


def probe(path: Path, video_id: str) -> Video:
    """The facts of a video file; its first frame is decoded, so what probes well can be read.

    Duration and frame rate are counted from the packets that are really there, not from what the header
    promises, so half a file has half the duration. Raises MediaError with the reason.
    """
    size_bytes = check_file(path)
    with open_container(path) as container:
        stream = video_stream(container, path)
        frame = first_frame(container, stream, path)
        audio = container.streams.best("audio")
        turned = frame.rotation % 180 == 90
        width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
        start_s = ticks_s(frame.pts or 0, stream.time_base)
        video_codec = stream.codec_context.codec.canonical_name
        audio_codec = audio.codec_context.codec.canonical_name if audio is not None else None
    with open_container(path) as container:
        index = read_index(container, video_stream(container, path))
    if index is None:
        raise MediaError(f"{shown(path)}: no video packet, expected at least one; copy or download it again")
    duration_s = index.end_s - start_s
    if duration_s <= 0:
        duration_s = 1 / float(stream.guessed_rate or 25)
    num_frames = int((index.times_s >= start_s - 1e-6).sum())
    return Video(
        video_id=video_id,
        name=path.name,
        start_s=start_s,
        duration_s=duration_s,
        width=width,
        height=height,
        frame_rate=num_frames / duration_s,
        video_codec=video_codec,
        audio_codec=audio_codec,
        size_bytes=size_bytes,
    )
