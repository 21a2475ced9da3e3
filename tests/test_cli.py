"""The command line as a program: exit codes, one-line errors, output that can be piped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mgv.config import load_params
from mgv.errors import ConfigError
from mgv.workspace import Workspace, init_workspace
from tests.conftest import set_params
from tests.media.make_video import make_video

ROOT = Path(__file__).parents[1]


def mgv(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mgv.cli", *words]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_help_imports_nothing_heavy():
    heavy = ("torch", "prefect", "lancedb", "transformers")
    code = f"import sys, mgv.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("search", "x", "--library", "{tmp}"), 5, "mgv init"),
        (("search", "x", "--library", "{tmp}/missing"), 5, "no such folder"),
        (("search", "x", "--library", "{workspace}"), 5, "nothing materialised yet"),
        (("search",), 2, "Missing argument"),
    ],
)
def test_an_error_is_one_line_with_the_exit_code_of_its_class(
    workspace: Workspace, tmp_path: Path, words: tuple[str, ...], code: int, says: str
):
    (tmp_path / "empty").mkdir()
    places = {"tmp": str(tmp_path / "empty"), "workspace": str(workspace.root)}
    done = mgv(*(word.format(**places) for word in words))
    assert done.returncode == code
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    if code != 2:
        assert len(done.stderr.strip().splitlines()) == 1


def test_ingest_materialize_and_videos_in_json(workspace: Workspace, tmp_path: Path):
    clip = make_video(tmp_path / "clip.mp4", num_frames=25)
    (tmp_path / "bad.mp4").write_text("no video")
    done = mgv("ingest", str(clip), str(tmp_path / "bad.mp4"), "--json", cwd=workspace.root)
    assert done.returncode == 0
    assert [file["outcome"] for file in json.loads(done.stdout)["files"]] == ["added", "rejected"]
    made = json.loads(mgv("materialize", "--json", cwd=workspace.root).stdout)
    assert (made["computed"], made["videos"], made["frames"]) == (["clip.mp4"], 1, 1)
    listed = json.loads(mgv("videos", "--json", cwd=workspace.root).stdout)
    assert [video["name"] for video in listed["videos"]] == ["clip.mp4"]


def test_ingesting_only_bad_files_fails_with_the_media_code(workspace: Workspace, tmp_path: Path):
    (tmp_path / "bad.mp4").touch()
    done = mgv("ingest", str(tmp_path / "bad.mp4"), cwd=workspace.root)
    assert done.returncode == 4
    assert "rejected" in done.stderr


def test_doctor_names_what_is_there(workspace: Workspace):
    done = mgv("doctor", "--json", "--library", str(workspace.root))
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0
    assert checks["python"]["ok"]
    assert checks["starter language"]["ok"]
    assert checks["library"]["advice"].startswith("mgv ingest")


def test_init_twice_changes_nothing(tmp_path: Path):
    first = init_workspace(tmp_path / "mine")
    (first.root / "params.yaml").write_text("search: {limit: 3}\n")
    assert init_workspace(tmp_path / "mine").params.search.limit == 3


def test_a_folder_inside_a_workspace_names_it(workspace: Workspace):
    done = mgv("materialize", "--json", cwd=workspace.root / "data")
    assert json.loads(done.stdout)["videos"] == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("search: {limt: 3}", "search.limt"),
        ("materialize: {frame_interval_s: 0}", "materialize.frame_interval_s"),
        ("materialize: {reader: vlc}", "materialize.reader"),
        ("prepare: {sources: [{name: llava}]}", "needs `annotations`"),
        ("prepare: {sources: [{name: scenes, split: dev}]}", "prepare.sources.0.split"),
        ("prepare: {sources: []}", "no sources"),
        ("prepare: {validation_share: 0.6, test_share: 0.4}", "nothing to train on"),
        ("nonsense", "top level"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_wrong_key_of_params_is_named(tmp_path: Path, text: str, says: str):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_params(tmp_path / "params.yaml")


def test_the_repositorys_params_are_the_defaults():
    from mgv.config import Params

    assert load_params(ROOT / "params.yaml") == Params()


def test_an_unknown_part_is_named_with_those_that_exist(workspace: Workspace, tmp_path: Path):
    changed = set_params(workspace.root, materialize={"transcriber": {"name": "wisper"}})
    done = mgv("materialize", "--library", str(changed.root))
    assert done.returncode == 3
    assert "whisper" in done.stderr
