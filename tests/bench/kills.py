"""Kill -9 the flow's process, the worker and the server in turn, at random points; what a rerun ends in.

python -m tests.bench.kills [--count 30] [--seed 0]

A scenario is a workspace with a champion, a new video in the inbox and a changed training stage. Up to five kills hit
its run while it is at work; a run that dies is started again, and the last start is left alone. The end has to equal
that of an undisturbed run: the library's content, the new version's weights, the champion's history, tags. All the
while the champion is read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from mgv import registry
from mgv.library.manifest import read_manifest
from mgv.workspace import Workspace, find_workspace
from tests.conftest import documented, set_params
from tests.flows.conftest import (
    STAGE,
    Programs,
    environment_of,
    free_port,
    start_server,
    trained_workspace,
    wait_for,
)
from tests.media.make_video import make_video

TARGETS = ("flow", "flow", "flow", "worker", "server")
"""What is killed in a scenario, in drawn order."""
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Site:
    """A server, a worker, and the deployment of one workspace."""

    def __init__(self, programs: Programs, root: Path) -> None:
        self.programs, self.root, self.url = programs, root, programs.environment["PREFECT_API_URL"]
        self.server = start_server(programs)
        words = [
            *documented("retraining", "deploy").split()[1:],
            "--cron",
            "0 0 1 1 *",
            "--name",
            root.name,
        ]
        deployed = programs.run([sys.executable, *words], root)
        assert deployed.returncode == 0, deployed.stderr
        self.deployment = self.ask(f"/deployments/name/retrain/{root.name}")["id"]
        self.worker = self.start_worker()

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self.programs.start(
            documented("retraining", "worker").split(), self.root, PREFECT_WORKER_QUERY_SECONDS="2"
        )

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                if error.code != 503:  # a busy server
                    raise
                time.sleep(1.0)
        raise TimeoutError(path)

    def start_run(self) -> str:
        path = f"/deployments/{self.deployment}/create_flow_run"
        return str(self.ask(path, {"state": {"type": "SCHEDULED"}})["id"])

    def state(self, run: str) -> str:
        try:
            return str(self.ask(f"/flow_runs/{run}")["state_type"])
        except OSError:
            return "UNKNOWN"

    def process_of(self, run: str) -> psutil.Process | None:
        for process in psutil.process_iter():
            try:
                words = " ".join(process.cmdline())
                if (
                    "prefect.engine" in words
                    and process.environ().get("PREFECT__FLOW_RUN_ID") == run
                ):
                    return process
            except psutil.Error:
                continue
        return None

    def kill(self, target: str, run: psutil.Process) -> None:
        """Kill -9, and start again what a machine's service manager would."""
        if target == "flow":
            run.kill()
            return
        victim = self.worker if target == "worker" else self.server
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        if target == "worker":
            self.worker = self.start_worker()
        else:
            self.server = start_server(self.programs)

    def give_up(self, run: str) -> None:
        """Say that a run died, as its worker would have; without, its slot is free again after five minutes."""
        self.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "CRASHED"}})

    def at_work(self) -> str:
        """The last stage that the newest run began."""
        log = self.programs.log.read_text(errors="replace").rpartition(
            "Beginning flow run 'retrain"
        )[2]
        return ["inbox", *re.findall(r"Running stage '(\w+)'", log)][-1]


