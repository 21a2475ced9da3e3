"""Words: old encodings, many formats, tracks inside a file, and the video's own clock."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from mgv.errors import MediaError
from mgv.media.encoding import decode_text
from mgv.media.frames import read_frames
from mgv.media.probe import probe
from mgv.media.subtitles import read_subtitle_file
from mgv.media.words import read_words
from tests.media.make_video import make_video

SENTENCES = {
    "cp1251": "Капитан порта закрыл северные ворота из-за шторма.",
    "koi8_r": "Капитан порта закрыл северные ворота из-за шторма.",
    "cp1253": "Το λιμάνι έκλεισε τη βόρεια πύλη λόγω της καταιγίδας.",
    "cp1255": "מנהל הנמל סגר את השער הצפוני בגלל הסערה.",
    "cp1256": "أغلق مدير الميناء البوابة الشمالية بسبب العاصفة.",
    "cp1250": "Kapitán přístavu zavřel severní bránu kvůli bouři.",
    "cp1252": "Der Hafenmeister schloss das Nordtor für längere Zeit.",
    "cp874": "นายท่าปิดประตูทิศเหนือเพราะพายุ",
    "shift_jis": "港長は嵐のため北門を閉鎖した。",
    "euc_kr": "항만장은 폭풍 때문에 북문을 닫았다.",
    "gbk": "港务长因为暴风雨关闭了北门。",
    "big5": "港務長因暴風雨關閉了北門。",
}
EVERYWHERE = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
SRT = "1\r\n00:00:01,000 --> 00:00:01,800\r\n{}\r\n\r\n"


@pytest.mark.parametrize("encoding", SENTENCES)
def test_old_encodings_are_told_apart(encoding: str):
    sentence = SENTENCES[encoding]
    for each in (encoding, *EVERYWHERE):
        assert sentence in decode_text(SRT.format(sentence).encode(each)).text, each


def test_a_guess_between_two_readings_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "a.srt"
    path.write_bytes(SRT.format("über das Café").encode("cp1252"))
    assert [cue.text for cue in read_subtitle_file(path).cues] == ["über das Café"]
    assert "a.srt: read as Windows-1252, but" in caplog.text


FORMATS = {
    "ass": "[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, "
    "MarginV, Effect, Text\nDialogue: 0,0:00:01.00,0:00:01.80,Default,,0,0,0,,{\\i1}The ferry{\\i0}\\Nleaves.\n"
    "Comment: 0,0:00:01.00,0:00:01.80,Default,,0,0,0,,not said\n",
    "microdvd": "{25}{45}The ferry|leaves.\n",
    "sbv": "0:00:01.000,0:00:01.800\nThe ferry\nleaves.\n",
    "vtt": "WEBVTT\n\n00:01.000 --> 00:01.800\n<v Bob>The ferry\nleaves.\n",
    "srt": "1\n00:00:01,000 --> 00:00:01,800\nThe ferry\n\nleaves.\n",
    "sami": "<SAMI><BODY><SYNC Start=1000><P Class=EN>The ferry<br>leaves.\n<SYNC Start=1800><P Class=EN>&nbsp;\n"
    "</BODY></SAMI>",
    "ttml": '<tt xmlns="http://www.w3.org/ns/ttml"><body><div><p begin="00:00:01.000" end="00:00:01.800">The ferry<br/>'
    "leaves.</p></div></body></tt>",
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_is_known_by_its_content_whatever_the_file_is_called(tmp_path: Path, form: str):
    path = tmp_path / "a.srt"
    path.write_text(FORMATS[form])
    subtitles = read_subtitle_file(path, frame_rate=25)
    assert subtitles.format == form
    (cue,) = subtitles.cues
    assert (cue.start_s, cue.end_s, cue.text) == (1.0, 1.8, "The ferry leaves.")


TIMES = {
    "00:00:01.000 --> 00:00:02.500": (1, 2.5),
    "00:03,000 --> 00:04,500": (3, 4.5),
    "0:0:5,5 --> 0:0:6,75": (5.5, 6.75),
    "00:00:07:500 --> 00:00:08:900": (7.5, 8.9),
    "00:00:09,000 -> 00:00:10,500": (9, 10.5),
    "00:00:11,000 --> 00:00:12,500  X1:100 X2:200 Y1:1 Y2:2": (11, 12.5),
    "-00:00:01,000 --> 00:00:13,500": (0, 13.5),
    "00:00:16 --> 00:00:18": (16, 18),
    "00:00:19,000-->00:00:20,500": (19, 20.5),
    "00:00:21，000 --> 00:00:22，500": (21, 22.5),
    "00:00:60,000 --> 00:00:61,000": (60, 61),
    "00:00:25,000 --> 00:00:26,0:": (25, 26),
    "01:00:00,000 --> 01:00:01,000": (3600, 3601),
}


@pytest.mark.parametrize("timing", TIMES)
def test_times_are_read_as_players_read_them(tmp_path: Path, timing: str):
    path = tmp_path / "a.srt"
    path.write_text(f"1\n{timing}\nalpha\n")
    (cue,) = read_subtitle_file(path).cues
    assert ((cue.start_s, cue.end_s), cue.text) == (TIMES[timing], "alpha")


def test_a_cue_that_no_player_shows_is_counted_with_its_words(tmp_path: Path):
    path = tmp_path / "a.srt"
    path.write_text(
        "1\n00:00:15,500 --> 00:00:14,000\nreversed\n\n2\n00:00:16,000 --> 00:00:17,000\nkept\n"
    )
    subtitles = read_subtitle_file(path)
    assert [cue.text for cue in subtitles.cues] == ["kept"]
    ((unused),) = subtitles.unused
    assert (unused.line, "reversed" in unused.text) == (2, True)


def test_parts_of_an_hls_stream_follow_their_maps(tmp_path: Path):
    part = "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:{}\n\n00:01.000 --> 00:04.000\n{}\n\n"
    path = tmp_path / "a.vtt"
    path.write_text(
        part.format(2**33 - 90_000, "first") + part.format(5 * 90_000, "after the wrap")
    )
    assert [(cue.start_s, cue.text) for cue in read_subtitle_file(path).cues] == [
        (1, "first"),
        (7, "after the wrap"),
    ]


def test_blank_lines_and_numbers_inside_cues_are_words(tmp_path: Path):
    path = tmp_path / "a.srt"
    path.write_text(
        "1\n00:00:01,000 --> 00:00:02,000\n\nfirst\n\nsecond\n\n2\n00:00:03,000 --> 00:00:04,000\n42\n\n"
        "3\n00:00:05,000 --> 00:00:06,000\nlast"
    )
    assert [cue.text for cue in read_subtitle_file(path).cues] == ["first second", "42", "last"]


@pytest.mark.parametrize(
    "text", [f"&#{'9' * 5000};", "a\n" * 100_000, "\x1b]0;T\x07\x1b[31mred\u202e", "<" * 50_000]
)
def test_hostile_text_is_text_and_takes_no_time(tmp_path: Path, text: str):
    path = tmp_path / "a.srt"
    path.write_text(
        f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n\n2\n00:00:02,000 --> 00:00:03,000\nb\n"
    )
    cues = read_subtitle_file(path).cues
    assert cues[-1].text == "b"
    assert all(cue.text.isprintable() for cue in cues)


@pytest.mark.parametrize(
    "content",
    ["<!DOCTYPE html><html></html>", "1\n2\n3\n", '<!DOCTYPE a [<!ENTITY b "c">]><tt></tt>'],
)
def test_what_holds_no_cue_is_named(tmp_path: Path, content: str):
    path = tmp_path / "a.srt"
    path.write_text(content)
    with pytest.raises(MediaError, match=r"a\.srt: "):
        read_subtitle_file(path)


CUE = "00:00.000 --> 00:01.000"
MAP = "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00.000,MPEGTS:0"


@pytest.mark.parametrize(
    "text", [f"{CUE}\n" * 60_000, f"{MAP}\n\n{CUE}\na\n\n" * 12_000, f"NOTE {CUE}\n" * 60_000]
)
def test_the_time_for_a_large_file_grows_with_its_size_only(tmp_path: Path, text: str):
    path = tmp_path / "a.vtt"
    path.write_text(f"WEBVTT\n\n{text}\n\n{CUE}\nlast\n")
    assert read_subtitle_file(path).cues[-1].text in (
        "a",
        "last",
    )  # by the square it would be minutes


def words_of(path: Path):
    return read_words(path, probe(path, "id"))


def test_an_empty_file_and_cues_after_the_end_silence_no_video(tmp_path: Path):
    video = make_video(tmp_path / "a.mp4", num_frames=50)
    (tmp_path / "a.srt").touch()
    (tmp_path / "a.en.srt").write_text("1\n00:01:00,000 --> 00:01:02,000\nlate\n")
    words = words_of(video)
    assert (words.source, words.cues) == ("none", ())
    assert words.notes == (
        "a.srt is not used: it holds no words",
        "a.en.srt is not used: all of its 1 cues lie after the video's end",
    )


def test_cues_are_cut_at_the_end_of_the_video(tmp_path: Path):
    video = make_video(tmp_path / "a.mp4", num_frames=50)
    (tmp_path / "a.srt").write_text("1\n00:00:01,500 --> 00:00:09,000\nlong\n")
    (cue,) = words_of(video).cues
    assert (cue.start_s, cue.end_s) == (1.5, pytest.approx(2.0, abs=0.05))


def with_text_track(path: Path, *lines: tuple[int, int, str]) -> Path:
    """A video of 2 s with a text track in it."""
    plain = make_video(path.with_name("plain.mkv"), num_frames=50)
    beside = path.with_name("plain.srt")
    beside.write_text(
        "".join(
            f"{n}\n00:00:0{start / 1000:.3f} --> 00:00:0{end / 1000:.3f}\n{text}\n\n".replace(
                ".", ","
            )
            for n, (start, end, text) in enumerate(lines, start=1)
        )
    )
    with (
        av.open(str(plain)) as source,
        av.open(str(beside)) as texts,
        av.open(str(path), "w") as target,
    ):
        video = target.add_stream_from_template(source.streams.video[0])
        text = target.add_stream_from_template(texts.streams.subtitles[0])
        text.metadata["language"] = "eng"
        for file, stream in ((source, video), (texts, text)):
            for packet in file.demux(file.streams[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    plain.unlink()
    beside.unlink()
    return path


def test_a_text_track_inside_the_file_is_read_like_a_sidecar(tmp_path: Path):
    video = with_text_track(tmp_path / "a.mkv", (500, 900, "one"), (1000, 1500, "<i>two</i>"))
    words = words_of(video)
    assert (words.source, words.used) == ("embedded", "track 1 (en, srt)")
    assert [(cue.start_s, cue.end_s, cue.text) for cue in words.cues] == [
        (0.5, 0.9, "one"),
        (1.0, 1.5, "two"),
    ]
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:01,500\nbeside\n")
    assert words_of(video).source == "sidecar"


# the clock


def test_a_clock_that_starts_late_counts_from_the_beginning(tmp_path: Path):
    times_ms = [36_000_000 + 40 * frame for frame in range(50)]
    video = make_video(tmp_path / "a.mkv", times_ms=times_ms)
    facts = probe(video, "id")
    assert (facts.start_s, facts.duration_s) == pytest.approx((36_000, 2.0), abs=0.05)
    (batch,) = read_frames(video, [0.0, 1.0], size_px=64)
    assert batch.times_s == pytest.approx((0.0, 1.0))


@pytest.mark.parametrize("jump_ms", [20 * 86_400_000, -50_000])
def test_a_clock_that_jumps_goes_on_at_once(
    tmp_path: Path, jump_ms: int, caplog: pytest.LogCaptureFixture
):
    start_ms = 60_000
    times_ms = [start_ms + 40 * frame + (jump_ms if frame >= 25 else 0) for frame in range(50)]
    suffix = "mkv" if jump_ms > 0 else "ts"
    video = make_video(
        tmp_path / f"a.{suffix}", times_ms=sorted(times_ms), gop=1, options={"bf": "0"}
    )
    if (
        jump_ms < 0
    ):  # the parts of a recording, one after the other: the second one's clock was set back
        first = make_video(tmp_path / "1.ts", times_ms=times_ms[:25], gop=1, options={"bf": "0"})
        second = make_video(tmp_path / "2.ts", times_ms=times_ms[25:], gop=1, options={"bf": "0"})
        video.write_bytes(first.read_bytes() + second.read_bytes())
    facts = probe(video, "id")
    assert facts.duration_s == pytest.approx(2.0, abs=0.15)
    assert "its clock jumps by" in caplog.text
    batches = list(read_frames(video, np.linspace(0, 1.9, 20).tolist(), size_px=64))
    assert sum(len(batch.frames) for batch in batches) == 20


def test_a_picture_stands_for_the_sound_that_outlasts_it(tmp_path: Path):
    video = make_video(tmp_path / "a.mp4", num_frames=250, num_audio=1)
    short = tmp_path / "b.mp4"
    with av.open(str(video)) as source, av.open(str(short), "w") as target:
        streams = {
            stream.index: target.add_stream_from_template(stream) for stream in source.streams
        }
        for packet in source.demux():
            if packet.dts is not None and (packet.stream.type == "audio" or packet.pts < 512):
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    assert probe(short, "id").duration_s == pytest.approx(10.0, abs=0.1)
    (batch,) = read_frames(short, [0.5, 9.5], size_px=64)
    assert (batch.frames[0] == batch.frames[1]).all()


def test_a_wide_picture_is_not_enlarged(tmp_path: Path):
    video = make_video(
        tmp_path / "a.mkv", codec="ffv1", size=(4096, 2), pix_fmt="yuv420p", num_frames=3
    )
    (batch,) = read_frames(video, [0.0], size_px=288)
    assert batch.frames.shape == (1, 2, 4096, 3)
