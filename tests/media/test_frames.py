"""The frames given are those on screen at the wanted instants, whichever reader gives them."""

import logging
import math
import sys
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mgv.errors import MediaError
from mgv.media import frames as frames_module
from mgv.media.container import read_track
from mgv.media.frames import FrameBatch, Reader, frame_times, interval_times, read_frames
from mgv.media.hdr import HLG, PQ, hlg_light, pq_light, tone_mapped
from mgv.media.probe import is_video_name, probe
from tests.media.make_video import make_video, mirror, number_of, turn

READERS: list[Reader] = ["auto", "pyav"]
QUIET_X265 = {"x265-params": "log-level=none"}
VFR_MS = [0, 40, 80, 500, 540, 1500, 1530, 1600, 3000, 3040, 3100]
FROM_7_MS = [7000 + 40 * i for i in range(50)]
FILES: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264_many_b.mp4": {"options": {"bf": "3", "x264-params": "b-pyramid=normal"}},
    "h264_open_gop.mp4": {"options": {"x264-params": "open-gop=1:bframes=3:keyint=12"}},
    "h264.ts": {},
    "h264.avi": {},
    "h264.flv": {},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h265_open_gop.mp4": {"codec": "libx265", "options": QUIET_X265},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg4_b.mkv": {"codec": "mpeg4", "options": {"bf": "2"}},
    "msmpeg4v3.avi": {"codec": "msmpeg4v3"},
    "wmv2.asf": {"codec": "wmv2"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "cinepak.avi": {"codec": "cinepak", "pix_fmt": "rgb24"},
    "vp8.webm": {
        "codec": "libvpx",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"},
    },
    "vp9.webm": {
        "codec": "libvpx-vp9",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    },
    "mpeg2.vob": {"codec": "mpeg2video"},
    "variable_rate.mp4": {"times_ms": VFR_MS},
    "variable_rate.mkv": {"times_ms": VFR_MS},
    "from_7_s.mkv": {"times_ms": FROM_7_MS},
    "from_7_s.mp4": {"times_ms": FROM_7_MS, "num_audio": 1},
    "from_7_s.ts": {"times_ms": FROM_7_MS},
    "odd_size.mp4": {"size": (97, 65), "pix_fmt": "yuv444p"},
    "ten_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "interlaced.mp4": {"options": {"flags": "+ildct+ilme"}},
    "interlaced.ts": {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}},
    "two_audio.mkv": {"num_audio": 2},
    "one_frame.mp4": {"num_frames": 1},
}


