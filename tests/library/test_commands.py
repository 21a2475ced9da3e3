"""The library's commands, as a person types them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mgv.ask.library import Library
from mgv.cli import app
from mgv.errors import AccessError
from mgv.library.ingest import ingest
from mgv.library.manifest import read_manifest
from mgv.library.materialize import materialize
from mgv.workspace import Workspace
from tests.media.make_video import make_video

WORDS = "1\n00:00:01,000 --> 00:00:02,000\nA parrot sings \x1b]0;owned\x07.\n"


@pytest.fixture
def library(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A library of talk.mp4, which has hostile subtitles; bad.mp4 beside it was rejected."""
    folder = tmp_path / "films"
    folder.mkdir()
    make_video(folder / "talk.mp4", num_frames=50)
    (folder / "talk.srt").write_text(WORDS)
    (folder / "bad.mp4").write_text("no video")
    ingest(workspace, [folder])
    materialize(workspace)
    return workspace


def run(workspace: Workspace, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*words, "--library", str(workspace.root)])
    return result.exit_code, result.output


def test_a_video_is_shown_with_its_words_and_no_escape_reaches_the_terminal(library: Workspace):
    code, output = run(library, "videos", "talk.mp4")
    assert code == 0
    assert "0:01  A parrot sings" in output
    assert "\x1b" not in output
    assert "\x07" not in output
    assert "\x1b" not in run(library, "search", "parrot")[1]


def test_rejected_files_are_listed_with_their_reason(library: Workspace, tmp_path: Path):
    rejected = json.loads(run(library, "videos", "--json")[1])["rejected"]
    assert set(rejected) == {str(tmp_path / "films" / "bad.mp4")}
    (tmp_path / "films" / "bad.mp4").unlink()
    assert json.loads(run(library, "videos", "--json")[1])["rejected"] == {}


def test_a_run_in_which_a_ready_video_fails_exits_with_4(
    library: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise AccessError("talk.mp4: no permission to read it")

    monkeypatch.setattr("mgv.library.compute.probe", fail)
    code, output = run(library, "materialize", "--rebuild")
    assert code == 4
    assert "what was computed of it before stays" in output
    assert run(library, "search", "parrot")[0] == 0


def test_a_commit_names_the_library_that_was_made_of_its_videos(library: Workspace, tmp_path: Path):
    first = read_manifest(library.manifest)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "commit", "-qam", "first"], cwd=library.root, check=True)
    ingest(library, [make_video(tmp_path / "second.mp4", num_frames=25)])
    materialize(library)
    assert [video.name for video in Library.open(library.root).videos()] == [
        "second.mp4",
        "talk.mp4",
    ]
    then = Library.open(library.root, as_of="HEAD")
    assert then.manifest == first
    assert [video.name for video in then.videos()] == ["talk.mp4"]
