"""Answering: what a model is shown, and runs that fail, stop, go on and are shared out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgv.config import EvaluateParams
from mgv.errors import BusyError, ConfigError, UsageError, WorkspaceError
from mgv.evaluate.answering import Given, ModelSystem, answer_items, given_of, prompt_of, read_clip
from mgv.evaluate.ledger import Ledger, Shard, parse_shard
from mgv.evaluate.sets.questions import EvaluationItem, read_questions
from mgv.records import Cue
from tests.media.make_video import number_of

ROOT = Path(__file__).parents[2]
TINY = EvaluateParams(max_new_tokens=4)


class Echo:
    """Answers with the question, and fails where it says so."""

    def __init__(self, fails: str = "") -> None:
        self.asked: list[str] = []
        self.fails = fails

    def facts(self) -> dict[str, Any]:
        return {"system": "echo"}

    def answer(self, item: EvaluationItem) -> Given:
        self.asked.append(item.item_id)
        if item.item_id == self.fails:
            raise ValueError("no\nsuch\nluck")
        return Given(item_id=item.item_id, answer=item.question, confidence=0.5)


def items(count: int = 6) -> list[EvaluationItem]:
    return [
        EvaluationItem(item_id=f"i{n}", videos=(f"v{n % 2}.mp4",), question=f"q{n}", answer="x")
        for n in range(count)
    ]


def ledger(folder: Path, **facts: Any) -> Ledger:
    return Ledger(folder, "answers", facts or {"system": "echo"}, key=("item_id",))


def untimed(rows: Ledger) -> dict[tuple[str, ...], dict[str, Any]]:
    return {key: row | {"time_s": 0} for key, row in rows.rows.items()}


def test_items_of_one_video_follow_each_other_and_every_result_is_kept_by_its_id(tmp_path: Path):
    system, results = Echo(), ledger(tmp_path)
    plan: list[int] = []
    answer_items(items(), system, results, on_plan=plan.append)
    assert plan == [6]
    assert system.asked == ["i0", "i2", "i4", "i1", "i3", "i5"]
    assert ledger(tmp_path).rows == results.rows
    assert given_of(results.rows[("i3",)]).answer == "q3"


def test_an_item_that_fails_is_recorded_once_and_asked_again_only_on_demand(tmp_path: Path):
    answer_items(items(), Echo(fails="i2"), ledger(tmp_path))
    row = ledger(tmp_path).rows[("i2",)]
    assert (row["error"], row["answer"]) == ("ValueError: no such luck", None)
    again = Echo()
    answer_items(items(), again, ledger(tmp_path))
    assert again.asked == []
    answer_items(items(), again, ledger(tmp_path), retry_failed=True)
    assert again.asked == ["i2"]
    assert ledger(tmp_path).rows[("i2",)]["error"] == ""


def test_an_answer_wins_over_a_failure_whichever_file_each_is_in(tmp_path: Path):
    answer_items(items(), Echo(fails="i2"), ledger(tmp_path))
    for number in (1, 2):  # their files are read before the one with the failure
        answer_items(
            items(),
            Echo(),
            ledger(tmp_path),
            shard=Shard(number=number, count=2),
            retry_failed=True,
        )
    assert ledger(tmp_path).rows[("i2",)]["error"] == ""


def test_what_no_item_could_survive_stops_the_run(tmp_path: Path):
    class Wrong(Echo):
        def answer(self, item: EvaluationItem) -> Given:
            raise ConfigError("wrong everywhere")

    with pytest.raises(ConfigError, match="wrong everywhere"):
        answer_items(items(), Wrong(), ledger(tmp_path))
    assert ledger(tmp_path).rows == {}


def test_a_run_that_stopped_in_the_middle_of_a_line_goes_on(tmp_path: Path):
    whole = ledger(tmp_path / "whole")
    answer_items(items(), Echo(), whole)
    torn = tmp_path / "torn" / "answers.jsonl"
    torn.parent.mkdir()
    torn.write_bytes((tmp_path / "whole" / "answers.jsonl").read_bytes()[:-25])
    system, results = Echo(), ledger(tmp_path / "torn")
    assert len(results.rows) == 5
    answer_items(items(), system, results)
    assert len(system.asked) == 1
    assert untimed(ledger(tmp_path / "torn")) == untimed(whole)


def test_shards_together_are_the_whole_run(tmp_path: Path):
    whole = ledger(tmp_path / "whole")
    answer_items(items(40), Echo(), whole)
    halves = [Echo(), Echo()]
    for number, system in enumerate(halves, start=1):
        answer_items(
            items(40), system, ledger(tmp_path / "halves"), shard=Shard(number=number, count=2)
        )
    assert all(len(system.asked) > 5 for system in halves)
    assert untimed(ledger(tmp_path / "halves")) == untimed(whole)
    rest = Echo()
    answer_items(items(40), rest, ledger(tmp_path / "halves"))
    assert rest.asked == []


def test_results_of_another_run_are_refused(tmp_path: Path):
    answer_items(items(1), Echo(), ledger(tmp_path))
    with pytest.raises(WorkspaceError, match=r"another run \(system is echo, here parrot\)"):
        ledger(tmp_path, system="parrot")
    (tmp_path / "answers.jsonl").write_text('{"system": "echo"}\n{"item_id": oops}\n')
    with pytest.raises(WorkspaceError, match="line 2 is damaged"):
        ledger(tmp_path)


def test_two_processes_cannot_write_the_same_shard(tmp_path: Path):
    with (
        ledger(tmp_path).writing(Shard()),
        pytest.raises(BusyError),
        ledger(tmp_path).writing(Shard()),
    ):
        pass


def test_a_shard_is_a_part_of_a_whole():
    assert parse_shard("2/4") == Shard(number=2, count=4)
    for text in ("0/4", "5/4", "1", "a/b", "-1/2"):
        with pytest.raises(UsageError, match="for example 1/4"):
            parse_shard(text)


def test_choices_are_written_under_the_question_unless_training_did_not():
    item = EvaluationItem(
        item_id="1", videos=("v",), question="what?", answer="cat", choices=("dog", "cat")
    )
    assert (
        prompt_of("what?", item)
        == "what?\nA. dog\nB. cat\nAnswer with the letter of the right choice."
    )
    assert prompt_of("what?", replace(item, shows_choices=False)) == "what?"


def processor(folder: Path) -> Any:
    from mgv.model.processor import Processor

    return Processor.load(folder)


def test_a_clip_shows_its_stretch_and_only_the_words_said_in_it(model_folder: Path, clips: Path):
    cues = (Cue(start_s=0.1, end_s=0.3, text="early"), Cue(start_s=1.2, end_s=1.4, text="late"))
    item = EvaluationItem(
        item_id="1",
        videos=(str(clips / "a.mp4"),),
        question="q",
        answer="x",
        start_s=1.0,
        end_s=1.6,
        cues=cues,
    )
    clip = read_clip(item, processor(model_folder), use_subtitles=True)
    assert clip.frames is not None
    assert [number_of(frame) for frame in clip.frames] == [
        27,
        32,
        37,
    ]  # at 1.1, 1.3, 1.5 s of 25 frames a second
    assert [cue.text for cue in clip.cues] == ["late"]
    assert read_clip(item, processor(model_folder), use_subtitles=False).cues == ()


def test_pictures_and_folders_of_frames_are_clips_too(model_folder: Path, tmp_path: Path):
    from PIL import Image

    folder = tmp_path / "show_clip_00"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8)).save(
            folder / f"{number:05}.png"
        )
    item = EvaluationItem(item_id="1", videos=(str(folder),), question="q", answer="x")
    clip = read_clip(item, processor(model_folder), use_subtitles=True)
    assert clip.frames is not None
    assert clip.frames[:, 0, 0, 0].tolist() == [
        40,
        120,
        200,
    ]  # 6 frames are 2 s: seen at 1/3, 1 and 5/3 s
    picture = replace(item, videos=(str(folder / "00002.png"),))
    assert read_clip(picture, processor(model_folder), use_subtitles=True).num_frames == 1


def test_an_image_in_a_shard_is_a_clip_of_one_frame(model_folder: Path, tmp_path: Path):
    from PIL import Image

    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "1.png")
    with tarfile.open(tmp_path / "00000.tar", "w") as shard:
        shard.add(tmp_path / "1.png", "1.png")
    sample = {
        "sample_id": "s",
        "media": "00000.tar/1.png",
        "is_image": True,
        "turns": [{"question": "q", "answer": "a"}],
    }
    (tmp_path / "test.jsonl").write_text(json.dumps(sample) + "\n")
    (item,) = read_questions(tmp_path / "test.jsonl", "samples", videos=tmp_path).items
    clip = read_clip(item, processor(model_folder), use_subtitles=True)
    assert clip.frames is not None
    assert clip.frames[0, 0, 0, 0] == 90


def test_a_model_answers_the_same_every_time_and_reads_a_clip_once(
    model_folder: Path,
    clips: Path,
    questions_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    from mgv.evaluate import answering

    read: list[str] = []
    real = answering.read_clip
    monkeypatch.setattr(
        answering, "read_clip", lambda item, *a: read.append(item.item_id) or real(item, *a)
    )
    asked = read_questions(questions_file, videos=clips).items
    assert asked[0].cues == (
        Cue(start_s=0.2, end_s=0.8, text="hello there"),
    )  # of the file beside a.mp4
    runs = []
    for name in ("one", "two"):
        system = ModelSystem(model_folder, TINY, device="cpu")
        results = Ledger(tmp_path / name, "answers", system.facts(), key=("item_id",))
        answer_items(asked, system, results)
        runs.append(untimed(results))
    assert runs[0] == runs[1]
    assert read == ["a1", "b3", "b1"] * 2 or read == ["a1", "b1", "b3"] * 2
    given = given_of(runs[0][("a1",)])
    assert given.error == ""
    assert given.confidence is not None
    assert 0 < given.confidence < 1
    assert "3 of 3 frames, 2 of 2 caption words" in given.read
    blind = ModelSystem(model_folder, replace(TINY, use_subtitles=False), device="cpu")
    assert "0 of 0 caption words" in blind.answer(asked[0]).read
    assert blind.facts() != ModelSystem(model_folder, TINY).facts()


def test_a_model_may_choose_by_likelihood(model_folder: Path, clips: Path, questions_file: Path):
    import torch

    item = read_questions(questions_file, videos=clips).items[2]
    system = ModelSystem(model_folder, replace(TINY, choices="likelihood"), device="cpu")
    for shows in (True, False):
        asked = replace(item, shows_choices=shows)
        given = system.answer(asked)
        session = system._session(asked)
        losses = []  # transformers' own loss is the mean negative log probability of the answer's tokens
        for place, choice in enumerate(item.choices):
            answer = "AB"[place] if shows else choice
            clip = replace(session.clip, question=prompt_of(item.question, asked), answer=answer)
            with torch.inference_mode():
                losses.append(float(session.model(**session.processor([clip]).inputs()).loss))
        shares = np.exp(-np.asarray(losses)) / np.exp(-np.asarray(losses)).sum()
        assert given.choice == int(shares.argmax())
        assert given.answer == item.choices[given.choice]
        assert given.confidence == pytest.approx(shares.max(), rel=1e-4)


def test_an_unreadable_video_fails_alone(
    model_folder: Path, clips: Path, questions_file: Path, tmp_path: Path
):
    asked = list(read_questions(questions_file, videos=clips).items)[:1]
    (tmp_path / "bad.mp4").write_text("no video")
    bad = replace(asked[0], item_id="bad", videos=(str(tmp_path / "bad.mp4"),))
    several = replace(asked[0], item_id="many", videos=(asked[0].videos[0],) * 2)
    system = ModelSystem(model_folder, TINY, device="cpu")
    results = Ledger(tmp_path, "answers", system.facts(), key=("item_id",))
    answer_items([bad, several, *asked], system, results)
    errors = {key[0]: row["error"] for key, row in results.rows.items()}
    assert errors["bad"].startswith("MediaError: ")
    assert "about 2 clips and a model reads one" in errors["many"]
    assert errors["a1"] == ""


def test_a_model_is_held_as_asked_and_its_answers_are_kept_apart(model_folder: Path):
    """Where there is no CUDA, the words of the refusal show that the wish arrived."""
    quantized = ModelSystem(model_folder, replace(TINY, quantization="4bit"), device="cpu")
    assert quantized.facts() != ModelSystem(model_folder, TINY).facts()
    with pytest.raises(ConfigError, match="4bit: needs a CUDA GPU"):
        quantized.answer(
            EvaluationItem(item_id="a", videos=("a.mp4",), question="what?", answer="x")
        )


SLOW_RUN = """
import sys, time
from pathlib import Path
from mgv.config import EvaluateParams
from mgv.evaluate.answering import ModelSystem, answer_items
from mgv.evaluate.ledger import Ledger
from mgv.evaluate.sets.questions import read_questions

