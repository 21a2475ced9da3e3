"""Transcripts: the words that a library's speech recognition heard, against reference subtitles.

Only recognition is scored: a video whose words came from subtitles beside it says nothing about the recogniser.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mgv.errors import MediaError, MgvError, WorkspaceError
from mgv.evaluate.answering import OnPlan, OnStep
from mgv.evaluate.metrics import edit_distance, spoken_words
from mgv.evaluate.scores import Scored
from mgv.evaluate.sets.annotations import plain_name, say_missing
from mgv.evaluate.spans import Span
from mgv.media.sidecars import SUBTITLE_SUFFIXES, find_sidecar
from mgv.media.subtitles import read_subtitles
from mgv.records import Cue

if TYPE_CHECKING:
    from mgv.ask.library import Library

logger = logging.getLogger(__name__)

NORMALISED = (
    "lower case, without punctuation; numbers as they are written; over all words of all videos"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcribed:
    """The word error rate of each video, and which have none."""

    rows: list[Scored]
    missing: dict[str, int]
    """Name of a reference whose video the library lacks → 1."""
    unscored: dict[str, str]
    """Video → why it says nothing about recognition."""
    digest: str
    """SHA-256 of the references that were scored."""


def evaluate_transcripts(
    library: Library,
    folder: Path,
    *,
    on_plan: OnPlan = lambda count: None,
    on_step: OnStep = lambda name, step, done: None,
) -> Transcribed:
    """Score the library's videos that have a reference in `folder`: `talk.vtt`, `talk.srt` or `talk.en.vtt`.

    Which file belongs to a video is decided as beside a video. Raises WorkspaceError when there is no such folder,
    MgvError when it holds no subtitles, or none of a video of the library.
    """
    names = _subtitle_names(folder)
    references = {
        video.name: reference
        for video in library.videos()
        if (reference := find_sidecar(folder / video.name, names))
    }
    missing = dict.fromkeys(_strangers(names, references), 1)
    say_missing(f"{folder}", missing)
    if not references:
        raise MgvError(f"{folder}: none of its {len(names)} subtitle files is of a video of the library "
                       f"(first: {names[0]}); name them as the videos, for example talk.vtt for talk.mp4")  # fmt: skip
    on_plan(len(references))
    rows: list[Scored] = []
    unscored: dict[str, str] = {}
    scored: list[tuple[str, list[str]]] = []
    for video, reference in references.items():
        source, heard = library.subtitles(video)
        wanted, reason = _reference(source, reference)
        if reason:
            unscored[video] = reason
        else:
            rows.append(_row(video, _text(heard), wanted))
            scored.append((video, spoken_words(wanted)))
        on_step(video, "done", 1.0)
    if unscored:
        logger.warning(
            "%d videos are not scored: %s",
            len(unscored),
            "; ".join(map(": ".join, unscored.items())),
        )
    digest = hashlib.sha256(json.dumps(scored).encode()).hexdigest()
    return Transcribed(rows=rows, missing=missing, unscored=unscored, digest=digest)


def _subtitle_names(folder: Path) -> list[str]:
    try:
        names = sorted(
            name for name in os.listdir(folder) if name.lower().endswith(SUBTITLE_SUFFIXES)
        )
    except OSError as error:
        raise WorkspaceError(
            f"{folder}: cannot be read as a folder of reference subtitles ({error.strerror}); "
            "name another by evaluate.transcripts"
        ) from error
    if not names:
        raise MgvError(f"{folder}: no .vtt or .srt in it")
    return names


def _strangers(names: Iterable[str], references: dict[str, Path]) -> list[str]:
    """Files that no video of the library takes; a second language of one that does is no stranger."""
    taken = {path.name for path in references.values()}
    known = {plain_name(video) for video in references}
    return [
        name
        for name in names
        if name not in taken and not {plain_name(stem) for stem in _stems(name)} & known
    ]


def _stems(name: str) -> tuple[str, str]:
    """`talk.en.vtt` → `talk.en`, `talk`."""
    stem = os.path.splitext(name)[0]
    return stem, stem.rpartition(".")[0] or stem


def _reference(source: str, path: Path) -> tuple[str, str]:
    """A reference's words, and why recognition cannot be held against them, else empty."""
    if source == "sidecar":
        return "", "its words come from subtitles beside it, not from recognition"
    if source == "none":
        return "", "it has no sound"
    try:
        wanted = _text(read_subtitles(path))
    except MediaError as error:
        return "", str(error)
    return wanted, "" if spoken_words(wanted) else f"{path.name} has no words"


def _text(cues: Iterable[Cue]) -> str:
    return " ".join(cue.text for cue in cues)


def _row(video: str, heard: str, wanted: str) -> Scored:
    words = spoken_words(wanted)
    return Scored(
        task="transcript",
        key=video,
        group=video,
        kind="",
        text=f"speech of {video}",
        reference=wanted,
        answer=heard,
        scores={"word_error_rate": edit_distance(spoken_words(heard), words) / len(words)},
        weight=float(len(words)),
        place=Span(video=video),
    )
