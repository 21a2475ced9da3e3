"""Materialise: frame embeddings and subtitle segments of every video, into LanceDB, only where they changed.

plan     what each video's rows would be computed from, as keys (plan.py); no model is loaded for it
compute  one video → its rows (compute.py)
write    the rows into the tables, a batch of videos at a time, their own rows last
finish   indices, tags, and data/library.json, by which readers move to the new versions at once

A kill at any point costs at most the batch in hand, which is some seconds of work or one video: a video's row is
`pending` while its rows change. What is materialised is versioned by DVC first, so that a receipt can name it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mgv import versioning
from mgv.config import MaterializeParams
from mgv.encoders.parts import part_revisions
from mgv.errors import MgvError
from mgv.library.ingest import keep_versions
from mgv.library.manifest import Item, Manifest, forget_versions, read_manifest, write_version
from mgv.library.plan import Wanted, Work, estimated_seconds, up_to_date, want
from mgv.media.container import one_line
from mgv.workspace import VIDEOS_POINTER, Workspace

if TYPE_CHECKING:
    from mgv.encoders.loaded import Parts
    from mgv.library.compute import VideoRows

logger = logging.getLogger(__name__)

OnStep = Callable[[str, str, float], None]
"""Told a video's name, what is being done to it (`frames`, `sound`, `done`), and how far that is, 0 to 1."""


Compute = Callable[["Work", Callable[[str, float], None]], "VideoRows"]
"""A video's rows; the second argument is told of steps (`frames`, `sound`) and how far each is, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a run of materialise did, by file name, and the library it left."""

    computed: tuple[str, ...]
    renamed: tuple[str, ...]
    removed: tuple[str, ...]
    manifest: Manifest
    kept: Mapping[str, str] = field(default_factory=dict)
    """Videos that failed in this run and keep the rows that they had → why they failed."""
    lost: tuple[str, ...] = ()
    """Videos that were ready before this run and are not any more."""

    @property
    def is_worse(self) -> bool:
        """Whether videos that were ready failed in this run, or every video there is."""
        failed = len(self.manifest.failed)
        return bool(self.kept or self.lost) or 0 < failed == len(self.manifest.items)


def materialize(
    workspace: Workspace,
    *,
    rebuild: bool = False,
    parts: Parts | None = None,
    on_plan: Callable[[Mapping[str, float]], None] = lambda _: None,
    on_step: OnStep = lambda *_: None,
) -> Report:
    """Bring the library up to date with data/videos and params.yaml. A bad video stops no other.

    on_plan is given the videos to compute, by name, and about how many seconds each lasts. With rebuild everything is
    computed again. Raises BusyError when another process is writing.
    """
    wanted = want(workspace)
    if not rebuild and (manifest := up_to_date(workspace, wanted)):
        return Report(computed=(), renamed=(), removed=(), manifest=manifest)
    with materializing(workspace, wanted, rebuild=rebuild, parts=parts) as run:
        plan = run.plan()
        on_plan(estimated_seconds(plan))
        with computing(run, workspace.params.materialize, len(plan)) as (compute, num_at_once):

            def rows_of(work: Work) -> VideoRows:
                return _rows_of(compute, work, partial(on_step, work.wanted.path.name))

            for work, rows in _each_result(rows_of, plan, num_at_once):
                run.write(rows)
                on_step(work.wanted.path.name, "done", 1.0)
        return run.finish()


@contextmanager
def computing(
    run: Materialization, params: MaterializeParams, num_videos: int
) -> Iterator[tuple[Compute, int]]:
    """What computes a video's rows where `materialize.engine` says, and how many at once it is good for."""
    if params.engine == "ray" and num_videos:
        from mgv.library.cluster import workers

        with workers(params, num_videos) as pool:
            yield (lambda work, _: pool.compute(work)), _MOST_AT_ONCE
    else:
        yield run.compute, params.num_workers or 1


