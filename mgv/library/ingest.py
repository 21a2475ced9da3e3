"""Ingest: take videos into the workspace's one DVC-tracked folder, each once, by content.

A file is known by the SHA-256 of its bytes. What is stored already is not stored twice; a file that was
renamed at its source is renamed here; a source that changed replaces what it gave before. Subtitles beside a
video (`talk.vtt`, `talk.srt`, …) come along. Bins, hidden folders, previews, partial downloads and source code are
not walked (folders.py); what was rejected, or removed by a person, is remembered (memory.py). Raw videos are placed
by reflink or hard link where the file system can, else copied; DVC then keeps its own copy in its cache.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mgv import versioning
from mgv.errors import AccessError, MediaError, MgvError, UsageError, WorkspaceError
from mgv.files import file_digest, write_json
from mgv.library.folders import Names, Walk, fitting, is_subtitle_name, names_in
from mgv.library.memory import Memory, read_memory, write_memory
from mgv.media.container import check_file, one_line
from mgv.media.embedded import spoken_language
from mgv.media.probe import probe
from mgv.media.sidecars import SUBTITLE_SUFFIXES, Sidecar
from mgv.media.subtitles import read_subtitle_file
from mgv.workspace import VIDEOS_POINTER, Workspace

logger = logging.getLogger(__name__)

_INCOMING = ".incoming-"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A video in data/videos, as last hashed."""

    name: str
    video_id: str
    size_bytes: int
    modified_ns: int
    source: str
    """Where it came from; empty when it was put into the folder by hand or by DVC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestResult:
    """What became of one given file."""

    source: str
    outcome: str
    """`added`, `updated`, `renamed`, `duplicate`, `unchanged`, `rejected`, or `skipped` (left out of a walk)."""
    name: str | None
    """Its name in the library; None when rejected or skipped."""
    reason: str | None = None
    """Why it was rejected, or what else there is to say."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A path that ingest was given, or found in a folder that it was given."""

    path: Path
    fault: str | None = None
    """Why it is no file to take; None where it may be one."""
    is_named: bool = True
    """It was given itself, so it is tried whatever is remembered of it."""
    is_walk: bool = False
    """It is a folder, and `fault` says what its walk left out."""


class _Shelf:
    """data/videos while files are being placed: what is there, by name and by content."""

    def __init__(self, workspace: Workspace, files: Iterable[StoredFile], memory: Memory) -> None:
        self.workspace, self.folder, self.memory = workspace, workspace.videos_dir, memory
        self.by_name: dict[str, StoredFile] = {}
        self._by_content: dict[str, str] = {}
        self._stems: Counter[str] = Counter()
        self._sizes: Counter[int] = Counter()
        self._around: dict[Path, Names] = {}
        for file in files:
            self.put(file)

    def put(self, file: StoredFile) -> None:
        """Note a file, in place of one that had its name."""
        self.drop(file.name)
        self.by_name[file.name] = file
        self._by_content.setdefault(file.video_id, file.name)
        self._stems[Path(file.name).stem] += 1
        self._sizes[file.size_bytes] += 1

    def drop(self, name: str) -> None:
        """Forget a file."""
        if (file := self.by_name.pop(name, None)) is None:
            return
        if self._by_content.get(file.video_id) == name:
            del self._by_content[file.video_id]
        self._stems[Path(name).stem] -= 1
        self._sizes[file.size_bytes] -= 1

    def with_content(self, video_id: str) -> StoredFile | None:
        name = self._by_content.get(video_id)
        return None if name is None else self.by_name[name]

    def may_hold(self, size_bytes: int) -> bool:
        """Whether a file of this size can be one that is stored already."""
        return self._sizes[size_bytes] > 0

    def has_stem(self, name: str) -> bool:
        """Whether a video has this stem: two would claim the same subtitle file."""
        return self._stems[Path(name).stem] > 0

    def sidecars_of(self, source: Path) -> list[Sidecar]:
        """The subtitle files beside a source, the best first; its folder is listed once."""
        if source.parent not in self._around:
            self._around[source.parent] = names_in(source.parent)
        return self._around[source.parent].sidecars(source, lambda: spoken_language(source))

    def own_sidecars(self, name: str) -> list[Path]:
        """The subtitle files that ingest itself has put beside a video: `talk.vtt`, not `talk.de.vtt`."""
        stem = Path(name).stem
        return [
            path
            for suffix in SUBTITLE_SUFFIXES
            if (path := self.folder / f"{stem}{suffix}").is_file()
        ]


