"""Store: the LanceDB tables of one library. Writers work on the newest versions, readers on a finished run's.

Only this module and search.py talk to LanceDB. Filters are expressions, never text put together.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lancedb
import pyarrow as pa
from lancedb.expr import col, lit
from lancedb.index import FTS, BTree, IvfFlat

from mgv.errors import BusyError, WorkspaceError
from mgv.library.schema import VIDEOS, frames_schema, segments_schema
from mgv.library.tables import TABLES

logger = logging.getLogger(__name__)

LANCE_ERRORS = (ValueError, KeyError, OSError, RuntimeError)
"""What LanceDB raises when files are missing or damaged."""
_KEEP = timedelta(days=365_000)
"""optimize() prunes old versions and fails on tagged ones (LanceDB 0.40); pruning is left to retention."""


class Store:
    """The three tables, open for writing. One writer at a time.

    On one machine the workspace's lock sees to it. On an object store nothing can: there every write checks that the
    tables are as this writer left them, and the one that finds another's write stops (BusyError), before its video
    counts as done. Readers see finished libraries only, and the next run does again what was in hand.
    """

    def __init__(self, uri: str) -> None:
        """Open the store, making the tables that are missing."""
        self._uri, self._db = uri, _connect(uri)
        names = set(self._db.list_tables().tables)
        self._tables = {name: self._db.open_table(name) for name in TABLES if name in names}
        for name, schema in (
            ("videos", VIDEOS),
            ("frames", frames_schema(1)),
            ("segments", segments_schema(1)),
        ):
            if name not in names:
                self._make(name, schema)
        self._left = self.versions()

    @contextmanager
    def _writing(self, name: str, commits: int = 1) -> Iterator[Any]:
        """Around what makes so many new versions of a table. Raises BusyError when another writer has made one."""
        self.check_alone(name)
        with _storing(self._uri):
            yield self._tables[name]
        if self._tables[name].version != self._left[name] + commits:
            raise self._not_alone(name)
        self._left[name] += commits

    def check_alone(self, *names: str) -> None:
        """Raises BusyError when these tables (all, if none is named) are not as this writer left them."""
        for name in names or TABLES:
            self._tables[name].checkout_latest()
            if self._tables[name].version != self._left[name]:
                raise self._not_alone(name)

    def _not_alone(self, name: str) -> BusyError:
        return BusyError(
            f"{self._uri}: another writer has changed the table {name!r}; let one machine at a time write to a store, "
            "then run `mgv materialize` again (docs/scaling.md)"
        )

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

    def put_videos(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write videos' rows in place of those that they have."""
        if not rows:
            return
        table_rows = pa.Table.from_pylist([dict(row) for row in rows], schema=VIDEOS)
        self.check_alone()
        with self._writing("videos") as table:
            merge = (
                table.merge_insert("video_id")
                .when_matched_update_all()
                .when_not_matched_insert_all()
            )
            merge.execute(table_rows)

    def replace_rows(self, table: str, rows: pa.Table, old: Collection[str]) -> None:
        """Add rows of `frames` or `segments`, in place of all that the videos `old` have there.

        Rows with vectors of another width than the table's start the table anew.
        """
        if not self._tables[table].schema.equals(rows.schema):
            ready = (col("state") == lit("ready")).to_sql()
            with self._writing("videos") as videos:
                videos.update(
                    where=ready, values={f"{table}_key": ""}
                )  # after a kill all are redone
            with self._writing(table, commits=3):
                self._make(table, rows.schema)
            old = ()
        if old:
            with self._writing(table) as own:
                own.delete(only_videos(old))
        if rows.num_rows:
            with self._writing(table) as own:
                own.add(rows)

    def remove_rows(self, video_ids: Collection[str]) -> None:
        """Take videos' frames and segments out."""
        for name in ("frames", "segments") if video_ids else ():
            with self._writing(name) as table:
                table.delete(only_videos(video_ids))

    def compact(self) -> None:
        """Fold the small files of many commits into few: each commit lists them all."""
        self.check_alone()
        with _storing(self._uri):
            for name in TABLES:
                self._tables[name].optimize(cleanup_older_than=_KEEP)
        self._left = self.versions()

    def remove_videos(self, video_ids: Collection[str]) -> None:
        """Take videos out: their own rows last, so that a kill in between leaves them to be removed again."""
        self.remove_rows(video_ids)
        with self._writing("videos") as table:
            table.delete(only_videos(video_ids))

    def finish(self, index_min_rows: int) -> None:
        """Fold new rows into the indices, compact, and make a vector index where a table has grown large.

        Raises BusyError when the tables do not hold what the videos' rows say: another writer was at work.
        """
        self.compact()
        for name in ("frames", "segments"):
            table = self._tables[name]
            num_rows = table.count_rows()
            if num_rows >= index_min_rows and not has_vector_index(table):
                logger.info("indexing %d vectors of %s", num_rows, name)
                with _storing(self._uri):
                    table.create_index("vector", config=_vector_index(num_rows))
        self._left = self.versions()
        self._check_whole()

    def _check_whole(self) -> None:
        """Raises BusyError, after noting them to be done again, where videos do not have the rows they should."""
        videos = self.read_videos()
        wrong = {video_id for video_id, row in videos.items() if row["state"] == "pending"}
        for name in ("frames", "segments"):
            expected = {video_id: row[f"num_{name}"] for video_id, row in videos.items()}
            if self._tables[name].count_rows() == sum(expected.values()):
                continue
            ids = (
                self._tables[name].search().select(["video_id"]).limit(None).to_arrow()["video_id"]
            )
            counts = {each["values"]: each["counts"] for each in ids.value_counts().to_pylist()}
            wrong |= {
                video_id
                for video_id in expected | counts
                if expected.get(video_id, 0) != counts.get(video_id, 0)
            }
        if wrong:
            keys = {"frames_key": "", "segments_key": ""}
            known = wrong & videos.keys()
            self.put_videos(
                [{**videos[video_id], "state": "pending", **keys} for video_id in known]
            )
            self.remove_rows(wrong - videos.keys())
            raise BusyError(
                f"{self._uri}: {len(wrong)} videos were written by two runs at once; let one machine at a time write "
                "to a store, then run `mgv materialize` again, which does them anew (docs/scaling.md)"
            )

    def versions(self) -> dict[str, int]:
        """The newest version of each table."""
        return {name: self._tables[name].version for name in TABLES}

    def tags(self) -> set[str]:
        """The names that versions of all tables have."""
        return set.intersection(*(set(self._tables[name].tags.list()) for name in TABLES))

    def tag(self, tag: str) -> None:
        """Name the newest versions of all tables, so that they can be read again by that name."""
        with _storing(self._uri):
            for name in TABLES:
                table = self._tables[name]
                if tag in table.tags.list():
                    table.tags.update(tag, table.version)
                else:
                    table.tags.create(tag, table.version)


