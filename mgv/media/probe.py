"""Probe: a video file's facts, and whether it can be read at all."""

from __future__ import annotations

import logging
from pathlib import Path

from mgv.media.container import check_file, open_container, read_track, shown
from mgv.records import Video

logger = logging.getLogger(__name__)

LEAST_BYTES_S = 500
"""No video is smaller than this a second; a header that says so has a wrong clock."""
VIDEO_SUFFIXES = frozenset(
    {
        ".3gp",
        ".asf",
        ".avi",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
    }
    | {".mts", ".mxf", ".ogg", ".ogm", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"}
)
"""What a folder is searched for. A file named outright may have any suffix."""


def is_video_name(path: Path) -> bool:
    """Whether the name looks like a video's; hidden files (such as macOS's `._talk.mp4`) do not."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def probe(path: Path, video_id: str) -> Video:
    """The facts of a video file; its first frame is decoded, so what probes well can be read.

    Duration and frame rate are counted from the packets that are really there, not from what the header
    promises, so half a file has half the duration. Raises MediaError with the reason.
    """
    size_bytes = check_file(path)
    track = read_track(path)
    num_frames = max(int((track.index.times_s >= track.first_s - 1e-6).sum()), 1)
    shown_s = track.index.end_s - track.first_s
    duration_s = track.end_s
    for jump in track.clock.jumps:
        logger.warning(
            "%s: its clock jumps by %.1f s at %.1f s; what follows is taken to follow at once",
            shown(path), jump.by_s, jump.at_s,
        )  # fmt: skip
    if duration_s <= 0:  # one frame that does not say how long it lasts
        duration_s = shown_s = num_frames / 25
    is_turned = track.orientation.is_turned
    return Video(
        video_id=video_id,
        name=path.name,
        start_s=track.clock.origin_s,
        duration_s=duration_s,
        width=track.height if is_turned else track.width,
        height=track.width if is_turned else track.height,
        frame_rate=num_frames / shown_s if shown_s > 0 else num_frames / duration_s,
        video_codec=track.codec,
        audio_codec=track.audio_codec,
        size_bytes=size_bytes,
    )


def header_seconds(path: Path) -> float:
    """How long a file's header says that it lasts, and its size allows; 0 where it cannot be read or does not say."""
    try:
        with open_container(path) as container:
            says_s = max((container.duration or 0) / 1e6, 0.0)
        return min(says_s, path.stat().st_size / LEAST_BYTES_S)
    except Exception:  # only an estimate: whatever is wrong with the file is found when it is read
        return 0.0
