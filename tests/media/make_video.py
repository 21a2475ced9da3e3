"""Makes tiny videos whose every frame says its own number, so that a test can tell which frame it was given."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 4, 4
"""The first row is a marker (white, black, black, black), the others hold 12 bits, highest first."""


def draw(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """A picture [H, W, 3] that says a number below 4096."""
    bits = [1, 0, 0, 0] + [(number >> bit) & 1 for bit in range(11, -1, -1)]
    blocks = np.asarray(bits, np.uint8).reshape(ROWS, COLUMNS)
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    gray = np.where(blocks[rows][:, columns] == 1, 225, 30).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def number_of(picture: NDArray[np.uint8]) -> int:
    """The number that a picture [H, W, 3] says; -1 when it is not upright."""
    height, width = picture.shape[:2]
    bits = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            top, left = (
                (2 * row + 1) * height // (2 * ROWS),
                (2 * column + 1) * width // (2 * COLUMNS),
            )
            bits.append(int(picture[top - 2 : top + 3, left - 2 : left + 3].mean() > 128))
    if bits[:COLUMNS] != [1, 0, 0, 0]:
        return -1
    return int("".join(map(str, bits[COLUMNS:])), 2)


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    num_frames: int = 50,
    rate: int = 25,
    times_ms: Sequence[int] | None = None,
    size: tuple[int, int] = (96, 64),
    pix_fmt: str | None = "yuv420p",
    gop: int = 12,
    num_audio: int = 0,
    audio_start_s: float = 0.0,
    audio_codec: str = "aac",
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a video; frame i says i. times_ms gives each frame's time, else they come at the rate from zero.

    Audio track k (from 0) is a tone of 440 * (k + 1) Hz as long as the video, from audio_start_s on.
    """
    width, height = size
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = width, height
        if pix_fmt:
            stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        time_base = Fraction(1, 1000) if times_ms is not None else Fraction(1, rate)
        stream.codec_context.time_base = time_base
        tracks = [
            container.add_stream(audio_codec, rate=48_000, layout="mono") for _ in range(num_audio)
        ]
        for track_number, track in enumerate(tracks):
            tone = 440 * (track_number + 1)
            seconds = np.arange(int(48_000 * num_frames / rate)) / 48_000
            sound = (0.5 * np.sin(2 * np.pi * tone * seconds)).astype(np.float32)
            step = track.codec_context.frame_size or 1024
            for first in range(0, len(sound), step):
                part = av.AudioFrame.from_ndarray(sound[None, first : first + step], "fltp", "mono")
                part.sample_rate = 48_000
                part.time_base = Fraction(1, 48_000)
                part.pts = first + round(audio_start_s * 48_000)
                container.mux(track.encode(part))
        for number in range(len(times_ms) if times_ms is not None else num_frames):
            frame = av.VideoFrame.from_ndarray(draw(number, width, height), "rgb24")
            frame.pts = times_ms[number] if times_ms is not None else number
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for track in tracks:
            container.mux(track.encode())
    return path


def turn(path: Path, degrees: int) -> Path:
    """Write a clockwise rotation into the display matrix of an MP4's first track."""
    return _shown(
        path, {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    )


def mirror(path: Path) -> Path:
    """Have an MP4's first track be shown with left and right exchanged."""
    return _shown(path, (-1, 0, 0, 1))


def _shown(path: Path, matrix_2x2: tuple[int, int, int, int]) -> Path:
    a, b, c, d = matrix_2x2
    one = 0x10000
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 0x40000000)
    content = bytearray(path.read_bytes())
    at = (
        content.index(b"tkhd") + 4 + 40
    )  # version 0: 40 bytes of flags, dates, ids and layers come first
    content[at : at + 36] = matrix
    path.write_bytes(content)
    return path


def make_sound(path: Path, *, seconds: float = 1.0) -> Path:
    """Write a file with a tone and no picture."""
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=48_000, layout="mono")
        at = np.arange(int(seconds * 48_000)) / 48_000
        sound = (0.5 * np.sin(2 * np.pi * 440 * at)).astype(np.float32)
        for first in range(0, len(sound), 1024):
            part = av.AudioFrame.from_ndarray(sound[None, first : first + 1024], "fltp", "mono")
            part.sample_rate, part.time_base, part.pts = 48_000, Fraction(1, 48_000), first
            container.mux(track.encode(part))
        container.mux(track.encode())
    return path
