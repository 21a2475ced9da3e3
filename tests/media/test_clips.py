"""Clips: cut exactly, sound where it is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgv.errors import MediaError
from mgv.media.audio import read_audio
from mgv.media.clips import cut_clip
from mgv.media.frames import read_frames
from mgv.media.probe import probe
from tests.media.make_video import make_video, number_of


def test_sound_that_begins_within_a_clip_begins_there(tmp_path: Path):
    video = make_video(tmp_path / "a.mkv", num_frames=100, num_audio=1, audio_start_s=2.0)
    cut_clip(video, 1.0, 3.0, tmp_path / "clip.mp4")
    clip = probe(tmp_path / "clip.mp4", "")
    assert (clip.video_codec, clip.audio_codec) == ("h264", "aac")
    assert clip.duration_s == pytest.approx(2.0, abs=0.05)
    assert next(read_audio(tmp_path / "clip.mp4")).start_s == pytest.approx(1.0, abs=0.05)


def test_a_clip_begins_with_the_picture_on_screen_then(tmp_path: Path):
    video = make_video(tmp_path / "a.mp4", num_frames=100)  # 25 a second: 30 is on screen at 1.2 s
    cut_clip(video, 1.2, 2.0, tmp_path / "clip.mp4")
    (batch,) = read_frames(tmp_path / "clip.mp4", [0.0, 0.79], size_px=64)
    assert [number_of(frame) for frame in batch.frames] == [30, 49]


@pytest.mark.parametrize(("start_s", "end_s"), [(5.0, 6.0), (1.0, 1.0), (-1.0, 1.0)])
def test_a_stretch_outside_the_video_is_refused_and_nothing_is_left(
    tmp_path: Path, start_s: float, end_s: float
):
    video = make_video(tmp_path / "a.mp4", num_frames=50)
    with pytest.raises(MediaError, match=r"is no stretch of its 2\.0 s"):
        cut_clip(video, start_s, end_s, tmp_path / "clip.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
