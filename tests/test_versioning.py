"""DVC stages run with their output told as it comes, and what they failed of."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from mgv import versioning
from mgv.errors import ConfigError
from mgv.workspace import Workspace


def stage(root: Path, command: str) -> None:
    (root / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"make": {"cmd": command, "deps": ["in"], "outs": ["out"]}}})
    )
    (root / "in").write_text("one")


def test_a_stage_runs_then_is_unchanged_then_restored_and_its_output_is_told(workspace: Workspace):
    root = workspace.root
    stage(root, "echo hello && cp in out")
    said: list[str] = []
    assert versioning.repro(root, "make", said.append) == "ran"
    assert "hello" in said
    assert versioning.changed_stages(root) == []
    assert versioning.repro(root, "make", said.append) == "unchanged"
    (root / "in").write_text("two")
    assert versioning.changed_stages(root) == ["make"]
    assert versioning.repro(root, "make", said.append) == "ran"
    (root / "in").write_text("one")
    assert versioning.repro(root, "make", said.append) == "restored"


def test_a_stage_that_fails_raises_its_own_error_and_one_that_dies_another(workspace: Workspace):
    stage(workspace.root, "echo 'error: params.yaml is wrong' && exit 3")
    with pytest.raises(ConfigError, match=r"make: params\.yaml is wrong"):
        versioning.repro(workspace.root, "make", lambda line: None)
    stage(workspace.root, "kill -9 $$")
    with pytest.raises(ChildProcessError, match="make"):
        versioning.repro(workspace.root, "make", lambda line: None)


def test_what_interrupts_a_stage_ends_its_processes(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    noted = tmp_path / "pid"
    stage(workspace.root, f"echo $$ > {noted}.part && mv {noted}.part {noted}; sleep 60")

    def pause() -> None:
        if noted.exists():
            raise TimeoutError
        time.sleep(0.05)

    monkeypatch.setattr("mgv.versioning._pause", pause)
    with pytest.raises(TimeoutError):
        versioning.repro(workspace.root, "make", lambda line: None)
    with suppress(psutil.NoSuchProcess):  # or dead, and nobody has asked after it yet
        assert psutil.Process(int(noted.read_text())).status() == psutil.STATUS_ZOMBIE


def test_commits_tags_and_pushes_are_made_once(workspace: Workspace, tmp_path: Path):
    root = workspace.root
    assert versioning.push(root) == [
        "data and models not pushed: DVC has no remote (`dvc remote add --default NAME URL`)",
        "commits not pushed: git has no remote (`git remote add origin URL`)",
    ]
    subprocess.run(["git", "init", "--bare", "--quiet", tmp_path / "remote"], check=True)
    subprocess.run(["git", "remote", "add", "origin", tmp_path / "remote"], cwd=root, check=True)
    (root / "note").write_text("one")
    assert versioning.commit_changes(root, ["note", "missing"], "Note")
    assert not versioning.commit_changes(root, ["note", "missing"], "Note")
    assert versioning.tag(root, "mgv-v1", "one")
    assert not versioning.tag(root, "mgv-v1", "one")
    assert versioning.push(root)[1] == "commits and tags pushed to origin"
    listed = subprocess.run(
        ["git", "tag"], cwd=tmp_path / "remote", capture_output=True, text=True, check=True
    )
    assert listed.stdout == "mgv-v1\n"
