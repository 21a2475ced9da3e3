"""The command line: one module for each group of commands, in the order that --help shows them.

Nothing heavy is imported here: each command imports what it runs.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

from mgv.cli import library  # noqa: F401  the commands join the app, in this order

# isort: split
from mgv.cli import asking, serve  # noqa: F401

# isort: split
from mgv.cli import (  # noqa: F401
    lineage,
    machine,
    models,
    operations,
    publishing,
    settings,
)
from mgv.cli.app import app, group_commands
from mgv.cli.console import SafeHandler, printable
from mgv.errors import MgvError


def main() -> None:
    """Run the command line. An error that a person can mend is one line, with the exit code of its class."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.ERROR, format="mgv: %(message)s", handlers=[SafeHandler()])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, _stop)
    try:
        app()
    except MgvError as error:
        print(f"mgv: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)


class _Stopped(MgvError):
    exit_code = 130


def _stop(*_: object) -> None:
    raise _Stopped("stopped; what was finished is kept")


group_commands()

_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LANCEDB_LOG": "error",
    "DO_NOT_TRACK": "1",
}