def ingest(
    workspace: Workspace,
    paths: Iterable[Path],
    on_file: Callable[[IngestResult], None] = lambda _: None,
    *,
    keep_sources: bool = True,
) -> list[IngestResult]:
    """Store files and folders of videos, then track data/videos with DVC. A bad file stops no other.

    on_file is told each file's result as it happens. keep_sources: remember where a file came from, so that a change
    or a new name there is followed; False where a place means nothing, as in an inbox.
    """
    files = list(_expand(paths))
    results: list[IngestResult] = []
    with workspace.writing():
        shelf = _open_shelf(workspace)
        kept = {name: file.source for name, file in shelf.by_name.items()}
        for each in files:
            result = _result_of(shelf, each)
            results.append(result)
            on_file(result)
        if not keep_sources:
            for file in list(shelf.by_name.values()):
                shelf.put(replace(file, source=kept.get(file.name, "")))
        _track(workspace, shelf)
        write_memory(workspace, shelf.memory)
    return results


def remove(workspace: Workspace, names: Iterable[str]) -> list[str]:
    """Take videos (and their subtitles) out of data/videos; older versions stay in DVC. Their file names.

    The next walk through the folder that they came from leaves them out; naming the file itself takes it in again.
    """
    with workspace.writing():
        shelf = _open_shelf(workspace)
        wanted = list(dict.fromkeys(_stored_name(shelf, name) for name in names))
        if unknown := [name for name in wanted if name not in shelf.by_name]:
            raise UsageError(
                f"no such video in the library: {', '.join(map(repr, unknown))} (see `mgv videos`)"
            )
        there = names_in(shelf.folder)
        going = {
            name: [
                shelf.folder / name,
                *(sidecar.path for sidecar in there.sidecars(shelf.folder / name)),
            ]
            for name in wanted
        }
        _keep_in_dvc(workspace, [path for paths in going.values() for path in paths])
        for name, paths in going.items():
            for path in paths:
                path.unlink(missing_ok=True)
            shelf.memory.removed[shelf.by_name[name].video_id] = name
            shelf.drop(name)
        _track(workspace, shelf)
        write_memory(workspace, shelf.memory)
    return wanted


def _stored_name(shelf: _Shelf, name: str) -> str:
    """The stored name that a person means: composed and decomposed characters (NFC, NFD) look the same."""
    if name in shelf.by_name:
        return name
    return next((stored for stored in shelf.by_name if _same_name(stored, name)), name)


def _same_name(one: str, other: str) -> bool:
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def stored_files(workspace: Workspace) -> list[StoredFile]:
    """The videos in data/videos, by name. A file is hashed only when its size or time has changed.

    One that cannot be read at the moment is as it was when last hashed; one that never was is left out, with a warning.
    """
    if not workspace.videos_dir.is_dir():
        return []
    known = {f.name: f for f in _read_index(workspace)}
    stored = []
    for path in sorted(_video_files(workspace.videos_dir)):
        try:
            stored.append(_stored_file(path, known.get(path.name)))
        except OSError as error:
            logger.warning("%s cannot be read: %s", path.name, one_line(error))
            stored += [known[path.name]] if path.name in known else []
    if {f.name: f for f in stored} != known:
        _write_index(workspace, stored)
    return stored


def _expand(paths: Iterable[Path]) -> Iterator[_Found]:
    """Every video file meant by paths, with a fault where a path means none. Folders are walked by name."""
    for path in paths:
        try:
            if path.is_dir():
                yield from _in_folder(path)
            elif path.is_symlink() and not path.exists():
                yield _Found(path, f"a link to nothing ({os.readlink(path)})")
            elif not path.exists():
                yield _Found(path, "no such file")
            else:
                yield _Found(path)
        except (
            OSError,
            ValueError,
        ) as error:  # a name too long, a zero byte in it, no permission to look
            yield _Found(path, one_line(error))


