"""Rows: annotation files of JSON Lines, of one JSON list, or of comma-separated values, read as a stream.

A list is never held whole, whatever its size: its items are decoded one by one.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mgv.data.samples import MAX_ROW_BYTES, RowError, parse_row
from mgv.errors import DataError
from mgv.records import Sample

_BLOCK = 2**20
_LIST_START = re.compile(r'\s*(?:\{\s*"annotations"\s*:\s*)?\[')
_SPACE_OR_COMMA = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that gives no sample."""

    path: Path
    """The annotation file or shard."""
    place: str
    """Where in it: `line 7`, `row 7 (line 1)` of a list, or a member's name."""
    reason: str
    is_fault: bool = True
    """False: nothing is wrong with it, it is just not about a video or image."""

    def __str__(self) -> str:
        return f"{self.path}, {self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A sample and where it was read."""

    path: Path
    place: str
    sample: Sample


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Each row's place (`line 7`, in a list `row 7 (line 1)`) and its value, or a RowError where it cannot be read.

    JSON Lines, a JSON list, an object whose first key `annotations` holds such a list, or CSV with a header.
    Raises DataError when the file cannot be read, or from where a list is broken.
    """
    try:
        if path.suffix.lower() == ".csv":
            yield from _csv_rows(path)
        elif _is_list(path):
            yield from _list_rows(path)
        else:
            with path.open("rb") as file:
                yield from _line_rows(file)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; expected an annotation file"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}); convert it") from error


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(_LIST_START.match(file.read(4096).decode("utf-8-sig", errors="replace")))


def _line_rows(file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if line.isspace():
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            if len(line) > MAX_ROW_BYTES:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_ROW_BYTES)
                raise RowError(f"longer than {MAX_ROW_BYTES} bytes")
            yield f"line {number}", parse_row(line)
        except RowError as error:
            yield f"line {number}", error


def _list_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The items of a list, each decoded as soon as the text read so far holds it whole."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(_BLOCK)
        opening = _LIST_START.match(text)
        assert opening is not None
        number, line, at = 0, 1, 0  # line and at: of text[at:], the part not yet used

        def skip_to(stop: int) -> None:
            nonlocal line, at
            line += text.count("\n", at, stop)
            at = stop

        skip_to(opening.end())
        while True:
            gap = _SPACE_OR_COMMA.match(text, at)
            assert gap is not None
            skip_to(gap.end())
            if text[at : at + 1] == "]":
                return
            try:
                value, stop = decoder.raw_decode(text, at)
            except RecursionError as error:
                raise DataError(f"{path}, line {line}: nested too deeply") from error
            except ValueError as error:
                more = file.read(
                    max(_BLOCK, len(text) - at)
                )  # doubling: an item is tried a few times at most
                if not more or len(text) - at > MAX_ROW_BYTES:
                    reason = getattr(error, "msg", error)
                    raise DataError(
                        f"{path}, line {line}: the list is broken from here on ({reason})"
                    ) from error
                text, at = text[at:] + more, 0
                continue
            number += 1
            yield f"row {number} (line {line})", value
            skip_to(stop)


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                yield f"line {reader.line_num}", {key: value for key, value in row.items() if value}
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
