"""Samples on disk: what is written is read again, and a wrong row is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgv.data.samples import RowError, SampleFile, sample_from_json, sample_to_json, write_samples
from mgv.errors import DataError
from mgv.records import Cue, Sample, Turn

FULL = Sample(
    sample_id="mine/1",
    media="a/b.mp4",
    media_id="0f" * 32,
    turns=(
        Turn(question="What colour?", answer="red", kind="colour", choices=("red", "blue")),
        Turn(question="Why?", answer="日本\u2028 \x1b[31m \x00 \u202e"),
    ),
    start_s=1.5,
    end_s=4.0,
    cues=(Cue(start_s=1.0, end_s=2.0, text="Hello."),),
    is_dialogue=True,
)
SHORT = Sample(
    sample_id="", media="x.png", media_id="", turns=(Turn(question="q", answer="a"),), is_image=True
)


@pytest.mark.parametrize("sample", [FULL, SHORT])
def test_a_sample_is_one_line_and_comes_back_the_same(sample: Sample):
    line = sample_to_json(sample)
    assert "\n" not in line
    assert sample_from_json(line.encode()) == sample


def test_a_row_needs_only_media_and_turns():
    line = '{"media": "x.mp4", "turns": [{"question": "q", "answer": "a"}]}'
    assert sample_from_json(line) == Sample(
        sample_id="", media="x.mp4", media_id="", turns=(Turn(question="q", answer="a"),)
    )
    assert json.loads(sample_to_json(sample_from_json(line))) == {
        **json.loads(line),
        "start_s": 0.0,
    }


def row(**changes: object) -> str:
    return json.dumps({"media": "x.mp4", "turns": [{"question": "q", "answer": "a"}]} | changes)


def turn(**changes: object) -> str:
    return row(turns=[{"question": "q", "answer": "a"} | changes])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"media": "x.mp4"}', "no 'turns', expected 'media' and 'turns'"),
        ('["x.mp4"]', "a list, expected an object with 'media' and 'turns'"),
        ('{"media": "x.mp4", ', "not JSON"),
        (b'{"media": "\xff"}', "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        (row(anser=1), "unknown key 'anser', expected some of sample_id"),
        (row(media=7), "media is 7, expected text"),
        (row(media="  "), "media is empty"),
        (row(turns={}), "turns is an object, expected a list"),
        (row(turns=[]), "turns is empty"),
        (row(turns=["q"]), 'turn 1: "q", expected an object with \'question\' and \'answer\''),
        (turn(answer=" \n"), "turn 1: answer is empty"),
        (turn(question=""), "turn 1: question is empty"),
        (turn(answer=None), "turn 1: no 'answer'"),
        (turn(answer="\ud800"), "half a character"),
        (turn(choices=["b", "c"]), "turn 1: answer is 'a', expected one of its choices ('b', 'c')"),
        (turn(choices=["a", ""]), "turn 1: choice is empty"),
        (turn(sort="x"), "turn 1: unknown key 'sort', expected some of question, answer, kind, choices"),
        (row(start_s=3, end_s=3.0), "end_s is 3, expected more than start_s, which is 3"),
        (row(start_s="3"), 'start_s is "3", expected a number of seconds'),
        (row(start_s=True), "start_s is true, expected a number"),
        (row(end_s=float("nan")), "end_s is NaN, expected a number"),
        (row(end_s=10**400), "expected a number of seconds"),
        (row(is_image=1), "is_image is 1, expected true or false"),
        (row(media_id="abc"), "media_id is 'abc', expected a SHA-256"),
        (row(cues=[{"start_s": 2, "end_s": 1, "text": "x"}]), "cue 1: end_s is 1, expected at least start_s"),
        (row(cues=[{"start_s": 2, "end_s": 3}]), "cue 1: no 'text'"),
    ],
)  # fmt: skip
def test_a_wrong_row_says_what_was_found_and_what_was_expected(line: str | bytes, says: str):
    with pytest.raises(RowError) as caught:
        sample_from_json(line)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 400


def test_any_row_of_a_file_is_read_by_its_number(tmp_path: Path):
    path = tmp_path / "deep" / "train.jsonl"
    samples = [
        Sample(sample_id=f"é{n}", media="x", media_id="", turns=FULL.turns) for n in range(50)
    ]
    assert write_samples(path, iter(samples)) == 50
    file = SampleFile(path)
    assert len(file) == 50
    assert [file[n] for n in (49, 0, 7, -1)] == [samples[n] for n in (49, 0, 7, 49)]
    assert list(file) == samples
    with pytest.raises(IndexError):
        file[50]


def test_a_wrong_row_of_a_file_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{row()}\n\n  \r\n{turn(answer='')}\n{row()}")
    file = SampleFile(path)
    assert len(file) == 3
    assert file[2].media == "x.mp4"
    with pytest.raises(DataError, match=r"mine\.jsonl, line 4: turn 1: answer is empty"):
        file[1]


def test_a_file_that_is_not_there_or_empty(tmp_path: Path):
    with pytest.raises(DataError, match="mgv prepare"):
        SampleFile(tmp_path / "train.jsonl")
    write_samples(tmp_path / "train.jsonl", [])
    assert list(SampleFile(tmp_path / "train.jsonl")) == []


def test_writing_that_fails_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    write_samples(path, [FULL])

    def failing():
        yield SHORT
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left"):
        write_samples(path, failing())
    assert list(SampleFile(path)) == [FULL]
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]
