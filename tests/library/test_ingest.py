"""Ingest, through real DVC and real files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mgv.errors import BusyError, UsageError
from mgv.library.ingest import ingest, remove, stored_files
from mgv.workspace import Workspace
from tests.media.make_video import make_video


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_video(tmp_path / "clip.mp4", num_frames=10)


def outcomes(workspace: Workspace, *paths: Path) -> list[tuple[str, str | None]]:
    return [(result.outcome, result.name) for result in ingest(workspace, paths)]


def test_a_video_is_stored_under_its_sha_256_and_tracked_by_dvc(workspace: Workspace, clip: Path):
    assert outcomes(workspace, clip) == [("added", "clip.mp4")]
    (stored,) = stored_files(workspace)
    assert stored.video_id == hashlib.sha256(clip.read_bytes()).hexdigest()
    tracked = (workspace.root / "data" / "videos.dvc").read_text()
    assert "nfiles: 1" in tracked
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "data/videos.dvc", "--json"],
        cwd=workspace.root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(status.stdout) == {}


def test_the_source_stays_as_it_was(workspace: Workspace, clip: Path):
    before = clip.stat().st_mode, clip.read_bytes()
    ingest(workspace, [clip])
    assert (clip.stat().st_mode, clip.read_bytes()) == before
    assert os.access(clip, os.W_OK)


def test_the_same_file_again_changes_nothing(workspace: Workspace, clip: Path):
    ingest(workspace, [clip])
    assert outcomes(workspace, clip) == [("unchanged", "clip.mp4")]


def test_a_second_file_with_the_same_content_is_a_duplicate(workspace: Workspace, clip: Path):
    copy = Path(shutil.copy(clip, clip.with_name("copy.mp4")))
    assert outcomes(workspace, clip, copy) == [("added", "clip.mp4"), ("duplicate", "clip.mp4")]
    assert len(stored_files(workspace)) == 1


def test_a_file_renamed_at_its_source_is_renamed_with_its_subtitles(workspace: Workspace, clip: Path):
    clip.with_suffix(".vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n")
    ingest(workspace, [clip])
    clip.with_suffix(".vtt").unlink()
    renamed = clip.rename(clip.with_name("renamed.mp4"))
    assert outcomes(workspace, renamed) == [("renamed", "renamed.mp4")]
    assert sorted(path.name for path in workspace.videos_dir.iterdir()) == ["renamed.mp4", "renamed.vtt"]


def test_a_source_that_changed_replaces_what_it_gave_before(workspace: Workspace, clip: Path):
    ingest(workspace, [clip])
    make_video(clip, num_frames=20)
    assert outcomes(workspace, clip) == [("updated", "clip.mp4")]
    assert [f.video_id for f in stored_files(workspace)] == [hashlib.sha256(clip.read_bytes()).hexdigest()]


def test_another_video_of_the_same_name_is_kept_beside_it(workspace: Workspace, clip: Path, tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = make_video(tmp_path / "other" / "clip.mp4", num_frames=20)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert outcomes(workspace, clip, other) == [("added", "clip.mp4"), ("added", f"clip-{digest[:8]}.mp4")]


def test_a_folder_is_walked_and_only_its_videos_are_taken(workspace: Workspace, tmp_path: Path):
    folder = tmp_path / "talks"
    (folder / "deep").mkdir(parents=True)
    make_video(folder / "deep" / "a.mp4", num_frames=10)
    (folder / "notes.txt").write_text("no video")
    assert outcomes(workspace, folder) == [("added", "a.mp4")]


def test_bad_files_are_listed_with_a_reason_and_stop_no_other(
    workspace: Workspace, clip: Path, tmp_path: Path
):
    empty, text, link = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "link.mp4"
    empty.touch()
    text.write_text("not a video")
    link.symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.mp4").mkdir()
    half = tmp_path / "half.mp4"
    half.write_bytes(clip.read_bytes()[:400])
    os.mkfifo(tmp_path / "pipe.mp4")
    bad = [empty, text, link, tmp_path / "folder.mp4", half, tmp_path / "pipe.mp4", tmp_path / "missing.mp4"]
    results = ingest(workspace, [*bad, clip])
    assert [result.outcome for result in results] == ["rejected"] * len(bad) + ["added"]
    for result in results[:-1]:
        assert result.reason
        assert "\n" not in result.reason
        assert "Traceback" not in result.reason
    assert [stored.name for stored in stored_files(workspace)] == ["clip.mp4"]


@pytest.mark.parametrize(
    "name", ['it\'s "quoted".mp4', "line\nbreak.mp4", "föö 日本.mp4", "-rf.mp4", "a;b|c&d.mp4"]
)
def test_hostile_names_are_stored_and_tracked(workspace: Workspace, clip: Path, name: str):
    hostile = clip.rename(clip.with_name(name))
    ((outcome, stored),) = outcomes(workspace, hostile)
    assert outcome == "added"
    assert stored == name.replace("\n", "_")
    assert outcomes(workspace, hostile) == [("unchanged", stored)]


def test_unreadable_subtitles_are_named_and_left_out(workspace: Workspace, clip: Path):
    clip.with_suffix(".srt").write_text("1\nbroken --> times\nwords\n")
    (result,) = ingest(workspace, [clip])
    assert result.outcome == "added"
    assert result.reason is not None
    assert "subtitles left out" in result.reason


def test_changed_subtitles_of_a_known_video_are_taken(workspace: Workspace, clip: Path):
    ingest(workspace, [clip])
    clip.with_suffix(".vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n")
    assert outcomes(workspace, clip) == [("updated", "clip.mp4")]
    assert (workspace.videos_dir / "clip.vtt").exists()


def test_a_lost_index_is_made_again_from_the_files(workspace: Workspace, clip: Path):
    ingest(workspace, [clip])
    workspace.videos_index.write_text("{broken")
    assert [f.name for f in stored_files(workspace)] == ["clip.mp4"]


def test_a_removed_video_leaves_with_its_subtitles(workspace: Workspace, clip: Path):
    clip.with_suffix(".vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n")
    ingest(workspace, [clip])
    assert remove(workspace, ["clip.mp4"]) == ["clip.mp4"]
    assert list(workspace.videos_dir.iterdir()) == []
    with pytest.raises(UsageError, match=r"clip\.mp4"):
        remove(workspace, ["clip.mp4"])


def test_two_writers_do_not_meet(workspace: Workspace, clip: Path):
    with workspace.writing(), pytest.raises(BusyError):
        ingest(workspace, [clip])
