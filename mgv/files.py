"""Files: written whole or not at all, their digests, the disk's word for them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from mgv.errors import BusyError, MgvError, WeightsError, WorkspaceError


@contextmanager
def replacing(path: Path, error: type[MgvError] = MgvError) -> Iterator[IO[str]]:
    """A text file that is written beside path and renamed: a reader sees the old file or the new one, whole.

    Raises `error` where it cannot be written; what goes wrong inside leaves the old file as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, path)
    except OSError as fault:
        raise error(f"{path}: cannot be written: {fault.strerror}") from fault
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write value as JSON, whole or not at all."""
    with replacing(path) as out:
        json.dump(value, out, indent=1)  # escaped: a file name need not be valid UTF-8
        out.write("\n")


@contextmanager
def holding(lock: Path, busy: str, *, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file. Raises BusyError saying `busy` when another process holds it for timeout_s (negative: waits
    for its end), WorkspaceError when the lock cannot be written."""
    from filelock import FileLock, Timeout

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock, timeout=timeout_s)
        held.acquire()
    except Timeout as error:
        raise BusyError(busy) from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WorkspaceError(f"{lock.parent}: cannot be written ({reason})") from error
    try:
        yield
    finally:
        held.release()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder, by its path in it."""
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digests[path.relative_to(folder).as_posix()] = file_digest(path)
    return digests


def folder_digest(folder: Path) -> str:
    """SHA-256 of a folder's files and their names. Raises WeightsError when there is none."""
    if not folder.is_dir():
        raise WeightsError(
            f"{folder}: no such folder; train a model (`mgv train`), or name one by evaluate.model"
        )
    lines = "".join(f"{name} {digest}\n" for name, digest in file_digests(folder).items())
    return hashlib.sha256(lines.encode()).hexdigest()


def now() -> str:
    """The time, ISO-8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def sync(path: Path) -> None:
    """Have the disk hold a file or folder before what rests on it is written."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
