"""Subtitles are read whatever made them, and come back as they were written."""

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mgv.errors import MediaError
from mgv.media.sidecars import find_sidecar
from mgv.media.subtitles import read_subtitles, write_webvtt
from mgv.records import Cue


def cue(start_s: float, end_s: float, text: str) -> Cue:
    return Cue(start_s=start_s, end_s=end_s, text=text)


def read(tmp_path: Path, content: str | bytes, name: str = "a.vtt") -> list[Cue]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_subtitles(path)


def test_webvtt_with_all_its_parts(tmp_path: Path):
    content = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

REGION
id:fred

NOTE a comment
over two lines

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Bob>Hello, <i>world</i></v>
and <c.loud>all</c>

1:00:00.000 --> 1:00:01.000
Tom &amp; Jerry &lt;3 &nbsp; 1 < 2
"""
    assert read(tmp_path, content) == [
        cue(1.0, 2.5, "Hello, world and all"),
        cue(3600.0, 3601.0, "Tom & Jerry <3 1 < 2"),
    ]


def test_srt_with_its_habits(tmp_path: Path):
    first = "1\r\n00:00:01,000 --> 00:00:02,000 X1:1\r\n<b>One</b> {\\an8}up\r\n"  # no blank line after it
    content = f"{first}2\r\n0:0:3,5 --> 0:0:4\r\nTwo\r\n12\r\n\r\n"
    assert read(tmp_path, content, "a.srt") == [cue(1, 2, "One up"), cue(3.5, 4, "Two 12")]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"]
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, newline: str):
    content = "1\n00:00:01,000 --> 00:00:02,000\nÜber das Café\n".replace("\n", newline)
    assert read(tmp_path, content.encode(encoding), "a.srt") == [cue(1, 2, "Über das Café")]


def test_cues_are_sorted_by_time(tmp_path: Path):
    assert [
        c.text
        for c in read(
            tmp_path, "WEBVTT\n\n00:05.000 --> 00:06.000\nb\n\n00:01.000 --> 00:09.000\na\n"
        )
    ] == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    "timing",
    [
        "00:00:03,000 --> 00:00:02,000",
        "00:00:xx,000 --> 00:00:04,000",
        "00:00:03,000 --> ",
        "99999999999999999999:00:01,000 --> 99999999999999999999:00:02,000",
    ],
)
def test_a_cue_with_a_broken_time_is_left_out_and_named(
    tmp_path: Path, timing: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        cues = read(
            tmp_path, f"1\n{timing}\nlost\n\n2\n00:00:05,000 --> 00:00:06,000\nkept\n", "a.srt"
        )
    assert cues == [cue(5, 6, "kept")]
    assert "a.srt: left out 1 of 2 cues, the first at line 2" in caplog.text


def test_a_file_with_only_broken_cues_is_an_error(tmp_path: Path):
    with pytest.raises(MediaError, match="no cue can be read"):
        read(tmp_path, "1\n00:00:03,000 --> 00:00:02,000\nlost\n")


@pytest.mark.parametrize("content", [b"just text\nof a kind", bytes(range(256)) * 9])
def test_what_is_no_subtitle_file_is_an_error(tmp_path: Path, content: bytes):
    with pytest.raises(MediaError, match="no cue can be read"):
        read(tmp_path, content)


@pytest.mark.parametrize("content", ["", "\n\n", "WEBVTT\n", "WEBVTT\n\nNOTE nothing is said\n"])
def test_a_file_may_say_nothing(tmp_path: Path, content: str):
    assert read(tmp_path, content) == []


def test_a_missing_file_or_a_folder_is_an_error(tmp_path: Path):
    with pytest.raises(MediaError, match="no such file"):
        read_subtitles(tmp_path / "a.vtt")
    with pytest.raises(MediaError, match="a folder"):
        read_subtitles(tmp_path)


def test_rolling_captions_are_said_once(tmp_path: Path):
    content = """WEBVTT

00:00.000 --> 00:02.000
{blank}
so today<00:00:00.500><c> we</c>

00:02.000 --> 00:02.010
so today we
{blank}

00:02.010 --> 00:04.000
so today we
look at<00:00:02.500><c> rockets</c>

00:04.000 --> 00:04.010
look at rockets
{blank}

00:04.010 --> 00:06.000
look at rockets
and planes
""".replace("{blank}", " ")
    assert read(tmp_path, content) == [
        cue(0, 2.01, "so today we"),
        cue(2.01, 4.01, "look at rockets"),
        cue(4.01, 6, "and planes"),
    ]


def test_an_ordinary_repetition_stays(tmp_path: Path):
    content = "1\n00:00:00,000 --> 00:00:01,000\nNo.\n\n2\n00:00:01,000 --> 00:00:02,000\nNo.\n"
    assert [c.text for c in read(tmp_path, content)] == ["No.", "No."]


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), max_size=40)
CUES = st.lists(
    st.builds(
        lambda start_ms, length_ms, text: cue(
            start_ms / 1000, (start_ms + length_ms) / 1000, " ".join(text.split())
        ),
        st.integers(0, 400_000_000),
        st.integers(0, 100_000),
        TEXTS
        | st.sampled_from(
            ["1", "00:00:01,000 --> 00:00:02,000", "<i>x</i>", "a --> b", "&amp;", "NOTE", "WEBVTT"]
        ),
    ),
    max_size=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cues=CUES)
def test_what_is_written_is_read_back_exactly(tmp_path: Path, cues: list[Cue]):
    cues = sorted(
        (c for c in cues if c.text), key=lambda c: (round(c.start_s * 1000), round(c.end_s * 1000))
    )
    assume(
        len({c.text for c in cues}) == len(cues)
    )  # three touching cues that say the same would be said once
    path = tmp_path / "a.vtt"
    write_webvtt(cues, path)
    assert read_subtitles(path) == cues


def test_times_are_written_to_the_nearest_millisecond(tmp_path: Path):
    write_webvtt([cue(0.0006, 3661.0004, "x")], tmp_path / "a.vtt")
    assert (tmp_path / "a.vtt").read_text() == "WEBVTT\n\n00:00:00.001 --> 01:01:01.000\nx\n\n"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.vtt"
    path.write_text("old")

    def broken():
        yield cue(0, 1, "x")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_webvtt(broken(), path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.vtt", "old")]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], None),
        (["other.vtt", "talk.txt", "talk.part2.vtt", "talking.vtt"], None),
        (["talk.srt"], "talk.srt"),
        (["talk.srt", "talk.vtt"], "talk.vtt"),
        (["talk.VTT"], "talk.VTT"),
        (["talk.en.vtt", "talk.srt"], "talk.srt"),
        (["talk.de.vtt", "talk.en-GB.srt"], "talk.en-GB.srt"),
        (["talk.fr.vtt", "talk.de.srt"], "talk.de.srt"),
        (["talk.mp4.vtt"], "talk.mp4.vtt"),
    ],
)
def test_the_sidecar_of_a_video(tmp_path: Path, names: list[str], found: str | None):
    for name in names:
        (tmp_path / name).touch()
    assert find_sidecar(tmp_path / "talk.mp4") == (tmp_path / found if found else None)


def test_a_folder_is_no_sidecar(tmp_path: Path):
    (tmp_path / "talk.vtt").mkdir()
    (tmp_path / "talk.en.srt").touch()
    assert find_sidecar(tmp_path / "talk.mp4") == tmp_path / "talk.en.srt"
    assert find_sidecar(tmp_path / "no folder" / "talk.mp4") is None
