"""Words: which subtitles of a video are used, which are not, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mgv.errors import AccessError, MediaError
from mgv.media.container import shown
from mgv.media.embedded import read_text_track, spoken_language, text_tracks
from mgv.media.sidecars import find_sidecars
from mgv.media.subtitles import Subtitles, UnusedCue, read_subtitle_file
from mgv.records import Cue, Video


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What a video's subtitles say."""

    source: str
    """`sidecar`, `embedded`, or `none`: its sound is to be listened to."""
    cues: tuple[Cue, ...] = ()
    """Within the video, from its beginning."""
    used: str = ""
    """The file's name, or the track."""
    unused: tuple[UnusedCue, ...] = ()
    """Cues of it that are not used."""
    notes: tuple[str, ...] = ()
    """Files and tracks that were not used, and why; what may be wrong with the one that was."""


def read_words(path: Path, video: Video, names: Iterable[str] | None = None) -> Words:
    """The subtitles that best tell what is said: a file beside the video, else a text track inside it.

    names: the files to choose among, else the video's folder is listed. A file that cannot be read, holds no cue or
    none within the video is noted, and the next one is tried. Raises AccessError where one cannot be read just now.
    """
    notes: list[str] = []
    for sidecar in find_sidecars(path, names, spoken=lambda: _spoken(path)):
        name = sidecar.path.name
        if sidecar.refusal:
            notes.append(f"{name} is not used: {sidecar.refusal}")
            continue
        try:
            subtitles = read_subtitle_file(sidecar.path, video.frame_rate).within(video.duration_s)
        except AccessError:
            raise
        except MediaError as error:
            reason = str(error).removeprefix(f"{shown(sidecar.path)}: ")
            notes.append(f"{name} is not used: {reason}")
            continue
        if subtitles.cues:
            return _words("sidecar", name, subtitles, notes)
        notes.append(f"{name} is not used: {_why_empty(subtitles)}")
    for track in text_tracks(path):
        if track.refusal:
            notes.append(f"{track} is not used: {track.refusal}")
            continue
        subtitles = read_text_track(path, track).within(video.duration_s)
        if subtitles.cues:
            return _words("embedded", str(track), subtitles, notes)
        notes.append(f"{track} is not used: {_why_empty(subtitles)}")
    return Words(source="none", notes=tuple(notes))


def _spoken(path: Path) -> str | None:
    try:
        return spoken_language(path)
    except MediaError:
        return None


def _words(source: str, used: str, subtitles: Subtitles, notes: list[str]) -> Words:
    outside = sum(not cue.line for cue in subtitles.unused)
    if outside:
        notes.append(
            f"{outside} of {outside + len(subtitles.cues)} cues of {used} lie after the video's end"
        )
    return Words(
        source=source, cues=subtitles.cues, used=used, unused=subtitles.unused, notes=tuple(notes)
    )


def _why_empty(subtitles: Subtitles) -> str:
    if subtitles.unused:
        return f"all of its {len(subtitles.unused)} cues lie after the video's end"
    return "it holds no words"