def end_state(workspace: Workspace) -> dict[str, Any]:
    """What has to be the same, however the run went."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=workspace.root, capture_output=True, text=True
        ).stdout.strip()

    manifest, entries = read_manifest(workspace.manifest), registry.history(workspace)
    assert manifest is not None
    inbox = workspace.root / "data/inbox"
    return {
        "library": manifest.digest,
        "videos": sorted(item.name for item in manifest.items),
        "live": [(entry.version, entry.library_tag.partition("-")[0]) for entry in entries],
        "models": [
            registry.read_lineage(each.folder)["model"]["digest"]
            for each in registry.published(workspace)
        ],
        "tags": git("tag").split(),
        "dirty": git("status", "--porcelain"),
        "inbox": sorted(path.name for path in inbox.rglob("*") if path.is_file()),
        "done": json.loads((workspace.root / "data/retrain.json").read_text())["done"],
    }


class Watch:
    """Reads the champion's pointer all the while; every look has to find a whole one."""

    def __init__(self, root: Path) -> None:
        self.root, self.looks, self.faults = root, 0, list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            try:
                live = registry.live(find_workspace(self.root))
                assert live.model is not None, "no champion"
                assert (live.model / "lineage.json").is_file(), "no model"
                self.looks += 1
            except Exception as error:
                self.faults.append(repr(error))

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def begin_again(root: Path, template: Path) -> Workspace:
    """The workspace with its champion, a new video in the inbox, and a changed last stage."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root, symlinks=True)
    make_video(root / "data/inbox/new.mp4", num_frames=50)
    return set_params(
        root, train={"instruct": STAGE | {"learning_rate": 5.0e-3}}, retrain={"notify": []}
    )


def scenario(site: Site, draw: random.Random, count: int, undisturbed_s: float) -> list[str]:
    """Kill up to `count` times, in drawn order, until all is done; what was killed, and when."""
    done: list[str] = []
    process: psutil.Process | None = None
    for target in draw.sample(TARGETS, len(TARGETS))[:count]:
        if process is None:
            run = site.start_run()
            wait_for("run", lambda run=run: site.state(run) in ("RUNNING", *ENDED), seconds=400)
            process = site.process_of(run)
        pause_s = draw.uniform(0.0, undisturbed_s / len(TARGETS))
        time.sleep(pause_s)
        if process is None or not is_alive(process):
            break  # it got through
        site.kill(target, process)
        done.append(f"{target} after {pause_s:.1f} s at {site.at_work()}")
        if target == "flow":
            wait_for("death", lambda p=process: not is_alive(p))
            site.give_up(run)
            process = None
    if process is not None:
        wait_for("end", lambda p=process: not is_alive(p), seconds=900)
    run = site.start_run()
    wait_for("last run", lambda: site.state(run) in ENDED, seconds=900)
    assert site.state(run) == "COMPLETED", site.state(run)
    return done


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main(count: int, seed: int, folder: Path) -> int:
    draw = random.Random(seed)
    root, template = folder / "talks", folder / "template"
    programs = Programs(environment_of(folder, free_port()), folder / "log")
    trained_workspace(template)
    set_params(template, retrain={"notify": [], "gate": {"qa.accuracy": 1.0}})
    made = subprocess.run(
        [sys.executable, "-m", "flows.retrain"], cwd=template, capture_output=True, text=True,
        env={k: v for k, v in programs.environment.items() if k != "PREFECT_API_URL"}, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    shutil.copytree(template, root, symlinks=True)
    try:
        site = Site(programs, root)
        begin_again(root, template)
        started = time.perf_counter()
        run = site.start_run()
        wait_for("undisturbed run", lambda: site.state(run) in ENDED, seconds=900)
        undisturbed_s, expected = time.perf_counter() - started, end_state(find_workspace(root))
        print(f"undisturbed: {undisturbed_s:.0f} s, live {expected['live'][-1]}", flush=True)
        killed, differing = 0, 0
        while killed < count:
            begin_again(root, template)
            watch = Watch(root)
            done = scenario(site, draw, min(len(TARGETS), count - killed), undisturbed_s)
            watch.end()
            found = end_state(find_workspace(root))
            killed += len(done)
            differs = [
                f"{key}: {found[key]} instead of {expected[key]}"
                for key in expected
                if found[key] != expected[key]
            ]
            differing += bool(differs or watch.faults)
            end = " | ".join(differs) or "the same end"
            reads = (
                f"champion read {watch.looks} times, {len(watch.faults)} faults {watch.faults[:1]}"
            )
            print(f"{killed} kills: {'; '.join(done)} → {end}; {reads}", flush=True)
        print(f"{killed} kills, {differing} other ends or broken reads", flush=True)
        return differing
    finally:
        programs.end()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mgv-kills-") as made_folder:
        sys.exit(bool(main(given.count, given.seed, Path(made_folder))))
