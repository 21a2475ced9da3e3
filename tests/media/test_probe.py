"""What a file is found to be, and the reason given when it is no readable video."""

import os
import re
import socket
from fractions import Fraction
from pathlib import Path

import pytest

from mgv.errors import MediaError
from mgv.media.audio import read_audio
from mgv.media.frames import read_frames
from mgv.media.probe import is_video_name, probe
from tests.media.make_video import make_sound, make_video, turn


def reason(path: Path) -> str:
    """The one line that probe raises, without the path."""
    with pytest.raises(MediaError) as raised:
        probe(path, "id")
    message = str(raised.value)
    assert message.isprintable(), "one line, nothing that moves a cursor"
    return message.split(": ", 1)[1]


def test_facts_of_an_ordinary_video(tmp_path: Path):
    video = probe(make_video(tmp_path / "a.mp4", num_frames=50, num_audio=1), "id")
    assert (video.video_id, video.name, video.width, video.height) == ("id", "a.mp4", 96, 64)
    assert (video.start_s, video.duration_s, video.frame_rate) == pytest.approx((0, 2, 25))
    assert (video.video_codec, video.audio_codec) == ("h264", "aac")
    assert video.size_bytes == (tmp_path / "a.mp4").stat().st_size


def test_a_video_may_start_later_than_zero(tmp_path: Path):
    video = probe(make_video(tmp_path / "a.mkv", times_ms=[7000 + 40 * i for i in range(25)]), "id")
    assert (video.start_s, video.duration_s, video.audio_codec) == (7.0, pytest.approx(1.0), None)


def test_the_average_rate_of_a_variable_one(tmp_path: Path):
    video = probe(make_video(tmp_path / "a.mkv", times_ms=[0, 100, 200, 1900, 1960]), "id")
    assert video.duration_s == pytest.approx(2.0)
    assert video.frame_rate == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("degrees", "size"), [(0, (96, 64)), (90, (64, 96)), (180, (96, 64)), (270, (64, 96))]
)
def test_width_and_height_are_as_shown(tmp_path: Path, degrees: int, size: tuple[int, int]):
    video = probe(turn(make_video(tmp_path / "a.mp4", num_frames=5), degrees), "id")
    assert (video.width, video.height) == size


def test_width_is_in_pixels_even_if_they_are_not_square(tmp_path: Path):
    video = probe(make_video(tmp_path / "a.mp4", num_frames=5, pixel_aspect=Fraction(2)), "id")
    assert (video.width, video.height) == (96, 64)


def test_a_video_of_one_frame_has_a_duration(tmp_path: Path):
    assert probe(make_video(tmp_path / "a.mp4", num_frames=1), "id").duration_s == pytest.approx(
        0.04
    )


def test_half_a_file_has_the_duration_that_is_there(tmp_path: Path):
    whole = make_video(
        tmp_path / "a.mp4", num_frames=200, container_options={"movflags": "faststart"}
    )
    half = tmp_path / "half.mp4"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert 1.0 < probe(half, "id").duration_s < 7.0


def test_video_names():
    assert is_video_name(Path("a/talk.MP4"))
    assert is_video_name(Path("a.b.webm"))
    assert not is_video_name(Path("a/._talk.mp4"))
    assert not is_video_name(Path("talk.vtt"))
    assert not is_video_name(Path("mp4"))


def test_an_empty_file(tmp_path: Path):
    (tmp_path / "x.mp4").touch()
    assert reason(tmp_path / "x.mp4") == "the file is empty (0 bytes); copy or download it again"


def test_a_folder(tmp_path: Path):
    (tmp_path / "x.mp4").mkdir()
    assert reason(tmp_path / "x.mp4").startswith("a folder, expected a file")


def test_a_missing_file(tmp_path: Path):
    assert reason(tmp_path / "x.mp4").startswith("no such file")


