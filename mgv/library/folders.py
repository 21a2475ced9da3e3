"""Folders: the videos to be found in one, and which subtitle files in it are whose."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mgv.media.probe import is_video_name
from mgv.media.sidecars import SUBTITLE_SUFFIXES, Sidecar, find_sidecar, find_sidecars

_BINS = frozenset(
    {"$recycle.bin", "recycler", "recycled", "#recycle", "@recycle", "lost+found"}
    | {"system volume information"}
)
"""Deleted files, on Windows, Synology, QNAP and after a file system's repair."""
_PREVIEWS = frozenset({"@eadir", "#snapshot", "@recently-snapshot"})
"""Synology's and QNAP's own copies."""
_CODE = frozenset({"node_modules", "__pycache__"})
_PARTIAL = (
    ".part",
    ".crdownload",
    ".aria2",
    ".!qb",
    ".ytdl",
    ".opdownload",
    ".filepart",
    ".download",
)
_MAY_BE_CODE = (".ts", ".mts")
_NAME_BYTES = 255


class Walk:
    """The videos of a folder, by name, and what was left out on the way."""

    def __init__(self, folder: Path) -> None:
        self.videos: list[Path] = []
        self.faults: list[tuple[Path, str]] = []
        """Folders that cannot be read, and why."""
        self._left_out: Counter[str] = Counter()
        for here, folders, names in os.walk(folder, onerror=self._note):
            kept = [name for name in sorted(folders) if not self._is_left_out(name)]
            folders[:] = kept
            self._take(Path(here), sorted(names))

    @property
    def left_out(self) -> str:
        """What was not looked at, counted on one line; empty where that is nothing."""
        return ", ".join(
            f"{count} {what}{'s' if count > 1 else ''}"
            for what, count in sorted(self._left_out.items())
        )

    def _note(self, error: OSError) -> None:
        self.faults.append((Path(error.filename), error.strerror or str(error)))

    def _is_left_out(self, name: str) -> bool:
        kind = _kind_of_folder(name)
        if kind:
            self._left_out[kind] += 1
        return bool(kind)

    def _take(self, folder: Path, names: list[str]) -> None:
        lower = {name.lower() for name in names}
        for name in names:
            path = folder / name
            if name.lower().endswith(_PARTIAL):
                self._left_out["partial download"] += not name.lower().endswith((".aria2", ".ytdl"))
            elif is_video_name(Path(name.lstrip("."))) and name.startswith("."):
                self._left_out["hidden file"] += 1
            elif not is_video_name(path):
                continue
            elif any(f"{name.lower()}{suffix}" in lower for suffix in _PARTIAL):
                self._left_out["partial download"] += 1
            elif name.lower().endswith(_MAY_BE_CODE) and _is_text(path):
                self._left_out["source code file"] += 1
            else:
                self.videos.append(path)


def _kind_of_folder(name: str) -> str:
    """What a folder that is not walked is; empty for one that is."""
    lower = name.lower()
    if lower in _BINS:
        return "bin"
    if lower in _PREVIEWS or lower.endswith(".trickplay"):
        return "preview folder"
    if lower in _CODE:
        return "source code folder"
    if lower.endswith(_PARTIAL):
        return "partial download"
    return "hidden folder" if name.startswith(".") else ""


def _is_text(path: Path) -> bool:
    """Whether a file begins as TypeScript, or a translation, does: UTF-8 without control bytes."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    if not head or any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character cut by the end of what was read
    return True


class Names:
    """The names in a folder, asked which subtitle file is a video's: its own, never another video's."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)

    def sidecar(self, video: Path) -> Path | None:
        """The subtitle file that tells what is said in a video of this folder, or None."""
        return find_sidecar(video, self._beginning_with(video.stem))

    def sidecars(
        self, video: Path, spoken: Callable[[], str | None] = lambda: None
    ) -> list[Sidecar]:
        """Every subtitle file of a video of this folder, the one that is used first (find_sidecars)."""
        return find_sidecars(video, self._beginning_with(video.stem), spoken)

    def alike(self, video: Path) -> tuple[str, ...]:
        """The names that begin as a video's does: all that can say which subtitles are its own."""
        return tuple(self._beginning_with(video.stem))

    def _beginning_with(self, stem: str) -> Iterator[str]:
        for place in range(bisect_left(self._names, stem), len(self._names)):
            name = self._names[place]
            if not name.startswith(stem):
                return
            yield name


def names_in(folder: Path) -> Names:
    """The names in a folder; none where it cannot be read."""
    try:
        return Names(os.listdir(folder))
    except OSError:
        return Names(())


def is_subtitle_name(name: str) -> bool:
    """Whether a name says that the file holds subtitles."""
    return name.lower().endswith(tuple(SUBTITLE_SUFFIXES))


def fitting(stem: str, suffix: str, addition: str = "") -> str:
    """stem + addition + suffix, the stem shortened where the name would be longer than file systems take."""
    room = _NAME_BYTES - len(f"{addition}{suffix}".encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + addition + suffix
