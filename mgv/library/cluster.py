"""Cluster: videos computed by Ray workers, on one machine or many. What they find goes back to the flow, which writes.

A worker is a process that loads the parts once and keeps its cores and GPU for the run. One that dies is replaced and
its video tried again. Nothing but rows comes back, so a worker needs no access to the tables, nor to Prefect.
"""

from __future__ import annotations

import logging
import os
import platform
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgv import __version__
from mgv.config import MaterializeParams
from mgv.encoders.loaded import Parts
from mgv.encoders.parts import part_revisions
from mgv.errors import ConfigError, MgvError, WorkspaceError
from mgv.files import file_digest
from mgv.library.compute import VideoRows, compute_video, use_cores
from mgv.library.plan import Work
from mgv.packages import install_command

logger = logging.getLogger(__name__)

RAY_DEFAULTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
"""Read by Ray when it is first imported: it reports nothing home, and asks for its token (docs/scaling.md)."""

START_TIMEOUT_S = 600.0
"""How long one waits for a worker while none is at work."""


class LostWorkerError(Exception):
    """A worker died with a video in hand; another may do it."""


class Worker:
    """What runs in a worker's process."""

    def __init__(self, params: MaterializeParams) -> None:
        self._params, self._parts = params, Parts(params)

    def check(self, mgv_version: str, revisions: dict[str, str]) -> None:
        """Raises MgvError when this machine would compute something else than the one that writes."""
        here = f"the Ray worker on {platform.node()}"
        if __version__ != mgv_version:
            raise ConfigError(
                f"{here} has mgv {__version__}, the flow has {mgv_version}; install the same on every machine"
            )
        own = part_revisions(self._params)
        changed = [name for name in revisions if own[name] != revisions[name]]
        if changed:
            raise ConfigError(
                f"{here} has another {changed[0]} than the flow; give every machine the same weights"
            )

    def compute(self, work: Work) -> VideoRows:
        """A video's rows. Raises WorkspaceError where the video cannot be seen from this machine."""
        use_cores(_num_cpus(self._params))
        return compute_video(_at_hand(work), self._parts, self._params)


def _num_cpus(params: MaterializeParams) -> int:
    return params.num_cpus or 1


def _at_hand(work: Work) -> Work:
    """The work with the video's path on this machine: where the flow has it, else in this machine's own workspace."""
    from dataclasses import replace

    wanted = work.wanted
    if wanted.path.is_file():
        return work
    if own := os.environ.get("MGV_LIBRARY"):
        path = Path(own).expanduser() / "data" / "videos" / wanted.path.name
        if path.is_file() and file_digest(path) == wanted.video_id:
            return replace(work, wanted=replace(wanted, path=path))
    raise WorkspaceError(
        f"{wanted.path} cannot be seen by the Ray worker on {platform.node()}: share the workspace's folder under "
        "the same path with every machine, or `dvc pull data/videos` in a clone there and start its Ray node with "
        "MGV_LIBRARY naming it (docs/scaling.md)"
    )


