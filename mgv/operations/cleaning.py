"""Operations: what a workspace takes on disk, and taking away what nobody needs any more.

Kept for ever: raw videos, published models, and the libraries of published models and of the champion's history. What
`clean` takes away can be computed again. A library that goes leaves the list first; its tables stay for a grace period
for those who are reading it. A kill at any point leaves everything that is listed readable, and the next run goes on.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mgv.errors import WorkspaceError
from mgv.library.manifest import Manifest, is_tag, read_manifest, versions
from mgv.library.store import Retention, reading
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)


def places(workspace: Workspace) -> dict[str, Path]:
    """What lies where, by kind; everything else is `other`."""
    return {
        "videos": workspace.videos_dir,
        "library": workspace.root / "data" / "library",
        "features": workspace.features_dir,
        "samples": workspace.samples_dir,
        "scenes": workspace.scenes_dir,
        "receipts": workspace.receipts_dir,
        "models": workspace.trained_dir,
        "published": workspace.published_dir,
        "states": workspace.states_dir,
        "results": workspace.results_dir,
        "dvc_cache": workspace.dvc_cache_dir,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """Something that goes."""

    kind: str
    """`library`, `states`, `features`, `answers` or `temporary`."""
    what: str
    """A path in the workspace, or a library's tag."""
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleanup:
    """What a run of clean did, or with dry_run would do."""

    dry_run: bool
    removed: tuple[Removal, ...]
    retired: tuple[str, ...]
    """Tags of libraries that left the list in this run."""
    waiting: tuple[str, ...]
    """Tags of libraries that are out of the list and whose tables go with a later run."""
    usage: dict[str, int]
    """Bytes on disk by kind, afterwards."""

    @property
    def num_bytes(self) -> int:
        return sum(each.num_bytes for each in self.removed)


# what there is


def disk_usage(workspace: Workspace) -> dict[str, int]:
    """Bytes on the workspace's disk by kind. A file under two names (DVC's cache) counts once."""
    seen: set[tuple[int, int]] = set()
    known = places(workspace)
    usage = {kind: _bytes_in(place, seen, ()) for kind, place in known.items()}
    usage["other"] = _bytes_in(workspace.root, seen, tuple(known.values()))
    return usage


def _bytes_in(folder: Path, seen: set[tuple[int, int]], without: tuple[Path, ...]) -> int:
    total = 0
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return 0
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if Path(entry.path) not in without:
                    total += _bytes_in(Path(entry.path), seen, without)
                continue
            facts = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # it was there a moment ago
            continue
        if (facts.st_dev, facts.st_ino) not in seen:
            seen.add((facts.st_dev, facts.st_ino))
            total += facts.st_size
    return total


def check_budget(workspace: Workspace) -> None:
    """Raises WorkspaceError when the workspace takes more than operations.disk_budget_gb."""
    budget_gb = workspace.params.operations.disk_budget_gb
    if budget_gb is None:
        return
    usage = disk_usage(workspace)
    if (total := sum(usage.values())) > budget_gb * 1e9:
        largest = sorted(usage.items(), key=lambda item: -item[1])[:3]
        parts = ", ".join(f"{kind} {gigabytes(size)}" for kind, size in largest)
        raise WorkspaceError(
            f"{workspace.root} takes {gigabytes(total)}, more than operations.disk_budget_gb ({budget_gb:g} GB): "
            f"{parts}; run `mgv clean`, remove videos, or raise the budget"
        )


