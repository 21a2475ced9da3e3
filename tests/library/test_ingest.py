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
from mgv.library.memory import read_memory
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


def test_a_file_renamed_at_its_source_is_renamed_with_its_subtitles(
    workspace: Workspace, clip: Path
):
    clip.with_suffix(".vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n")
    ingest(workspace, [clip])
    clip.with_suffix(".vtt").unlink()
    renamed = clip.rename(clip.with_name("renamed.mp4"))
    assert outcomes(workspace, renamed) == [("renamed", "renamed.mp4")]
    assert sorted(path.name for path in workspace.videos_dir.iterdir()) == [
        "renamed.mp4",
        "renamed.vtt",
    ]


def test_a_source_that_changed_replaces_what_it_gave_before(workspace: Workspace, clip: Path):
    ingest(workspace, [clip])
    make_video(clip, num_frames=20)
    assert outcomes(workspace, clip) == [("updated", "clip.mp4")]
    assert [f.video_id for f in stored_files(workspace)] == [
        hashlib.sha256(clip.read_bytes()).hexdigest()
    ]


def test_another_video_of_the_same_name_is_kept_beside_it(
    workspace: Workspace, clip: Path, tmp_path: Path
):
    (tmp_path / "other").mkdir()
    other = make_video(tmp_path / "other" / "clip.mp4", num_frames=20)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert outcomes(workspace, clip, other) == [
        ("added", "clip.mp4"),
        ("added", f"clip-{digest[:8]}.mp4"),
    ]


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
    bad = [
        empty,
        text,
        link,
        tmp_path / "folder.mp4",
        half,
        tmp_path / "pipe.mp4",
        tmp_path / "missing.mp4",
    ]
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


WORDS = "1\n00:00:00,000 --> 00:00:00,300\nHello\n"


def stored_names(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in workspace.videos_dir.iterdir())


@pytest.fixture
def two_cuts(tmp_path: Path) -> Path:
    """lecture.mp4 without subtitles, and lecture.cut.mp4 with some: `cut` is no language."""
    folder = tmp_path / "cuts"
    folder.mkdir()
    make_video(folder / "lecture.mp4", num_frames=10)
    make_video(folder / "lecture.cut.mp4", num_frames=12)
    (folder / "lecture.cut.srt").write_text(WORDS)
    return folder


def test_a_video_never_takes_or_removes_the_subtitles_of_another(
    workspace: Workspace, two_cuts: Path
):
    ingest(workspace, [two_cuts])
    assert stored_names(workspace) == ["lecture.cut.mp4", "lecture.cut.srt", "lecture.mp4"]
    remove(workspace, ["lecture.mp4"])
    assert stored_names(workspace) == ["lecture.cut.mp4", "lecture.cut.srt"]


def test_a_rename_onto_another_videos_stem_leaves_that_ones_subtitles(
    workspace: Workspace, two_cuts: Path
):
    (two_cuts / "lecture.srt").write_text(WORDS.replace("Hello", "Goodbye"))
    ingest(workspace, [two_cuts])
    moved = (two_cuts / "lecture.mp4").rename(two_cuts / "lecture.cut.mkv")
    assert outcomes(workspace, moved) == [("duplicate", "lecture.mp4")]
    assert (workspace.videos_dir / "lecture.cut.srt").read_text() == WORDS


def test_what_remove_takes_stays_in_dvc_though_it_was_edited_by_hand(
    workspace: Workspace, clip: Path
):
    ingest(workspace, [clip])
    (workspace.videos_dir / "clip.de.srt").write_text(WORDS)
    remove(workspace, ["clip.mp4"])
    cache = workspace.root / ".dvc" / "cache" / "files"
    held = [path.read_bytes() for path in cache.rglob("*") if path.is_file()]
    assert WORDS.encode() in held


def test_subtitles_that_a_person_put_into_the_library_stay_when_the_source_brings_new_ones(
    workspace: Workspace, clip: Path
):
    ingest(workspace, [clip])
    (workspace.videos_dir / "clip.de.srt").write_text(WORDS)
    clip.with_suffix(".srt").write_text(WORDS)
    ingest(workspace, [clip])
    assert stored_names(workspace) == ["clip.de.srt", "clip.mp4", "clip.srt"]


@pytest.mark.parametrize(
    "fault", [IndexError("tuple index out of range"), ValueError("4300 digits")]
)
def test_whatever_goes_wrong_with_one_file_stops_no_other(
    workspace: Workspace, clip: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
):
    def probe(path: Path, video_id: str) -> None:
        if path.name == "bad.mp4":
            raise fault

    monkeypatch.setattr("mgv.library.ingest.probe", probe)
    bad = Path(shutil.copy(clip, clip.with_name("bad.mp4")))
    with bad.open("ab") as file:
        file.write(b"!")
    rejected, added = ingest(workspace, [bad, clip])
    assert (rejected.outcome, rejected.reason) == ("rejected", f"{type(fault).__name__}: {fault}")
    assert added.outcome == "added"