class Retention:
    """The tables' older versions: which are there, and taking away those that nobody needs."""

    def __init__(self, uri: str) -> None:
        """Raises WorkspaceError when the tables cannot be read."""
        import lance

        options = storage_options() if "://" in uri else None
        try:
            self._tables = {
                name: lance.dataset(f"{uri}/{name}.lance", storage_options=options)
                for name in TABLES
            }
        except LANCE_ERRORS as error:
            raise broken(uri, error) from error

    def untag(self, tag: str) -> None:
        """Take a tag off all tables that have it."""
        for table in self._tables.values():
            if tag in table.tags.list():
                table.tags.delete(tag)

    def clean(self, held: Iterable[Mapping[str, int]], younger_than: timedelta) -> int:
        """Remove the versions that are neither held, nor tagged, nor younger; the bytes that this freed.

        held: of each library that stays, its tables' versions.
        """
        held, num_bytes = list(held), 0
        for name in TABLES:
            if old := self._old(name, held, set(), younger_than):
                stats = self._tables[name].cleanup_old_versions(
                    older_than=younger_than, versions=old, error_if_tagged_old_versions=False
                )
                num_bytes += stats.bytes_removed
        return num_bytes

    def would_free(
        self, held: Iterable[Mapping[str, int]], untagged: Iterable[str], younger_than: timedelta
    ) -> int:
        """About what `clean` would free once these tags are off: the data files that only old versions have."""
        held, num_bytes = list(held), 0
        for name, table in self._tables.items():
            old = self._old(name, held, set(untagged), younger_than)
            kept = {each["version"] for each in table.versions()} - set(old)
            files: dict[str, int] = {}
            for version in old:
                files |= _data_files(table, version)
            for version in kept if files else ():
                for path in _data_files(table, version):
                    files.pop(path, None)
            num_bytes += sum(files.values())
        return num_bytes

    def _old(
        self, name: str, held: list[Mapping[str, int]], untagged: set[str], younger_than: timedelta
    ) -> list[int]:
        table = self._tables[name]
        keep = {versions[name] for versions in held} | {table.latest_version}
        keep |= {
            facts["version"] for tag, facts in table.tags.list().items() if tag not in untagged
        }
        before = datetime.now(UTC) - younger_than
        return [
            each["version"]
            for each in table.versions()
            if each["version"] not in keep and each["timestamp"].astimezone(UTC) < before
        ]


def _data_files(table: Any, version: int) -> dict[str, int]:
    """A version's data files and their sizes."""
    fragments = table.checkout_version(version).get_fragments()
    return {
        file.path: file.file_size_bytes or 0 for each in fragments for file in each.data_files()
    }