model, questions, clips, out, wait_s = sys.argv[1:]
system = ModelSystem(Path(model), EvaluateParams(max_new_tokens=4), device="cpu")
results = Ledger(Path(out), "answers", system.facts(), key=("item_id",))
answer_items(read_questions(Path(questions), videos=Path(clips)).items, system, results,
             on_step=lambda *_: time.sleep(float(wait_s)))
"""


def test_a_run_that_was_killed_goes_on_and_equals_one_that_was_not(
    model_folder: Path, clips: Path, questions_file: Path, tmp_path: Path
):
    def start(out: Path, wait_s: str) -> subprocess.Popen[bytes]:
        words = [
            sys.executable,
            "-c",
            SLOW_RUN,
            str(model_folder),
            str(questions_file),
            str(clips),
            str(out),
            wait_s,
        ]
        return subprocess.Popen(
            words, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        )

    killed = tmp_path / "killed" / "answers.jsonl"
    run = start(killed.parent, "0.4")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (
        killed.exists() and killed.read_bytes().count(b"\n") >= 3
    ):
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = killed.read_bytes().count(b"\n") - 1  # the first line says what is run
    assert 1 <= done < 6
    before = killed.read_bytes()
    system = ModelSystem(model_folder, TINY, device="cpu")
    asked = read_questions(questions_file, videos=clips).items
    finished = Ledger(killed.parent, "answers", system.facts(), key=("item_id",))
    whole = Ledger(tmp_path / "whole", "answers", system.facts(), key=("item_id",))
    for results in (finished, whole):
        answer_items(asked, system, results)
    assert untimed(finished) == untimed(whole)
    assert len(finished.rows) == 6
    assert killed.read_bytes().startswith(before)  # what was done was not done again
    assert json.loads(killed.read_text().splitlines()[0])["system"] == "model"