class Workers:
    """The workers of a run. Made by `workers`; safe to use from many threads."""

    def __init__(self, ray: Any, params: MaterializeParams, count: int, num_gpus: float) -> None:
        self._ray, self._params = ray, params
        self._actor = ray.remote(num_cpus=_num_cpus(params), num_gpus=num_gpus, max_restarts=0)(
            Worker
        )
        self._facts = (__version__, part_revisions(params))
        self._ready: queue.Queue[Any] = queue.Queue()
        self._lock = threading.Lock()
        self._at_work, self._lost, self._closed = 0, 0, False
        self._may_lose = 3 * count + 9
        for _ in range(count):
            self._hire()

    def _hire(self) -> None:
        """Start a worker, which joins when it is ready; what stops it from becoming so joins in its place."""
        worker = self._actor.remote(self._params)

        def join(checked: Any) -> None:
            self._ready.put(checked.exception() or worker)

        worker.check.remote(*self._facts).future().add_done_callback(join)

    def compute(self, work: Work) -> VideoRows:
        """A video's rows, by the next worker that is free. Raises LostWorkerError when it dies, else what it raises."""
        worker = self._free()
        try:
            rows: VideoRows = self._ray.get(worker.compute.remote(work))
        except self._ray.exceptions.RayTaskError as error:
            self._give_back(worker)
            raise _cause(error) from None
        except (
            self._ray.exceptions.RayError
        ) as error:  # the process, its machine or the way to it is gone
            with self._lock:
                self._at_work -= 1
            self._replace(error)
            name = work.wanted.path.name
            raise LostWorkerError(
                f"a Ray worker died while computing {name} ({type(error).__name__})"
            ) from None
        self._give_back(worker)
        return rows

    def _free(self) -> Any:
        while not self._closed:
            try:
                worker = self._ready.get(timeout=START_TIMEOUT_S)
            except queue.Empty:
                if self._at_work:
                    continue
                raise MgvError(
                    f"no Ray worker has started in {START_TIMEOUT_S:.0f} s; `ray status` shows what the cluster has, "
                    "materialize.num_cpus and num_gpus say what a worker needs"
                ) from None
            if isinstance(worker, MgvError | self._ray.exceptions.RayTaskError):
                self._ready.put(worker)  # for the others that wait
                raise _cause(worker)
            if isinstance(worker, BaseException):
                self._replace(worker)
                continue
            with self._lock:
                self._at_work += 1
            return worker
        raise MgvError("the run has been stopped")

    def _replace(self, error: BaseException) -> None:
        """Start another worker for one that died. Where they keep dying the run stops."""
        with self._lock:
            self._lost += 1
            if self._lost > self._may_lose:
                reason = " ".join(str(error).split())[:300]
                self._ready.put(
                    MgvError(
                        f"Ray workers keep dying ({reason}); `ray status` and the nodes' logs say more"
                    )
                )
            elif not self._closed:
                self._hire()

    def _give_back(self, worker: Any) -> None:
        with self._lock:
            self._at_work -= 1
        self._ready.put(worker)

    def close(self) -> None:
        """No further video is begun."""
        self._closed = True
        self._ready.put(MgvError("the run has been stopped"))


def _cause(error: BaseException) -> BaseException:
    """What a worker raised, without Ray's wrapping."""
    return getattr(error, "cause", None) or error


@contextmanager
def workers(params: MaterializeParams, num_videos: int) -> Iterator[Workers]:
    """The workers for so many videos. Raises ConfigError without Ray, WorkspaceError without a cluster or room."""
    for name, value in RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"materialize.engine: ray is not installed; run {install_command('ray')}"
        ) from error
    owned = not ray.is_initialized()
    if owned:
        _connect(ray, params.ray_address)
    pool: Workers | None = None
    try:
        count, num_gpus = _room(ray, params)
        count = min(count, params.num_workers or count, num_videos)
        logger.info(
            "%d Ray workers, each with %d cores and %g GPUs", count, _num_cpus(params), num_gpus
        )
        pool = Workers(ray, params, count, num_gpus)
        yield pool
    finally:
        if pool is not None:
            pool.close()
        if owned:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR)
            return
        host, _, port = address.rpartition(":")
        if port.isdecimal() and "://" not in address:
            socket.create_connection(
                (host, int(port)), timeout=10
            ).close()  # Ray itself would try for minutes
        ray.init(address=address, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        reason = " ".join(str(error).split())[:200]
        raise WorkspaceError(
            f"no Ray cluster at {address!r} that lets this run in ({reason}); start one and copy its token as "
            "docs/scaling.md says (ray start --head), or let this run have its own: materialize.ray_address: local"
        ) from error


def _room(ray: Any, params: MaterializeParams) -> tuple[int, float]:
    """How many workers fit on the cluster's machines, and the GPUs of each."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node.get("GPU", 0) for node in nodes)
    num_gpus = params.num_gpus if params.num_gpus is not None else float(has_gpus)
    count = 0
    for node in nodes:
        fits = int(node.get("CPU", 0) // _num_cpus(params))
        count += min(fits, int(node.get("GPU", 0) / num_gpus + 1e-9)) if num_gpus else fits
    if not count:
        raise WorkspaceError(
            f"no machine of the Ray cluster has room for a worker with {_num_cpus(params)} cores and {num_gpus:g} GPUs "
            "(materialize.num_cpus, num_gpus)"
        )
    return count, num_gpus
