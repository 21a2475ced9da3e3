"""Materialise, through real decoding and real LanceDB, with tiny random parts."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mgv import versioning
from mgv.ask.library import Library
from mgv.encoders.loaded import Parts
from mgv.errors import AccessError, BusyError, WorkspaceError
from mgv.library.ingest import ingest, stored_files
from mgv.library.manifest import read_manifest
from mgv.library.materialize import Report, materialize
from mgv.library.schema import rows_digest
from mgv.library.store import open_for_reading
from mgv.workspace import Workspace
from tests.conftest import set_params
from tests.media.make_video import make_video

SUBTITLES = "WEBVTT\n\n00:00.000 --> 00:01.500\nThe rocket lifts off.\n\n00:02.000 --> 00:03.000\nA parrot sings.\n"


@pytest.fixture
def library(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with two videos: talk.mp4 of 4 s with subtitles, still.mp4 of 2 s without sound."""
    talk = make_video(tmp_path / "talk.mp4", num_frames=100, num_audio=1)
    talk.with_suffix(".vtt").write_text(SUBTITLES)
    ingest(workspace, [talk, make_video(tmp_path / "still.mp4", num_frames=51)])
    return workspace


class CountingParts(Parts):
    """Parts that note which of them were asked for."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace.params.materialize)
        self.used: list[str] = []

    @property
    def text_embedder(self):  # type: ignore[no-untyped-def]
        self.used.append("text")
        return super().text_embedder

    @property
    def frame_embedder(self):  # type: ignore[no-untyped-def]
        self.used.append("frames")
        return super().frame_embedder

    @property
    def transcriber(self):  # type: ignore[no-untyped-def]
        self.used.append("sound")
        return super().transcriber


def digest_from_tables(workspace: Workspace) -> dict[str, tuple[str, str]]:
    """Digests taken from the stored rows themselves, video by video."""
    manifest = read_manifest(workspace.manifest)
    assert manifest is not None
    tables = open_for_reading(workspace.store_uri, manifest.versions)
    found = {}
    for row in tables["videos"].to_arrow().to_pylist():
        rows = [tables[name].to_arrow() for name in ("frames", "segments")]
        own = [
            table.filter([v == row["video_id"] for v in table["video_id"].to_pylist()])
            for table in rows
        ]
        found[row["name"]] = (rows_digest(own[0], "time_s"), rows_digest(own[1], "start_s"))
        assert found[row["name"]] == (row["frames_digest"], row["segments_digest"])
    return found


def test_a_frame_stands_for_every_second_and_each_cue_is_searchable(library: Workspace):
    report = materialize(library)
    assert report.computed == ("still.mp4", "talk.mp4")
    assert (report.manifest.num_frames, report.manifest.num_segments) == (4 + 2, 1)
    tables = open_for_reading(library.store_uri, report.manifest.versions)
    talk = next(f.video_id for f in stored_files(library) if f.name == "talk.mp4")
    rows = [row for row in tables["frames"].to_arrow().to_pylist() if row["video_id"] == talk]
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [row["time_s"] for row in rows] == pytest.approx(
        [0.48, 1.48, 2.48, 3.48]
    )  # 25 frames a second
    (segment,) = tables["segments"].to_arrow().to_pylist()
    assert segment["text"] == "The rocket lifts off. A parrot sings."
    digest_from_tables(library)


def test_nothing_changed_computes_nothing(library: Workspace):
    first = materialize(library)
    parts = CountingParts(library)
    again = materialize(library, parts=parts)
    assert again == Report(computed=(), renamed=(), removed=(), manifest=first.manifest)
    assert parts.used == []


def test_a_rebuild_gives_the_same_digest(library: Workspace):
    assert (
        materialize(library).manifest.digest == materialize(library, rebuild=True).manifest.digest
    )


def test_a_new_video_costs_only_itself(library: Workspace, tmp_path: Path):
    materialize(library)
    ingest(library, [make_video(tmp_path / "new.mp4", num_frames=25, size=(64, 96))])
    assert materialize(library).computed == ("new.mp4",)


def test_a_renamed_video_costs_nothing(library: Workspace, tmp_path: Path):
    materialize(library)
    (library.videos_dir / "still.mp4").rename(library.videos_dir / "moved.mp4")
    parts = CountingParts(library)
    report = materialize(library, parts=parts)
    assert (report.computed, report.renamed) == ((), ("still.mp4 → moved.mp4",))
    assert parts.used == []
    assert [video.name for video in Library.open(library.root).videos()] == [
        "moved.mp4",
        "talk.mp4",
    ]


def test_a_removed_video_leaves_and_the_rest_equals_a_library_that_never_had_it(library: Workspace):
    materialize(library)
    (library.videos_dir / "still.mp4").unlink()
    report = materialize(library)
    assert report.removed == ("still.mp4",)
    assert report.manifest.digest == materialize(library, rebuild=True).manifest.digest
    assert report.manifest.num_frames == 4


def test_changed_subtitles_redo_the_words_only(library: Workspace):
    materialize(library)
    (library.videos_dir / "talk.vtt").unlink()
    (library.videos_dir / "talk.vtt").write_text(SUBTITLES.replace("parrot", "penguin"))
    parts = CountingParts(library)
    assert materialize(library, parts=parts).computed == ("talk.mp4",)
    assert set(parts.used) == {"text"}


def test_another_segment_length_redoes_segments_without_listening_again(library: Workspace):
    materialize(library)
    changed = set_params(library.root, materialize={"segment_length_s": 1.6})
    parts = CountingParts(changed)
    report = materialize(changed, parts=parts)
    assert set(parts.used) == {"text"}
    assert report.manifest.num_segments == 2


def test_another_frame_interval_redoes_frames_only(library: Workspace):
    materialize(library)
    changed = set_params(library.root, materialize={"frame_interval_s": 2.0})
    parts = CountingParts(changed)
    assert materialize(changed, parts=parts).manifest.num_frames == 2 + 1
    assert set(parts.used) == {"frames"}


def test_a_reader_keeps_its_library_while_another_is_made(library: Workspace):
    materialize(library)
    before = Library.open(library.root)
    (library.videos_dir / "talk.vtt").unlink()
    (library.videos_dir / "talk.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nPenguins\n")
    materialize(library)
    assert "rocket" in before.search("rocket lifts off")[0].text
    assert Library.open(library.root).search("penguins")[0].text == "Penguins"


def test_every_run_tags_all_tables_with_its_name(library: Workspace):
    first = materialize(library).manifest
    (library.videos_dir / "still.mp4").unlink()
    second = materialize(library).manifest
    assert first.tag != second.tag
    tables = open_for_reading(library.store_uri, second.versions)
    for name, table in tables.items():
        assert {first.tag: first.versions[name], second.tag: second.versions[name]} == {
            tag: facts["version"] for tag, facts in table.tags.list().items()
        }
    assert open_for_reading(library.store_uri, first.versions)["frames"].count_rows() == 6


def test_a_file_that_is_no_video_is_recorded_and_stops_no_other(library: Workspace):
    (library.videos_dir / "bad.mp4").write_text("not a video")
    report = materialize(library)
    assert set(report.manifest.failed) == {"bad.mp4"}
    assert "\n" not in report.manifest.failed["bad.mp4"]
    assert materialize(library).computed == ()  # it is not tried again
    (library.videos_dir / "bad.mp4").unlink()
    assert materialize(library).manifest.failed == {}


def test_a_part_that_fails_on_one_video_is_tried_again_next_time(
    library: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("mgv.media.words.read_subtitle_file", fail)
        assert materialize(library).manifest.failed == {"talk.mp4": "RuntimeError: out of memory"}
    report = materialize(library)
    assert (report.computed, report.manifest.failed) == (("talk.mp4",), {})


def test_parts_with_other_widths_take_over_and_back(library: Workspace):
    first = materialize(library).manifest
    other = set_params(
        library.root, materialize={"frame_embedder": {"name": "conse", "pretrained": "random"}}
    )
    assert materialize(other).computed == ("still.mp4", "talk.mp4")
    back = set_params(
        library.root, materialize={"frame_embedder": {"name": "clip", "pretrained": "random"}}
    )
    assert materialize(back).manifest.digest == first.digest


def test_two_runs_do_not_meet(library: Workspace):
    with library.writing(), pytest.raises(BusyError):
        materialize(library)


def test_a_library_that_was_never_made_says_so(workspace: Workspace):
    with pytest.raises(WorkspaceError, match="mgv materialize"):
        Library.open(workspace.root)


def test_a_lost_store_is_made_again(library: Workspace, tmp_path: Path):
    digest = materialize(library).manifest.digest
    (library.root / "data" / "library").rename(tmp_path / "gone")
    with pytest.raises(WorkspaceError, match="rebuild"):
        Library.open(library.root)
    assert materialize(library).manifest.digest == digest


KILLED = """
import os, signal, sys
from collections.abc import Callable
from pathlib import Path
from mgv.library import store
from mgv.library.materialize import materialize
from mgv.workspace import find_workspace

