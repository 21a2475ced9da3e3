"""The flows, as DVC runs them: real DVC, real Prefect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mgv.data.prepare import prepare
from mgv.data.samples import SampleFile
from mgv.library.ingest import ingest
from mgv.library.manifest import read_manifest
from mgv.library.materialize import materialize
from mgv.workspace import Workspace, find_workspace
from tests.conftest import set_params
from tests.media.make_video import make_video

ROOT = Path(__file__).parents[1]


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    everything = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "DVC_NO_ANALYTICS": "1",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env=everything,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_dvc_repro_runs_the_flow_once_and_equals_the_command(workspace: Workspace, tmp_path: Path):
    ingest(
        workspace,
        [make_video(tmp_path / f"{name}.mp4", num_frames=n) for name, n in (("a", 25), ("b", 50))],
    )
    (workspace.videos_dir / "bad.mp4").write_text("not a video")
    done = run("dvc", "repro", "materialize", cwd=workspace.root)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(workspace.manifest)
    assert manifest is not None
    assert set(manifest.failed) == {"bad.mp4"}
    assert manifest.num_frames == 3
    assert (workspace.root / "dvc.lock").exists()
    again = run("dvc", "repro", "materialize", cwd=workspace.root)
    assert "didn't change, skipping" in again.stdout
    assert materialize(workspace, rebuild=True).manifest.digest == manifest.digest


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_ingest_flow_takes_videos_in(workspace: Workspace, tmp_path: Path):
    clip = make_video(tmp_path / "clip.mp4", num_frames=10)
    done = run("flows.ingest", str(clip), "--library", str(workspace.root), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stored = json.loads(workspace.videos_index.read_text())
    assert [file["name"] for file in stored] == ["clip.mp4"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_flow_that_cannot_go_on_exits_non_zero(workspace: Workspace, tmp_path: Path):
    done = run("flows.materialize", "--library", str(tmp_path / "nowhere"), cwd=workspace.root)
    assert done.returncode != 0
    assert "no such folder" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_dvc_prepares_the_library_and_again_only_when_something_changed(
    workspace: Workspace, tmp_path: Path
):
    talk = make_video(tmp_path / "talk.mp4", num_frames=50)
    talk.with_suffix(".vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHello.\n")
    ingest(workspace, [talk])
    row = {"media": "talk.mp4", "turns": [{"question": "What is said?", "answer": "Hello."}]}
    (workspace.root / "mine.jsonl").write_text(json.dumps(row) + "\n")
    source = {"name": "samples", "annotations": "mine.jsonl", "split": "train"}
    set_params(workspace.root, prepare={"sources": [source]})
    done = run("dvc", "repro", "prepare", cwd=workspace.root)
    assert done.returncode == 0, done.stderr
    folder = workspace.root / "data" / "prepare"
    (sample,) = SampleFile(folder / "instruct" / "train.jsonl")
    assert [cue.text for cue in sample.cues] == ["Hello."]
    metrics = json.loads(run("dvc", "metrics", "show", "--json", cwd=workspace.root).stdout)
    shown = metrics[""]["data"]["data/prepare/report.json"]["data"]
    assert shown["stages"]["instruct"]["train"]["samples"] == 1
    assert "didn't change, skipping" in run("dvc", "repro", "prepare", cwd=workspace.root).stdout
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*.json*"))}
    prepare(find_workspace(workspace.root))
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*.json*"))} == before

    (workspace.root / "mine.jsonl").write_text("{}\n")
    set_params(workspace.root, prepare={"seed": 1})
    failed = run("dvc", "repro", "prepare", cwd=workspace.root)
    assert failed.returncode != 0
    assert "1 of 1 rows are bad" in failed.stderr
    assert "Retr" not in failed.stderr