@pytest.fixture(autouse=True)
def _decord_seeks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask decord for one batch at a time, so that small videos make it seek as large ones do."""
    monkeypatch.setattr(frames_module, "_DECORD_BYTES", 0)


def numbers(batches: Sequence[FrameBatch]) -> list[int]:
    """The numbers that the frames say."""
    return [number_of(frame) for batch in batches for frame in batch.frames]


def test_frame_times_are_the_middles_of_equal_parts():
    assert frame_times(0.0, 8.0, 4) == [1.0, 3.0, 5.0, 7.0]
    assert frame_times(7.0, 8.0, 1) == [7.5]


def test_interval_times_are_the_middles_of_intervals():
    assert interval_times(7.0, 10.0, 1.0) == [7.5, 8.5, 9.5]
    assert interval_times(0.0, 0.3, 0.1) == pytest.approx([0.05, 0.15, 0.25])


def test_a_rest_of_half_an_interval_counts_as_one():
    assert interval_times(0.0, 2.4, 1.0) == [0.5, 1.5]
    assert interval_times(0.0, 2.5, 1.0) == [0.5, 1.5, 2.25]


def test_interval_times_give_at_least_one():
    assert interval_times(5.0, 5.2, 1.0) == pytest.approx([5.1])
    assert interval_times(5.0, 5.0, 1.0) == [5.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.mark.parametrize("name", FILES)
def test_every_reader_gives_the_frame_on_screen(folder: Path, name: str):
    path = make_video(folder / name, **FILES[name])
    drawn_ms = FILES[name].get("times_ms") or [
        40 * i for i in range(FILES[name].get("num_frames", 50))
    ]
    first_s = read_track(path).first_s  # a container may lose a tenth of a second there
    begins_s = [first_s + (drawn - drawn_ms[0]) / 1000 for drawn in drawn_ms]
    since_s = [first_s + (begins_s[-1] - first_s) * k / 97 + 0.0043 for k in range(98)]
    expected = [bisect_right(begins_s, since + 1e-4) - 1 for since in since_s]
    for reader in READERS:
        batches = list(read_frames(path, since_s, size_px=64, reader=reader, batch_size=9))
        assert numbers(batches) == expected, reader
        given_s = [time_s for batch in batches for time_s in batch.times_s]
        assert given_s == pytest.approx([begins_s[i] for i in expected], abs=1.5e-3), reader
        assert max(len(batch.frames) for batch in batches) <= 9


@pytest.mark.skipif(
    "decord" not in sys.modules and sys.platform == "darwin", reason="decord has no wheel here"
)
@pytest.mark.parametrize(
    "name", ["h264.mp4", "vp9.webm", "mpeg4.avi", "from_7_s.mkv", "variable_rate.mp4"]
)
def test_decord_itself_reads_the_common_ones(folder: Path, name: str):
    pytest.importorskip("decord")
    path = make_video(folder / f"decord_{name}", **FILES[name])
    assert next(read_frames(path, [0.0], size_px=64, reader="decord")).frames.shape == (
        1,
        64,
        96,
        3,
    )


@pytest.mark.parametrize(
    "name",
    ["h264_open_gop.mp4", "h265_open_gop.mp4", "mpeg4_b.mkv", "h264.avi", "h264.ts", "wmv2.asf"],
)
def test_decord_is_refused_where_it_gives_wrong_frames(folder: Path, name: str):
    pytest.importorskip("decord")
    path = make_video(folder / f"refused_{name}", **FILES[name])
    with pytest.raises(MediaError, match=r"decord cannot read it .* use reader auto or pyav"):
        list(read_frames(path, [0.0], size_px=64, reader="decord"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_sparse_times_are_right_too(folder: Path, codec: str, reader: Reader):
    options = QUIET_X265 if codec == "libx265" else {"bf": "3"}
    path = make_video(
        folder / f"{codec}_{reader}.mp4", codec=codec, num_frames=600, gop=30, options=options
    )
    for step_s in (0.7, 1.3, 5.0, 23.0):
        times_s = interval_times(0.0, 24.0, step_s)
        batches = list(read_frames(path, times_s, size_px=64, reader=reader, batch_size=4))
        assert numbers(batches) == [int(time_s * 25 + 1e-6) for time_s in times_s]


def test_sparse_times_decode_only_what_they_need(folder: Path):
    path = make_video(folder / "sparse.mp4", num_frames=600, gop=30)
    index = read_track(path).index
    key = int(np.flatnonzero(index.is_key)[7])
    frame = int(np.flatnonzero(index.packet_of == key)[0])
    assert np.flatnonzero(index.packets_for(np.asarray([frame]))).tolist() == [key], (
        "a key frame needs itself"
    )
    assert np.flatnonzero(index.packets_for(np.asarray([frame + 2])))[0] == key, (
        "others from their key frame on"
    )


@pytest.mark.parametrize("reader", READERS)
def test_times_outside_the_video_give_its_ends(folder: Path, reader: Reader):
    path = make_video(folder / f"ends_{reader}.mkv", times_ms=FROM_7_MS)
    times_s = [
        0.0,
        0.01,
        1.99,
        2.5,
        1000.0,
    ]  # from the beginning, though the container's clock begins at 7 s
    batches = list(read_frames(path, times_s, size_px=64, reader=reader))
    assert numbers(batches) == [0, 0, 49, 49, 49]


@pytest.mark.parametrize("reader", READERS)
def test_several_times_may_fall_on_one_frame(folder: Path, reader: Reader):
    path = make_video(folder / f"same_{reader}.mp4")
    assert numbers(list(read_frames(path, [0.4, 0.41, 0.42, 0.44], size_px=64, reader=reader))) == [
        10,
        10,
        10,
        11,
    ]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_frames_are_upright(folder: Path, reader: Reader, degrees: int):
    path = turn(make_video(folder / f"turned_{degrees}_{reader}.mp4", num_frames=20), degrees)
    frame = next(read_frames(path, [0.2], size_px=64, reader=reader)).frames[0]
    assert frame.shape == ((64, 96, 3) if degrees == 180 else (96, 64, 3))
    as_coded = np.rot90(frame, degrees // 90)  # counter-clockwise: undoes the clockwise turn
    assert number_of(as_coded) == 5


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("size", "pixel_aspect", "shape"),
    [((96, 64), None, (50, 75)), ((64, 96), None, (75, 50)), ((96, 64), Fraction(4, 3), (50, 100))],
)
def test_the_short_side_has_the_size_and_the_aspect_is_as_displayed(
    folder: Path,
    reader: Reader,
    size: tuple[int, int],
    pixel_aspect: Fraction | None,
    shape: tuple[int, int],
):
    path = make_video(
        folder / f"{reader}_{shape}.mp4", num_frames=3, size=size, pixel_aspect=pixel_aspect
    )
    assert next(read_frames(path, [0.0], size_px=50, reader=reader)).frames.shape == (1, *shape, 3)


def test_both_readers_give_nearly_the_same_pixels(folder: Path):
    pytest.importorskip("decord")
    path = make_video(folder / "pixels.mp4", size=(320, 240))
    first, second = (
        next(read_frames(path, [1.0], size_px=96, reader=r)).frames for r in ("decord", "pyav")
    )
    assert np.abs(first.astype(int) - second.astype(int)).mean() < 2


def test_no_times_no_frames(folder: Path):
    assert list(read_frames(folder / "not there.mp4", [], size_px=64)) == []


def test_a_missing_file_is_an_error(folder: Path):
    with pytest.raises(MediaError, match="no such file"):
        list(read_frames(folder / "not there.mp4", [0.0], size_px=64))


@pytest.mark.parametrize("reader", READERS)
def test_half_a_file_gives_the_frames_that_are_there(
    folder: Path, reader: Reader, caplog: pytest.LogCaptureFixture
):
    whole = make_video(
        folder / "whole.mp4", num_frames=200, container_options={"movflags": "faststart"}
    )
    half = folder / f"half_{reader}.mp4"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    times_s = interval_times(0.0, probe(half, "id").duration_s, 0.2)
    got = numbers(list(read_frames(half, times_s, size_px=64, reader=reader)))
    expected = [int(time_s * 25 + 1e-6) for time_s in times_s]
    assert got[:-2] == expected[: len(got)][:-2], (
        "near the cut a frame may be lost; the one before stands for it"
    )
    assert len(got) >= len(times_s) - 2


def test_frames_past_the_damage_are_missing_and_said_to_be(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    whole = bytearray(make_video(folder / "whole2.mp4", num_frames=200, gop=500).read_bytes())
    start, end = whole.index(b"mdat") + 4, whole.index(b"moov") - 4
    middle = start + (end - start) // 2
    whole[middle:end] = bytes(end - middle)
    damaged = folder / "damaged.mp4"
    damaged.write_bytes(whole)
    with caplog.at_level(logging.WARNING):
        got = numbers(
            list(read_frames(damaged, interval_times(0.0, 8.0, 0.2), size_px=64, reader="pyav"))
        )
    expected = [int(time_s * 25 + 1e-6) for time_s in interval_times(0.0, 8.0, 0.2)]
    assert 10 < len(got) < 40
    assert got[:10] == expected[:10]
    assert "are missing" in caplog.text


def test_when_decord_fails_midway_nothing_is_given_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    decord = pytest.importorskip("decord")
    path = make_video(folder / "midway.mp4", num_frames=200)
    real, calls = decord.VideoReader.get_batch, []

    def failing(video: Any, indices: Any) -> Any:
        calls.append(indices)
        if len(calls) == 3:
            raise decord.DECORDError("av_read_frame failed")
        return real(video, indices)

    monkeypatch.setattr(decord.VideoReader, "get_batch", failing)
    times_s = interval_times(0.0, 8.0, 0.2)
    got = numbers(list(read_frames(path, times_s, size_px=64, batch_size=8)))
    assert len(calls) == 3
    assert got == [int(time_s * 25 + 1e-6) for time_s in times_s]


def test_pyav_is_used_where_decord_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    path = make_video(folder / "no_decord.mp4")
    monkeypatch.setitem(sys.modules, "decord", None)
    assert numbers(list(read_frames(path, [1.0], size_px=64))) == [25]
    with pytest.raises(MediaError, match=r"decord cannot read it .*not installed"):
        list(read_frames(path, [1.0], size_px=64, reader="decord"))


@pytest.mark.parametrize("reader", READERS)
def test_the_file_is_let_go_when_the_caller_stops(folder: Path, reader: Reader):
    path = make_video(folder / f"closed_{reader}.mp4", num_frames=100)
    batches = read_frames(
        path, interval_times(0.0, 4.0, 0.1), size_px=64, reader=reader, batch_size=4
    )
    next(batches)
    batches.close()
    open_files = [
        str(link.readlink()) for link in Path("/proc/self/fd").glob("*") if link.is_symlink()
    ]
    assert str(path) not in open_files


@pytest.mark.parametrize("reader", READERS)
def test_a_mirrored_picture_is_shown_mirrored(folder: Path, reader: Reader):
    plain = make_video(folder / f"plain_{reader}.mp4", num_frames=3)
    mirrored = mirror(make_video(folder / f"mirrored_{reader}.mp4", num_frames=3))
    if reader == "decord":
        with pytest.raises(MediaError, match="mirrored"):
            list(read_frames(mirrored, [0.0], size_px=64, reader=reader))
        return
    (as_is,), (other,) = (
        list(read_frames(path, [0.0], size_px=64, reader=reader)) for path in (plain, mirrored)
    )
    np.testing.assert_array_equal(other.frames, as_is.frames[:, :, ::-1])


def test_light_is_what_the_standards_tables_say():
    # BT.2100: HLG's 0.5 is 1/12 of the scene's peak, 1.0 its peak; grey, so luminance is the value itself
    grey = np.array([[0.5] * 3, [1.0] * 3], dtype=np.float32)
    np.testing.assert_allclose(hlg_light(grey)[:, 0], [1000 * (1 / 12) ** 1.2, 1000], rtol=1e-3)
    # SMPTE ST 2084: 0.508 is 100 cd/m2, 0.58 about 203, 1.0 is 10,000
    np.testing.assert_allclose(
        pq_light(np.array([0.5081, 0.5807, 1.0], dtype=np.float32)), [100, 203, 10_000], rtol=0.01
    )


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_ordinary_white_and_grey_come_out_of_hdr_as_they_went_in(transfer: int):
    for value in (64, 128, 200):
        light = 203 * (value / 255) ** 2.2  # on an ordinary screen
        signal = hlg_signal(light) if transfer == HLG else pq_signal(light)
        frame = av.VideoFrame.from_ndarray(
            np.full((64, 64, 3), round(signal * 65535), dtype=np.uint16), "rgb48le"
        )
        frame.color_trc = transfer
        shown = tone_mapped(frame, 32, 32)
        assert abs(float(shown.mean()) - value) < 8, (transfer, value)


def hlg_signal(light: float) -> float:
    """BT.2100's inverse, for grey."""
    scene = (light / 1000) ** (1 / 1.2)
    return (
        math.sqrt(3 * scene)
        if scene <= 1 / 12
        else 0.17883277 * math.log(12 * scene - 0.28466892) + 0.55991073
    )


def pq_signal(light: float) -> float:
    power = (light / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def test_an_animation_is_a_video(tmp_path: Path):
    path = tmp_path / "a.gif"
    pictures = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue")]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=1000)
    assert is_video_name(path)
    assert probe(path, "id").duration_s == pytest.approx(2.0, abs=0.1)
    (batch,) = read_frames(path, [0.5, 1.5], size_px=24)
    assert [frame[0, 0].argmax() for frame in batch.frames] == [0, 2]
