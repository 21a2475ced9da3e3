"""Sound comes as 16 kHz mono on the video's clock, cut where it is quiet."""

import itertools
import logging
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mgv.errors import MediaError
from mgv.media import audio
from mgv.media.audio import AudioChunk, quiet_cut, read_audio
from mgv.media.container import read_clock
from tests.media.make_video import make_sound, make_video

FloatArray = NDArray[np.float32]


def joined(chunks: list[AudioChunk]) -> FloatArray:
    return np.concatenate([chunk.samples for chunk in chunks])


def pitch_hz(samples: FloatArray) -> float:
    """The strongest frequency."""
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * 16_000 / len(samples))


def write_sound(
    path: Path, parts: list[tuple[float, FloatArray]], codec: str = "pcm_s16le"
) -> Path:
    """Stretches of 16 kHz sound, each at its time in seconds."""
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=16_000, layout="mono")
        for start_s, samples in parts:
            for first in range(0, len(samples), 1600):
                block = (samples[None, first : first + 1600] * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(block, "s16", "mono")
                frame.sample_rate = 16_000
                frame.pts = round(start_s * 16_000) + first
                container.mux(track.encode(frame))
        container.mux(track.encode())
    return path


def tone(seconds: float) -> FloatArray:
    at = np.arange(round(seconds * 16_000)) / 16_000
    return (0.5 * np.sin(2 * np.pi * 440 * at)).astype(np.float32)


def test_sound_is_resampled_to_16_khz_mono(tmp_path: Path):
    chunks = list(read_audio(make_video(tmp_path / "a.mp4", num_audio=1)))
    assert len(chunks) == 1
    assert chunks[0].samples.dtype == np.float32
    assert chunks[0].samples.ndim == 1
    assert chunks[0].duration_s == pytest.approx(2.0, abs=0.05)
    assert pitch_hz(chunks[0].samples) == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(chunks[0].samples[1600:-1600] ** 2)) == pytest.approx(
        0.5 / np.sqrt(2), rel=0.05
    )


def test_of_several_tracks_the_first_is_heard(tmp_path: Path):
    path = make_video(tmp_path / "a.mkv", num_audio=2)
    assert pitch_hz(joined(list(read_audio(path)))) == pytest.approx(440, abs=2)


def test_without_a_track_there_are_no_chunks(tmp_path: Path):
    assert list(read_audio(make_video(tmp_path / "a.mp4", num_frames=5))) == []


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path):
    with pytest.raises(MediaError, match="no such file"):
        list(read_audio(tmp_path / "a.mp4"))


def test_sound_may_stand_alone(tmp_path: Path):
    assert joined(list(read_audio(make_sound(tmp_path / "a.m4a")))).size == pytest.approx(
        16_000, abs=800
    )


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_starts_late_keeps_its_time(tmp_path: Path, suffix: str):
    path = make_video(tmp_path / f"a.{suffix}", num_audio=1, audio_start_s=0.7)
    first = next(read_audio(path))
    assert first.start_s == pytest.approx(0.7, abs=0.05)


def test_sound_shares_the_clock_of_a_video_that_starts_at_7_s(tmp_path: Path):
    times_ms = [7000 + 40 * i for i in range(50)]
    path = make_video(tmp_path / "a.mkv", times_ms=times_ms, num_audio=1, audio_start_s=7.0)
    assert next(read_audio(path)).start_s == pytest.approx(0.0, abs=0.05)


def test_a_gap_in_the_sound_is_silence(tmp_path: Path):
    path = write_sound(tmp_path / "a.mkv", [(0.0, tone(1.0)), (3.0, tone(1.0))])
    samples = joined(list(read_audio(path)))
    assert len(samples) == pytest.approx(4 * 16_000, abs=160)
    assert not samples[17_000:47_000].any()
    assert pitch_hz(samples[48_200:63_000]) == pytest.approx(440, abs=2)