def test_a_path_that_no_file_can_have_stops_no_other(workspace: Workspace, clip: Path):
    results = ingest(workspace, [Path("x" * 5000), Path("a\0b.mp4"), clip])
    assert [result.outcome for result in results] == ["rejected", "rejected", "added"]


def test_a_video_with_a_subtitle_files_name_is_rejected(workspace: Workspace, clip: Path):
    (result,) = ingest(workspace, [clip.rename(clip.with_name("x.srt"))])
    assert result.outcome == "rejected"
    assert "subtitle" in (result.reason or "")


def test_bins_previews_hidden_folders_downloads_and_code_are_not_walked(
    workspace: Workspace, clip: Path, tmp_path: Path
):
    folder = tmp_path / "nas"
    inside = (
        "#recycle/old.mp4", "$RECYCLE.BIN/S-1-5-21/$R4711.mp4", "@eaDir/kept.mp4/SYNOPHOTO_FILM_M.mp4",
        ".Trash-1000/files/gone.mp4", "film.mp4.download/film.mp4", "half.mp4", "half.mp4.aria2", "._kept.mp4",
    )  # fmt: skip
    for name in inside:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / name)
    (folder / "index.ts").write_text("export const näme = 1;\n")
    shutil.copy(clip, folder / "kept.mp4")
    taken, skipped = ingest(workspace, [folder])
    assert (taken.outcome, taken.name) == ("added", "kept.mp4")
    assert skipped.outcome == "skipped"
    assert skipped.reason == (
        "not looked at: 2 bins, 1 hidden file, 1 hidden folder, 2 partial downloads, 1 preview folder, "
        "1 source code file"
    )
    other = make_video(folder / "#recycle" / "other.mp4", num_frames=11)
    assert outcomes(workspace, other) == [("added", "other.mp4")]  # named outright


def test_a_transport_stream_is_no_source_code(workspace: Workspace, tmp_path: Path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    make_video(folder / "show.ts", num_frames=10)
    assert outcomes(workspace, folder) == [("added", "show.ts")]


def test_a_rejected_file_is_remembered_until_it_changes(
    workspace: Workspace, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "films"
    folder.mkdir()
    bad = folder / "bad.mp4"
    bad.write_text("no video")
    (first,) = ingest(workspace, [folder])
    memory = read_memory(workspace)
    assert dict(memory.still_rejected()) == {str(bad): first.reason}
    with monkeypatch.context() as patched:
        patched.setattr("mgv.library.ingest.probe", lambda *_: pytest.fail("looked at again"))
        assert [result.outcome for result in ingest(workspace, [folder])] == ["rejected"]
    shutil.copy(clip, bad)
    assert outcomes(workspace, folder) == [("added", "bad.mp4")]
    assert dict(read_memory(workspace).still_rejected()) == {}


def test_what_a_person_removed_comes_back_only_when_it_is_named(
    workspace: Workspace, tmp_path: Path
):
    folder = tmp_path / "films"
    folder.mkdir()
    film = make_video(folder / "film.mp4", num_frames=10)
    ingest(workspace, [folder])
    remove(workspace, ["film.mp4"])
    assert outcomes(workspace, folder) == [("skipped", None)]
    assert outcomes(workspace, film) == [("added", "film.mp4")]
    assert outcomes(workspace, folder) == [("unchanged", "film.mp4")]


@pytest.mark.parametrize("length", [248, 255])
def test_two_videos_with_the_same_very_long_name_are_both_kept(
    workspace: Workspace, tmp_path: Path, length: int
):
    name = "n" * (length - 4) + ".mp4"
    for folder, num_frames in (("one", 10), ("two", 12)):
        (tmp_path / folder).mkdir()
        make_video(tmp_path / folder / "v.mp4", num_frames=num_frames).rename(
            tmp_path / folder / name
        )
    taken = outcomes(workspace, tmp_path / "one", tmp_path / "two")
    assert [outcome for outcome, _ in taken] == ["added", "added"]
    assert len({stored for _, stored in taken}) == 2
    assert all(len((stored or "").encode()) <= 255 for _, stored in taken)


def test_a_name_of_decomposed_characters_is_the_same_name(workspace: Workspace, clip: Path):
    nfd = clip.rename(clip.with_name("fo\u0308o\u0308.mp4"))
    assert outcomes(workspace, nfd) == [("added", "föö.mp4")]
    assert outcomes(workspace, nfd) == [("unchanged", "föö.mp4")]
    assert remove(workspace, ["fo\u0308o\u0308.mp4"]) == ["föö.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named_and_tried_again(
    workspace: Workspace, clip: Path, tmp_path: Path
):
    folder = tmp_path / "films"
    (folder / "secret").mkdir(parents=True)
    locked = Path(shutil.copy(clip, folder / "locked.mp4"))
    locked.chmod(0)
    (folder / "secret").chmod(0)
    try:
        results = ingest(workspace, [folder])
    finally:
        (folder / "secret").chmod(0o700)
    assert [(Path(result.source).name, result.outcome) for result in results] == [
        ("locked.mp4", "rejected"),
        ("secret", "rejected"),
    ]
    locked.chmod(0o600)
    assert outcomes(workspace, locked.parent)[0] == ("added", "locked.mp4")
