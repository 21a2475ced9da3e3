"""Annotations: the files that data sets come in, and the videos and subtitles that they name.

A name in an annotation file is looked up among the files that are there; it is never made a part of a path.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from mgv.errors import MgvError
from mgv.media.images import IMAGE_SUFFIXES
from mgv.media.probe import VIDEO_SUFFIXES
from mgv.records import Cue

logger = logging.getLogger(__name__)

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


class Row:
    """One entry of an annotation file, which knows where it stands."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise MgvError(
                f"{where}: expected an object with named values, found {str(values)[:60]!r}"
            )
        self.values: dict[str, Any] = values
        self.where = where

    def has(self, *names: str) -> bool:
        """Whether all of these are there and not null."""
        return all(self.values.get(name) is not None for name in names)

    def raw(self, *names: str) -> Any:
        """The first of these that is there. Raises MgvError that names the row and what it lacks."""
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        raise MgvError(
            f"{self.where}: no {' or '.join(map(repr, names))} (it has {', '.join(self.values)})"
        )

    def text(self, *names: str) -> str:
        """The same as text, without space around it."""
        return str(self.raw(*names)).strip()

    def number(self, *names: str) -> float:
        """The same as a number."""
        number: float = self._as(float, names)
        return number

    def index(self, *names: str) -> int:
        """The same as a whole number."""
        number: int = self._as(int, names)
        return number

    def texts(self, *names: str) -> tuple[str, ...]:
        """The same as texts; a parquet file gives them as an array."""
        value = self.raw(*names)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise MgvError(f"{self.where}: {names[0]!r} is {str(value)[:60]!r}, expected a list")
        return tuple(str(each).strip() for each in value)

    def span(self, *names: str) -> tuple[float, float]:
        """A start and an end in seconds: `[1.5, 4]` or TVQA's `1.5-4`."""
        value = self.raw(*names)
        parts = value.split("-") if isinstance(value, str) else value
        try:
            start_s, end_s = (float(part) for part in parts)
        except (TypeError, ValueError) as error:
            raise MgvError(
                f"{self.where}: {names[0]!r} is {str(value)[:60]!r}, expected a start and an end"
            ) from error
        return start_s, end_s

    def _as(self, kind: Callable[[Any], Any], names: tuple[str, ...]) -> Any:
        value = self.raw(*names)
        try:
            return kind(value)
        except (TypeError, ValueError) as error:
            raise MgvError(
                f"{self.where}: {names[0]!r} is {str(value)[:60]!r}, expected a number"
            ) from error


def read_json(path: Path) -> Any:
    """A JSON file. Raises MgvError when it is missing or is no JSON."""
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise MgvError(f"{path}: not JSON: {error}") from error


def json_rows(path: Path) -> Iterator[Row]:
    """The entries of a JSON list, of its list under `annotations`, or of a JSON-lines file."""
    text = _text(path)
    try:
        value = json.loads(text)
    except ValueError:
        yield from _line_rows(path, text)
        return
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        value = value["annotations"]
    if isinstance(value, list):
        yield from (Row(each, f"{path}: entry {i}") for i, each in enumerate(value))
    else:
        yield Row(value, f"{path}: line 1")


def line_rows(path: Path) -> Iterator[Row]:
    """The entries of a JSON-lines file; empty lines are passed over."""
    yield from _line_rows(path, _text(path))


def _line_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(
        text.split("\n"), start=1
    ):  # a JSON text may hold other line breaks
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise MgvError(f"{path}: line {number} is not JSON: {error}") from error
            yield Row(value, f"{path}: line {number}")


