"""The validator, as a program: every fault with its line, counts, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgv.data.check import check_annotations
from mgv.workspace import Workspace
from tests.conftest import set_params
from tests.media.test_images import jpeg
from tests.test_cli import mgv

GOOD = '{"media": "cat.jpg", "turns": [{"question": "q", "answer": "a"}]}\n'


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """An annotation file of two good rows, beside the image that they are about."""
    (tmp_path / "cat.jpg").write_bytes(jpeg())
    (tmp_path / "mine.jsonl").write_text(GOOD * 2)
    return tmp_path / "mine.jsonl"


def test_a_file_without_fault_is_counted(mine: Path):
    done = mgv("prepare", "--check", "mine.jsonl", "--media", ".", cwd=mine.parent)
    assert (done.returncode, done.stdout) == (0, "2 samples, 2 turns, 0 faults\n")


def test_every_fault_is_named_with_its_line_and_the_exit_code_is_two(mine: Path):
    bad = [
        '{"media": "cat.jpg", "turns": [{"question": "q"}]}\n',
        "\n",
        '{"media": "\\u001b[2Jdog.jpg", "turns": [{"question": "q", "answer": "a"}]}\n',
        "{]\n",
    ]
    mine.write_text(GOOD + "".join(bad) + GOOD)
    done = mgv("prepare", "--check", "mine.jsonl", "--media", ".", cwd=mine.parent)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "mine.jsonl, line 2: turn 1: no 'answer', expected 'question' and 'answer'",
        "mine.jsonl, line 4: no such file: \\x1b[2Jdog.jpg",
        "mine.jsonl, line 5: not JSON: Expecting property name enclosed in double quotes (at character 2)",
        "2 samples, 2 turns, 3 faults",
    ]
    without_media = mgv("prepare", "--check", "mine.jsonl", "--json", cwd=mine.parent)
    shown = json.loads(without_media.stdout)
    assert (shown["samples"], shown["turns"], shown["left_out"]) == (3, 3, 0)
    assert [fault.split(":")[0] for fault in shown["faults"]] == [
        "mine.jsonl, line 2",
        "mine.jsonl, line 5",
    ]


def test_another_format_is_checked_by_its_name_and_rows_of_text_are_no_fault(mine: Path):
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    rows = [
        {"image": "cat.jpg", "conversations": talk},
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
    ]
    text = json.dumps(rows)
    (mine.parent / "llava.json").write_text(text)
    done = mgv(
        "prepare", "--check", "llava.json", "--source", "llava", "--media", ".", cwd=mine.parent
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[1] == "1 rows are about no video or image and would be left out"
    (mine.parent / "llava.json").write_text(text[:-20])
    broken = mgv("prepare", "--check", "llava.json", "--source", "llava", cwd=mine.parent)
    assert broken.returncode == 2
    assert broken.stdout.startswith("llava.json, the rest: line 1: the list is broken from here on")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--check", "no.jsonl"), 8, "no.jsonl: cannot be read: No such file"),
        (("--check", "mine.jsonl", "--source", "lava"), 3, "no source 'lava'"),
        (("--check", "mine.jsonl", "--media", "nowhere"), 2, "nowhere: no such folder"),
        (("--check", "mine.jsonl", "--source", "scenes"), 3, "no source 'scenes'"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    mine: Path, words: tuple[str, ...], code: int, says: str
):
    done = mgv("prepare", *words, cwd=mine.parent)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_prepare_as_a_program(workspace: Workspace, mine: Path):
    source = {
        "name": "samples",
        "annotations": str(mine),
        "media": str(mine.parent),
        "split": "train",
    }
    set_params(workspace.root, prepare={"sources": [source], "max_bad_share": 0.5})
    mine.write_text(GOOD * 2 + "{\n")
    done = mgv("prepare", cwd=workspace.root)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"bad row  {mine}, line 3: not JSON: Expecting property name enclosed in double quotes (at character 3)",
        "instruct        train              2 samples         2 turns       0:00",
    ]
    assert done.stderr == "prepare samples  2\n"
    shown = json.loads(mgv("prepare", "--json", cwd=workspace.root).stdout)
    assert (shown["samples"], len(shown["bad_rows"])) == (2, 1)
    mine.write_text("{\n")
    failed = mgv("prepare", cwd=workspace.root)
    assert failed.returncode == 8
    assert "1 of 1 rows are bad" in failed.stderr


def test_the_documentation_shows_what_the_validator_really_says(tmp_path: Path):
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows, _, said = text.partition("```jsonl\n")[2].partition("```\n")
    (tmp_path / "mine.jsonl").write_text(rows)
    (tmp_path / "media").mkdir()
    for name in ("talk.mp4", "cat.jpg"):
        (tmp_path / "media" / name).write_bytes(b"-")
    done = mgv("prepare", "--check", "mine.jsonl", "--media", "media", cwd=tmp_path)
    assert done.stdout == said.partition("```text\n")[2].partition("```\n")[0]


@pytest.mark.parametrize(
    "source", ["samples", "llava", "video_chatgpt", "cmd", "cc_sbu_align", "webvid"]
)
def test_the_documentation_s_examples_are_good_rows(tmp_path: Path, source: str):
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    kind, _, rest = text.partition(f"### `{source}`")[2].partition("```")[2].partition("\n")
    example = rest.partition("```")[0]
    (tmp_path / f"x.{kind}").write_text(
        example if kind == "csv" else json.dumps(json.loads(example))
    )
    report = check_annotations(tmp_path / f"x.{kind}", source)
    assert (report.num_samples, report.bad_rows) == (1, ())
