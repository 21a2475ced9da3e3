"""Retraining as it is run: real Prefect server, worker and schedule, real DVC and git, tiny random parts."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import GPU_LIMIT, gpu_slot
from mgv import registry
from mgv.ask.library import Library
from mgv.evaluate.run import evaluate
from mgv.library.manifest import newest_library, read_manifest
from mgv.library.materialize import materialize
from mgv.workspace import Workspace, find_workspace
from tests.conftest import documented, set_params
from tests.flows.conftest import STAGE, Notices, Programs, trained_workspace, wait_for
from tests.media.make_video import make_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def promoted(
    programs: Programs, notices: Notices, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """What a schedule made of a video in the inbox: server, worker and deployment are started as documented."""
    root = tmp_path_factory.mktemp("library") / "talks"
    workspace = trained_workspace(root)
    made = programs.run(
        [sys.executable, *documented("retraining", "notices").split()[2:]], root, MGV_NOTICE_URL=notices.url
    )  # fmt: skip
    assert "made custom-webhook/mgv" in made.stdout, made.stderr
    make_video(root / "data/inbox/second.mp4", num_frames=50)
    (root / "data/inbox/bad.mp4").write_text("no video")
    worker = programs.start(documented("retraining", "worker").split(), root)
    every_20_s = "* * * * * */20"
    deployed = programs.run(
        [sys.executable, *documented("retraining", "deploy").split()[1:], "--cron", every_20_s],
        root,
    )
    assert "retrain/talks deployed" in deployed.stdout, deployed.stderr
    wait_for("promotion", lambda: notices.told, log=programs.log)
    wait_for("end", lambda: _note(workspace).get("done"), log=programs.log)
    programs.stop(worker)
    return find_workspace(root)


def _note(workspace: Workspace) -> dict[str, Any]:
    path = workspace.root / "data/retrain.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


@pytest.fixture
def own(promoted: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the promoted workspace."""
    shutil.copytree(promoted.root, tmp_path / "talks", symlinks=True)
    return find_workspace(tmp_path / "talks")


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


def _ask(programs: Programs, path: str, body: Any = None) -> Any:
    """The Prefect server's answer."""
    data = None if body is None else json.dumps(body).encode()
    url = programs.environment["PREFECT_API_URL"] + path
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_a_scheduled_run_takes_a_video_in_and_ends_with_a_promoted_model(
    promoted: Workspace, programs: Programs, notices: Notices
):
    champion = registry.champion(promoted)
    assert champion is not None
    assert (champion.version, champion.library_tag) == ("v1", newest_library(promoted).tag)
    library = Library.open(promoted.root)
    assert {video.name for video in library.videos()} == {"first.mp4", "second.mp4"}
    assert library.live.model == promoted.root / "models/published/v1"
    inbox = promoted.root / "data/inbox"
    assert (inbox / "done/second.mp4").is_file()
    assert "not a readable video" in (inbox / "rejected/bad.mp4.reason.txt").read_text()
    assert _git(promoted.root, "tag") == "mgv-v1"
    assert _git(promoted.root, "status", "--porcelain") == ""
    assert notices.told[0]["subject"] == "mgv: candidate promoted"
    assert champion.flow_run == registry.read_lineage(library.live.model)["flow_run"]


def test_the_stages_are_subflows_of_the_run_at_the_same_server(
    promoted: Workspace, programs: Programs
):
    champion = registry.champion(promoted)
    assert champion is not None
    assert _ask(programs, f"/flow_runs/{champion.flow_run}")["state_name"] == "Promoted"
    of_parent = {"flow_runs": {"parent_flow_run_id": {"any_": [champion.flow_run]}}}
    runs = _ask(programs, "/flow_runs/filter", of_parent)
    assert {run["name"]: run["state_name"] for run in runs} == dict.fromkeys(
        ("materialize .", "prepare .", "train ['instruct']", "evaluate ."), "Completed"
    )
    artifacts = _ask(
        programs, "/artifacts/filter", {"flow_runs": {"id": {"any_": [champion.flow_run]}}}
    )
    shown = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert shown.keys() == {"materialize", "prepare", "instruct", "evaluate", "retrain"}
    assert "| second.mp4 | added |" in shown["retrain"]
    logs = _ask(programs, "/logs/filter", {"logs": {"flow_run_id": {"any_": [champion.flow_run]}}})
    assert any("Running stage 'instruct'" in line["message"] for line in logs)


def test_when_nothing_is_new_a_run_says_so_and_changes_nothing(own: Workspace, programs: Programs):
    before = _git(own.root, "rev-parse", "HEAD"), registry.champion(own)
    done = programs.retrain(own.root)
    assert done.returncode == 0, done.stderr
    assert "nothing new" in done.stderr
    assert (_git(own.root, "rev-parse", "HEAD"), registry.champion(own)) == before


