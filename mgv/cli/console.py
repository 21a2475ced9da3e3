"""What the commands share: options, opening a workspace, printing, progress. Only this package prints.

Results go to stdout, progress and warnings to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from mgv.ask.library import Library
    from mgv.workspace import Workspace

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


LibraryDir = Annotated[
    Path,
    typer.Option(
        "--library", "-l", metavar="DIR", envvar="MGV_LIBRARY", help="The workspace, or a folder in it."
    ),
]


HERE = Path()


def open_workspace(start: Path) -> Workspace:
    from mgv.workspace import find_workspace

    return find_workspace(start)


def open_library(start: Path, as_of: str | None = None) -> Library:
    from mgv.ask.library import Library

    return Library.open(start, as_of=as_of)


def show(as_json: bool, value: Any, text: str) -> None:
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    shown = json.dumps(value, ensure_ascii=ascii_only, indent=1) if as_json else text
    try:
        if shown:
            print(shown, flush=True)
    except BrokenPipeError:  # its reader went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """Text for one line of a terminal: control characters are shown, not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(text: str, limit: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + " …"


def plain(value: Any) -> Any:
    """Tuples and paths as JSON knows them."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def span(stretch: Any) -> str:
    from mgv.records import clock

    return f"{clock(stretch.start_s)}-{clock(stretch.end_s)}"


def length(duration_s: float) -> str:
    from mgv.records import clock

    return clock(round(duration_s))


def counted(outcomes: list[str]) -> str:
    return ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes)) or "nothing found"


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """A moving sign on a terminal while something takes a while."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextmanager
def step_lines(what: str) -> Iterator[Callable[[str], None]]:
    """A line on stderr for each step, with a moving sign in between on a terminal."""
    with spinner(what):
        yield lambda line: print(line, file=sys.stderr)


class Bars:
    """Items under way, stage by stage: what a run is told of as it goes (`stage`, `plan`, `step`)."""

    def stage(self, name: str) -> None:
        """Another stage begins."""
        raise NotImplementedError

    def plan(self, count: int) -> None:
        """It has so many items."""
        raise NotImplementedError

    def step(self, name: str, step: str, done: float) -> None:
        """An item's step, `done` when it is finished, and how far that is, 0 to 1."""
        raise NotImplementedError


class _Lines(Bars):
    """A line on stderr for the first, the last and every so many finished items."""

    def __init__(self, every: int) -> None:
        self._every, self._stage, self._done, self._of = every, "", 0, 0

    def stage(self, name: str) -> None:
        self._stage, self._done = name, 0

    def plan(self, count: int) -> None:
        self._of = count

    def step(self, name: str, step: str, done: float) -> None:
        if step == "done":
            self._done += 1
            if self._done in (1, self._of) or self._done % self._every == 0:
                print(f"{self._stage} {self._done}/{self._of}  {printable(name)}", file=sys.stderr)


class _Moving(Bars):
    """A bar for each stage."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars

    def stage(self, name: str) -> None:
        self._bars.add_task(name, total=None, now="")

    def plan(self, count: int) -> None:
        self._bars.update(self._bars.task_ids[-1], total=count)

    def step(self, name: str, step: str, done: float) -> None:
        from rich.markup import escape

        now = printable(name) + (f" {step} {done:.0%}" if step != "done" else "")
        self._bars.update(self._bars.task_ids[-1], advance=float(step == "done"), now=escape(now))


@contextmanager
def bars(every: int = 1) -> Iterator[Bars]:
    """Progress over named items: bars on a terminal; elsewhere a line for every so many."""
    if not sys.stderr.isatty():
        yield _Lines(every)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as moving:
        yield _Moving(moving)


@contextmanager
def count_bars(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar or, where the end is not known, a count for each named part; elsewhere a line for each finished part."""
    if not sys.stderr.isatty():

        def line(name: str, done: int, total: int) -> None:
            if done == total:
                print(f"{what} {printable(name)}  {done}", file=sys.stderr)

        yield line
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn(f"{what} {{task.description}}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(escape(printable(name)), total=None)
            bars.update(tasks[name], completed=done, total=total or None)

        yield advance
