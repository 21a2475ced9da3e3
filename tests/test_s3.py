"""Object stores: LanceDB tables and DVC remotes on S3, against moto's server on this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mgv import registry, versioning
from mgv.ask.library import Library
from mgv.errors import BusyError, WorkspaceError
from mgv.library.ingest import ingest
from mgv.library.manifest import read_manifest
from mgv.library.materialize import materialize, materializing
from mgv.library.plan import want
from mgv.library.store import open_for_reading
from mgv.operations.cleaning import clean
from mgv.workspace import Workspace, find_workspace
from tests.conftest import documented, documented_environment, set_params
from tests.flows.conftest import free_port, wait_for
from tests.media.make_video import make_video
from tests.operations.test_operations import model_folder


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server with a bucket, and the environment that names it: as docs/scaling.md has them."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        for name, value in documented_environment("scaling").items():
            patch.setenv(name, value.replace("5000", str(port)))
        words = shlex.split(documented("scaling", "s3-server").replace("5000", str(port)))
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for("S3 server", lambda: is_open(port), seconds=100)
            run_documented("s3-bucket", Path.cwd())
            yield os.environ["AWS_ENDPOINT_URL"]
        finally:
            server.kill()
            server.wait()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run_documented(name: str, folder: Path) -> None:
    """Run the commands of a block of docs/scaling.md in a folder."""
    for line in documented("scaling", name).splitlines():
        done = subprocess.run(
            shlex.split(line), cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def library(endpoint: str, workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace on the bucket with two videos, one with subtitles."""
    talk = make_video(tmp_path / "talk.mp4", num_frames=50)
    talk.with_suffix(".vtt").write_text(
        "WEBVTT\n\n00:00.000 --> 00:01.500\nThe rocket lifts off.\n"
    )
    ingest(workspace, [talk, make_video(tmp_path / "still.mp4", num_frames=25, size=(64, 64))])
    return set_params(workspace.root, materialize={"store": f"s3://videos/{tmp_path.name}"})


def test_a_library_on_s3_equals_one_in_a_folder_and_answers(library: Workspace, tmp_path: Path):
    first = materialize(library).manifest
    assert materialize(library).computed == ()
    assert "rocket" in Library.open(library.root).search("rocket lifts off")[0].text
    (library.videos_dir / "still.mp4").unlink()
    second = materialize(library).manifest
    opened = Library.open(library.root, as_of=first.tag)
    assert [video.name for video in opened.videos()] == ["still.mp4", "talk.mp4"]
    registry.publish(library, model_folder(tmp_path / "model"))
    registry.promote(library, library_tag=first.tag)
    assert [video.name for video in Library.open(library.root).videos()] == [
        "still.mp4",
        "talk.mp4",
    ]
    local = set_params(library.root, materialize={"store": "data/library"})
    assert materialize(local).manifest.digest == second.digest


def test_old_versions_on_s3_go_and_kept_ones_stay(library: Workspace):
    first = materialize(library).manifest
    (library.videos_dir / "still.mp4").unlink()
    second = materialize(library).manifest
    eager = set_params(library.root, operations={"grace_hours": 0})
    done = clean(eager, keep=1, older_than=timedelta(0))
    assert done.retired == (first.tag,)
    assert done.num_bytes > 0
    with pytest.raises(WorkspaceError):
        open_for_reading(library.store_uri, first.versions)
    assert [video.name for video in Library.open(library.root, as_of=second.tag).videos()] == [
        "talk.mp4"
    ]


def test_of_two_writers_one_stops_and_the_library_is_that_of_one(
    library: Workspace, tmp_path: Path
):
    root = tmp_path / "another machine"
    shutil.copytree(library.root, root, symlinks=True)
    other = find_workspace(root)
    with materializing(library, want(library)) as ours, materializing(other, want(other)) as theirs:
        plans = [(run, run.plan()) for run in (ours, theirs)]
        ours.write(ours.compute(plans[0][1][0]))
        ours.flush()
        theirs.write(theirs.compute(plans[1][1][0]))
        with pytest.raises(BusyError, match="another writer"):
            theirs.flush()
        ours.write(ours.compute(plans[0][1][1]))
        made = ours.finish().manifest
    assert read_manifest(other.manifest) is None
    assert materialize(other).computed == ()
    assert read_manifest(other.manifest).digest == made.digest  # type: ignore[union-attr]
    assert materialize(library, rebuild=True).manifest.digest == made.digest


def test_a_write_that_slipped_in_is_found_and_its_video_done_anew(library: Workspace):
    made = materialize(library).manifest
    with materializing(library, want(library)) as run:
        frames = run._store._tables["frames"]
        frames.add(
            frames.to_arrow().slice(0, 1)
        )  # as a second writer's row would come to lie beside ours
        with pytest.raises(BusyError, match="another writer"):
            run.finish()
    with (
        pytest.raises(BusyError, match="1 videos were written by two runs"),
        materializing(library, want(library)) as run,
    ):
        run.finish()
    with materializing(library, want(library)) as run:
        (work,) = run.plan()
        run.write(run.compute(work))
        assert run.finish().manifest.digest == made.digest


def test_videos_go_to_a_dvc_remote_on_s3_and_come_back(library: Workspace, tmp_path: Path):
    run_documented("dvc-remote", library.root)
    versioning.commit(library.root, [".dvc/config", "data/videos.dvc"], "Videos")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(library.root), str(clone)], check=True)
    run_documented("dvc-pull", clone)
    for name in ("talk.mp4", "talk.vtt", "still.mp4"):
        assert (clone / "data/videos" / name).read_bytes() == (
            library.videos_dir / name
        ).read_bytes()