def _each_result(
    rows_of: Callable[[Work], VideoRows], plan: Sequence[Work], num_at_once: int
) -> Iterator[tuple[Work, VideoRows]]:
    """The videos as they are finished."""
    if num_at_once == 1:
        yield from ((work, rows_of(work)) for work in plan)
        return
    pool = ThreadPoolExecutor(max_workers=num_at_once)
    try:
        futures = {pool.submit(rows_of, work): work for work in plan}
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _rows_of(compute: Compute, work: Work, on_step: Callable[[str, float], None]) -> VideoRows:
    """A video's rows; what goes wrong with this one video becomes a row to be tried again next time."""
    from mgv.library.compute import failed_rows

    for attempt in range(_NUM_TRIES):
        try:
            return compute(work, on_step)
        except MgvError:
            raise
        except Exception as error:
            logger.info("%s failed", work.wanted.path.name, exc_info=True)
            fault = error
            if isinstance(error, (ArithmeticError, LookupError, TypeError, ValueError)):
                break  # it would only be found again
        if attempt + 1 < _NUM_TRIES:
            time.sleep(0.2)
    return failed_rows(work, f"{type(fault).__name__}: {one_line(fault)}", try_again=True)


_NUM_TRIES = 2
_MOST_AT_ONCE = 64
"""Videos asked of a cluster at once; how many are computed at once is the cluster's."""
_BATCH_VIDEOS, _BATCH_BYTES, _BATCH_S = 64, 32 * 2**20, 5.0
"""What is stored at once at most; a kill loses no more work than that."""
_COMPACT_EVERY = 32
"""Batches."""


def _tables(rows: VideoRows) -> dict[str, pa.Table]:
    """The rows of a video that are new, by table."""
    tables = {"frames": rows.frames, "segments": rows.segments}
    return {name: table for name, table in tables.items() if table is not None}


class _Keeps:
    """Which rows of an earlier run are as good as they were, should a video fail in this one."""

    def __init__(self, workspace: Workspace, wanted: Mapping[str, Wanted]) -> None:
        self._wanted = wanted
        try:
            manifest = read_manifest(workspace.manifest)
        except MgvError:
            manifest = None
        revisions = part_revisions(workspace.params.materialize)
        embedders = ("frame_embedder", "text_embedder")
        self._same_vectors = manifest is not None and all(
            manifest.parts.get(name) == revisions[name] for name in embedders
        )

    def is_good(self, row: Mapping[str, Any]) -> bool:
        """Whether a video's rows are whole, and their vectors mean what this run's do."""
        keys = ("frames_key", "segments_key")
        wanted = self._wanted[row["video_id"]]
        if row["state"] != "ready" or not all(row[key] for key in keys):
            return False
        return self._same_vectors or all(row[key] == getattr(wanted, key) for key in keys)