def open_store(uri: str, *, anew_if_broken: bool = False) -> Store:
    """The store, for writing. One that cannot be read is moved aside and begun anew, or raises WorkspaceError."""
    try:
        if anew_if_broken and (fault := damage(uri)):
            raise OSError(fault)
        store = Store(uri)
        store.read_videos()
        return store
    except LANCE_ERRORS as error:
        if not anew_if_broken or "://" in uri:
            raise broken(uri, error) from error
        aside = Path(f"{uri}.broken")
        number = 1
        while aside.exists():
            number += 1
            aside = Path(f"{uri}.broken-{number}")
        try:
            Path(uri).rename(aside)
        except OSError as fault:
            raise WorkspaceError(
                f"{uri}: cannot be moved to {aside.name}: {fault.strerror}"
            ) from fault
        logger.warning("%s could not be read and was moved to %s", uri, aside.name)
        return Store(uri)


def damage(uri: str, versions: Mapping[str, int] | None = None) -> str:
    """What is wrong with the files of a local store's tables, at these versions or the newest; empty where nothing is.

    Looks at which files there are and how long they are, and reads none: cheap, however large the library.
    """
    import lance

    if "://" in uri or not Path(uri).is_dir():
        return ""
    for name in TABLES:
        folder = Path(uri, f"{name}.lance")
        if not folder.is_dir():
            if versions is None:
                continue  # made when it is first written
            return f"the table {name!r} is gone"
        try:
            table = lance.dataset(str(folder), version=versions[name] if versions else None)
            files = _data_files(table, table.version)
        except LANCE_ERRORS as error:
            return f"the table {name!r} cannot be opened: {_first_line(error)}"
        for path, num_bytes in files.items():
            file = folder / "data" / path
            if not file.is_file():
                return f"{path} of the table {name!r} is gone"
            if num_bytes and file.stat().st_size != num_bytes:
                return f"{path} of the table {name!r} has {file.stat().st_size} bytes, expected {num_bytes}"
        if name != "videos" and (fault := _index_damage(table)):
            return f"an index of the table {name!r} cannot be read: {fault}"
    return ""


def _index_damage(table: Any) -> str:
    """What is wrong with a table's indices, asked by one word and one video; empty where they answer."""
    try:
        if table.count_rows():
            table.to_table(columns=["video_id"], full_text_query="the", limit=1)
            table.to_table(columns=["video_id"], filter="video_id = 'none'", limit=1)
    except LANCE_ERRORS as error:
        return _first_line(error)
    return ""


@contextmanager
def _storing(uri: str) -> Iterator[None]:
    """Around writes: what LanceDB cannot write raises WorkspaceError. What was finished before stays readable."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise WorkspaceError(
            f"{uri}: the tables cannot be written ({_first_line(error)}); what was stored before is whole: make room, "
            "or give write permission, then run `mgv materialize` again"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def broken(uri: str, error: Exception) -> WorkspaceError:
    """What to say when LanceDB cannot read its own files."""
    return WorkspaceError(
        f"{uri}: the tables cannot be read ({_first_line(error)}); run `mgv doctor --fix`, or make them again by "
        "`mgv materialize --rebuild`"
    )


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Around reads: files that LanceDB cannot read raise WorkspaceError with what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise broken(uri, error) from error
    except ValueError as error:
        if "lance" not in str(error).lower():  # a fault of ours
            raise
        raise broken(uri, error) from error


def has_vector_index(table: Any) -> bool:
    """Whether a table's vectors have an approximate index."""
    return any("vector" in index.columns for index in table.list_indices())


def open_for_reading(
    uri: str, versions: Mapping[str, int], tag: str | None = None
) -> dict[str, Any]:
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


def storage_options() -> dict[str, str]:
    """What object stores need beyond their own environment variables: a server on this machine may speak plain HTTP.

    Elsewhere that takes AWS_ALLOW_HTTP=true.
    """
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    on_loopback = endpoint.scheme == "http" and endpoint.hostname in (
        "127.0.0.1",
        "localhost",
        "::1",
    )
    return {"allow_http": "true"} if on_loopback else {}


def _connect(uri: str) -> Any:
    try:
        return lancedb.connect(uri, storage_options=storage_options() if "://" in uri else None)
    except (ValueError, OSError, RuntimeError) as error:
        raise WorkspaceError(f"{uri}: cannot be opened as a LanceDB store: {error}") from error


def _vector_index(num_rows: int) -> IvfFlat:
    """Partitions of about 1,000 rows, whose vectors stay exact: what is near is missed only beyond the probes."""
    return IvfFlat(distance_type="cosine", num_partitions=max(1, num_rows // 1000))
