"""Flows: how a stage is run (retries, limits, run pages). What a stage does is in mgv.

Importing this package, before Prefect and Ray, keeps them off the network in every workspace, and has Ray ask for its
token (docs/scaling.md).
"""

import os
from typing import Any

from mgv.errors import MgvError

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "mgv")
os.environ.setdefault(
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180"
)  # a busy machine takes its time


def may_pass(task: Any, task_run: Any, state: Any) -> bool:
    """Whether trying a task again may help: what is wrong with data or parameters would only be found again."""
    return not isinstance(state.result(raise_on_failure=False), MgvError)
