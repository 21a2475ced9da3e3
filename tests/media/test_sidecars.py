"""Sidecars: whose a subtitle file is, by its name, and which one tells what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgv.media.languages import language_of
from mgv.media.sidecars import find_sidecar, find_sidecars


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("en", "en"), ("eng", "en"), ("EN-us", "en"), ("pt_BR", "pt"), ("English", "en"), ("Deutsch", "de"),
        ("ger", "de"), ("zh-Hans", "zh"), ("中文", "zh"), ("es-419", "es"), ("cut", None), ("two", None), ("day", None),
        ("part2", None), ("", None), ("forced", None),
    ],
)  # fmt: skip
def test_a_language_is_known_by_code_or_name_and_a_word_is_none(token: str, code: str | None):
    assert language_of(token) == code


def folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "video", "found"),
    [
        (["lecture.mp4", "lecture.cut.mp4", "lecture.cut.srt"], "lecture.mp4", None),
        (
            ["lecture.mp4", "lecture.cut.mp4", "lecture.cut.srt"],
            "lecture.cut.mp4",
            "lecture.cut.srt",
        ),
        (["talk.mp4", "talk.en.mp4", "talk.en.srt"], "talk.mp4", None),
        (["lecture.mp4", "lecture.cut.srt"], "lecture.mp4", None),
        (["day.mp4", "day.two.vtt"], "day.mp4", None),
        (["day.mp4", "day-2.srt"], "day.mp4", None),
        (["day.mp4", "daylight.srt"], "day.mp4", None),
        (["film.mp4", "film.en.forced.srt"], "film.mp4", None),
        (["film.mp4", "film.en.forced.srt", "film.en.sdh.srt"], "film.mp4", "film.en.sdh.srt"),
        (["film.mp4", "film.en.srt", "film.en.sdh.srt"], "film.mp4", "film.en.srt"),
        (["film.mp4", "film.en.hi.srt"], "film.mp4", "film.en.hi.srt"),
        (["film.mp4", "film.hi.srt"], "film.mp4", "film.hi.srt"),
        (["film.mp4", "FILM.srt"], "film.mp4", None),
        (["film.mp4", "film.EN.SRT"], "film.mp4", "film.EN.SRT"),
        (["course.mp4", "course.English.srt"], "course.mp4", "course.English.srt"),
        (["course.mp4", "course_en.srt"], "course.mp4", "course_en.srt"),
        (["film.mkv", "film.mkv.srt"], "film.mkv", "film.mkv.srt"),
        (["film.mp4", "film.eng.default.ass"], "film.mp4", "film.eng.default.ass"),
        (["film.mp4", "film.en.2.srt"], "film.mp4", "film.en.2.srt"),
        (["clip.webm", "clip.en-orig.vtt"], "clip.webm", "clip.en-orig.vtt"),
        (["film.mp4", "film.English [Commentary].srt"], "film.mp4", None),
    ],
)
def test_names_as_players_and_downloaders_write_them(
    tmp_path: Path, names: list[str], video: str, found: str | None
):
    sidecar = find_sidecar(folder(tmp_path, *names) / video)
    assert (sidecar and sidecar.name) == found


def test_the_spoken_language_comes_first_where_it_is_known(tmp_path: Path):
    video = folder(tmp_path, "film.mp4", "film.en.srt", "film.de.srt", "film.fr.srt") / "film.mp4"
    assert [sidecar.language for sidecar in find_sidecars(video, spoken=lambda: "de")] == [
        "de",
        "en",
        "fr",
    ]
    assert [sidecar.language for sidecar in find_sidecars(video)] == ["en", "de", "fr"]


def test_what_is_not_used_says_why_and_stands_last(tmp_path: Path):
    video = (
        folder(tmp_path, "film.mp4", "film.cut.srt", "film.en.forced.srt", "film.de.srt")
        / "film.mp4"
    )
    assert [(sidecar.path.name, sidecar.refusal) for sidecar in find_sidecars(video)] == [
        ("film.de.srt", ""),
        ("film.cut.srt", "'cut' in its name is no language"),
        ("film.en.forced.srt", "it holds forced subtitles only"),
    ]