calls = 0
def deadly(method):
    def call(*args):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args)
    return call
for name in ("put_videos", "replace_rows", "finish", "tag"):
    setattr(store.Store, name, deadly(getattr(store.Store, name)))
materialize(find_workspace(Path(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 3, 4, 5, 6])
def test_a_kill_at_any_step_and_a_second_run_equal_one_run(
    library: Workspace, at: int, tmp_path: Path
):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(script), str(library.root), str(at)],
        env=environment,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert read_manifest(library.manifest) is None  # readers never see a half-made library
    resumed = materialize(library).manifest
    stored = digest_from_tables(library)
    assert resumed.digest == materialize(library, rebuild=True).manifest.digest
    assert digest_from_tables(library) == stored


def fail_with(fault: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise fault

    return fail


@pytest.mark.parametrize(
    "fault", [MemoryError(), AccessError("talk.mp4: no permission to read it")]
)
def test_a_rebuild_that_fails_keeps_the_library_that_there_was_and_says_so(
    library: Workspace, monkeypatch: pytest.MonkeyPatch, fault: Exception
):
    before = materialize(library).manifest
    with monkeypatch.context() as patch:
        patch.setattr("mgv.library.compute.read_frames", fail_with(fault))
        report = materialize(library, rebuild=True)
    assert set(report.kept) == {"still.mp4", "talk.mp4"}
    assert report.is_worse
    assert report.manifest.digest == before.digest
    assert len(Library.open(library.root).search("rocket")) > 0


def test_a_video_that_could_not_be_read_for_a_moment_is_tried_again(
    library: Workspace, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(
            "mgv.library.compute.probe", fail_with(AccessError("talk.mp4: no permission"))
        )
        assert set(materialize(library).manifest.failed) == {"still.mp4", "talk.mp4"}
    report = materialize(library)
    assert (report.computed, report.manifest.failed) == (("still.mp4", "talk.mp4"), {})


def test_rows_of_another_embedder_are_not_kept(library: Workspace, monkeypatch: pytest.MonkeyPatch):
    materialize(library)
    other = set_params(
        library.root, materialize={"frame_embedder": {"name": "conse", "pretrained": "random"}}
    )
    monkeypatch.setattr("mgv.library.compute.read_frames", fail_with(RuntimeError("no memory")))
    report = materialize(other)
    assert (report.kept, report.lost, report.is_worse) == ({}, ("still.mp4", "talk.mp4"), True)


def test_a_disk_that_is_not_mounted_takes_no_library_away(library: Workspace, tmp_path: Path):
    materialize(library)
    library.videos_dir.rename(tmp_path / "elsewhere")
    for folder_is_there in (False, True):
        if folder_is_there:
            library.videos_dir.mkdir()
        with pytest.raises(WorkspaceError, match="dvc checkout"):
            materialize(library)
    assert len(Library.open(library.root).videos()) == 2


def test_what_is_materialised_is_what_dvc_keeps(library: Workspace):
    words = SUBTITLES.replace("parrot", "penguin")
    (library.videos_dir / "talk.vtt").unlink()
    (library.videos_dir / "talk.vtt").write_text(words)
    listing = materialize(library).manifest.listing
    assert listing is not None
    held = versioning.listing(library.root, listing)
    assert held is not None
    assert held["talk.vtt"] == hashlib.md5(words.encode()).hexdigest()


def test_many_videos_are_stored_by_few_commits(workspace: Workspace, tmp_path: Path):
    for number in range(12):
        (tmp_path / "many").mkdir(exist_ok=True)
        make_video(tmp_path / "many" / f"{number:02}.mp4", num_frames=2 + number)
    ingest(workspace, [tmp_path / "many"])
    report = materialize(workspace)
    assert len(report.computed) == 12
    tables = open_for_reading(workspace.store_uri, report.manifest.versions)
    assert all(len(table.list_versions()) < 12 for table in tables.values())


def test_videos_computed_by_threads_make_the_same_library(library: Workspace):
    digest = materialize(library).manifest.digest
    threaded = set_params(library.root, materialize={"num_workers": 2})
    assert materialize(threaded, rebuild=True).manifest.digest == digest
