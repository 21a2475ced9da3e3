"""Media: what the samples' videos and images are: content id, start and end, subtitles.

Facts of files are kept in one small SQLite file by path, size and time, so that a second run reads no video.
What the library knows of a video (by content, so under any name) is taken from there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgv.errors import MediaError
from mgv.files import file_digest
from mgv.library.manifest import read_manifest
from mgv.media.images import check_image, read_media, split_member
from mgv.media.sidecars import SUBTITLE_SUFFIXES, find_sidecar
from mgv.media.subtitles import read_subtitles
from mgv.records import Cue
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)

_TABLE = """create table if not exists media_1 (
    path text primary key, size_bytes integer, modified_ns integer, media_id text, start_s real, end_s real
) without rowid"""


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What a video or image file is. An image has no times."""

    media_id: str
    start_s: float
    end_s: float | None


class KnownVideos:
    """The library's readable videos at its last finished run, by content. Empty where there is no library yet."""

    def __init__(self, workspace: Workspace) -> None:
        """Raises WorkspaceError when there is a library that cannot be read."""
        self._rows: dict[str, int] = {}
        manifest = read_manifest(workspace.manifest)
        if manifest is None:
            return
        from mgv.library.store import open_for_reading, reading

        with reading(workspace.store_uri):
            videos = open_for_reading(workspace.store_uri, manifest.versions)["videos"].to_arrow()
        self._videos = videos.select(["start_s", "duration_s", "cues"])
        ids, states = videos["video_id"].to_pylist(), videos["state"].to_pylist()
        self._rows = {
            video_id: row
            for row, (video_id, state) in enumerate(zip(ids, states, strict=True))
            if state == "ready"
        }

    def __contains__(self, media_id: str) -> bool:
        return media_id in self._rows

    def facts(self, media_id: str) -> MediaFacts:
        """When the video starts and ends."""
        return MediaFacts(media_id, 0.0, self._cell(media_id, "duration_s"))

    def cues(self, media_id: str) -> list[Cue]:
        """What is said in it: its subtitles, or what the transcriber heard."""
        return [Cue(**cue) for cue in self._cell(media_id, "cues") or []]

    def _cell(self, media_id: str, column: str) -> Any:
        return self._videos[column][self._rows[media_id]].as_py()


class MediaReader:
    """Facts and subtitles of media files, each looked at once."""

    def __init__(self, workspace: Workspace) -> None:
        self._known = KnownVideos(workspace)
        self._cache = _FactsCache(workspace.root / "data" / "media.sqlite")
        self._subtitles: dict[Path, dict[str, list[str]]] = {}

    def close(self) -> None:
        """Let go of what is known of files."""
        self._cache.close()

    def image(self, media: str) -> MediaFacts:
        """The facts of an image file or tar member. Raises MediaError when it is damaged."""
        if split_member(media):
            return _image_facts(media)
        return self._cache.get(Path(media)) or self._cache.put(Path(media), _image_facts(media))

    def video(self, path: Path) -> MediaFacts:
        """The facts of a video: the library's where it has it, else as probed. Raises MediaError."""
        if facts := self._cache.get(path):
            return self._known.facts(facts.media_id) if facts.media_id in self._known else facts
        return self._cache.put(path, self._look_at(path))

    def cues(self, path: Path, media_id: str, subtitles: Path | None) -> list[Cue]:
        """What is said: by the file that `subtitles` may be (`talk.mp4` stands for `talk.vtt`, `talk.en.srt`, …),
        else by the library, else by the file beside the video.

        Raises MediaError when the file cannot be read.
        """
        sidecar = self._sidecar(subtitles) if subtitles else None
        if sidecar is None and media_id in self._known:
            return self._known.cues(media_id)
        sidecar = sidecar or self._sidecar(path)
        return read_subtitles(sidecar) if sidecar else []

    def _sidecar(self, path: Path) -> Path | None:
        """The subtitle file of a video; each folder is listed once."""
        if path.parent not in self._subtitles:
            self._subtitles[path.parent] = _subtitle_names(path.parent)
        names = self._subtitles[path.parent]
        return find_sidecar(path, {*names.get(path.stem, ()), *names.get(path.name, ())})

    def _look_at(self, path: Path) -> MediaFacts:
        from mgv.media.probe import probe

        try:
            media_id = file_digest(path)
        except OSError as error:
            raise MediaError(f"{path}: cannot be read: {error.strerror}") from error
        if media_id in self._known:
            return self._known.facts(media_id)
        video = probe(path, media_id)
        return MediaFacts(media_id, 0.0, video.duration_s)


def _subtitle_names(folder: Path) -> dict[str, list[str]]:
    """The subtitle files of a folder under every video name they may belong to: `a.b.en.vtt` under a, a.b, a.b.en."""
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if name.lower().endswith(SUBTITLE_SUFFIXES):
            for dot in re.finditer(r"\.", name):
                names.setdefault(name[: dot.start()], []).append(name)
    return names


def _image_facts(media: str) -> MediaFacts:
    content = read_media(media)
    check_image(media, content)
    return MediaFacts(hashlib.sha256(content).hexdigest(), 0.0, None)


class _FactsCache:
    """Facts by path, size and time of change. One that cannot be read or written only costs time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._db = _opened(path)
        except sqlite3.DatabaseError:
            logger.warning("%s cannot be read; media are hashed again", path)
            path.unlink(missing_ok=True)
            self._db = _opened(path)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def get(self, path: Path) -> MediaFacts | None:
        """The facts of a file that has not changed since."""
        facts = path.stat()
        rows = self._run(
            "select media_id, start_s, end_s from media_1 where path = ? and size_bytes = ? and modified_ns = ?",
            (str(path), facts.st_size, facts.st_mtime_ns),
        )
        return MediaFacts(*rows[0]) if rows else None

    def put(self, path: Path, facts: MediaFacts) -> MediaFacts:
        """Keep the facts of a file."""
        stat = path.stat()
        self._run(
            "insert or replace into media_1 values (?, ?, ?, ?, ?, ?)",
            (str(path), stat.st_size, stat.st_mtime_ns, facts.media_id, facts.start_s, facts.end_s),
        )
        return facts

    def _run(self, words: str, values: Iterable[Any] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(words, tuple(values)).fetchall()


def _opened(path: Path) -> sqlite3.Connection:
    """A connection for any thread that commits each statement. Raises sqlite3.DatabaseError for another file."""
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        db.execute("pragma synchronous = off")  # a cache: fast, not safe
        db.execute(_TABLE)
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db