def table_rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file, with commas, tabs or semicolons, whose first line names the columns."""
    text = _text(path)
    delimiter = max(",\t;", key=text.partition("\n")[0].count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    for number, values in enumerate(rows, start=2):
        yield Row({name: value for name, value in values.items() if name}, f"{path}: line {number}")


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise MgvError(f"{path}: cannot be read as parquet: {error}") from error
    yield from (Row(values, f"{path}: row {i}") for i, values in enumerate(rows))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MgvError(f"{path}: cannot be read: {error}") from error


class Shelf:
    """The files of a folder by name: with or without suffix, and without a language mark (`talk.en.vtt`)."""

    def __init__(self, folder: Path, suffixes: Iterable[str]) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        if not folder.is_dir():
            raise MgvError(f"{folder}: no such folder")
        wanted = frozenset(suffixes)
        paths = sorted(folder.rglob("*"))
        for path in paths:
            if path.suffix.lower() in wanted and path.is_file() and not path.name.startswith("."):
                for name in _names(path):
                    self._by_name.setdefault(name, []).append(path)
        frames: dict[str, list[Path]] = {}  # a video kept as its frames, as TVQA's
        for path in {each.parent for each in paths if each.suffix.lower() in IMAGE_SUFFIXES} - {
            folder
        }:
            frames.setdefault(path.name, []).append(path)
        self._by_name = frames | self._by_name

    def find(self, name: str) -> Path | None:
        """The file of this name. Of several in different folders, the one whose path is likest to the name's.

        Raises MgvError when the name does not say which of them is meant.
        """
        given = PurePosixPath(name.replace("\\", "/"))
        files = self._by_name.get(given.name) or self._by_name.get(given.stem) or []
        if len(files) < 2:
            return files[0] if files else None
        shared = {path.parent: _shared_end(path.parent, given.parent) for path in files}
        nearest = [folder for folder, count in shared.items() if count == max(shared.values())]
        if len(nearest) > 1:
            raise MgvError(
                f"{self.folder}: {name} may be the one in {' or '.join(sorted(map(str, nearest))[:2])}; "
                "move away what is not meant"
            )
        return min(
            (path for path in files if path.parent == nearest[0]),
            key=lambda path: (len(path.name), path.name),
        )


def _names(path: Path) -> set[str]:
    """What a file may be called: its name, without suffix, without language."""
    base, dot, language = path.stem.rpartition(".")
    plain = base if dot and re.fullmatch(r"[a-z]{2,3}(-\w+)?", language) else path.stem
    return {path.name, path.stem, plain}


def _shared_end(one: PurePath, other: PurePath) -> int:
    """How many last parts two paths share."""
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def video_shelf(folder: Path) -> Shelf:
    """The videos of a folder, GIFs and folders of frames among them."""
    return Shelf(folder, VIDEO_SUFFIXES | {".gif", *IMAGE_SUFFIXES})


def plain_name(video: str) -> str:
    """A video's name without folder and suffix, so that `talk.mp4` and a data set's `talk` are the same."""
    last = PurePosixPath(video.replace("\\", "/")).name
    stem, dot, suffix = last.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES | {".gif"} else last


def read_cues(path: Path, *, shift_s: float = 0.0) -> tuple[Cue, ...]:
    """The cues of a subtitle file, WebVTT, SRT or LongVideoBench's JSON, shift_s taken off; none before 0."""
    if path.suffix.lower() == ".json":
        cues = [_json_cue(row) for row in json_rows(path)]
    else:
        from mgv.media.subtitles import read_subtitles

        cues = read_subtitles(path)
    moved = (
        Cue(start_s=cue.start_s - shift_s, end_s=cue.end_s - shift_s, text=cue.text) for cue in cues
    )
    return tuple(cue for cue in moved if cue.end_s > 0 and cue.text)


def _json_cue(row: Row) -> Cue:
    """`{"start": "00:01:02.5", "end", "line"}`, or `{"timestamp": [1.5, null], "text"}`."""
    if row.has("timestamp"):
        start_s, end_s = row.raw("timestamp")
        start_s = float(start_s)
        return Cue(
            start_s=start_s, end_s=float(start_s if end_s is None else end_s), text=row.text("text")
        )
    return Cue(
        start_s=_seconds(row, "start"), end_s=_seconds(row, "end"), text=row.text("line", "text")
    )


def _seconds(row: Row, name: str) -> float:
    value = row.raw(name)
    if isinstance(value, int | float):
        return float(value)
    if not (match := _CLOCK.fullmatch(str(value).strip())):
        raise MgvError(
            f"{row.where}: {name!r} is {str(value)[:60]!r}, expected a time as 0:01:02.5"
        )
    return int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3])


def tvqa_cues(path: Path) -> dict[str, tuple[Cue, ...]]:
    """TVQA's subtitles, a list or lines of `{"vid_name", "sub": [{"start", "end", "text"}]}`, by video."""
    return {
        row.text("vid_name"): tuple(
            Cue(start_s=cue.number("start"), end_s=cue.number("end"), text=cue.text("text"))
            for cue in (Row(each, row.where) for each in row.raw("sub"))
        )
        for row in json_rows(path)
    }


def say_missing(what: str, missing: Mapping[str, int]) -> None:
    """One warning with how many videos are missing, which, and how many entries wait for them."""
    if missing:
        named = ", ".join(sorted(missing)[:5]) + (" …" if len(missing) > 5 else "")
        logger.warning(
            "%s: %d videos are missing, with %d entries: %s",
            what,
            len(missing),
            sum(missing.values()),
            named,
        )