def test_an_absurd_gap_is_not_filled(tmp_path: Path):
    path = write_sound(tmp_path / "a.mkv", [(0.0, tone(1.0)), (90_000.0, tone(1.0))])
    samples = joined(list(read_audio(path)))
    assert len(samples) == pytest.approx(2 * 16_000, abs=160)
    (jump,) = read_clock(path).jumps
    assert (jump.at_s, jump.by_s) == pytest.approx((1.0, 89_999.0), abs=0.05)


def test_chunks_end_in_a_pause_and_follow_without_a_gap(tmp_path: Path):
    pause = np.zeros(8_000, np.float32)  # from 14.0 to 14.5 s, and from 28.5 to 29.0 s
    sound = np.concatenate([tone(14), pause, tone(14), pause, tone(10)])
    chunks = list(read_audio(write_sound(tmp_path / "a.mkv", [(2.0, sound)]), chunk_s=20.0))
    starts_s = [chunk.start_s for chunk in chunks]
    assert starts_s[0] == pytest.approx(0, abs=1e-3)
    assert 14.0 < starts_s[1] < 14.5
    assert 28.5 < starts_s[2] < 29.0
    assert len(chunks) == 3
    assert all(chunk.duration_s <= 20 for chunk in chunks)
    for before, after in itertools.pairwise(chunks):
        assert after.start_s == pytest.approx(before.start_s + before.duration_s, abs=1e-6)
    assert np.abs(joined(chunks) - sound).max() < 1e-3, "nothing lost, nothing twice"


def test_the_quietest_spot_by_hand():
    samples = np.ones(20 * 16_000, np.float32)
    samples[12 * 16_000 : 12 * 16_000 + 3200] = 0.1  # 0.2 s, the only quiet ones of the last 10 s
    assert quiet_cut(samples) == pytest.approx(12 * 16_000 + 1600, abs=320)
    samples[2 * 16_000 : 3 * 16_000] = 0  # quieter, but too early
    assert quiet_cut(samples) == pytest.approx(12 * 16_000 + 1600, abs=320)


def test_silence_is_cut_at_the_end():
    assert quiet_cut(np.zeros(20 * 16_000, np.float32)) > 19.5 * 16_000


def test_damaged_packets_are_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = make_sound(tmp_path / "a.mp4", seconds=4.0)
    content = bytearray(path.read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    middle = (start + end) // 2
    content[middle : middle + 300] = b"\xff" * 300
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        samples = joined(list(read_audio(path)))
    assert len(samples) == pytest.approx(4 * 16_000, rel=0.1), (
        "the hole is silence, what follows keeps its time"
    )
    assert "damaged packets" in caplog.text


def test_half_a_file_is_heard_as_far_as_it_goes(tmp_path: Path):
    whole = make_video(tmp_path / "a.mkv", num_frames=100, num_audio=1)
    half = tmp_path / "half.mkv"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    assert 0.5 < joined(list(read_audio(half))).size / 16_000 < 4.0


def test_memory_is_bounded_by_the_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_sound(tmp_path / "a.mkv", [(0.0, tone(60.0))])
    sizes: list[int] = []
    real = audio.quiet_cut
    monkeypatch.setattr(
        audio, "quiet_cut", lambda samples: sizes.append(len(samples)) or real(samples)
    )
    list(read_audio(path, chunk_s=5.0))
    assert max(sizes) == 5 * 16_000


@pytest.mark.parametrize("other", [-1.0, 1.0, 0.0])
def test_channels_that_cancel_each_other_are_still_heard(tmp_path: Path, other: float):
    path = tmp_path / "a.wav"
    sound = tone(2.0)
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 16_000, len(sound), "NONE", ""))
        file.writeframes((np.stack([sound, other * sound], axis=1) * 32767).astype("<i2").tobytes())
    samples = joined(list(read_audio(path)))
    assert pitch_hz(samples) == pytest.approx(440, abs=2)
    # upside down: the louder channel; silent: half of the one there is
    level = np.abs(sound).max() * (1.0 if other else 0.5)
    assert np.abs(samples).max() == pytest.approx(level, rel=0.02)
