"""The inbox: what is whole is taken in and cleared away, what is still being written waits."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from mgv.errors import BusyError
from mgv.library.inbox import inbox_folder, take_in
from mgv.library.ingest import stored_files
from mgv.workspace import Workspace
from tests.media.make_video import make_video


@pytest.fixture
def inbox(workspace: Workspace) -> Path:
    return inbox_folder(workspace)


def old(path: Path) -> Path:
    """A file that has not changed for a minute."""
    os.utime(path, (time.time() - 60, time.time() - 60))
    return path


def names(workspace: Workspace) -> list[str]:
    return [file.name for file in stored_files(workspace)]


def test_a_video_and_its_subtitles_are_taken_in_and_a_bad_file_is_put_aside_with_the_reason(
    workspace: Workspace, inbox: Path
):
    old(make_video(inbox / "talk.mp4", num_frames=10))
    (inbox / "talk.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHello.\n")
    (inbox / "bad.mp4").write_text("no video")
    old(inbox / "talk.vtt"), old(inbox / "bad.mp4")
    taken = take_in(workspace, inbox, settle_s=30)
    assert {(result.name, result.outcome) for result in taken.results} == {
        ("talk.mp4", "added"), (None, "rejected"),
    }  # fmt: skip
    assert (workspace.videos_dir / "talk.vtt").is_file()
    assert sorted(path.name for path in inbox.iterdir()) == ["done", "rejected"]
    assert sorted(path.name for path in (inbox / "done").iterdir()) == ["talk.mp4", "talk.vtt"]
    assert "not a readable video" in (inbox / "rejected/bad.mp4.reason.txt").read_text()
    assert take_in(workspace, inbox, settle_s=0).results == ()


def test_a_file_that_is_still_being_written_waits(workspace: Workspace, inbox: Path):
    make_video(inbox / "new.mp4", num_frames=10)
    grows = old(make_video(inbox / "grows.mp4", num_frames=10))

    def write() -> None:
        time.sleep(0.1)
        with grows.open("ab") as out:
            out.write(b"more")
        old(grows)

    thread = threading.Thread(target=write)
    thread.start()
    taken = take_in(workspace, inbox, settle_s=30)
    thread.join()
    assert taken.waiting == ("grows.mp4", "new.mp4")
    assert (names(workspace), (inbox / "new.mp4").is_file()) == ([], True)


def test_another_video_of_a_known_name_replaces_nothing_and_the_same_again_is_no_second_video(
    workspace: Workspace, inbox: Path
):
    make_video(inbox / "cam.mp4", num_frames=10)
    take_in(workspace, inbox, settle_s=0)
    make_video(inbox / "cam.mp4", num_frames=20)
    make_video(inbox / "again.mp4", num_frames=10)
    taken = take_in(workspace, inbox, settle_s=0)
    assert [result.outcome for result in taken.results] == ["duplicate", "added"]
    first, second = names(workspace)
    assert (first[:4], second) == ("cam-", "cam.mp4")
    assert len(list((inbox / "done").iterdir())) == 3


def test_while_another_process_writes_nothing_is_taken_and_nothing_is_lost(
    workspace: Workspace, inbox: Path
):
    make_video(inbox / "cam.mp4", num_frames=10)
    with workspace.writing(), pytest.raises(BusyError):
        take_in(workspace, inbox, settle_s=0)
    assert (inbox / "cam.mp4").is_file()


def test_names_of_any_length_leave_the_inbox_and_overwrite_nothing(
    workspace: Workspace, inbox: Path
):
    name = "n" * 251 + ".mp4"
    (inbox / "rejected").mkdir()
    (inbox / "rejected" / name).write_text("a stranger's")
    for content in ("no video", "no video either"):
        (inbox / name).write_text(content)
        (result,) = take_in(workspace, inbox, 0.0).results
        assert result.outcome == "rejected"
    held = sorted(path.read_text() for path in (inbox / "rejected").glob("*.mp4"))
    assert held == ["a stranger's", "no video", "no video either"]
