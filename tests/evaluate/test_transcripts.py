"""Transcripts: which of a real library's words were recognised, and held against a reference."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mgv.ask.library import Library
from mgv.config import EvaluateParams
from mgv.errors import MgvError, UsageError, WorkspaceError
from mgv.evaluate.metrics import spoken_words
from mgv.evaluate.run import evaluate
from mgv.evaluate.transcripts import evaluate_transcripts
from mgv.library.ingest import ingest
from mgv.library.materialize import materialize
from mgv.workspace import Workspace
from tests.conftest import RANDOM_PARTS, set_params
from tests.media.make_video import make_video


def subtitles(*words: str) -> str:
    return f"WEBVTT\n\n00:00.100 --> 00:01.900\n{' '.join(words)}\n"


@pytest.fixture(scope="module")
def heard(_made_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """heard.mp4 has a sound track and no subtitles, told.mp4 has both, mute.mp4 neither."""
    root, videos = tmp_path_factory.mktemp("heard") / "workspace", tmp_path_factory.mktemp("videos")
    shutil.copytree(_made_workspace, root, symlinks=True)
    workspace = set_params(root, materialize=RANDOM_PARTS)
    for name, num_audio, num_frames in (("heard", 1, 50), ("told", 1, 25), ("mute", 0, 25)):
        make_video(videos / f"{name}.mp4", num_audio=num_audio, num_frames=num_frames)
    (videos / "told.vtt").write_text(subtitles("a cake"))
    ingest(workspace, [videos])
    materialize(workspace)
    return workspace


def test_only_what_was_recognised_is_scored_and_the_rest_is_named(
    heard: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    library = Library.open(heard.root)
    source, cues = library.subtitles("heard.mp4")
    words = spoken_words(" ".join(cue.text for cue in cues))
    assert (source, library.subtitles("told.mp4")[0], library.subtitles("mute.mp4")) == (
        "whisper", "sidecar", ("none", []),
    )  # fmt: skip
    folder = tmp_path / "references"
    folder.mkdir()
    wanted = [*words[1:], "zebra"]  # its first word was never said, and one more was
    (folder / "heard.en.vtt").write_text(subtitles(*wanted))
    (folder / "heard.de.srt").write_text(subtitles("anders"))
    (folder / "told.vtt").write_text(subtitles("another cake"))
    (folder / "mute.vtt").write_text(subtitles("silence"))
    (folder / "lost.vtt").write_text(subtitles("gone"))
    with caplog.at_level(logging.WARNING):
        found = evaluate_transcripts(library, folder)
    (row,) = found.rows
    errors = 2 if words else 1
    assert (row.key, row.weight, row.scores) == (
        "heard.mp4", len(wanted), {"word_error_rate": errors / len(wanted)},
    )  # fmt: skip
    assert found.missing == {"lost.vtt": 1}
    assert found.unscored == {
        "told.mp4": "its words come from subtitles beside it, not from recognition",
        "mute.mp4": "it has no sound",
    }
    assert "told.mp4" in caplog.text
    assert "lost.vtt" in caplog.text
    (folder / "heard.en.vtt").write_text("WEBVTT\n")
    assert (
        evaluate_transcripts(library, folder).unscored["heard.mp4"] == "heard.en.vtt has no words"
    )
    run = evaluate(
        heard, EvaluateParams(questions=None, transcripts=str(folder), num_bootstrap=20), tmp_path
    )
    counted = {
        name: value for name, value in run.metrics.items() if name.startswith("transcripts.")
    }
    assert counted == {
        "transcripts.count": 0,
        "transcripts.unscored": 3,
        "transcripts.missing_videos": 1,
    }
    with pytest.raises(UsageError, match="not in the library"):
        library.subtitles("lost.mp4")


def test_a_folder_that_holds_no_reference_is_told(heard: Workspace, tmp_path: Path):
    params = EvaluateParams(questions=None, transcripts="refs")
    with pytest.raises(WorkspaceError, match=r"refs: not there; make a folder"):
        evaluate(heard, params, tmp_path)
    folder = tmp_path / "refs"
    folder.mkdir()
    with pytest.raises(MgvError, match=r"no .vtt or .srt in it"):
        evaluate(heard, replace(params, transcripts=str(folder)), tmp_path)
    (folder / "lost.vtt").write_text(subtitles("gone"))
    with pytest.raises(
        MgvError, match=r"none of its 1 subtitle files is of a video .* \(first: lost.vtt\)"
    ):
        evaluate(heard, replace(params, transcripts=str(folder)), tmp_path)
    with pytest.raises(WorkspaceError, match="cannot be read as a folder"):
        evaluate(heard, replace(params, transcripts=str(folder / "lost.vtt")), tmp_path)
