"""mgv serve and mgv clip, as programs."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mgv.cli import app
from mgv.errors import MgvError, UsageError
from mgv.media.probe import probe
from mgv.workspace import Workspace
from tests.serve.test_app import _library, workspace  # noqa: F401


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        return int(probe_socket.getsockname()[1])


def test_it_serves_until_it_is_asked_to_end(workspace: Workspace):  # noqa: F811
    port = free_port()
    words = [
        sys.executable,
        "-m",
        "mgv.cli",
        "serve",
        "--library",
        str(workspace.root),
        "--port",
        str(port),
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/api/v1/ready", timeout=5
                ) as answer:
                    assert json.load(answer)["status"] == "ready"
                break
            except OSError:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.2)
        taken = CliRunner().invoke(
            app, ["serve", "--library", str(workspace.root), "--port", str(port)]
        )
        assert isinstance(taken.exception, MgvError)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_it_listens_on_this_machine_only(workspace: Workspace, host: str):  # noqa: F811
    refused = CliRunner().invoke(app, ["serve", "--library", str(workspace.root), "--host", host])
    assert isinstance(refused.exception, UsageError)
    assert "this machine only" in str(refused.exception)


def test_a_clip_is_written_and_nothing_is_overwritten(workspace: Workspace, tmp_path: Path):  # noqa: F811
    out = tmp_path / "clip.mp4"
    words = [
        "clip",
        "talk.mp4@0:00.5-0:01.5",
        "--out",
        str(out),
        "--library",
        str(workspace.root),
        "--json",
    ]
    done = CliRunner().invoke(app, words)
    assert json.loads(done.stdout)["end_s"] == 1.5
    clip = probe(out, "")
    assert (clip.video_codec, clip.audio_codec) == ("h264", "aac")
    assert clip.duration_s == pytest.approx(1.0, abs=0.1)
    assert isinstance(CliRunner().invoke(app, words).exception, UsageError)


@pytest.mark.parametrize(
    "stretch",
    ["talk.mp4", "talk.mp4@5", "@1-2", "talk.mp4@2-1", "talk.mp4@a-b", "talk.mp4@nan-inf"],
)
def test_a_stretch_that_is_none_is_said(workspace: Workspace, tmp_path: Path, stretch: str):  # noqa: F811
    done = CliRunner().invoke(
        app, ["clip", stretch, "--out", str(tmp_path / "a.mp4"), "--library", str(workspace.root)]
    )
    assert isinstance(done.exception, UsageError)
