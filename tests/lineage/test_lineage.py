"""Lineage: what makes two states differ, and OpenLineage events; real tables, tiny random parts, words by BM25."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from mgv import Library, versioning
from mgv.ask.receipts import keep, read_receipt
from mgv.cli import app
from mgv.errors import WorkspaceError
from mgv.files import folder_digest, now
from mgv.library.ingest import ingest, remove
from mgv.library.materialize import materialize
from mgv.lineage.diff import Cause, diff
from mgv.lineage.openlineage import events
from mgv.lineage.replay import replay
from mgv.registry import publish
from mgv.workspace import Workspace, find_workspace
from tests.conftest import RANDOM_PARTS, evaluated, set_params
from tests.media.make_video import make_video

QUESTION = "where is the parrot?"
FACET: dict[str, Any] = {
    "type": "object",
    "required": ["_producer", "_schemaURL"],
    "properties": {
        name: {"type": "string", "pattern": "^(https?|urn):"}
        for name in ("_producer", "_schemaURL")
    },
}
NAMED: dict[str, Any] = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {
        "namespace": {"type": "string", "minLength": 1},
        "name": {"type": "string", "minLength": 1},
        "facets": {
            "type": "object",
            "additionalProperties": FACET,
            "properties": {
                "version": {
                    "required": ["datasetVersion"],
                    "properties": {"datasetVersion": {"type": "string"}},
                },
                "jobType": {"required": ["processingType", "integration"]},
            },
        },
    },
}
RUN_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {
            "type": "string",
            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$",
        },
        "producer": {"type": "string", "pattern": "^(https?|urn):"},
        "schemaURL": {
            "const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
        },
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {
                "runId": {
                    "type": "string",
                    "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
                },
                "facets": {
                    "type": "object",
                    "additionalProperties": FACET,
                    "properties": {"parent": {"required": ["run", "job"]}},
                },
            },
        },
        "job": NAMED,
        "inputs": {"type": "array", "items": NAMED},
        "outputs": {"type": "array", "items": NAMED},
    },
}
"""What the specification asks of a run event and its facets, written down from its text (object model 2-0-2)."""
FLOW_RUN = "0198d1f4-3a5e-7c21-9f10-2b6d4c8e7a01"


@pytest.fixture(scope="module")
def _asked(
    _made_workspace: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A library of a.mp4, asked, with a published model; its first tag."""
    place = tmp_path_factory.mktemp("lineage")
    root = place / "talks"
    shutil.copytree(_made_workspace, root, symlinks=True)
    workspace = set_params(
        root, materialize=RANDOM_PARTS, ask={"answerer": {"pretrained": "random"}}
    )
    ingest(workspace, [spoken(place / "a.mp4", "The parrot sits here.", "The parrot flies away.")])
    tag = materialize(workspace).manifest.tag
    publish(workspace, model_folder, flow_run=FLOW_RUN)
    patch = pytest.MonkeyPatch()
    patch.setenv("MGV_FLOW_RUN", FLOW_RUN)
    Library.open(root).ask(QUESTION)
    patch.undo()
    return root, tag


@pytest.fixture
def asked(_asked: tuple[Path, str], tmp_path: Path) -> tuple[Workspace, str]:
    shutil.copytree(_asked[0], tmp_path / "talks", symlinks=True)
    return find_workspace(tmp_path / "talks"), _asked[1]


def spoken(path: Path, *sentences: str) -> Path:
    """A video of a second for each sentence, which is said in it."""
    make_video(path, num_frames=25 * len(sentences))
    cues = [f"00:{n:02}.000 --> 00:{n:02}.900\n{words}\n" for n, words in enumerate(sentences)]
    path.with_suffix(".vtt").write_text("WEBVTT\n\n" + "\n".join(cues))
    return path


def effects(causes: tuple[Cause, ...]) -> dict[str, tuple[bool, bool]]:
    return {cause.factor: (bool(cause.changes), cause.moments) for cause in causes}


def test_data_and_index_that_both_changed_are_told_apart(
    asked: tuple[Workspace, str], tmp_path: Path
):
    workspace, first = asked
    ingest(
        workspace, [spoken(tmp_path / "b.mp4", "No bird is here.")]
    )  # says nothing of what is asked
    workspace = set_params(workspace.root, materialize={"segment_length_s": 0.9})
    materialize(workspace)
    found = diff(workspace, first, "newest", QUESTION)
    assert effects(found.causes) == {
        "data": (True, False),
        "index": (True, True),
        "model": (False, False),
        "parameters": (False, False),
    }
    assert found.causes[0].changes == ("b.mp4 was added",)
    assert "materialize.segment_length_s: 6.0 → 0.9" in found.causes[1].changes


