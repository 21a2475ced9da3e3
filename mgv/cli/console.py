"""What the commands share: options, opening a workspace, printing, progress. Only this package prints.

Results go to stdout, progress and warnings to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
        "--library",
        "-l",
        metavar="DIR",
        envvar="MGV_LIBRARY",
        help="The workspace, or a folder in it.",
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
    """Print a result. Whatever of it comes from outside is shown by the terminal, not obeyed."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    shown = json.dumps(value, ensure_ascii=ascii_only, indent=1) if as_json else text
    shown = _UNSAFE.sub(_json_escape if as_json else _escape, shown)
    try:
        if shown:
            print(shown, flush=True)
    except BrokenPipeError:  # its reader went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_UNSAFE = re.compile(
    "[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb"
    "\\ud800-\\udfff\\U000e0000-\\U000e007f]"
)
"""What steers a terminal, turns text around, or cannot be seen: control characters but the line end, marks and
overrides of direction, invisible separators, half characters, tags. What scripts and emoji need (U+200C, U+200D) stays.
"""


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _json_escape(match: re.Match[str]) -> str:
    """As JSON writes it inside a string, which is the only place where it can stand."""
    return json.dumps(match[0])[1:-1]


def printable(text: str) -> str:
    """Text from outside for one line of a terminal: shown, not obeyed."""
    return _UNSAFE.sub(_escape, text).replace("\n", "\\n")


class SafeHandler(logging.Handler):
    """Warnings on stderr, as it is now (a moving bar puts itself in its place), with what is from outside escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, or more where there is a traceback."""
        try:
            print(_UNSAFE.sub(_escape, self.format(record)), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def short(text: str, limit: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + " …"


def span(stretch: Any) -> str:
    from mgv.records import clock

    return f"{clock(stretch.start_s)}-{clock(stretch.end_s)}"


def length(duration_s: float) -> str:
    from mgv.records import clock

    return clock(round(duration_s))


def counted(outcomes: list[str]) -> str:
    return (
        ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))
        or "nothing found"
    )


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
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as moving:
        yield _Moving(moving)


class SecondsProgress:
    """Progress through seconds of video, of several videos that differ in length."""

    def __init__(self, what: str) -> None:
        self._what, self._begun = what, time.monotonic()
        self._seconds: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._num_done = 0

    def plan(self, seconds: Mapping[str, float]) -> None:
        """The videos to come, by name, and how long each is about."""
        self._seconds, self._begun = dict(seconds), time.monotonic()

    def step(self, name: str, step: str, done: float) -> None:
        """A video's step, `done` when it is finished, and how far that is, 0 to 1."""
        shares = {"frames": (0.0, _FRAMES_SHARE), "sound": (_FRAMES_SHARE, 1 - _FRAMES_SHARE)}
        before, share = shares.get(step, (0.0, 1.0))
        self._done[name] = (before + share * done) * self._seconds.get(name, 0.0)
        self._num_done += step == "done"
        self.show(name, step, done)

    def show(self, name: str, step: str, done: float) -> None:
        """A line for each finished video."""
        if step == "done":
            print(
                f"{self._what} {self._num_done}/{len(self._seconds)}  {self.times()}  {printable(name)}",
                file=sys.stderr,
                flush=True,
            )

    def times(self) -> str:
        """How much of the videos is done, and how long the rest takes if it goes on as it has."""
        done_s, total_s = sum(self._done.values()), sum(self._seconds.values())
        left = remaining_s(time.monotonic() - self._begun, done_s, total_s)
        text = f"{length(done_s)} of {length(total_s)} of video"
        return text if left is None else f"{text}, {length(left)} left"


_FRAMES_SHARE = 0.4
"""Of the time that a video takes, where its speech is recognised."""


def remaining_s(elapsed_s: float, done: float, total: float) -> float | None:
    """How long the rest takes at the mean speed so far; None before anything can be said, and at the end."""
    if elapsed_s < 1.0 or done <= 0.0 or done >= total:
        return None
    return elapsed_s * (total - done) / done


class _MovingSeconds(SecondsProgress):
    """One bar, moved."""

    def __init__(self, what: str, bar: RichProgress) -> None:
        super().__init__(what)
        self._bar, self._task = bar, bar.add_task(what, total=None, now="")

    def show(self, name: str, step: str, done: float) -> None:
        from rich.markup import escape

        now = printable(name) + (f" {step} {done:.0%}" if step != "done" else "")
        self._bar.update(
            self._task,
            completed=sum(self._done.values()),
            total=sum(self._seconds.values()),
            now=escape(f"{self.times()}  {now}"),
        )


@contextmanager
def seconds_bar(what: str) -> Iterator[SecondsProgress]:
    """Progress over videos: one bar on a terminal; elsewhere a line for each finished video."""
    if not sys.stderr.isatty():
        yield SecondsProgress(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _MovingSeconds(what, bar)


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
    from rich.progress import (
        BarColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

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
