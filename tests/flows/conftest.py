"""One Prefect server for the module, a workspace that is trained up to its last stage, and a place for notices."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mgv.data.prepare import prepare
from mgv.library.ingest import ingest
from mgv.library.materialize import materialize
from mgv.train.stages import train_stage
from mgv.workspace import Workspace, find_workspace, init_workspace
from tests.conftest import RANDOM_PARTS, ROOT, documented, documented_environment, set_params
from tests.media.make_video import make_video
from tests.train.conftest import TINY_MODEL, TINY_STAGE

STAGE = TINY_STAGE | {"max_steps": 2}


@dataclass
class Programs:
    """Programs run as a person would, all at one Prefect server; those still running are ended at the end."""

    environment: dict[str, str]
    log: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, words: list[str], cwd: Path, **more: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env=self.environment | more,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def run(self, words: list[str], cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=cwd, env=self.environment | more, capture_output=True, text=True, check=False
        )

    def retrain(self, cwd: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run([sys.executable, "-m", "flows.retrain", *options], cwd)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Ask it to end, and see that it does: Prefect's worker does not where the shell has SIGINT ignored."""
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        _kill(process)

    def end(self) -> None:
        for process in self.running:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(
    what: str, is_there: Callable[[], object], seconds: float = 420.0, log: Path | None = None
) -> None:
    until = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > until:
            said = log.read_text(errors="replace")[-3000:] if log else ""
            raise AssertionError(f"no {what} in {seconds:.0f} s\n{said}")
        time.sleep(0.3)


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def environment_of(folder: Path, port: int) -> dict[str, str]:
    """The environment that docs/retraining.md asks for, at this port, with Prefect's files in `folder`."""
    asked = documented_environment("retraining")
    return {
        **os.environ,
        **asked,
        "PREFECT_API_URL": asked["PREFECT_API_URL"].replace("4200", str(port)),
        "PREFECT_HOME": str(folder / "prefect"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


def start_server(programs: Programs) -> subprocess.Popen[bytes]:
    url = programs.environment["PREFECT_API_URL"]
    port = url.split(":")[2].split("/")[0]
    command = documented("retraining", "server").replace("4200", port)
    server = programs.start(command.split(), ROOT)
    wait_for("server", lambda: is_healthy(url), log=programs.log)
    return server


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    folder = tmp_path_factory.mktemp("prefect")
    programs = Programs(environment_of(folder, free_port()), folder / "log")
    try:
        start_server(programs)
        yield programs
    finally:
        programs.end()


@dataclass
class Notices:
    """A webhook on loopback, and what it was told."""

    url: str
    told: list[dict[str, str]]


@pytest.fixture(scope="module")
def notices() -> Iterator[Notices]:
    told: list[dict[str, str]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Notices(url=f"http://127.0.0.1:{server.server_port}/hook", told=told)
        server.shutdown()


def trained_workspace(root: Path) -> Workspace:
    """A workspace with one video and tiny random parts, all of whose stages but `instruct` and `evaluate` are done."""
    init_workspace(root)
    workspace = set_params(
        root,
        materialize=RANDOM_PARTS,
        prepare={"sources": [{"name": "scenes", "num_videos": 13, "seed": 1}]},
        model=TINY_MODEL,
        train={"save_every": 1, "validate_samples": 2}
        | dict.fromkeys(("pretrain_image", "pretrain_video", "instruct"), STAGE),
        evaluate={"limit": 4, "max_new_tokens": 4, "num_bootstrap": 20},
        retrain={"settle_s": 0.0, "incumbent": "none", "notify": ["custom-webhook/mgv"]},
    )
    (root / "data/inbox").mkdir()
    ingest(workspace, [make_video(root / "data/first.mp4", num_frames=25)])
    materialize(workspace)
    prepare(workspace)
    stages = ["pretrain_image", "pretrain_video"]
    for stage in stages:
        train_stage(workspace, stage)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "commit", "--force", "--quiet", "materialize", "prepare", *stages],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return find_workspace(root)