def _in_folder(folder: Path) -> Iterator[_Found]:
    walk = Walk(folder)
    yield from (_Found(path, is_named=False) for path in walk.videos)
    yield from (
        _Found(path, f"folder left out: {reason}", is_named=False) for path, reason in walk.faults
    )
    if walk.left_out:
        yield _Found(folder, f"not looked at: {walk.left_out}", is_named=False, is_walk=True)
    if not walk.videos and not walk.faults:
        yield _Found(folder, "a folder without video files")


def _reject(source: Path, reason: str) -> IngestResult:
    return IngestResult(source=str(source), outcome="rejected", name=None, reason=reason)


def _skip(source: Path, reason: str) -> IngestResult:
    return IngestResult(source=str(source), outcome="skipped", name=None, reason=reason)


def _result_of(shelf: _Shelf, found: _Found) -> IngestResult:
    """What becomes of one path. Whatever is wrong with it is its own reason, and no other's."""
    if found.fault is not None:
        return (_skip if found.is_walk else _reject)(found.path, found.fault)
    if not found.is_named and (reason := shelf.memory.rejection(found.path)):
        return _reject(found.path, f"{reason} (as before; it has not changed)")
    try:
        result = _take(shelf, found)
        shelf.memory.forget(found.path)
        return result
    except AccessError as error:
        return _reject(found.path, _without_path(error, found.path))
    except MediaError as error:
        reason = _without_path(error, found.path)
        shelf.memory.reject(found.path, reason)
        return _reject(found.path, reason)
    except OSError as error:
        return _reject(found.path, one_line(error))
    except MgvError:
        raise
    except Exception as error:  # a library's own fault with this one file
        logger.info("%s", found.path, exc_info=True)
        reason = f"{type(error).__name__}: {one_line(error)}"
        shelf.memory.reject(found.path, reason)
        return _reject(found.path, reason)


