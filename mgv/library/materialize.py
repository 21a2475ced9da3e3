"""Materialise: frame embeddings and subtitle segments of every video, into LanceDB, only where they changed.

plan     what each video's rows would be computed from, as keys (plan.py); no model is loaded for it
compute  one video → its rows (compute.py)
write    the rows into the tables, one video at a time, its own row last
finish   indices, tags, and data/library.json, by which readers move to the new versions at once

A kill at any point costs at most the video in hand: a video's row is `pending` while its rows change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from mgv import versioning
from mgv.encoders.parts import part_revisions
from mgv.errors import MgvError
from mgv.library.manifest import Item, Manifest, forget_versions, write_version
from mgv.library.plan import Work, up_to_date, want
from mgv.workspace import VIDEOS_POINTER, Workspace

if TYPE_CHECKING:
    from mgv.encoders.loaded import Parts
    from mgv.library.compute import VideoRows

logger = logging.getLogger(__name__)

OnStep = Callable[[str, str, float], None]
"""Told a video's name, what is being done to it (`frames`, `sound`, `done`), and how far that is, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a run of materialise did, by file name, and the library it left."""

    computed: tuple[str, ...]
    renamed: tuple[str, ...]
    removed: tuple[str, ...]
    manifest: Manifest


def materialize(
    workspace: Workspace,
    *,
    rebuild: bool = False,
    parts: Parts | None = None,
    on_plan: Callable[[int], None] = lambda _: None,
    on_step: OnStep = lambda *_: None,
) -> Report:
    """Bring the library up to date with data/videos and params.yaml. A bad video stops no other.

    on_plan is told how many videos there are to compute. With rebuild everything is computed anew.
    Raises BusyError when another process is writing.
    """
    if not rebuild and (manifest := up_to_date(workspace)):
        return Report(computed=(), renamed=(), removed=(), manifest=manifest)
    with materializing(workspace, rebuild=rebuild, parts=parts) as run:
        plan = run.plan()
        on_plan(len(plan))
        for work in plan:
            name = work.wanted.path.name
            run.write(_computed(run, work, partial(on_step, name)))
            on_step(name, "done", 1.0)
        return run.finish()


def _computed(run: Materialization, work: Work, on_step: Callable[[str, float], None]) -> VideoRows:
    """A video's rows; what goes wrong with this one video becomes a row to be tried again next time."""
    from mgv.library.compute import failed_rows

    try:
        return run.compute(work, on_step)
    except MgvError:
        raise
    except Exception as error:
        logger.exception("%s failed", work.wanted.path.name)
        return failed_rows(work, f"{type(error).__name__}: {error}", try_again=True)


class Materialization:
    """A run: its plan, its computing, and the one writer. Made by `materializing`."""

    def __init__(self, workspace: Workspace, parts: Parts, rebuild: bool) -> None:
        from mgv.library.store import open_store

        self._workspace, self._parts, self._params = workspace, parts, workspace.params.materialize
        self._wanted = {wanted.video_id: wanted for wanted in want(workspace)}
        self._store = open_store(workspace.store_uri, anew_if_broken=rebuild)
        self._rebuild = rebuild
        self._computed: list[str] = []

    def plan(self) -> list[Work]:
        """The videos with something to compute. A bad file is not tried again until it or a part changes."""
        rows = {} if self._rebuild else self._store.read_videos()
        plan = [Work(wanted=wanted, row=rows.get(video_id)) for video_id, wanted in self._wanted.items()]
        return [work for work in plan if work.stale("frames_key") or work.stale("segments_key")]

    def compute(self, work: Work, on_step: Callable[[str, float], None] = lambda *_: None) -> VideoRows:
        """A video's rows; a file that cannot be read gives a row that says why.

        Raises MgvError for what would go wrong with every video (parameters, weights), others as they come.
        """
        from mgv.library.compute import compute_video, use_cores

        use_cores(self._params.num_cpus)
        return compute_video(work, self._parts, self._params, on_step)

    def write(self, rows: VideoRows) -> None:
        """Store one video's rows: pending, then the rows, then its true state."""
        self._store.put_video({**rows.row, "state": "pending", "frames_key": "", "segments_key": ""})
        if rows.row["state"] == "failed":
            self._store.remove_rows(rows.row["video_id"])
        for name, table in (("frames", rows.frames), ("segments", rows.segments)):
            if table is not None:
                self._store.replace_rows(name, rows.row["video_id"], table)
        self._store.put_video(rows.row)
        self._computed.append(rows.row["name"])

    def finish(self) -> Report:
        """Drop removed videos, note new names, freshen the indices, tag the tables, write the manifest."""
        renamed, removed = [], []
        for video_id, row in self._store.read_videos().items():
            if video_id not in self._wanted:
                self._store.remove_video(video_id)
                removed.append(row["name"])
            elif row["name"] != (name := self._wanted[video_id].path.name):
                self._store.put_video({**row, "name": name})
                renamed.append(f"{row['name']} → {name}")
        self._store.finish(self._params.index_min_rows)
        manifest = self._manifest()
        self._store.tag(manifest.tag)
        write_version(self._workspace, manifest)
        forget_versions(self._workspace, manifest.store, self._store.tags())
        return Report(
            computed=tuple(self._computed), renamed=tuple(renamed), removed=tuple(removed), manifest=manifest
        )

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
    workspace: Workspace, *, rebuild: bool = False, parts: Parts | None = None
) -> Iterator[Materialization]:
    """A run of materialise, holding the workspace for writing. With rebuild everything is computed anew."""
    from mgv.encoders.loaded import Parts

    with workspace.writing():
        yield Materialization(workspace, parts or Parts(workspace.params.materialize), rebuild)
