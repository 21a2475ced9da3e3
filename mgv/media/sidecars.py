"""Sidecars: which subtitle files beside a video are its own, and which of them tells what is said.

Names as Plex, Jellyfin, Bazarr, yt-dlp and players write them: the video's name, then a language, and whether the
subtitles are forced or for the deaf and hard of hearing (SDH).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mgv.media.languages import language_of

SUBTITLE_SUFFIXES = (".vtt", ".srt", ".ass", ".ssa", ".ttml", ".dfxp", ".sbv", ".smi", ".sub")
"""In order of preference."""
_FORCED = frozenset({"forced", "foreign", "signs", "songs"})
_SDH = frozenset({"sdh", "cc", "hearing", "impaired", "hearing-impaired"})
_PLAIN = frozenset(
    {
        "default",
        "full",
        "sub",
        "subs",
        "subtitle",
        "subtitles",
        "caption",
        "captions",
        "auto",
        "automatic",
    }
    | {"generated", "asr", "orig", "original", "dialog", "dialogue", "complete", "transcript"}
)
_COMMENTARY = frozenset({"commentary", "comment", "comments", "director"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Sidecar:
    """A subtitle file of a video, as its name describes it."""

    path: Path
    language: str | None = None
    """Two letters; None where the name does not say."""
    is_forced: bool = False
    """Only what is foreign or written in the picture: not what is said."""
    is_sdh: bool = False
    is_commentary: bool = False
    unknown: str = ""
    """A part of the name that says none of this: the file is named, and not used."""

    @property
    def refusal(self) -> str:
        """Why it does not tell what is said; empty where it may."""
        if self.unknown:
            return f"{self.unknown!r} in its name is no language"
        if self.is_forced:
            return "it holds forced subtitles only"
        return "it holds a commentary" if self.is_commentary else ""


def find_sidecars(
    video: Path,
    names: Iterable[str] | None = None,
    spoken: Callable[[], str | None] = lambda: None,
) -> list[Sidecar]:
    """The subtitle files of a video, the one that best tells what is said first, those that do not last.

    names: the files to choose among, else the video's folder is listed. A file whose name begins with that of several
    videos there belongs to the one with the longest: talk.cut.srt to talk.cut.mp4, not to talk.mp4.
    spoken: gives the spoken language, two letters; asked only where there are several languages to choose from.
    Without it a file that names no language comes first, then English, then others by name.
    """
    try:
        names = os.listdir(video.parent) if names is None else list(names)
    except OSError:
        return []
    stems = {Path(name).stem for name in names if not name.lower().endswith(SUBTITLE_SUFFIXES)} | {
        video.stem
    }
    own = [_described(video, name) for name in sorted(names) if _owner(name, video, stems)]
    sidecars = [sidecar for sidecar in own if sidecar.path.is_file()]
    languages = {sidecar.language for sidecar in sidecars if not sidecar.refusal}
    first = spoken() if len(languages) > 1 else None
    return sorted(sidecars, key=lambda sidecar: _rank(sidecar, first))


def find_sidecar(video: Path, names: Iterable[str] | None = None) -> Path | None:
    """The subtitle file that tells what is said in a video, or None."""
    usable = [sidecar.path for sidecar in find_sidecars(video, names) if not sidecar.refusal]
    return usable[0] if usable else None


def _owner(name: str, video: Path, stems: set[str]) -> bool:
    """Whether a file's name makes it this video's: a subtitle file whose longest namesake is this video."""
    if not name.lower().endswith(SUBTITLE_SUFFIXES):
        return False
    stem = os.path.splitext(name)[0]
    matching = [other for other in stems if _rest(stem, other) is not None]
    longest = max(matching, key=len, default=None)
    return longest == video.stem and _rest(stem, video.stem) is not None


def _rest(stem: str, video_stem: str) -> str | None:
    """What follows a video's name in a subtitle file's; None where that begins otherwise."""
    if not stem.startswith(video_stem):
        return None
    rest = stem[len(video_stem) :]
    return rest if not rest or rest[0] in "._- [(" else None


def _described(video: Path, name: str) -> Sidecar:
    rest = (_rest(os.path.splitext(name)[0], video.stem) or "").removeprefix(video.suffix)
    language: str | None = None
    flags: set[str] = set()
    unknown: list[str] = []
    for token in re.split(r"[.\s()\[\]]+", rest.replace("hearing_impaired", "hearing-impaired")):
        for part in [token] if language_of(token) else token.split("_"):
            word = part.strip("-_ ").lower()
            if not word or word in _PLAIN or (word.isdigit() and (language or flags)):
                continue  # film.en.2.srt is a second English one; film.2.srt may be of another part
            if word in _FORCED | _SDH | _COMMENTARY or (
                word == "hi" and language
            ):  # `hi` alone is Hindi
                flags.add(word)
            elif code := language_of(word):
                language = language or code
            else:
                unknown.append(word)
    return Sidecar(
        path=video.parent / name,
        language=language,
        is_forced=bool(flags & _FORCED),
        is_sdh=bool(flags & (_SDH | {"hi"})),
        is_commentary=bool(flags & _COMMENTARY),
        unknown=" ".join(unknown),
    )


def _rank(sidecar: Sidecar, spoken: str | None) -> tuple[object, ...]:
    languages = (spoken, None, "en") if spoken else (None, "en")
    place = languages.index(sidecar.language) if sidecar.language in languages else len(languages)
    form = SUBTITLE_SUFFIXES.index(sidecar.path.suffix.lower())
    return (
        bool(sidecar.refusal),
        place,
        sidecar.language or "",
        sidecar.is_sdh,
        form,
        sidecar.path.name,
    )