def test_a_candidate_that_is_worse_is_refused_and_the_champion_still_answers(
    own: Workspace, programs: Programs, notices: Notices
):
    _questions_that_the_champion_knows(own)
    set_params(
        own.root,
        train={"instruct": STAGE | {"learning_rate": 1.0, "warmup_steps": 0, "max_steps": 3}},
        retrain={"gate": {"qa.accuracy": 0.01}},
    )
    make_video(own.root / "data/inbox/third.mp4", num_frames=75)
    told = len(notices.told)
    done = programs.retrain(own.root)
    assert done.returncode == 10, done.stderr
    assert [each.version for each in registry.published(own)] == ["v1"]
    notice = notices.told[told]
    assert notice["subject"] == "mgv: candidate refused"
    assert "qa.accuracy is" in notice["text"]
    assert "live: v1" in notice["text"]
    library = Library.open(own.root)
    assert library.live.version == "v1"
    assert "third.mp4" in {video.name for video in library.videos()}, "the library was not at fault"
    library = library.with_answerer("video_llm")
    assert library.ask("what is seen?", videos=["first.mp4"]).moments
    again = programs.retrain(own.root)
    assert again.returncode == 0, "what was refused once is nothing new"
    assert len(notices.told) == told + 1


def _questions_that_the_champion_knows(workspace: Workspace) -> None:
    """A frozen set on which the champion is always right: what it says is what counts as right."""
    asked = ("what is seen?", "what colour is it?", "who speaks?")
    rows = [
        {"item_id": f"{n}", "video": "first.mp4", "question": text} for n, text in enumerate(asked)
    ]
    path = workspace.root / "questions.jsonl"

    def write(answers: list[str]) -> None:
        lines = [
            json.dumps(row | {"answer": answer}) for row, answer in zip(rows, answers, strict=True)
        ]
        path.write_text("\n".join(lines) + "\n")

    write(["-"] * len(rows))
    asking = set_params(
        workspace.root,
        evaluate={"questions": "questions.jsonl", "questions_format": "mgv", "model": "champion"},
    )
    run = evaluate(asking, asking.params.evaluate, workspace.root / "results/asked")
    write([row.answer or "" for row in sorted(run.rows, key=lambda row: row.key)])
    set_params(workspace.root, evaluate={"model": "models/train/instruct"})


def test_a_stage_that_fails_ends_the_run_with_its_error_and_a_notice(
    own: Workspace, programs: Programs, notices: Notices
):
    set_params(own.root, evaluate={"questions": "missing.jsonl"})
    done = programs.retrain(own.root)
    assert done.returncode == 5, done.stderr
    assert "missing.jsonl: not there" in done.stderr.splitlines()[-1]
    assert notices.told[-1]["subject"] == "mgv: retrain failed"
    assert Library.open(own.root).live.version == "v1"


def test_two_at_once_one_is_refused_and_a_killed_run_goes_on_to_the_same_end(
    own: Workspace, programs: Programs
):
    make_video(own.root / "data/inbox/third.mp4", num_frames=75)
    pause_s = random.Random(4).uniform(3.0, 12.0)
    first = programs.start([sys.executable, "-m", "flows.retrain"], own.root)
    wait_for(
        "first run", lambda: (own.root / "data/inbox/done/third.mp4").is_file(), log=programs.log
    )
    second = programs.retrain(own.root)
    assert second.returncode == 7
    assert "another retrain is at work here" in second.stderr
    time.sleep(pause_s)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert Library.open(own.root).live.version == "v1"
    done = programs.retrain(own.root)
    assert done.returncode == 0, done.stderr
    assert_finished(own, {"first.mp4", "second.mp4", "third.mp4"})


def assert_finished(workspace: Workspace, videos: set[str]) -> None:
    """The end state of an undisturbed run."""
    champion, manifest = registry.champion(workspace), read_manifest(workspace.manifest)
    assert champion is not None
    assert manifest is not None
    assert (champion.version, champion.library_tag) == ("v1", manifest.tag)
    assert [each.version for each in registry.published(workspace)] == ["v1"]
    assert {item.name for item in manifest.items} == videos
    assert _git(workspace.root, "status", "--porcelain") == ""
    assert _note(workspace)["done"]
    assert not any(path.is_file() for path in (workspace.root / "data/inbox").iterdir())
    assert materialize(workspace, rebuild=True).manifest.digest == manifest.digest


def test_who_uses_a_gpu_holds_a_slot_of_the_limit_that_deploying_made(
    promoted: Workspace, programs: Programs, monkeypatch: pytest.MonkeyPatch
):
    def active() -> int:
        return int(_ask(programs, f"/v2/concurrency_limits/{GPU_LIMIT}")["active_slots"])

    with temporary_settings({PREFECT_API_URL: programs.environment["PREFECT_API_URL"]}):
        with gpu_slot():
            assert active() == 0, "this machine has none"
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        with gpu_slot():
            assert active() == 1
    assert active() == 0


def test_a_file_of_questions_is_answered_and_what_is_answered_is_not_asked_again(
    own: Workspace, programs: Programs
):
    questions = own.root / "questions.jsonl"
    rows = [
        {"id": "a", "question": "what is seen?"},
        {"id": "b", "question": "and here?", "videos": ["x.mp4"]},
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = own.root / "answers.jsonl"
    output.write_text(
        json.dumps({"id": "a", "question": "what is seen?", "answer": "kept"})
        + '\n{"id": "b", "que'
    )
    done = programs.run(
        [sys.executable, "-m", "flows.ask", str(questions), "--output", str(output)], own.root
    )
    assert done.returncode == 1, "one of them names no video of the library"
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in answers] == ["a", "b"]
    assert answers[0]["answer"] == "kept"
    assert "not in the library" in answers[1]["error"]
