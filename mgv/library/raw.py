"""Raw videos by content: in data/videos under whatever name, else in DVC's cache, where removed ones are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgv import versioning
from mgv.errors import MediaError
from mgv.files import file_digest
from mgv.library.ingest import StoredFile, stored_files
from mgv.library.manifest import versions
from mgv.records import Moment
from mgv.workspace import VIDEOS_POINTER, Workspace


@dataclass(frozen=True, kw_only=True)
class VideoSource:
    """A raw video and where it is kept."""

    video_id: str
    """SHA-256 of its bytes."""
    name: str
    """In the library."""
    path: str | None
    """In the workspace; None where it has left and was not looked for."""
    listing: str | None
    """DVC's hash of a data/videos that holds it; None where DVC does not know it."""
    commit: str | None
    """A git commit whose data/videos.dvc has that hash; None where it was not committed."""


class RawVideos:
    """The raw videos of a workspace, as they are now and as DVC has kept them."""

    def __init__(self, workspace: Workspace, listings: Sequence[str] = ()) -> None:
        """listings: DVC's hashes of data/videos to look in first; then those of every library kept, and of git's
        history."""
        self._workspace, self._hints = workspace, tuple(listings)
        self._stored: dict[str, StoredFile] = {}
        self._scanned_ns = -1
        """When data/videos had last changed as `_stored` was read."""
        self._kept: dict[str, tuple[Path, VideoSource]] = {}
        self._listings: dict[str, dict[str, str]] = {}

    def locate(self, moment: Moment) -> Path:
        """The file of a moment's video. Raises MediaError, saying where it was looked for, when its content is gone."""
        return self.path_of(moment.video_id, moment.video)

    def path_of(self, video_id: str, name: str) -> Path:
        """The file of a video. Raises MediaError as `locate` does."""
        stored = self._in_folder(video_id)
        if stored is not None:
            return self._workspace.videos_dir / stored.name
        if video_id not in self._kept:
            self._kept[video_id] = self._in_cache(video_id, name)
        return self._kept[video_id][0]

    def sources(self, videos: Sequence[tuple[str, str]]) -> tuple[VideoSource, ...]:
        """Where these videos, by (id, name), are kept. What has left data/videos is known where it was looked for."""
        if not videos:
            return ()
        md5 = versioning.tracked_version(self._workspace.root, VIDEOS_POINTER)
        commit, is_committed = versioning.last_commit(self._workspace.root, VIDEOS_POINTER)
        return tuple(
            self._source(video_id, name, md5, commit if is_committed else None)
            for video_id, name in videos
        )

    def _source(self, video_id: str, name: str, md5: str | None, commit: str | None) -> VideoSource:
        stored = self._in_folder(video_id)
        if stored is None:
            if video_id in self._kept:
                return self._kept[video_id][1]
            return VideoSource(video_id=video_id, name=name, path=None, listing=None, commit=None)
        is_tracked = md5 is not None and stored.name in self._listing(md5)
        return VideoSource(
            video_id=video_id, name=name, path=f"data/videos/{stored.name}",
            listing=md5 if is_tracked else None, commit=commit if is_tracked else None,
        )  # fmt: skip

    def _in_folder(self, video_id: str) -> StoredFile | None:
        """The file of data/videos with this content. The folder is read again when it, or that file, has changed."""
        stored = self._stored.get(video_id)
        changed_ns = self._folder_changed_ns()
        is_known = self._is_as_hashed(stored) if stored else changed_ns == self._scanned_ns
        if not is_known:
            self._stored = {file.video_id: file for file in stored_files(self._workspace)}
            self._scanned_ns = changed_ns
            stored = self._stored.get(video_id)
        return stored

    def _folder_changed_ns(self) -> int:
        try:
            return self._workspace.videos_dir.stat().st_mtime_ns
        except OSError:
            return 0

    def _is_as_hashed(self, stored: StoredFile) -> bool:
        try:
            facts = (self._workspace.videos_dir / stored.name).stat()
        except OSError:
            return False
        return (facts.st_size, facts.st_mtime_ns) == (stored.size_bytes, stored.modified_ns)

    def _in_cache(self, video_id: str, name: str) -> tuple[Path, VideoSource]:
        root, lost = self._workspace.root, ""
        for commit, md5 in self._versions():
            held = self._listing(md5).get(name)
            if held is None:
                continue
            path = versioning.cached(root, held)
            if path is None:
                lost = held
            elif file_digest(path) == video_id:
                source = VideoSource(
                    video_id=video_id,
                    name=name,
                    path=f"data/videos/{name}",
                    listing=md5,
                    commit=commit,
                )
                return path, source
        kept = (
            f"and DVC's cache no longer holds what it was (md5 {lost}); try `dvc fetch --all-commits {VIDEOS_POINTER}`"
            if lost
            else "nor in any version of data/videos that DVC's cache and git's history still hold"
        )
        raise MediaError(
            f"{name}: its content (SHA-256 {video_id[:12]}…) is not in data/videos, {kept}"
        )

    def _versions(self) -> Iterator[tuple[str | None, str]]:
        """(commit, hash) of every data/videos that is known of, the likeliest first."""
        past = versioning.past_versions(self._workspace.root, VIDEOS_POINTER)
        committed = {md5: commit for commit, md5 in reversed(past)}
        materialized = (manifest.listing for manifest in reversed(versions(self._workspace)))
        for md5 in dict.fromkeys([*self._hints, *materialized, *committed]):
            if md5:
                yield committed.get(md5), md5

    def _listing(self, md5: str) -> dict[str, str]:
        if md5 not in self._listings:
            self._listings[md5] = versioning.listing(self._workspace.root, md5) or {}
        return self._listings[md5]
