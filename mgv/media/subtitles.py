"""Subtitles: WebVTT and SRT ↔ cues, and which subtitle file belongs to a video."""

from __future__ import annotations

import html
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mgv.errors import MediaError
from mgv.media.container import check_file, shown
from mgv.records import Cue

logger = logging.getLogger(__name__)

SUBTITLE_SUFFIXES = (".vtt", ".srt")
"""In order of preference."""
MAX_BYTES = 64 * 2**20
_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3})\d*)?"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|</?\d+:[\d:.]+>|\{\\[^{}]*\}")
"""<i>, </i>, <v Bob>, <c.yellow>, <00:00:01.500> and SubRip's {\\an8}; a lone < stays."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*")
_TOUCH_S = 0.1
"""Cues closer than this follow each other without a pause."""


@dataclass(frozen=True, slots=True)
class _RawCue:
    start_ms: int
    end_ms: int
    lines: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        return " ".join(self.lines).split()


def read_subtitles(path: Path) -> list[Cue]:
    """The cues of a WebVTT or SRT file in order of time, as plain text on one line each.

    Tags, voice names, settings, notes and styles go; entities become characters. A cue with a broken time is
    left out, with one warning in the log that counts them and names the first. Captions that roll (each
    repeats what the one before has said) are given once. A file without content gives []. Raises MediaError
    when the file cannot be read, or has content but no cue.
    """
    size_bytes = _size(path)
    if size_bytes > MAX_BYTES:
        raise MediaError(f"{shown(path)}: {size_bytes} bytes, expected subtitles of at most {MAX_BYTES}")
    lines = (
        _decode(path.read_bytes() if size_bytes else b"")
        .replace("\r\n", "\n")
        .replace("\r", "\n")
        .split("\n")
    )
    raw, broken = _parse(lines)
    if broken:
        logger.warning(
            "%s: left out %d of %d cues, the first at line %d: broken time %r",
            shown(path), len(broken), len(broken) + len(raw), broken[0], lines[broken[0] - 1][:80],
        )  # fmt: skip
    content = [line for line in lines if line.strip() and not line.startswith("WEBVTT")]
    if content and not raw and (broken or not _only_blocks(lines)):
        found = f"{len(broken)} with broken times" if broken else f"text such as {content[0].strip()[:40]!r}"
        raise MediaError(
            f"{shown(path)}: no cue can be read ({found}), expected WebVTT or SRT with times such as "
            "00:00:01.000 --> 00:00:02.000; mend or remove the file"
        )
    raw.sort(key=lambda cue: (cue.start_ms, cue.end_ms))
    return [
        Cue(start_s=cue.start_ms / 1000, end_s=cue.end_ms / 1000, text=" ".join(cue.words))
        for cue in _unroll(raw)
        if cue.words
    ]


def write_webvtt(cues: Iterable[Cue], path: Path) -> None:
    """Write cues as WebVTT, times to the millisecond; the file appears whole or not at all."""
    blocks = [f"{_timing(cue, '.')}\n{_escape(cue.text)}\n" for cue in cues if cue.text.strip()]
    _write(path, "\n".join(["WEBVTT\n", *blocks]))


def write_srt(cues: Iterable[Cue], path: Path) -> None:
    """Write cues as SRT, times to the millisecond; the file appears whole or not at all.

    SRT has no escapes: text stays as it is unless it would read as a tag or a time, then as in WebVTT.
    """
    blocks = []
    for number, cue in enumerate((cue for cue in cues if cue.text.strip()), start=1):
        text = " ".join(cue.text.split())
        safe = "-->" not in text and _plain(text) == text and not text.isdigit()
        blocks.append(f"{number}\n{_timing(cue, ',')}\n{text if safe else _escape(text)}\n")
    _write(path, "\n".join(blocks))


def find_sidecar(video_path: Path, names: Iterable[str] | None = None) -> Path | None:
    """The subtitle file beside a video, or None. names: what may belong to it, else its folder is listed.

    For `talk.mp4`, in this order: `talk.vtt` (or `talk.mp4.vtt`), then English (`talk.en.vtt`,
    `talk.en-GB.vtt`, `talk.eng.vtt`), then other languages by name (`talk.de.vtt`);
    of each, WebVTT before SRT.
    """
    try:
        names = os.listdir(video_path.parent) if names is None else names
    except OSError:
        return None
    ranked = []
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in SUBTITLE_SUFFIXES:
            continue
        format_rank = SUBTITLE_SUFFIXES.index(suffix.lower())
        for own in (video_path.stem, video_path.name):
            language = stem.removeprefix(f"{own}.")
            if stem == own:
                ranked.append((0, "", format_rank, name))
            elif language != stem and _LANGUAGE.fullmatch(language):
                is_english = language.lower().replace("_", "-").split("-")[0] in ("en", "eng")
                ranked.append((1 if is_english else 2, language.lower(), format_rank, name))
    for *_, name in sorted(ranked):
        path = video_path.parent / name
        if path.is_file():
            return path
    return None


def _size(path: Path) -> int:
    """Size in bytes; an empty file is allowed, for it may stand for "nothing is said"."""
    if path.is_file() and path.stat().st_size == 0:
        return 0
    return check_file(path)


def _decode(content: bytes) -> str:
    """Bytes → text: by byte order mark; else UTF-16 if every other byte is zero, UTF-8, Windows-1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    head = content[:4096]
    if head and head.count(0) > len(head) / 4:
        endian = "utf-16-le" if head[1::2].count(0) > head[0::2].count(0) else "utf-16-be"
        return content.decode(endian, errors="replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def _parse(lines: Sequence[str]) -> tuple[list[_RawCue], list[int]]:
    """Lines → cues in file order, and the numbers (from 1) of lines with a time that cannot be read."""
    cues: list[_RawCue] = []
    broken: list[int] = []
    here = 0
    after_blank = True
    while here < len(lines):
        line = lines[here]
        here += 1
        if after_blank and line.split(" ")[0].split("\t")[0] in ("NOTE", "STYLE", "REGION"):
            while here < len(lines) and lines[here].strip():
                here += 1
        after_blank = not line.strip()
        if "-->" not in line:
            continue
        timing_line = here
        body: list[str] = []
        while here < len(lines) and lines[here] and "-->" not in lines[here]:  # spaces alone end no cue
            body.append(lines[here])
            here += 1
        next_is_timing = here < len(lines) and "-->" in lines[here]
        if next_is_timing and body and body[-1].strip().isdigit():
            body.pop()  # the number of the next cue, with no blank line before it
        span = _span_ms(line)
        if span is None:
            broken.append(timing_line)
        else:
            cues.append(_RawCue(*span, tuple(filter(None, map(_plain, body)))))
    return cues, broken


def _span_ms(line: str) -> tuple[int, int] | None:
    """Start and end of a timing line in milliseconds; None when broken or reversed."""
    match = _TIMING.fullmatch(line)
    if match is None:
        return None
    start, end = (_ms(*match.groups()[i : i + 4]) for i in (0, 4))
    return (start, end) if start is not None and end is not None and start <= end else None


def _ms(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> int | None:
    if int(minutes) > 59 or int(seconds) > 59 or len(hours or "") > 6:
        return None
    whole_s = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return whole_s * 1000 + int((fraction or "0").ljust(3, "0"))


def _plain(line: str) -> str:
    """A line without tags, with entities as characters and single spaces."""
    return " ".join(html.unescape(_TAG.sub("", line)).split())


def _escape(text: str) -> str:
    text = " ".join(text.split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _only_blocks(lines: Sequence[str]) -> bool:
    """Whether a file is WebVTT with notes and styles but no cue: nothing is said, which is no fault."""
    return any(line.startswith("WEBVTT") for line in lines[:1])


def _unroll(cues: Sequence[_RawCue]) -> list[_RawCue]:
    """Say once what rolling captions say again and again.

    A cue that touches the one before repeats it when it begins with that one's last line or lines. Where a
    quarter of the touching cues (at least two) do so, the file rolls: the repeated words are taken out, and a
    cue left without words lengthens the one before. Elsewhere a repetition ("No. No.") was said, and stays.
    """
    repeats = [_repeated(before, cue) for before, cue in pairwise(cues)]
    num_touching = sum(count is not None for count in repeats)
    num_repeats = sum(bool(count) for count in repeats)
    if num_repeats < 2 or num_repeats < num_touching / 4:
        return list(cues)
    kept = list(cues[:1])
    for cue, count in zip(cues[1:], repeats, strict=True):
        words = cue.words[count or 0 :]
        if words or not cue.words:
            kept.append(_RawCue(cue.start_ms, cue.end_ms, (" ".join(words),) if words else ()))
        else:
            kept[-1] = _RawCue(kept[-1].start_ms, max(kept[-1].end_ms, cue.end_ms), kept[-1].lines)
    return kept


def _repeated(before: _RawCue, cue: _RawCue) -> int | None:
    """How many leading words of a cue the one before has just shown; None when they do not touch."""
    if cue.start_ms - before.end_ms > _TOUCH_S * 1000:
        return None
    for first in range(len(before.lines)):
        tail = " ".join(before.lines[first:]).split()
        if tail and cue.words[: len(tail)] == tail:
            return len(tail)
    return 0


def _timing(cue: Cue, point: str) -> str:
    return f"{_clock(cue.start_s, point)} --> {_clock(max(cue.end_s, cue.start_s), point)}"


def _clock(time_s: float, point: str) -> str:
    ms = max(round(time_s * 1000), 0)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def _write(path: Path, text: str) -> None:
    """Write beside the name, then rename."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=".part")
    try:
        with open(handle, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
