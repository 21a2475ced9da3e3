"""Audio: a video's sound as 16 kHz mono, in chunks that end where it is quiet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from numpy.typing import NDArray

from mgv.media.clock import Clock
from mgv.media.container import DECODE_ERRORS, one_line, open_container, read_clock, shown, ticks_s

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
SEARCH_S = 10.0
"""A chunk ends at the quietest spot of its last so many seconds."""
QUIET_S = 0.2
"""How long a spot is."""
JITTER_S = 0.1
"""Time stamps may stray this far before a gap counts as one."""
CANCELLED = 0.05
"""A mean of two channels with less than this share of the louder one's energy: one is the other upside down."""
MAX_GAP_S = 3600.0
"""A longer gap is a broken time stamp: it is not filled."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AudioChunk:
    """A stretch of sound."""

    start_s: float
    """Time of the first sample, from the video's beginning."""
    samples: NDArray[np.float32]
    """[S] mono at 16 kHz, in [-1, 1]."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE_HZ


def read_audio(path: Path, *, chunk_s: float = 300.0) -> Iterator[AudioChunk]:
    """The sound of a video's default audio track, in chunks of at most chunk_s; none when it has no track.

    Chunks follow each other without a gap and are cut where it is quiet, so that no word is cut in two.
    Gaps in the sound are silence; packets that cannot be decoded are skipped, with a warning in the log.
    Holds about two chunks of memory. Raises MediaError when the file cannot be opened.
    """
    assert chunk_s > SEARCH_S / 5, chunk_s
    clock = read_clock(path)
    size = int(chunk_s * SAMPLE_RATE_HZ)
    with open_container(path) as container:
        start_s: float | None = None
        held: list[NDArray[np.float32]] = []
        num_held = 0
        for time_s, samples in _continuous(container, path, clock):
            start_s = time_s if start_s is None else start_s
            held.append(samples)
            num_held += samples.shape[1]
            while num_held >= size:
                joined = np.concatenate(held, axis=1)
                cut = quiet_cut(mixed(joined[:, :size]))
                yield AudioChunk(start_s=start_s, samples=mixed(joined[:, :cut]))
                start_s += cut / SAMPLE_RATE_HZ
                held, num_held = [joined[:, cut:].copy()], num_held - cut
                del joined
        if start_s is not None and num_held:
            yield AudioChunk(start_s=start_s, samples=mixed(np.concatenate(held, axis=1)))


def quiet_cut(samples: NDArray[np.float32]) -> int:
    """Where to cut [S] samples: amid the quietest QUIET_S of the last SEARCH_S; of several, the latest."""
    spot = int(QUIET_S * SAMPLE_RATE_HZ)
    tail = samples[-min(int(SEARCH_S * SAMPLE_RATE_HZ), len(samples) // 2) :].astype(np.float64)
    if len(tail) <= spot:
        return len(samples)
    sums = np.concatenate([[0.0], np.cumsum(tail * tail)])
    step = spot // 10
    energy = (sums[spot:] - sums[:-spot])[::step]
    quietest = len(energy) - 1 - int(np.argmin(energy[::-1]))
    return len(samples) - len(tail) + quietest * step + spot // 2


def _continuous(
    container: InputContainer, path: Path, clock: Clock
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """(time of the first sample in seconds, [2, S] samples), with gaps filled and overlaps dropped."""
    start_s: float | None = None
    num_given = 0  # samples at 16 kHz since start_s
    for time_s, samples in _decoded(container, path, clock):
        if start_s is None:
            start_s = time_s
        ahead_s = time_s - (start_s + num_given / SAMPLE_RATE_HZ)
        if abs(ahead_s) > MAX_GAP_S:
            logger.warning("%s: sound jumps by %.1f s; taken as continuous", shown(path), ahead_s)
            start_s += ahead_s
        elif ahead_s > JITTER_S:
            logger.info(
                "%s: %.2f s without sound at %.2f s", shown(path), ahead_s, time_s - ahead_s
            )
            missing = round(ahead_s * SAMPLE_RATE_HZ)
            while missing > 0:
                silence = np.zeros((2, min(missing, 60 * SAMPLE_RATE_HZ)), np.float32)
                yield start_s + num_given / SAMPLE_RATE_HZ, silence
                num_given += silence.shape[1]
                missing -= silence.shape[1]
        elif ahead_s < -JITTER_S:
            samples = samples[:, round(-ahead_s * SAMPLE_RATE_HZ) :]
        if samples.shape[1]:
            yield start_s + num_given / SAMPLE_RATE_HZ, samples
            num_given += samples.shape[1]


def _decoded(
    container: InputContainer, path: Path, clock: Clock
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """(time in seconds, [2, S] samples at 16 kHz) of each stretch as it is decoded."""
    stream = container.streams.best("audio")
    if stream is None or stream.codec_context is None:
        return
    resampler: AudioResampler | None = None
    kind: tuple[str, str, int] | None = None
    num_bad = 0
    next_s = 0.0
    for number, frames in enumerate(_packets(container, path)):
        shift_s = clock.sound_shift_s(number)
        if frames is None:
            num_bad += 1
            continue
        for frame in frames:
            now = (frame.format.name, frame.layout.name, frame.sample_rate)
            if resampler is None or now != kind:
                layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
                resampler, kind = (
                    AudioResampler(format="fltp", layout=layout, rate=SAMPLE_RATE_HZ),
                    now,
                )
            time_s = next_s if frame.pts is None else ticks_s(frame.pts, frame.time_base) + shift_s
            next_s = time_s + frame.samples / frame.sample_rate
            frame.pts = None
            for part in resampler.resample(frame):
                yield time_s, _samples(part)
    if resampler is not None:
        for part in resampler.resample(None):
            yield next_s, _samples(part)
    if num_bad:
        logger.warning("%s: skipped %d damaged packets of sound", shown(path), num_bad)


def _packets(container: InputContainer, path: Path) -> Iterator[list[AudioFrame] | None]:
    """The frames of each packet of the default audio track; None for a packet that cannot be decoded."""
    packets = container.demux(container.streams.best("audio"))
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except DECODE_ERRORS as error:
            logger.warning("%s: sound ends early: %s", shown(path), one_line(error))
            return
        try:
            yield [frame for frame in packet.decode() if isinstance(frame, AudioFrame)]
        except DECODE_ERRORS:
            yield None


def _samples(frame: AudioFrame) -> NDArray[np.float32]:
    """[2, S] of a planar frame; of a mono one both are the same."""
    return np.broadcast_to(frame.to_ndarray(), (2, frame.samples)).astype(np.float32)


def mixed(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """[2, S] -> [S]: the mean of the channels; where they cancel each other, the louder one alone."""
    mean = np.asarray(channels.mean(axis=0), dtype=np.float32)
    energies = np.square(channels, dtype=np.float32).mean(axis=1)
    loudest = int(np.argmax(energies))
    cancels = float(np.square(mean).mean()) < CANCELLED * float(energies[loudest])
    return channels[loudest].copy() if cancels else mean
