"""Flows: how a stage is run (retries, limits, run pages). What a stage does is in mgv.

Importing this package, before Prefect, keeps it off the network in every workspace.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mgv.errors import BusyError, MgvError

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "mgv")
os.environ.setdefault(
    "HF_HUB_DISABLE_PROGRESS_BARS", "1"
)  # a step of a bar is a line of the run's log
os.environ.setdefault(
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180"
)  # a busy machine takes its time

FLOW_RUN = "MGV_FLOW_RUN"
"""The environment variable that names the flow run at work: receipts and published models note it, and a flow that is
started as a program inside it becomes its subflow."""
PARENT = "MGV_PARENT_PID"
"""The environment variable that names the process without which a stage has nothing to do."""
GPU_LIMIT = "gpu"
"""The Prefect concurrency limit that `python -m flows.deploy` makes."""


def may_pass(task: Any, task_run: Any, state: Any) -> bool:
    """Whether trying a task again may help: what is wrong with data or parameters would only be found again."""
    fault = state.result(raise_on_failure=False)
    return isinstance(fault, BusyError) or not isinstance(fault, MgvError)


def run_flow(flow: Any, **parameters: Any) -> Any:
    """Run a flow as a program: inside another flow's run it is a subflow of that, and ends when that does.

    What a person can mend ends the program with one line and the error's exit code.
    """
    _follow_parent()
    with errors_as_lines():
        if attached := _attached(flow, parameters):
            from prefect.flow_engine import run_flow as run_attached

            return run_attached(flow, flow_run=attached, parameters=parameters)
        return flow(**parameters)


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """End the program with one line and the exit code of an error that a person can mend."""
    try:
        yield
    except MgvError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        sys.stderr.write(
            f"error: {error}; is the server of PREFECT_API_URL running? `prefect server start`\n"
        )
        sys.exit(1)


def say(line: str) -> None:
    """Write a line for people."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _attached(flow: Any, parameters: dict[str, Any]) -> Any:
    """A run of this flow under the run that MGV_FLOW_RUN names; None where there is none at this Prefect server."""
    if FLOW_RUN not in os.environ:
        return None
    from uuid import UUID, uuid4

    from prefect import Task
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Pending

    with get_client(sync_client=True) as client:
        try:
            parent = client.read_flow_run(UUID(os.environ[FLOW_RUN]))
        except (ObjectNotFound, ValueError):
            return None
        place = client.create_task_run(
            task=Task(name=flow.name, fn=lambda: None),
            flow_run_id=parent.id,
            dynamic_key=f"{flow.name}-{uuid4()}",
            state=Pending(),
        )
        return client.create_flow_run(
            flow, parameters=flow.serialize_parameters(parameters), parent_task_run_id=place.id
        )


def _follow_parent() -> None:
    """End this process soon after the one that MGV_PARENT_PID names: nobody waits for its work any more."""
    if PARENT not in os.environ:
        return
    import psutil

    try:
        parent = psutil.Process(int(os.environ[PARENT]))
    except psutil.NoSuchProcess:
        os._exit(1)

    def watch() -> None:
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="follow-parent").start()


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Hold a slot of the concurrency limit `gpu` where this machine has a GPU; elsewhere nobody waits."""
    import torch

    if not torch.cuda.is_available():
        yield
        return
    from prefect.concurrency.sync import concurrency

    with concurrency(GPU_LIMIT):
        yield