def test_a_dangling_link(tmp_path: Path):
    (tmp_path / "x.mp4").symlink_to(tmp_path / "gone.mp4")
    assert "gone.mp4, which does not exist" in reason(tmp_path / "x.mp4")


def test_a_link_to_itself(tmp_path: Path):
    (tmp_path / "x.mp4").symlink_to(tmp_path / "x.mp4")
    assert reason(tmp_path / "x.mp4").startswith("cannot be read")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "x.mp4")
    assert "pipe" in reason(tmp_path / "x.mp4")
    assert "device" in reason(Path("/dev/zero"))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no such sockets on this system")
def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("x.mp4")
        assert "socket" in reason(tmp_path / "x.mp4")


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = make_video(tmp_path / "x.mp4", num_frames=2)
    monkeypatch.setattr(
        Path, "open", refuse
    )  # root may read everything, so chmod alone would not do
    assert reason(path).startswith("no permission to read it")


def test_text_renamed(tmp_path: Path):
    (tmp_path / "x.mp4").write_text("This is not a video.\n" * 100)
    assert reason(tmp_path / "x.mp4").startswith("not a readable video (Invalid data")


@pytest.mark.parametrize("name", ["x.txt", "x.m3u8", "x.mp4"])
def test_a_playlist_or_text_is_not_followed(tmp_path: Path, name: str):
    make_video(tmp_path / "secret.ts", num_frames=10)
    (tmp_path / name).write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n"
    )
    assert re.match(r"not a readable video|a playlist|text", reason(tmp_path / name))


def test_a_concat_script_is_not_followed(tmp_path: Path):
    make_video(tmp_path / "secret.mp4", num_frames=10)
    (tmp_path / "x.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    assert reason(tmp_path / "x.mp4").startswith("a playlist")


def test_a_picture(tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (64, 48)).save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", tmp_path / "x.mp4")
    assert reason(tmp_path / "x.mp4").startswith("a still picture")


def test_the_header_alone(tmp_path: Path):
    whole = make_video(tmp_path / "a.mp4", container_options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "x.mp4").write_bytes(whole[: whole.index(b"mdat") + 8])
    assert reason(tmp_path / "x.mp4").startswith(
        ("no frame can be decoded", "not a readable video")
    )
    (tmp_path / "x.mp4").write_bytes(whole[:40])
    assert reason(tmp_path / "x.mp4").startswith("not a readable video")


def test_a_missing_moov(tmp_path: Path):
    whole = make_video(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "x.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    assert reason(tmp_path / "x.mp4").startswith("not a readable video")


def test_frames_overwritten_with_zeros(tmp_path: Path):
    whole = bytearray(make_video(tmp_path / "a.mp4").read_bytes())
    start = whole.index(b"mdat") + 4
    whole[start : whole.index(b"moov") - 4] = bytes(whole.index(b"moov") - 4 - start)
    (tmp_path / "x.mp4").write_bytes(whole)
    assert reason(tmp_path / "x.mp4").startswith("no frame can be decoded")


def test_sound_alone(tmp_path: Path):
    path = make_sound(tmp_path / "x.mp4")
    assert reason(path) == "no video stream (streams: audio); is it an audio file?"


@pytest.mark.parametrize(
    "name", ["two\nlines.mp4", "quo\"te's.mp4", "ünï 日本.mp4", "http:x.mp4", "-i.mp4", "%d.mp4"]
)
def test_odd_names_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    make_video(tmp_path / "a.mp4", num_frames=5, num_audio=1).rename(path)
    assert probe(path, "id").name == name
    assert sum(len(batch.frames) for batch in read_frames(path, [0.0, 0.1], size_px=48)) == 2
    assert len(list(read_audio(path))) == 1


def test_a_name_is_shown_on_one_line(tmp_path: Path):
    with pytest.raises(MediaError) as raised:
        probe(tmp_path / "two\nlines\x1b[2J.mp4", "id")
    assert str(raised.value).isprintable()
    assert r"two\nlines\u001b[2J.mp4" in str(raised.value)
