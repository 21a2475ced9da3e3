"""Clips: a stretch of a video as an MP4 file that every browser plays (H.264, AAC)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from mgv.errors import MediaError
from mgv.media.container import DECODE_ERRORS, one_line, open_container, packets, read_clock, shown
from mgv.media.frames import read_frames
from mgv.media.probe import probe

MAX_CLIP_S = 600.0
MAX_RATE = 30.0
SIZE_PX = 720
"""Short side at most."""
SOUND_RATE_HZ = 48_000


def cut_clip(video: Path, start_s: float, end_s: float, target: Path) -> None:
    """Write [start_s, end_s] of a video, cut exactly, upright and in ordinary colours; at most MAX_CLIP_S.

    Raises MediaError when the video cannot be read, or the stretch lies outside it.
    """
    facts = probe(video, "")
    end_s = min(end_s, facts.duration_s, start_s + MAX_CLIP_S)
    if not 0 <= start_s < end_s:
        raise MediaError(
            f"{shown(video)}: {start_s:g} to {end_s:g} s is no stretch of its {facts.duration_s:.1f} s"
        )
    rate = Fraction(min(facts.frame_rate, MAX_RATE)).limit_denominator(1001)
    making = target.with_name(f".{target.name}.making.mp4")
    try:
        with av.open(str(making), "w", options={"movflags": "+faststart"}) as container:
            pictures = container.add_stream(
                "libx264", rate=rate, options={"preset": "veryfast", "crf": "23"}
            )
            has_sound = facts.audio_codec is not None
            sound = (
                container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo")
                if has_sound
                else None
            )
            _write_pictures(container, pictures, video, start_s, end_s)
            if sound is not None:
                _write_sound(container, sound, video, start_s, end_s)
        making.replace(target)
    except DECODE_ERRORS as error:
        raise MediaError(f"{shown(video)}: no clip can be cut: {one_line(error)}") from error
    finally:
        making.unlink(missing_ok=True)


def _write_pictures(
    container: OutputContainer, stream: VideoStream, video: Path, start_s: float, end_s: float
) -> None:
    assert stream.average_rate is not None, "it was made with one"
    step_s = float(1 / stream.average_rate)
    times_s = [
        start_s + step_s * (frame + 0.5)
        for frame in range(max(round((end_s - start_s) / step_s), 1))
    ]
    stream.pix_fmt = "yuv420p"
    is_begun = False
    for batch in read_frames(video, times_s, size_px=SIZE_PX, batch_size=16):
        for pixels in batch.frames:
            even = pixels[: pixels.shape[0] // 2 * 2 or None, : pixels.shape[1] // 2 * 2 or None]
            if not is_begun:
                stream.height, stream.width, is_begun = even.shape[0], even.shape[1], True
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), "rgb24"))
            )
    container.mux(stream.encode())


def _write_sound(
    container: OutputContainer, stream: AudioStream, video: Path, start_s: float, end_s: float
) -> None:
    for frame in _sound(video, start_s, end_s):
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _sound(video: Path, start_s: float, end_s: float) -> Iterator[AudioFrame]:
    """The default sound track of a stretch, at 48 kHz, with times from the stretch's beginning."""
    zero_s = read_clock(video).origin_s + start_s
    resampler = AudioResampler(format="fltp", layout="stereo", rate=SOUND_RATE_HZ, frame_size=1024)
    with open_container(video) as container:
        stream = container.streams.best("audio")
        if stream is None:
            return
        container.seek(max(int(zero_s * av.time_base), 0))
        for frame in _frames(container, stream):
            if frame.time is None or frame.time + frame.samples / frame.sample_rate <= zero_s:
                continue
            if frame.time >= zero_s + end_s - start_s:
                break
            yield from _timed(resampler.resample(frame), zero_s)
        yield from _timed(resampler.resample(None), zero_s)


def _frames(container: InputContainer, stream: Stream) -> Iterator[AudioFrame]:
    for packet in packets(container, stream):
        for frame in packet.decode():
            if isinstance(frame, AudioFrame):
                yield frame


def _timed(frames: Iterable[AudioFrame], zero_s: float) -> Iterator[AudioFrame]:
    """Frames with their times less zero_s; what was heard before is left out."""
    for frame in frames:
        assert frame.pts is not None, "the resampler keeps times"
        frame.pts -= round(zero_s * SOUND_RATE_HZ)
        if frame.pts >= 0:
            yield frame
