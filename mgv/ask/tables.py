"""Tables: questions about the library itself, answered from its tables and from git, not from what is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mgv.ask.replies import MAX_LISTED, Reply
from mgv.library.manifest import versions
from mgv.records import Video, clock

if TYPE_CHECKING:
    from mgv.ask.library import Library

_SUPERLATIVES: tuple[tuple[str, str, Callable[[Video], float], int], ...] = (
    ("longest", r"\blongest\b", lambda video: video.duration_s, -1),
    ("shortest", r"\bshortest\b", lambda video: video.duration_s, 1),
    ("largest", r"\b(?:largest|biggest)\b", lambda video: float(video.size_bytes), -1),
    ("smallest", r"\bsmallest\b", lambda video: float(video.size_bytes), 1),
)


def table_reply(library: Library, question: str, videos: Sequence[str] | None) -> Reply:
    """The answer from the tables; a reason where they do not hold it."""
    shown = [video for video in library.videos() if videos is None or video.video_id in videos]
    lower = question.lower()
    if not shown:
        return Reply(text=None, reason="the library has no videos yet")
    for name, pattern, value, sign in _SUPERLATIVES:
        if re.search(pattern, lower):
            return _superlative(library, shown, name, value, sign)
    if re.search(r"\b(?:newest|latest|most recent|oldest|came|added|new)\b", lower):
        return _arrivals(library, shown, lower)
    if match := re.search(r"\b(without|with|no) (?:no )?(?:subtitles|sound)", lower):
        return _tracks(library, shown, lower, wants_none=match[1] != "with" or "with no" in lower)
    if "how long" in lower:
        return _length(library, shown)
    return _listed(
        library,
        shown,
        f"{len(shown)} video{'s' if len(shown) != 1 else ''}, {clock(_total_s(shown))} together: ",
    )


def _total_s(videos: Sequence[Video]) -> float:
    return sum(video.duration_s for video in videos)


def _superlative(
    library: Library, videos: Sequence[Video], name: str, value: Callable[[Video], float], sign: int
) -> Reply:
    best = min(videos, key=lambda video: (sign * value(video), video.name))
    moment = library.opened.whole(library.opened.videos[best.video_id])
    size = f", {best.size_bytes / 1e6:.1f} MB" if name in ("largest", "smallest") else ""
    return Reply(
        text=f"{best.name} is the {name}: {clock(round(best.duration_s))}{size} [1].",
        moments=(moment,),
    )


def _length(library: Library, videos: Sequence[Video]) -> Reply:
    if len(videos) == 1:
        moment = library.opened.whole(library.opened.videos[videos[0].video_id])
        return Reply(
            text=f"{videos[0].name} is {clock(round(videos[0].duration_s))} long [1].",
            moments=(moment,),
        )
    return Reply(text=f"{len(videos)} videos, {clock(_total_s(videos))} together.")


def _tracks(library: Library, videos: Sequence[Video], lower: str, *, wants_none: bool) -> Reply:
    what = "subtitles" if "subtitles" in lower else "sound"
    rows = library.opened.videos
    has = {
        video.video_id: bool(rows[video.video_id]["cues"])
        if what == "subtitles"
        else video.audio_codec is not None
        for video in videos
    }
    kept = [video for video in videos if has[video.video_id] != wants_none]
    begin = f"{len(kept)} of {len(videos)} videos {'have no' if wants_none else 'have'} {what}"
    return _listed(library, kept, f"{begin}: ") if kept else Reply(text=f"{begin}.")


def _listed(library: Library, videos: Sequence[Video], begin: str) -> Reply:
    names = [
        f"{video.name} ({clock(round(video.duration_s))})" for video in videos[: 4 * MAX_LISTED]
    ]
    more = f" and {len(videos) - len(names)} more" if len(videos) > len(names) else ""
    return Reply(text=f"{begin}{', '.join(names)}{more}.")


def _arrivals(library: Library, videos: Sequence[Video], lower: str) -> Reply:
    """What came last, or in the time that is asked for: by the library's kept versions."""
    since = _came_in(library)
    known = [video for video in videos if video.video_id in since]
    if not known:
        return Reply(text=None, reason="no version of the library says when its videos came in")
    if re.search(r"\boldest\b", lower):
        return _one_arrival(
            library,
            min(known, key=lambda video: (since[video.video_id], video.name)),
            "oldest",
            since,
        )
    if re.search(r"\b(?:newest|latest|most recent)\b", lower):
        return _one_arrival(
            library,
            max(known, key=lambda video: (since[video.video_id], video.name)),
            "newest",
            since,
        )
    days = 31 if "month" in lower else 1 if "today" in lower else 2 if "yesterday" in lower else 7
    newest = datetime.fromisoformat(library.manifest.finished_at).astimezone(UTC)
    begin = newest - timedelta(days=days)
    came = [
        video
        for video in known
        if datetime.fromisoformat(since[video.video_id]).astimezone(UTC) >= begin
    ]
    span = f"in the {days} days" if days > 1 else "in the day"
    if not came:
        return Reply(
            text=f"No video came in {span} up to this library's making, {newest:%Y-%m-%d}."
        )
    return _listed(
        library,
        came,
        f"{len(came)} came in {span} up to this library's making, {newest:%Y-%m-%d}: ",
    )


def _came_in(library: Library) -> dict[str, str]:
    """When each video was first in a finished library that is kept, up to the one that is asked: ISO-8601, UTC."""
    since: dict[str, str] = {}
    for manifest in versions(library.workspace):
        if manifest.finished_at and manifest.finished_at <= library.manifest.finished_at:
            for item in manifest.items:
                since.setdefault(item.video_id, manifest.finished_at)
    return since


def _one_arrival(library: Library, video: Video, name: str, since: dict[str, str]) -> Reply:
    moment = library.opened.whole(library.opened.videos[video.video_id])
    return Reply(
        text=f"{video.name} is the {name}: it came in by {since[video.video_id][:10]} [1].",
        moments=(moment,),
    )