class Materialization:
    """A run: its plan, its computing, and the one writer. Made by `materializing`."""

    def __init__(
        self, workspace: Workspace, wanted: Sequence[Wanted], parts: Parts, rebuild: bool
    ) -> None:
        from mgv.library.store import open_store

        self._workspace, self._parts, self._params = workspace, parts, workspace.params.materialize
        self._wanted = {each.video_id: each for each in wanted}
        self._keeps = _Keeps(workspace, self._wanted)
        self._store = open_store(workspace.store_uri, anew_if_broken=rebuild)
        self._before = self._store.read_videos()
        """The videos' rows as the run found them."""
        self._rebuild = rebuild
        self._computed: list[str] = []
        self._kept: dict[str, str] = {}
        self._batch: dict[str, VideoRows] = {}
        self._known = set(self._before)
        """The videos that the tables may hold rows of."""
        self._num_batches, self._written_at = 0, time.monotonic()

    def plan(self) -> list[Work]:
        """The videos with something to compute. A bad file is not tried again until it or a part changes."""
        rows = {} if self._rebuild else self._before
        plan = [
            Work(wanted=wanted, row=rows.get(video_id)) for video_id, wanted in self._wanted.items()
        ]
        return [work for work in plan if work.stale("frames_key") or work.stale("segments_key")]

    def compute(
        self, work: Work, on_step: Callable[[str, float], None] = lambda *_: None
    ) -> VideoRows:
        """A video's rows; a file that cannot be read gives a row that says why.

        Raises MgvError for what would go wrong with every video (parameters, weights), others as they come.
        """
        from mgv.library.compute import compute_video, use_cores

        use_cores(self._params.num_cpus)
        return compute_video(work, self._parts, self._params, on_step)

    def write(self, rows: VideoRows) -> None:
        """Take one video's rows, which are stored with those of others where they are few and came quickly.

        A video that failed keeps the good rows that it has.
        """
        row, before = rows.row, self._before.get(rows.row["video_id"])
        if row["state"] == "failed" and before is not None and self._keeps.is_good(before):
            self._kept[row["name"]] = row["reason"]
            return
        self._batch[row["video_id"]] = rows
        num_bytes = sum(
            table.nbytes for each in self._batch.values() for table in _tables(each).values()
        )
        waited_s = time.monotonic() - self._written_at
        if len(self._batch) >= _BATCH_VIDEOS or num_bytes >= _BATCH_BYTES or waited_s >= _BATCH_S:
            self.flush()

    def flush(self) -> None:
        """Store the batch: its videos pending, then their rows, then their true state."""
        if not self._batch:
            return
        rows, old = [each.row for each in self._batch.values()], self._known & self._batch.keys()
        self._known |= self._batch.keys()
        keys = {"frames_key": "", "segments_key": ""}
        self._store.put_videos([{**row, "state": "pending", **keys} for row in rows])
        failed = {row["video_id"] for row in rows if row["state"] == "failed"}
        self._store.remove_rows(failed & old)
        for name in ("frames", "segments"):
            tables = {
                video_id: new[name]
                for video_id, each in self._batch.items()
                if name in (new := _tables(each))
            }
            if tables:
                self._store.replace_rows(
                    name, pa.concat_tables(tables.values()), old & tables.keys()
                )
        self._store.put_videos(rows)
        self._computed += [row["name"] for row in rows]
        self._batch.clear()
        self._num_batches += 1
        if self._num_batches % _COMPACT_EVERY == 0:
            self._store.compact()
        self._written_at = time.monotonic()

    def finish(self) -> Report:
        """Drop removed videos, note new names, freshen the indices, tag the tables, write the manifest."""
        self.flush()
        rows = self._store.read_videos()
        gone = {
            video_id: row["name"] for video_id, row in rows.items() if video_id not in self._wanted
        }
        if gone:
            self._store.remove_videos(gone)
        moved = [
            (row, name)
            for video_id, row in rows.items()
            if video_id in self._wanted
            and row["name"] != (name := self._wanted[video_id].path.name)
        ]
        self._store.put_videos([{**row, "name": name} for row, name in moved])
        self._store.finish(self._params.index_min_rows)
        manifest = self._manifest()
        self._store.tag(manifest.tag)
        write_version(self._workspace, manifest)
        forget_versions(self._workspace, manifest.store, self._store.tags())
        return Report(
            computed=tuple(self._computed),
            renamed=tuple(f"{row['name']} → {name}" for row, name in moved),
            removed=tuple(gone.values()),
            manifest=manifest,
            kept=self._kept,
            lost=tuple(name for name in manifest.failed if self._was_ready(name)),
        )

    def _was_ready(self, name: str) -> bool:
        return any(row["name"] == name and row["state"] == "ready" for row in self._before.values())

    def _manifest(self) -> Manifest:
        from mgv.library.schema import library_digest

        videos = sorted(self._store.read_videos().values(), key=lambda row: str(row["name"]))
        digest, versions = library_digest(videos), self._store.versions()
        return Manifest(
            store=self._params.store,
            tag=f"{digest[:12]}-{versions['videos']}",
            versions=versions,
            digest=digest,
            parts=part_revisions(self._params),
            params=self._params,
            num_frames=sum(row["num_frames"] for row in videos),
            num_segments=sum(row["num_segments"] for row in videos),
            duration_s=round(sum(row["duration_s"] for row in videos), 3),
            items=tuple(_row_item(row) for row in videos),
            failed={row["name"]: row["reason"] for row in videos if row["state"] == "failed"},
            finished_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            listing=versioning.tracked_version(self._workspace.root, VIDEOS_POINTER),
        )


def _row_item(row: dict[str, Any]) -> Item:
    return Item(**{name: row[name] for name in ("video_id", "name", "frames_key", "segments_key")})


@contextmanager
def materializing(
    workspace: Workspace,
    wanted: Sequence[Wanted],
    *,
    rebuild: bool = False,
    parts: Parts | None = None,
) -> Iterator[Materialization]:
    """A run of materialise, holding the workspace for writing. With rebuild everything is computed anew.

    Whatever ends it, what was computed is stored.
    """
    from mgv.encoders.loaded import Parts

    with workspace.writing():
        keep_versions(workspace)
        run = Materialization(
            workspace, wanted, parts or Parts(workspace.params.materialize), rebuild
        )
        try:
            yield run
        except BaseException:
            with suppress(Exception):
                run.flush()
            raise
