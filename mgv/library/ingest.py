"""Ingest: take videos into the workspace's one DVC-tracked folder, each once, by content.

A file is known by the SHA-256 of its bytes. What is stored already is not stored twice; a file that was
renamed at its source is renamed here; a source that changed replaces what it gave before. Subtitles beside a
video (`talk.vtt`, `talk.srt`, …) come along. Raw videos are placed by reflink or hard link where the file
system can, else copied; DVC then keeps its own copy in its cache.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from mgv import versioning
from mgv.errors import MediaError, MgvError, UsageError, WorkspaceError
from mgv.files import file_digest, write_json
from mgv.media.embedded import spoken_language
from mgv.media.probe import is_video_name, probe
from mgv.media.sidecars import SUBTITLE_SUFFIXES, find_sidecars
from mgv.media.subtitles import read_subtitle_file
from mgv.workspace import Workspace

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
    """`added`, `updated`, `renamed`, `duplicate`, `unchanged` or `rejected`."""
    name: str | None
    """Its name in the library; None when rejected."""
    reason: str | None = None
    """Why it was rejected, or what else there is to say."""


@dataclass
class _Shelf:
    """data/videos while files are being placed: what is there, by name and by content."""

    folder: Path
    by_name: dict[str, StoredFile] = field(default_factory=dict)

    def with_content(self, video_id: str) -> StoredFile | None:
        return next((f for f in self.by_name.values() if f.video_id == video_id), None)


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
    found = list(_expand(paths))
    results: list[IngestResult] = []
    with workspace.writing():
        shelf = _open_shelf(workspace)
        kept = {name: file.source for name, file in shelf.by_name.items()}
        for source, fault in found:
            result = _reject(source, fault) if fault else _take(shelf, source)
            results.append(result)
            on_file(result)
        if not keep_sources:
            shelf.by_name = {name: replace(f, source=kept.get(name, "")) for name, f in shelf.by_name.items()}
        _track(workspace, shelf)
    return results


def remove(workspace: Workspace, names: Iterable[str]) -> list[str]:
    """Take videos (and their subtitles) out of data/videos; older versions stay in DVC. Their file names."""
    with workspace.writing():
        shelf = _open_shelf(workspace)
        wanted = list(dict.fromkeys(names))
        if unknown := [name for name in wanted if name not in shelf.by_name]:
            raise UsageError(
                f"no such video in the library: {', '.join(map(repr, unknown))} (see `mgv videos`)"
            )
        for name in wanted:
            (shelf.folder / name).unlink()
            _drop_sidecar(shelf.folder / name)
            del shelf.by_name[name]
        _track(workspace, shelf)
    return wanted


def stored_files(workspace: Workspace) -> list[StoredFile]:
    """The videos in data/videos, by name. A file is hashed only when its size or time has changed."""
    if not workspace.videos_dir.is_dir():
        return []
    known = {f.name: f for f in _read_index(workspace)}
    stored = [_stored_file(path, known.get(path.name)) for path in sorted(_video_files(workspace.videos_dir))]
    if {f.name: f for f in stored} != known:
        _write_index(workspace, stored)
    return stored


def _expand(paths: Iterable[Path]) -> Iterator[tuple[Path, str | None]]:
    """Every video file meant by paths, with a fault where a path means none. Folders are walked by name."""
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if is_video_name(p) and not p.is_dir()]
            yield from _expand(inside)
            if not inside:
                yield path, "a folder without video files"
        elif path.is_symlink() and not path.exists():
            yield path, f"a link to nothing ({os.readlink(path)})"
        elif not path.exists():
            yield path, "no such file"
        else:
            yield path, None


def _reject(source: Path, reason: str) -> IngestResult:
    return IngestResult(source=str(source), outcome="rejected", name=None, reason=reason)


def _take(shelf: _Shelf, source: Path) -> IngestResult:
    """Probe, hash and place one file."""
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            return _reject(source, "not a regular file")
        if source.name.lower().endswith(SUBTITLE_SUFFIXES):
            return _reject(source, "its name is that of a subtitle file; rename it if it is a video")
        video_id = file_digest(source)
        known = shelf.with_content(video_id)
        if known is None:
            probe(source, video_id)
            result = _place_new(shelf, source, video_id)
        else:
            result = _meet_known(shelf, source, known)
        assert result.name is not None
        return _take_sidecar(shelf, source, result)
    except MediaError as error:
        return _reject(source, str(error).removeprefix(f"{source}: "))
    except OSError as error:
        return _reject(source, error.strerror or str(error))


def _meet_known(shelf: _Shelf, source: Path, known: StoredFile) -> IngestResult:
    """A file whose content is stored already: the same again, a rename at the source, or a duplicate."""
    name = _safe_name(source.name)
    if name == known.name:
        return IngestResult(source=str(source), outcome="unchanged", name=known.name)
    moved_away = bool(known.source) and not os.path.lexists(known.source)
    if moved_away and not _stem_taken(shelf, name, besides=known.name):
        (shelf.folder / known.name).rename(shelf.folder / name)
        for sidecar in _own_sidecars(shelf.folder / known.name):
            sidecar.rename(shelf.folder / (Path(name).stem + sidecar.suffix))
        del shelf.by_name[known.name]
        shelf.by_name[name] = replace(known, name=name, source=str(source.absolute()))
        return IngestResult(source=str(source), outcome="renamed", name=name, reason=f"was {known.name}")
    return IngestResult(
        source=str(source), outcome="duplicate", name=known.name, reason=f"same content as {known.name}"
    )


def _place_new(shelf: _Shelf, source: Path, video_id: str) -> IngestResult:
    """New content: under its own name, or beside a namesake with part of its id, or in place of its past self."""
    name, outcome, origin = _safe_name(source.name), "added", str(source.absolute())
    namesake = shelf.by_name.get(name)
    if namesake and namesake.source == origin:
        outcome = "updated"
    elif namesake or _stem_taken(shelf, name):
        name = f"{Path(name).stem}-{video_id[:8]}{Path(name).suffix}"
    incoming = shelf.folder / f"{_INCOMING}{video_id[:16]}"
    _link_or_copy(source, incoming)
    os.replace(incoming, shelf.folder / name)
    shelf.by_name[name] = replace(_facts(shelf.folder / name, video_id), source=origin)
    return IngestResult(source=str(source), outcome=outcome, name=name)


def _stem_taken(shelf: _Shelf, name: str, besides: str = "") -> bool:
    """Whether another video has this stem: the two would claim the same subtitle file."""
    return any(Path(other).stem == Path(name).stem for other in shelf.by_name if other != besides)


def _take_sidecar(shelf: _Shelf, source: Path, result: IngestResult) -> IngestResult:
    """Bring the subtitles beside the source along; those that are not are named with the reason."""
    assert result.name is not None
    if result.outcome == "duplicate":
        return result
    sidecar, notes = _best_sidecar(source)
    if sidecar is None:
        return replace(result, reason="; ".join(notes)) if notes else result
    target = shelf.folder / (Path(result.name).stem + sidecar.suffix.lower())
    content = sidecar.read_bytes()
    if target.exists() and target.read_bytes() == content:
        return result
    _drop_sidecar(shelf.folder / result.name)
    incoming = shelf.folder / f"{_INCOMING}subtitles"
    incoming.write_bytes(content)
    os.replace(incoming, target)
    outcome = "updated" if result.outcome == "unchanged" else result.outcome
    return replace(result, outcome=outcome, reason="; ".join([f"with subtitles {sidecar.name}", *notes]))


def _best_sidecar(video: Path) -> tuple[Path | None, list[str]]:
    """The subtitle file that best tells what is said and can be read, and why the others are not taken."""
    notes = []
    best: Path | None = None
    for sidecar in find_sidecars(video, spoken=lambda: spoken_language(video)):
        name = sidecar.path.name
        if sidecar.refusal:
            notes.append(f"{name} left out: {sidecar.refusal}")
        elif best is not None:
            notes.append(f"{name} left out: {best.name} is taken")
        else:
            try:
                is_empty = not read_subtitle_file(sidecar.path).cues
            except (MediaError, OSError) as error:
                notes.append(f"subtitles left out: {error}")
                continue
            if is_empty:
                notes.append(f"{name} left out: it holds no words")
            else:
                best = sidecar.path
    return best, notes


def _own_sidecars(video: Path) -> list[Path]:
    """The subtitles that were stored with a video: under its own name, whatever their format."""
    named = [video.with_name(f"{video.stem}{suffix}") for suffix in SUBTITLE_SUFFIXES]
    return [path for path in named if path.is_file()]


def _drop_sidecar(video: Path) -> None:
    for sidecar in _own_sidecars(video):
        sidecar.unlink()


def _safe_name(name: str) -> str:
    """A file name without control characters, not hidden, valid UTF-8: one that every tool here can carry."""
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    printable = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in readable)
    return printable.lstrip(".") or "video"


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
        replace(_facts(shelf.folder / f.name, f.video_id), source=f.source) for f in shelf.by_name.values()
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
    return _Shelf(folder=folder, by_name={f.name: f for f in stored_files(workspace)})


def _video_files(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if not entry.name.startswith(".") and not entry.name.lower().endswith(SUBTITLE_SUFFIXES):
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
        name=path.name, video_id=video_id, size_bytes=facts.st_size, modified_ns=facts.st_mtime_ns, source=""
    )


def _read_index(workspace: Workspace) -> list[StoredFile]:
    try:
        rows = json.loads(workspace.videos_index.read_text(encoding="utf-8"))
        return [StoredFile(**row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError):
        logger.warning("%s cannot be read; every video is hashed again", workspace.videos_index)
        return []


def _write_index(workspace: Workspace, stored: Iterable[StoredFile]) -> None:
    try:
        write_json(workspace.videos_index, [asdict(f) for f in stored])
    except MgvError as error:
        logger.warning("%s", error)