def test_every_kind_of_changed_data_is_named(asked: tuple[Workspace, str], tmp_path: Path):
    workspace, _ = asked
    ingest(
        workspace, [spoken(tmp_path / f"{name}.mp4", *name) for name in ("bbb", "cccc", "ddddd")]
    )
    before = materialize(workspace).manifest.tag
    videos = workspace.videos_dir
    (videos / "bbb.mp4").rename(videos / "bird.mp4")
    (videos / "bbb.vtt").rename(videos / "bird.vtt")
    remove(workspace, ["cccc.mp4", "ddddd.mp4"])
    ingest(workspace, [spoken(tmp_path / "ddddd.mp4", *"another")])
    (videos / "a.vtt").unlink()
    (videos / "a.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nA penguin.\n")
    materialize(workspace)
    found = diff(workspace, before, "newest", QUESTION)
    data, index, *_ = found.causes
    assert data.changes == (
        "a.mp4 has other subtitles",
        "bbb.mp4 is called bird.mp4",
        "cccc.mp4 was removed",
        "ddddd.mp4 has other content",
    )
    assert (data.moments, index.changes) == (True, ())


def test_a_commit_brings_its_own_parameters(asked: tuple[Workspace, str]):
    workspace, tag = asked
    params = (workspace.root / "params.yaml").read_text()
    (workspace.root / "params.yaml").write_text(params + "old_section: {gone: by now}\n")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "add", "--all"], cwd=workspace.root, check=True)
    subprocess.run([*git, "add", "--force", "data/library.json"], cwd=workspace.root, check=True)
    subprocess.run(
        [*git, "commit", "--quiet", "--message", "asked"], cwd=workspace.root, check=True
    )
    (workspace.root / "params.yaml").write_text(params)
    workspace = set_params(workspace.root, ask={"moments": 1}, search={"moment_length_s": 0.5})
    assert Library.open(workspace.root, as_of="HEAD").workspace.params.ask.moments == 4
    found = diff(workspace, "HEAD", tag, QUESTION)
    assert found.causes[3].changes == ("search.moment_length_s: 20.0 → 0.5", "ask.moments: 4 → 1")
    assert effects(found.causes)["data"] == (False, False)


def test_events_conform_to_the_specification_and_name_the_same_runs_again(
    asked: tuple[Workspace, str],
):
    workspace, tag = asked
    written = list(events(workspace))
    for event in written:
        jsonschema.validate(json.loads(json.dumps(event)), RUN_EVENT)
    assert written == list(events(workspace))
    ended = {event["job"]["name"]: event for event in written if event["eventType"] == "COMPLETE"}
    assert set(ended) == {"materialize", "publish", "ask"}
    started = [event["run"]["runId"] for event in written if event["eventType"] == "START"]
    assert sorted(started) == sorted(event["run"]["runId"] for event in ended.values())
    tables = {
        each["name"]: each["facets"]["version"]["datasetVersion"] for each in ended["ask"]["inputs"]
    }
    made = {
        each["name"]: each["facets"]["version"]["datasetVersion"]
        for each in ended["materialize"]["outputs"]
    }
    assert {name: tables[name] for name in made if name != "data/library.json"} == {
        name: version for name, version in made.items() if name != "data/library.json"
    }  # what was asked is what was made
    assert made["data/library.json"] == tag
    assert ended["ask"]["run"]["facets"]["parent"]["run"]["runId"] == FLOW_RUN
    assert ended["publish"]["run"]["facets"]["parent"]["run"]["runId"] == FLOW_RUN


