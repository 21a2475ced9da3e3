"""Store: the LanceDB tables of one library. Writers work on the newest versions, readers on a finished run's.

Only this module and search.py talk to LanceDB. Filters are expressions, never text put together.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
from lancedb.expr import col, lit
from lancedb.index import FTS, BTree, IvfFlat

from mgv.errors import WorkspaceError
from mgv.library.schema import VIDEOS, frames_schema, segments_schema

logger = logging.getLogger(__name__)

TABLES = ("videos", "frames", "segments")
LANCE_ERRORS = (ValueError, KeyError, OSError, RuntimeError)
"""What LanceDB raises when files are missing or damaged."""
_KEEP = timedelta(days=365_000)
"""optimize() prunes old versions and fails on tagged ones (LanceDB 0.40); pruning is left to retention."""


class Store:
    """The three tables, open for writing. One writer at a time (the workspace's lock sees to it)."""

    def __init__(self, uri: str) -> None:
        """Open the store, making the tables that are missing."""
        self._db = _connect(uri)
        names = set(self._db.list_tables().tables)
        self._tables = {name: self._db.open_table(name) for name in TABLES if name in names}
        for name, schema in (
            ("videos", VIDEOS),
            ("frames", frames_schema(1)),
            ("segments", segments_schema(1)),
        ):
            if name not in names:
                self._make(name, schema)

    def _make(self, name: str, schema: pa.Schema) -> None:
        """An empty table in place of what has this name; its older versions stay readable."""
        mode = "overwrite" if name in self._tables else "create"
        table = self._db.create_table(name, schema=schema, mode=mode)
        if name != "videos":
            table.create_index("video_id", config=BTree())
            table.create_index("text", config=FTS())
        self._tables[name] = table

    def read_videos(self) -> dict[str, dict[str, Any]]:
        """Every video's row, by id."""
        return {row["video_id"]: row for row in self._tables["videos"].to_arrow().to_pylist()}

    def put_video(self, row: Mapping[str, Any]) -> None:
        """Write a video's row in place of the one it has."""
        rows = pa.Table.from_pylist([dict(row)], schema=VIDEOS)
        self._tables["videos"].merge_insert(
            "video_id"
        ).when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def replace_rows(self, table: str, video_id: str, rows: pa.Table) -> None:
        """A video's rows of `frames` or `segments`, in place of those it has.

        Rows with vectors of another width than the table's start the table anew.
        """
        if not self._tables[table].schema.equals(rows.schema):
            ready = (col("state") == lit("ready")).to_sql()
            self._tables["videos"].update(
                where=ready, values={f"{table}_key": ""}
            )  # after a kill all are redone
            self._make(table, rows.schema)
        self._tables[table].delete(col("video_id") == lit(video_id))
        if rows.num_rows:
            self._tables[table].add(rows)

    def remove_rows(self, video_id: str) -> None:
        """Take a video's frames and segments out."""
        for name in ("frames", "segments"):
            self._tables[name].delete(col("video_id") == lit(video_id))

    def remove_video(self, video_id: str) -> None:
        """Take a video out: its own row last, so that a kill in between leaves it to be removed again."""
        self.remove_rows(video_id)
        self._tables["videos"].delete(col("video_id") == lit(video_id))

    def finish(self, index_min_rows: int) -> None:
        """Fold new rows into the indices, compact, and make a vector index where a table has grown large."""
        for name in ("frames", "segments"):
            table = self._tables[name]
            table.optimize(cleanup_older_than=_KEEP)
            num_rows = table.count_rows()
            if num_rows >= index_min_rows and not has_vector_index(table):
                logger.info("indexing %d vectors of %s", num_rows, name)
                table.create_index("vector", config=_vector_index(num_rows))
        self._tables["videos"].optimize(cleanup_older_than=_KEEP)

    def versions(self) -> dict[str, int]:
        """The newest version of each table."""
        return {name: self._tables[name].version for name in TABLES}

    def tags(self) -> set[str]:
        """The names that versions of all tables have."""
        return set.intersection(*(set(self._tables[name].tags.list()) for name in TABLES))

    def tag(self, tag: str) -> None:
        """Name the newest versions of all tables, so that they can be read again by that name."""
        for name in TABLES:
            table = self._tables[name]
            if tag in table.tags.list():
                table.tags.update(tag, table.version)
            else:
                table.tags.create(tag, table.version)


def open_store(uri: str, *, anew_if_broken: bool = False) -> Store:
    """The store, for writing. One that cannot be read is moved aside and begun anew, or raises WorkspaceError."""
    try:
        store = Store(uri)
        store.read_videos()
        return store
    except LANCE_ERRORS as error:
        if not anew_if_broken or "://" in uri:
            raise broken(uri, error) from error
        aside = Path(f"{uri}.broken")
        shutil.rmtree(aside, ignore_errors=True)
        Path(uri).rename(aside)
        logger.warning("%s could not be read and was moved to %s", uri, aside.name)
        return Store(uri)


def broken(uri: str, error: Exception) -> WorkspaceError:
    """What to say when LanceDB cannot read its own files."""
    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return WorkspaceError(f"{uri}: the tables cannot be read ({first}); run `mgv materialize --rebuild`")


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Around reads: files that LanceDB cannot read raise WorkspaceError with what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise broken(uri, error) from error


def has_vector_index(table: Any) -> bool:
    """Whether a table's vectors have an approximate index."""
    return any("vector" in index.columns for index in table.list_indices())


def open_for_reading(uri: str, versions: Mapping[str, int], tag: str | None = None) -> dict[str, Any]:
    """The tables at the versions of a finished run. Raises WorkspaceError when they are not there.

    tag: what that run named them; it never means the tables of a store that was begun anew, as a number may.
    """
    tables: dict[str, Any] = {}
    db = _connect(uri)
    for name in TABLES:
        try:
            table = db.open_table(name)
            table.checkout(tag or versions[name])
        except LANCE_ERRORS as error:
            raise WorkspaceError(
                f"{uri}: table {name!r} is not there at version {tag or versions.get(name)}; "
                "run `mgv materialize --rebuild`"
            ) from error
        tables[name] = table
    return tables


def only_videos(video_ids: Iterable[str]) -> Any:
    """The filter expression for rows of these videos."""
    return col("video_id").isin([lit(video_id) for video_id in video_ids])


def _connect(uri: str) -> Any:
    try:
        return lancedb.connect(uri)
    except (ValueError, OSError, RuntimeError) as error:
        raise WorkspaceError(f"{uri}: cannot be opened as a LanceDB store: {error}") from error


def _vector_index(num_rows: int) -> IvfFlat:
    """Partitions of about 1,000 rows, whose vectors stay exact: what is near is missed only beyond the probes."""
    return IvfFlat(distance_type="cosine", num_partitions=max(1, num_rows // 1000))