def gigabytes(num_bytes: int) -> str:
    """A size as a person reads it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} B"


# what may go


def clean(
    workspace: Workspace,
    *,
    keep: int | None = None,
    older_than: timedelta | None = None,
    keep_receipts: bool = False,
    dry_run: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> Cleanup:
    """Take away old libraries, training states, features, answers and temporary files; params.yaml says how old.

    keep: newest libraries that stay. keep_receipts: the libraries that receipts name stay too, so that each can be
    replayed. Raises BusyError when another process is writing.
    """
    params = workspace.params.operations
    keep = params.keep_libraries if keep is None else keep
    age = timedelta(days=params.older_than_days) if older_than is None else older_than
    grace = timedelta(hours=params.grace_hours)
    with workspace.writing():
        on_step("libraries")
        retired = _old_libraries(workspace, keep, age, keep_receipts)
        libraries = _Libraries(workspace, grace)
        if not dry_run:
            for tag in retired:
                libraries.retire(tag)
        removed = libraries.clean(dry_run)
        on_step("files")
        for removal in _old_files(workspace, max(age, grace), grace):
            removed.append(removal)
            if not dry_run:
                _delete(workspace.root / removal.what)
        waiting = tuple(sorted(libraries.waiting() | (set(retired) if dry_run else set())))
    return Cleanup(
        dry_run=dry_run,
        removed=tuple(removed),
        retired=tuple(retired),
        waiting=waiting,
        usage=disk_usage(workspace),
    )


def _old_libraries(
    workspace: Workspace, keep: int, age: timedelta, keep_receipts: bool
) -> list[str]:
    """Tags of the libraries that may go, the oldest first."""
    from mgv import registry

    kept = versions(workspace)
    needed = {entry.library_tag for entry in registry.history(workspace)}
    needed |= {each.library_tag for each in registry.published(workspace)}
    if (newest := read_manifest(workspace.manifest)) is not None:
        needed.add(newest.tag)
    if keep_receipts:
        needed |= _tags_of_receipts(workspace)
    before = datetime.now(UTC) - age
    return [
        each.tag for each in kept[:-keep] if each.tag not in needed and _finished(each) < before
    ]


def _finished(manifest: Manifest) -> datetime:
    """When a library was finished; those from before it was noted are old."""
    return datetime.fromisoformat(manifest.finished_at or "1970-01-01T00:00:00+00:00")


def _tags_of_receipts(workspace: Workspace) -> set[str]:
    tags = set()
    for path in workspace.receipts_dir.glob("*.json"):
        try:
            tags.add(str(json.loads(path.read_text(encoding="utf-8"))["library"]["tag"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            logger.warning("%s: not a receipt that can be read", path.name)
    return tags


class _Libraries:
    """The libraries of a workspace, in its list and out of it."""

    def __init__(self, workspace: Workspace, grace: timedelta) -> None:
        self._workspace, self._grace = workspace, grace
        self._retired_dir = workspace.manifests_dir / "retired"
        """Manifests of libraries out of the list, until their tables are gone; a file's time is that of leaving."""

    def retire(self, tag: str) -> None:
        """Take a library out of the list: nobody can open it from here on."""
        self._retired_dir.mkdir(parents=True, exist_ok=True)
        listed = self._workspace.manifests_dir / f"{tag}.json"
        os.utime(listed)
        os.replace(listed, self._retired_dir / listed.name)

    def _retired(self) -> dict[str, Path]:
        return {path.stem: path for path in self._retired_dir.glob("*.json") if is_tag(path.stem)}

    def waiting(self) -> set[str]:
        """Retired libraries that somebody may still be reading."""
        before = time.time() - self._grace.total_seconds()
        return {tag for tag, path in self._retired().items() if path.stat().st_mtime > before}

    def clean(self, dry_run: bool) -> list[Removal]:
        """Take away the table versions that neither a listed library nor a waiting one needs."""
        if read_manifest(self._workspace.manifest) is None:
            return []
        waiting = self.waiting()
        retired = self._retired()
        held = [
            manifest for tag in waiting if (manifest := read_manifest(retired[tag])) is not None
        ]
        held += versions(self._workspace)
        store = Retention(self._workspace.store_uri)
        gone = sorted(retired.keys() - waiting)
        held_versions = [each.versions for each in held]
        with reading(self._workspace.store_uri):
            if dry_run:
                num_bytes = store.would_free(held_versions, gone, self._grace)
            else:
                for tag in gone:
                    store.untag(tag)
                num_bytes = store.clean(held_versions, self._grace)
        if not dry_run:
            for tag in gone:
                retired[tag].unlink()
        what = f"tables of {', '.join(gone)} and between" if gone else "tables between libraries"
        return (
            [Removal(kind="library", what=what, num_bytes=num_bytes)] if gone or num_bytes else []
        )


def _old_files(workspace: Workspace, age: timedelta, grace: timedelta) -> Iterator[Removal]:
    """Files and folders that have not been touched for so long, and what killed runs left."""
    root, now = workspace.root, time.time()

    def removal(kind: str, path: Path) -> Removal:
        size = _bytes_in(path, set(), ()) if path.is_dir() else path.stat().st_size
        return Removal(kind=kind, what=path.relative_to(root).as_posix(), num_bytes=size)

    def untouched(path: Path, since: timedelta) -> bool:
        files = (
            [path, *(each for each in path.rglob("*") if not each.is_symlink())]
            if path.is_dir()
            else [path]
        )
        return max(each.lstat().st_mtime for each in files) <= now - since.total_seconds()

    groups = {
        "states": [workspace.states_dir],
        "answers": [workspace.answers_dir],
    }
    for kind, folders in groups.items():
        for folder in folders:
            for path in sorted(folder.glob("*")):
                if untouched(path, age):
                    yield removal(kind, path)
    features = workspace.features_dir
    if features.is_dir() and untouched(features, age):
        yield removal("features", features)
    for path in _temporary(workspace):
        if path.exists() and untouched(path, grace):
            yield removal("temporary", path)


def _temporary(workspace: Workspace) -> Iterator[Path]:
    """What a killed run may have left: files and folders written beside their place, and a store put aside."""
    for top in ("data", "models", "results"):
        for folder, folders, names in os.walk(workspace.root / top):
            here = Path(folder)
            if here in (
                workspace.videos_dir,
                workspace.root / "data" / "library",
                workspace.states_dir,
            ):
                folders.clear()
                continue
            temporary = [
                name
                for name in (*folders, *names)
                if _is_temporary(name) or _is_store_aside(here / name)
            ]
            folders[:] = [name for name in folders if name not in temporary]
            yield from (here / name for name in sorted(temporary))


def _is_temporary(name: str) -> bool:
    return (name.startswith(".") and name.endswith((".tmp", ".partial"))) or name == ".partial"


def _is_store_aside(path: Path) -> bool:
    """Whether a folder is a damaged store that a rebuild has put aside: by its name, and a table in it."""
    named = re.fullmatch(r"library\.broken(-[0-9]+)?", path.name) is not None
    return named and any(
        (path / f"{table}.lance").is_dir() for table in ("videos", "frames", "segments")
    )


def _delete(path: Path) -> None:
    """Remove a file, or a folder under another name first, so that none is ever seen half-full."""
    if path.is_dir() and not path.is_symlink():
        aside = path.with_name(f".{path.name.lstrip('.')}.removed.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        shutil.rmtree(aside)
    else:
        path.unlink(missing_ok=True)