def test_stages_are_exported_from_their_records(asked: tuple[Workspace, str], model_folder: Path):
    workspace, _ = asked
    folder = workspace.root / "models/train/instruct"
    folder.mkdir(parents=True)
    record = {
        "stage": "instruct",
        "model": {},
        "train": {},
        "data": {"train": "d1"},
        "weights": "w",
        "metrics": {},
    }
    (folder / "train.json").write_text(json.dumps(record))
    results = workspace.root / "results"
    facts = evaluated(workspace, model_folder, results, of_library=True).facts
    (results / "run.json").write_text(
        json.dumps(
            {
                "format": 1,
                "facts": facts.as_json() | {"made": "2026-11-24T03:00:00+00:00", "time_s": 90.5},
                "figures": {},
            }
        )
    )
    (workspace.root / "data/prepare").mkdir()
    (workspace.root / "data/prepare/report.json").write_text("{damaged")
    start, end = events(workspace, ["evaluate"])
    assert (start["eventTime"], end["eventTime"]) == (
        "2026-11-24T03:00:00+00:00",
        "2026-11-24T03:01:30.500000+00:00",
    )
    read = {each["name"]: each["facets"]["version"]["datasetVersion"] for each in start["inputs"]}
    assert read["evaluated model"] == folder_digest(model_folder)
    assert read["data/library.json"] == facts.library
    assert facts.library_questions is not None
    assert read["library_questions asked.jsonl"] == facts.library_questions.digest
    _, trained = events(workspace, ["train"])
    assert [each["name"] for each in trained["inputs"]] == ["data/prepare/instruct/train.jsonl"]
    assert [each["name"] for each in trained["outputs"]] == ["models/train/instruct"]
    for event in (start, end, trained):
        jsonschema.validate(event, RUN_EVENT)


def run(root: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*words, "--library", str(root)])
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_commands_on_an_answer(asked: tuple[Workspace, str]):
    workspace, tag = asked
    code, out = run(workspace.root, "explain", "last", "--json")
    explained = json.loads(out)
    assert (code, explained["library"]["tag"], explained["flow_run"]) == (0, tag, FLOW_RUN)
    _, text = run(workspace.root, "explain", explained["receipt_id"][:-2])
    assert all(
        each in text for each in (QUESTION, explained["sources"][0]["video_id"], tag, FLOW_RUN)
    )
    code, out = run(workspace.root, "replay", "last", "--json")
    assert (code, json.loads(out)["identical"]) == (0, True)
    code, out = run(workspace.root, "diff", tag, "v1", QUESTION)
    assert code == 0
    assert "both answer the same, from the same moments" in out
    code, out = run(workspace.root, "lineage", "export", "--run", "last")
    assert [json.loads(line)["eventType"] for line in out.splitlines()] == ["START", "COMPLETE"]
    code, out = run(workspace.root, "search-and-ask", QUESTION, "--as-of", tag, "--json")
    assert json.loads(out)["receipt"] > explained["receipt_id"]
    code, out = run(workspace.root, "videos", "--as-of", "newest")
    assert "a.mp4" in out


def test_a_model_that_was_trained_over_is_taken_from_the_cache_of_dvc(
    asked: tuple[Workspace, str], model_folder: Path
):
    workspace, _ = asked
    folder = workspace.root / "models/train/instruct"
    shutil.copytree(model_folder, folder)
    kept = (
        workspace.root / "kept"
    )  # `dvc repro` stores a stage's output so, and notes it in dvc.lock
    shutil.copytree(folder, kept)
    versioning.track(workspace.root, kept)
    pointer = kept.with_suffix(".dvc").read_text()
    md5 = str(yaml.safe_load(pointer)["outs"][0]["md5"])
    lock = {"stages": {"instruct": {"outs": [{"path": "models/train/instruct", "md5": md5}]}}}
    (workspace.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    workspace = set_params(
        workspace.root,
        ask={
            "answerer": {
                "name": "video_llm",
                "pretrained": "models/train/instruct",
                "max_new_tokens": 4,
            }
        },
    )
    asked_it = Library.open(workspace.root).ask(QUESTION, videos=["a.mp4"])
    shutil.rmtree(workspace.published_dir / "v1")  # the same weights
    (folder / "config.json").chmod(0o644)
    (folder / "config.json").unlink()
    receipt = read_receipt(workspace, str(asked_it.receipt_id))
    assert receipt.model.listing == md5
    assert replay(workspace, receipt).identical
    shutil.rmtree(workspace.root / ".dvc/cache")
    with pytest.raises(
        WorkspaceError, match="gone is the model models/train/instruct with weights"
    ):
        replay(workspace, receipt)


def test_an_answer_that_differs_is_shown_with_what_differs(asked: tuple[Workspace, str]):
    workspace, _ = asked
    receipt = read_receipt(workspace, "last")
    other = replace(receipt, asked_at=now(), answer="something else", software={"mgv": "0.0.1"})
    keep(workspace, other)
    code, out = run(workspace.root, "replay", "last")
    assert code == 1
    assert "answer: was 'something else', is" in out
    assert "not as it was: mgv was 0.0.1, is" in out
