"""Materialise on a Ray cluster of two nodes, as the command runs it: real Ray, real Prefect, real processes."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mgv.errors import ConfigError, WorkspaceError
from mgv.library.ingest import ingest
from mgv.library.manifest import read_manifest
from mgv.library.materialize import materialize
from mgv.library.plan import Work, want
from mgv.workspace import Workspace
from tests.conftest import ROOT, documented, set_params
from tests.media.make_video import make_video

MEMORY = 80 * 2**20


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a cluster of two nodes of one core each, started as docs/scaling.md says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    nodes: list[subprocess.Popen[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            for name in ("ray-head", "ray-node"):
                nodes.append(_start_node(name, address))
            yield address
        finally:
            for node in reversed(nodes):
                node.terminate()
                node.communicate()


def command(name: str, address: str) -> str:
    """A command of docs/scaling.md, with the address of the test's cluster."""
    shown = documented("scaling", name)
    return shown.replace("HEAD:6379", address).replace("6379", address.partition(":")[2])


def _start_node(name: str, address: str) -> subprocess.Popen[str]:
    words = shlex.split(f"{command(name, address)} --num-cpus=1 --object-store-memory={MEMORY}")
    program = words.index("ray")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        **dict(word.split("=", 1) for word in words[:program]),
    }
    node = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), *words[program + 1 :]],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert node.stdout is not None
    said = []
    for line in node.stdout:
        said.append(line)
        if "Ray runtime started" in line:
            return node
    node.communicate()
    raise AssertionError("".join(said))


@pytest.fixture
def library(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Four videos of one second each, one with subtitles, and a file that is none."""
    talk = make_video(tmp_path / "talk.mp4", num_frames=25)
    talk.with_suffix(".vtt").write_text(
        "WEBVTT\n\n00:00.000 --> 00:01.000\nThe rocket lifts off.\n"
    )
    sizes = [(128, 64), (64, 96), (64, 64)]
    clips = [
        make_video(tmp_path / f"clip-{w}x{h}.mp4", num_frames=25, size=(w, h)) for w, h in sizes
    ]
    ingest(workspace, [talk, *clips])
    (workspace.videos_dir / "bad.mp4").write_text("not a video")
    return set_params(workspace.root, materialize={"num_cpus": 1})


@pytest.mark.timeout(400)
def test_workers_compute_what_one_process_does_and_one_that_is_killed_is_replaced(
    address: str, library: Workspace, tmp_path: Path
):
    words = shlex.split(command("ray-materialize", address))
    flow = subprocess.Popen(
        [sys.executable, *words[1:]], cwd=library.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    _kill_a_worker(flow)
    said, _ = flow.communicate()
    assert flow.returncode == 0, said
    assert "a Ray worker died while computing" in said
    on_ray = read_manifest(library.manifest)
    assert on_ray is not None
    assert set(on_ray.failed) == {"bad.mp4"}
    assert on_ray.num_frames == 4
    assert materialize(library, rebuild=True).manifest.digest == on_ray.digest


def _kill_a_worker(flow: subprocess.Popen[str]) -> None:
    """Kill the first process of this cluster that is computing a video."""
    while flow.poll() is None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                if process.cmdline()[:1] == ["ray::Worker.compute"]:
                    process.send_signal(signal.SIGKILL)
                    return
        time.sleep(0.05)


def _work(library: Workspace) -> Work:
    return Work(
        wanted=next(each for each in want(library) if each.path.name == "talk.mp4"), row=None
    )


def test_a_machine_that_cannot_see_a_video_says_what_it_needs(
    library: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from mgv.library.cluster import Worker

    work, params = _work(library), library.params.materialize
    elsewhere = replace(
        work, wanted=replace(work.wanted, path=tmp_path / "not" / "here" / "talk.mp4")
    )
    with pytest.raises(WorkspaceError, match=r"share the workspace's folder|MGV_LIBRARY"):
        Worker(params).compute(elsewhere)
    monkeypatch.setenv(
        "MGV_LIBRARY", str(library.root)
    )  # a clone of the workspace, with its videos pulled
    found = Worker(params).compute(elsewhere).row
    assert found == Worker(params).compute(work).row
    (library.videos_dir / "talk.mp4").write_bytes(b"another video of that name")
    with pytest.raises(WorkspaceError, match="cannot be seen"):
        Worker(params).compute(elsewhere)


def test_a_machine_with_other_weights_or_another_mgv_is_refused(library: Workspace):
    from mgv import __version__
    from mgv.encoders.parts import part_revisions
    from mgv.library.cluster import Worker

    params = library.params.materialize
    worker, revisions = Worker(params), part_revisions(params)
    worker.check(__version__, revisions)
    with pytest.raises(ConfigError, match="another text_embedder"):
        worker.check(__version__, {**revisions, "text_embedder": "other"})
    with pytest.raises(ConfigError, match="install the same"):
        worker.check("0.0.0", revisions)


REFUSED = """
import sys
from dataclasses import replace
from mgv.library.cluster import workers
from mgv.config import MaterializeParams
from mgv.errors import WorkspaceError

for address, num_gpus in ((sys.argv[1], 0.5), ("127.0.0.1:1", None)):
    try:
        with workers(MaterializeParams(ray_address=address, num_gpus=num_gpus), 1):
            pass
    except WorkspaceError as error:
        print(error)
"""


def test_a_cluster_without_room_or_none_at_all_says_what_to_do(address: str):
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, address],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    no_room, no_cluster = done.stdout.splitlines()
    assert "room for a worker with 1 cores and 0.5 GPUs" in no_room
    assert "ray start --head" in no_cluster