def _without_path(error: MediaError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _take(shelf: _Shelf, found: _Found) -> IngestResult:
    """Probe, hash and place one file. A file is probed before its bytes are read, which may be many."""
    source = found.path
    if is_subtitle_name(source.name):
        raise MediaError(
            f"{source}: its name is that of a subtitle file; give the video another name"
        )
    size_bytes = check_file(source)
    is_probed = not shelf.may_hold(size_bytes)
    if is_probed:
        probe(source, "")
    before = source.stat()
    video_id = file_digest(source)
    known = shelf.with_content(video_id)
    if known is not None:
        return _take_sidecar(shelf, source, _meet_known(shelf, source, known))
    if not found.is_named and video_id in shelf.memory.removed:
        return _skip(
            source,
            f"removed before as {shelf.memory.removed[video_id]}; name the file itself to take it in again",
        )
    if not is_probed:
        probe(source, video_id)
    result = _place_new(shelf, source, video_id, before)
    shelf.memory.removed.pop(video_id, None)
    return _take_sidecar(shelf, source, result)


def _meet_known(shelf: _Shelf, source: Path, known: StoredFile) -> IngestResult:
    """A file whose content is stored already: the same again, a rename at the source, or a duplicate."""
    name = _safe_name(source.name)
    if _same_name(name, known.name):
        return IngestResult(source=str(source), outcome="unchanged", name=known.name)
    moved_away = bool(known.source) and not os.path.lexists(known.source)
    if moved_away and name not in shelf.by_name and _is_free(shelf, name, known.name):
        _rename(shelf, known, name)
        shelf.drop(known.name)
        shelf.put(replace(known, name=name, source=str(source.absolute())))
        return IngestResult(
            source=str(source), outcome="renamed", name=name, reason=f"was {known.name}"
        )
    return IngestResult(
        source=str(source),
        outcome="duplicate",
        name=known.name,
        reason=f"same content as {known.name}",
    )


def _is_free(shelf: _Shelf, name: str, old_name: str) -> bool:
    """Whether a stored file can take this name: no other video has its stem, and no file is in the way."""
    if Path(name).stem == Path(old_name).stem:
        return not (shelf.folder / name).exists()
    return not (shelf.has_stem(name) or shelf.own_sidecars(name) or (shelf.folder / name).exists())


def _rename(shelf: _Shelf, known: StoredFile, name: str) -> None:
    if Path(name).stem != Path(known.name).stem:
        for sidecar in shelf.own_sidecars(known.name):
            sidecar.rename(shelf.folder / (Path(name).stem + sidecar.suffix))
    (shelf.folder / known.name).rename(shelf.folder / name)


def _place_new(shelf: _Shelf, source: Path, video_id: str, before: os.stat_result) -> IngestResult:
    """New content: under its own name, or beside a namesake with part of its id, or in place of its past self.

    Raises AccessError where the source has changed since it was hashed.
    """
    name, outcome, origin = _safe_name(source.name), "added", str(source.absolute())
    namesake = shelf.by_name.get(name)
    if namesake and namesake.source == origin:
        outcome = "updated"
        _keep_in_dvc(shelf.workspace, [shelf.folder / name])
    elif namesake or shelf.has_stem(name) or (shelf.folder / name).exists():
        name = fitting(Path(name).stem, Path(name).suffix, f"-{video_id[:8]}")
    incoming = shelf.folder / f"{_INCOMING}{video_id[:16]}"
    try:
        _link_or_copy(source, incoming)
        after = source.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise AccessError(
                f"{source}: it changed while it was read; take it in again when it is whole"
            )
        os.replace(incoming, shelf.folder / name)
    finally:
        incoming.unlink(missing_ok=True)
    shelf.put(replace(_facts(shelf.folder / name, video_id), source=origin))
    return IngestResult(source=str(source), outcome=outcome, name=name)


def _best_sidecar(sidecars: Iterable[Sidecar]) -> tuple[Path | None, list[str]]:
    """The first that tells what is said and can be read, and why the others are not taken."""
    notes = []
    best: Path | None = None
    for sidecar in sidecars:
        name = sidecar.path.name
        if sidecar.refusal or best is not None:
            other = f"{best.name} is taken" if best else ""
            notes.append(f"{name} left out: {sidecar.refusal or other}")
            continue
        try:
            if read_subtitle_file(sidecar.path).cues:
                best = sidecar.path
            else:
                notes.append(f"{name} left out: it holds no words")
        except Exception as error:  # a video is worth having without them
            notes.append(f"subtitles left out: {one_line(error)}")
    return best, notes


def _take_sidecar(shelf: _Shelf, source: Path, result: IngestResult) -> IngestResult:
    """Bring the subtitles beside the source along; those that are not are named with the reason."""
    assert result.name is not None, "only files that were taken get here"
    if result.outcome == "duplicate":
        return result
    sidecar, notes = _best_sidecar(shelf.sidecars_of(source))
    if sidecar is None:
        return replace(result, reason="; ".join(notes)) if notes else result
    target = shelf.folder / (Path(result.name).stem + sidecar.suffix.lower())
    content = sidecar.read_bytes()
    if target.exists() and target.read_bytes() == content:
        return result
    earlier = shelf.own_sidecars(result.name)
    _keep_in_dvc(shelf.workspace, earlier)
    incoming = shelf.folder / f"{_INCOMING}subtitles"
    incoming.write_bytes(content)
    os.replace(incoming, target)
    for path in earlier:
        if path != target:
            path.unlink()
    outcome = "updated" if result.outcome == "unchanged" else result.outcome
    return replace(
        result, outcome=outcome, reason="; ".join([f"with subtitles {sidecar.name}", *notes])
    )


def _keep_in_dvc(workspace: Workspace, paths: Iterable[Path]) -> None:
    """Have DVC hold files of data/videos as they are now, before they go."""
    if not all(versioning.holds(workspace.root, VIDEOS_POINTER, path) for path in paths):
        versioning.track(workspace.root, workspace.videos_dir)


def keep_versions(workspace: Workspace) -> None:
    """Have DVC hold data/videos as it is now, where somebody edited it by hand. The workspace is held for writing.

    Inside a DVC stage DVC has done so itself. What cannot be versioned is said in a warning, and stops nothing.
    """
    if "DVC_STAGE" in os.environ or _is_versioned(workspace):
        return
    try:
        _track(workspace, _open_shelf(workspace))
    except WorkspaceError as error:
        logger.warning(
            "data/videos is not versioned as it is now, so no receipt can name it: %s", error
        )


def _is_versioned(workspace: Workspace) -> bool:
    """Whether DVC's listing is of the files that are there: by name, and by content where one may have changed."""
    pointer = workspace.root / VIDEOS_POINTER
    md5 = versioning.tracked_version(workspace.root, VIDEOS_POINTER)
    held = (versioning.listing(workspace.root, md5) if md5 else None) or {}
    try:
        files = [path for path in workspace.videos_dir.iterdir() if path.is_file()]
        if {path.name for path in files} != held.keys():
            return not files and not pointer.exists()
        tracked_ns = pointer.stat().st_mtime_ns
        changed = [
            path
            for path in files
            if is_subtitle_name(path.name) or path.stat().st_mtime_ns > tracked_ns
        ]
        return all(versioning.holds_as(workspace.root, path, held[path.name]) for path in changed)
    except OSError:
        return not workspace.videos_dir.is_dir()


def _safe_name(name: str) -> str:
    """A file name without control characters, not hidden, valid UTF-8: one that every tool here can carry."""
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    printable = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in readable)
    safe = Path(unicodedata.normalize("NFC", printable).lstrip(".") or "video")
    return fitting(safe.stem, safe.suffix)


