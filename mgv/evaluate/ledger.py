"""Ledger: the results of a run, a JSON line each, kept by key, so that a run that was stopped goes on where it was.

The first line of every file says what was run. Files of another run are refused, never mixed. Several processes may
each write a file of their own (a shard); read together, they are one ledger.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mgv.errors import BusyError, MgvError, UsageError, WorkspaceError

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One of several equal parts of a run."""

    number: int = 1
    """From 1."""
    count: int = 1

    def holds(self, key: str) -> bool:
        """Whether what has this key belongs to this part: by the key's hash, so that every process agrees."""
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        return place % self.count == self.number - 1

    @property
    def suffix(self) -> str:
        return f"-{self.number}-of-{self.count}" if self.count > 1 else ""


def parse_shard(text: str) -> Shard:
    """`2/4` is the second of four. Raises UsageError for anything else."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {text!r}: expected a part of a whole, for example 1/4")
    return Shard(number=int(number), count=int(count))


def facts_digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 of what was run."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Ledger:
    """Rows by key, read from all files `NAME*.jsonl` of a folder."""

    def __init__(
        self, folder: Path, name: str, facts: Mapping[str, Any], key: tuple[str, ...]
    ) -> None:
        """key: the fields that together name a row. Raises WorkspaceError when a file is of another run."""
        self.folder, self.name, self.key = folder, name, key
        self.facts: Json = json.loads(json.dumps(facts))
        self.rows: dict[tuple[str, ...], Json] = {}
        for path in sorted(folder.glob(f"{name}*.jsonl")):
            for row in self._read(path):
                key = self._key(row)
                if not row.get("error") or self.rows.get(key, row).get(
                    "error"
                ):  # a failure is no newer answer
                    self.rows[key] = row

    def _key(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[field]) for field in self.key)

    def _read(self, path: Path) -> Iterator[Json]:
        """The rows of a file, without a last line that was cut off by a kill."""
        lines = path.read_bytes().split(b"\n")[:-1]
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise WorkspaceError(
                    f"{path}: line {number} is damaged; remove the file to begin anew"
                ) from error
            if number > 1:
                yield row
            elif row != self.facts:
                raise WorkspaceError(f"{path}: holds results of another run ({_difference(row, self.facts)}); "
                                     "they are not mixed: move it away to begin anew")  # fmt: skip

    @contextmanager
    def writing(self, shard: Shard) -> Iterator[Writer]:
        """Open a shard's file for adding rows. Raises BusyError when another process does the same."""
        from filelock import FileLock, Timeout

        path = self.folder / f"{self.name}{shard.suffix}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with (
                FileLock(path.with_suffix(".lock"), timeout=0),
                path.open("a+", encoding="utf-8") as out,
            ):
                _cut_torn_line(path)
                writer = Writer(self, out)
                if path.stat().st_size == 0:
                    writer.line(self.facts)
                yield writer
        except Timeout as error:
            raise BusyError(
                f"{path}: another process is writing these results; wait for it or stop it"
            ) from error
        except OSError as error:
            raise MgvError(f"{path}: cannot be written: {error.strerror}") from error


class Writer:
    """Adds rows to a ledger's file; each is on disk before the next is made."""

    def __init__(self, ledger: Ledger, out: TextIO) -> None:
        self._ledger, self._out = ledger, out

    def add(self, row: Json) -> None:
        """Add a row, in place of an earlier one of its key."""
        self._ledger.rows[self._ledger._key(row)] = json.loads(json.dumps(row))
        self.line(row)

    def line(self, value: Mapping[str, Any]) -> None:
        """Write one line through to the file."""
        self._out.write(json.dumps(value) + "\n")
        self._out.flush()


def _cut_torn_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _difference(found: Any, expected: Json) -> str:
    """The first fact that differs."""
    if not isinstance(found, dict):
        return "its first line does not say which"
    names = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    first = names[0]
    return f"{first} is {str(found.get(first))[:40]}, here {str(expected.get(first))[:40]}"