def _link_or_copy(source: Path, target: Path) -> None:
    """Give target the bytes of source: reflink, else hard link, else copy."""
    target.unlink(missing_ok=True)
    real = source.resolve()
    if _reflink(real, target):
        return
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)


def _reflink(source: Path, target: Path) -> bool:
    """Clone source copy-on-write where the file system can (Btrfs, XFS); False where it can't."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    ficlone = 0x40049409  # linux/fs.h
    try:
        with source.open("rb") as old, target.open("wb") as new:
            fcntl.ioctl(new.fileno(), ficlone, old.fileno())
        return True
    except OSError:
        target.unlink(missing_ok=True)
        return False


def _track(workspace: Workspace, shelf: _Shelf) -> None:
    """Put the folder under DVC, then note the files as DVC has relinked them."""
    versioning.track(workspace.root, shelf.folder)
    relinked = [
        replace(_facts(shelf.folder / f.name, f.video_id), source=f.source)
        for f in shelf.by_name.values()
    ]
    _write_index(workspace, relinked)


def _open_shelf(workspace: Workspace) -> _Shelf:
    folder = workspace.videos_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{_INCOMING}*"):  # of an ingest that was killed
            leftover.unlink()
        broken = [path.name for path in folder.iterdir() if path.is_symlink() and not path.exists()]
    except OSError as error:
        raise WorkspaceError(f"{folder}: cannot be written: {error.strerror}") from error
    if broken:
        raise WorkspaceError(
            f"{folder}: {broken[0]!r} is a link to nothing, which DVC cannot track; delete it"
        )
    return _Shelf(workspace, stored_files(workspace), read_memory(workspace))


def _video_files(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if not entry.name.startswith(".") and not is_subtitle_name(entry.name):
            path = Path(entry.path)
            if path.is_file():
                yield path


def _stored_file(path: Path, known: StoredFile | None) -> StoredFile:
    facts = path.stat()
    if known and (known.size_bytes, known.modified_ns) == (facts.st_size, facts.st_mtime_ns):
        return known
    fresh = _facts(path, file_digest(path))
    if known and known.video_id == fresh.video_id:
        return replace(fresh, source=known.source)
    return fresh


def _facts(path: Path, video_id: str) -> StoredFile:
    facts = path.stat()
    return StoredFile(
        name=path.name,
        video_id=video_id,
        size_bytes=facts.st_size,
        modified_ns=facts.st_mtime_ns,
        source="",
    )


def _read_index(workspace: Workspace) -> list[StoredFile]:
    try:
        rows = json.loads(workspace.videos_index.read_text(encoding="utf-8"))
        return [StoredFile(**row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, RecursionError):
        logger.warning("%s cannot be read; every video is hashed again", workspace.videos_index)
        return []


def _write_index(workspace: Workspace, stored: Iterable[StoredFile]) -> None:
    try:
        write_json(workspace.videos_index, [asdict(f) for f in stored])
    except MgvError as error:  # a cache: a reader of a read-only library goes without
        logger.info("%s", error)
