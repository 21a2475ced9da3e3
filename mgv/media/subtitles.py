"""Subtitles: files of every common kind → cues, with what of them was not used and why.

pysubs2 reads ASS, SSA, MicroDVD, MPL2, TMP, SAMI and TTML. SubRip and WebVTT are read here, as players read them: with
slips in their times, blank lines inside cues, captions that roll, and WebVTT put together from the parts of an HLS
stream.
"""

from __future__ import annotations

import html
import logging
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import pysubs2
from pysubs2.exceptions import Pysubs2Error

from mgv.errors import MediaError
from mgv.files import replacing
from mgv.media.container import check_file, one_line, shown
from mgv.media.encoding import Decoded, decode_text
from mgv.records import Cue

logger = logging.getLogger(__name__)

MAX_BYTES = 64 * 2**20
MAX_CUES = 200_000
"""A day of speech has about 30,000."""
DEFAULT_FRAME_RATE = 25.0
"""For MicroDVD, which counts frames, where neither it nor the video says how many there are a second."""
_TIME = r"(-)?(?:(\d{1,6})\s*:\s*)?(\d{1,3})\s*:\s*(\d{1,3})(?:\s*[.,:;]\s*(\d{1,6})[^\s\d]?)?"
_ARROW = r"\s*(?:-{1,3}|[–—])?(?:>|→)\s*"
_TIMING = re.compile(rf"\s*{_TIME}{_ARROW}{_TIME}(?:\s.*)?", re.DOTALL)
_LOOKS_LIKE_TIMING = re.compile(r"^\s*-?\d[\d:.,;\s]*-{1,3}>|-->")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|</?\d{1,3}:[\d:.]{1,20}>|\{\\[^{}]{0,200}\}")
"""<i>, </i>, <v Bob>, <c.yellow>, <00:00:01.500> and SubRip's {\\an8}; a lone < stays."""
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,31});")
_MAP = re.compile(r"X-TIMESTAMP-MAP\s*=\s*(.*)", re.IGNORECASE)
_SBV = re.compile(
    r"(\d+:\d{1,2}:\d{1,2}\.\d{1,3}),(\d+:\d{1,2}:\d{1,2}\.\d{1,3})[ \t]*$", re.MULTILINE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")
"""What would steer a terminal or turn the text around it."""
_MPEG_HZ = 90_000
_MPEG_WRAP_S = 2**33 / _MPEG_HZ
_TOUCH_MS = 100
"""Cues closer than this follow each other without a pause."""
_MAX_LINES = 40
"""Of a cue; more are a broken file's, and its rest is kept as one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnusedCue:
    """A cue that is not used."""

    line: int
    """In its file, from 1; 0 where the format has none."""
    reason: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Subtitles:
    """What a subtitle file or track says."""

    cues: tuple[Cue, ...]
    """In order of time, from the beginning of the video."""
    unused: tuple[UnusedCue, ...] = ()
    format: str
    """`srt`, `vtt`, `sbv`, or pysubs2's name of it."""
    encoding: str = ""
    doubt: str = ""
    """What may be wrong with how it was read; empty where nothing is."""

    def within(self, duration_s: float) -> Subtitles:
        """The cues that begin before the video ends, cut at its end; the others are unused."""
        inside = [cue for cue in self.cues if cue.start_s < duration_s]
        outside = [
            UnusedCue(
                line=0, reason=f"at {cue.start_s:.1f} s, after the video's end", text=cue.text
            )
            for cue in self.cues
            if cue.start_s >= duration_s
        ]
        cut = [replace(cue, end_s=min(cue.end_s, duration_s)) for cue in inside]
        return replace(self, cues=tuple(cut), unused=(*self.unused, *outside))


@dataclass(frozen=True, slots=True)
class _RawCue:
    start_ms: int
    end_ms: int
    lines: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        return " ".join(self.lines).split()


def read_subtitles(path: Path, frame_rate: float | None = None) -> list[Cue]:
    """The cues of a subtitle file; see read_subtitle_file."""
    return list(read_subtitle_file(path, frame_rate).cues)


def read_subtitle_file(path: Path, frame_rate: float | None = None) -> Subtitles:
    """The cues of a subtitle file in order of time, as plain text on one line each, and those that are not used.

    frame_rate: of the video, for MicroDVD. Tags, voice names, settings, notes and styles go; entities become
    characters. Captions that roll (each repeats what the one before has said) are given once. A warning names a file
    that has broken cues or may be in another encoding. A file without content has no cues. Raises MediaError when the
    file cannot be read, or has content but no cue.
    """
    size_bytes = _size(path)
    if size_bytes > MAX_BYTES:
        raise MediaError(
            f"{shown(path)}: {size_bytes} bytes, expected subtitles of at most {MAX_BYTES}"
        )
    content = path.read_bytes() if size_bytes else b""
    if content.startswith(b"\x00\x00\x01\xba"):
        raise MediaError(
            f"{shown(path)}: subtitles as pictures (VobSub), expected text; convert them by OCR"
        )
    decoded = decode_text(content)
    try:
        subtitles = _parse(decoded, frame_rate)
    except (
        Pysubs2Error,
        ValueError,
        SyntaxError,
        LookupError,
        OverflowError,
        RecursionError,
    ) as error:
        raise MediaError(
            f"{shown(path)}: these subtitles cannot be read ({one_line(error)[:120]})"
        ) from error
    _check(path, decoded.text, subtitles)
    return subtitles


def from_timed_lines(lines: Iterable[tuple[float, float, str]], form: str) -> Subtitles:
    """Subtitles from (start in seconds, end, text) as a track inside a video gives them."""
    raw = [
        _RawCue(
            max(round(start_s * 1000), 0),
            max(round(end_s * 1000), 0),
            _lines(re.split(r"\\N|\n", text)),
        )
        for start_s, end_s, text in lines
    ]
    return Subtitles(cues=tuple(_cues(raw)), format=form)


def webvtt(cues: Iterable[Cue]) -> str:
    """Cues as WebVTT, times to the millisecond."""
    parts = ["WEBVTT\n\n"]
    for cue in cues:
        if text := " ".join(cue.text.split()):
            start_ms = max(round(cue.start_s * 1000), 0)
            end_ms = max(round(cue.end_s * 1000), start_ms)
            parts.append(f"{_clock(start_ms)} --> {_clock(end_ms)}\n{_escape(text)}\n\n")
    return "".join(parts)


def write_webvtt(cues: Iterable[Cue], path: Path) -> None:
    """Write cues as WebVTT; the file appears whole or not at all."""
    with replacing(path) as out:
        out.write(webvtt(cues))


def _clock(ms: int) -> str:
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _size(path: Path) -> int:
    """Size in bytes; an empty file is allowed, for it may stand for "nothing is said"."""
    if path.is_file() and path.stat().st_size == 0:
        return 0
    return check_file(path)


def _check(path: Path, text: str, subtitles: Subtitles) -> None:
    """Warn of what is doubtful. Raises MediaError for content without a single cue."""
    if subtitles.doubt:
        logger.warning(
            "%s: read as %s, but %s; save it as UTF-8 if words look wrong",
            shown(path), subtitles.encoding, subtitles.doubt,
        )  # fmt: skip
    broken = [cue for cue in subtitles.unused if cue.line]
    if broken:
        logger.warning(
            "%s: left out %d of %d cues, the first at line %d: %s %r", shown(path), len(broken),
            len(broken) + len(subtitles.cues), broken[0].line, broken[0].reason, broken[0].text[:80],
        )  # fmt: skip
    content = [line for line in text.splitlines() if line.strip() and not line.startswith("WEBVTT")]
    if subtitles.cues or not content or (subtitles.format == "vtt" and not broken):
        return
    is_page = content[0].lstrip().lower().startswith(("<!doctype", "<html"))
    what = "a web page" if is_page else f"text such as {content[0].strip()[:40]!r}"
    content_kind = f"{len(broken)} with broken times" if broken else what
    raise MediaError(
        f"{shown(path)}: no cue can be read ({content_kind}), expected subtitles with times such as "
        "00:00:01.000 --> 00:00:02.000; mend or remove the file"
    )


# which format it is


def _parse(decoded: Decoded, frame_rate: float | None) -> Subtitles:
    text = decoded.text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    form = _format(text)
    unused: list[UnusedCue] = []
    if form in ("srt", "vtt"):
        raw, unused = _parse_timings(text.split("\n"), is_vtt=form == "vtt")
    elif form == "sbv":
        raw, unused = _parse_timings(_SBV.sub(r"\1 --> \2", text).split("\n"), is_vtt=False)
    else:
        raw = _parse_by_library(text, form, frame_rate)
    if len(raw) > MAX_CUES:
        unused.append(
            UnusedCue(
                line=0, reason=f"more than {MAX_CUES} cues", text=f"{len(raw) - MAX_CUES} cues"
            )
        )
        raw = raw[:MAX_CUES]
    cues = _cues(raw)
    return Subtitles(
        cues=tuple(cues),
        unused=tuple(unused),
        format=form,
        encoding=decoded.encoding,
        doubt=decoded.doubt,
    )


def _cues(raw: Iterable[_RawCue]) -> list[Cue]:
    """In order of time, each said once."""
    ordered = sorted(raw, key=lambda cue: (cue.start_ms, cue.end_ms))
    return [
        Cue(start_s=cue.start_ms / 1000, end_s=cue.end_ms / 1000, text=" ".join(cue.words))
        for cue in _unroll(_once(ordered))
        if cue.words
    ]


_SIGNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "ass",
        re.compile(r"\s*\[Script Info\]|.*^Dialogue:.*^", re.IGNORECASE | re.DOTALL | re.MULTILINE),
    ),
    ("vtt", re.compile(r"\s*WEBVTT")),
    ("microdvd", re.compile(r"\s*\{\d+\}\{\d*\}")),
    ("mpl2", re.compile(r"\s*\[\d+\]\[\d*\]")),
    ("sbv", _SBV),
    ("sami", re.compile(r"\s*<SAMI", re.IGNORECASE)),
    ("ttml", re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:\w+:)?tt[\s>]", re.DOTALL)),
    ("tmp", re.compile(r"\s*\d{1,2}:\d\d:\d\d[:=][^\n]*[^\d\s:.,=>-]")),
)
"""How each format begins."""


def _format(text: str) -> str:
    head = text[:20_000]
    if "-->" not in head or re.match(r"\s*(?:WEBVTT|\[Script Info\])", head):
        for form, sign in _SIGNS:
            if sign.match(head):
                return form
    return "srt"


def _parse_by_library(text: str, form: str, frame_rate: float | None) -> list[_RawCue]:
    if form == "ttml" and ("<!ENTITY" in text or "<!DOCTYPE" in text):
        raise ValueError("it declares XML entities")
    options = {}
    if form == "microdvd" and not re.match(
        r"\s*\{[01]\}\{[01]\}\s*[\d.]+\s*$", text.split("\n", 1)[0]
    ):
        options["fps"] = frame_rate or DEFAULT_FRAME_RATE
    file = pysubs2.SSAFile.from_string(text, format_=form, **options)
    return [
        _RawCue(
            max(event.start, 0), max(event.end, event.start, 0), _lines(event.plaintext.split("\n"))
        )
        for event in file
        if not event.is_comment and not event.is_drawing
    ]


# SubRip and WebVTT


def _parse_timings(lines: Sequence[str], *, is_vtt: bool) -> tuple[list[_RawCue], list[UnusedCue]]:
    """Lines → cues in file order, and those whose times cannot be read."""
    timings = [
        place
        for place, line in enumerate(lines)
        if _LOOKS_LIKE_TIMING.search(normalize("NFKC", line))
    ]
    is_numbered = (
        not is_vtt and bool(timings) and any(line.strip().isdigit() for line in lines[: timings[0]])
    )
    notes = _note_lines(lines) if is_vtt else set()
    map_lines, shifts = _map_shifts(lines) if is_vtt else ([], [])
    cues: list[_RawCue] = []
    unused: list[UnusedCue] = []
    for place, following in pairwise([*timings, len(lines)]):
        if place in notes:
            continue
        body = _body(lines[place + 1 : following], is_vtt, is_numbered and following < len(lines))
        span = _span_ms(lines[place])
        if span is None:
            unused.append(
                UnusedCue(
                    line=place + 1,
                    reason="its time cannot be read:",
                    text=" ".join([lines[place], *body]),
                )
            )
            continue
        before = bisect_left(map_lines, place)
        shift_ms = shifts[before - 1] if before else 0
        cues.append(_RawCue(span[0] + shift_ms, span[1] + shift_ms, _lines(body)))
    return cues, unused


def _body(lines: Sequence[str], is_vtt: bool, has_number_after: bool) -> list[str]:
    """The lines of a cue: in WebVTT to the first blank line, in SubRip to the number of the next cue."""
    if is_vtt:
        blank = next((place for place, line in enumerate(lines) if not line), len(lines))
        return list(lines[:blank])
    body = list(lines)
    while body and not body[-1].strip():
        body.pop()
    if body and body[-1].strip().isdigit() and (has_number_after or lines[-1:] == body[-1:]):
        is_right_before_the_time = lines[-1].strip().isdigit()
        if has_number_after or is_right_before_the_time:
            body.pop()
    return body


def _note_lines(lines: Sequence[str]) -> set[int]:
    """The lines of WebVTT that stand in a note, a style or a region."""
    notes: set[int] = set()
    in_note = after_blank = False
    for place, line in enumerate(lines):
        if after_blank or place == 0:
            in_note = line.split(" ")[0].split("\t")[0] in ("NOTE", "STYLE", "REGION")
        after_blank = not line.strip()
        if in_note and not after_blank:
            notes.add(place)
    return notes


def _map_shifts(lines: Sequence[str]) -> tuple[list[int], list[int]]:
    """The line of each X-TIMESTAMP-MAP, and how much later its cues are than the first one's, in ms (RFC 8216, 3.5)."""
    places: list[int] = []
    shifts: list[int] = []
    first_s: float | None = None
    for place, line in enumerate(lines):
        if (match := _MAP.match(line)) is None:
            continue
        ticks = re.search(r"MPEGTS:(\d{1,12})", match[1], re.IGNORECASE)
        local = re.search(rf"LOCAL:{_TIME}", match[1], re.IGNORECASE)
        local_ms = _ms(*local.groups()) if local else 0
        if ticks is None or local_ms is None:
            continue
        at_s = int(ticks[1]) / _MPEG_HZ - local_ms / 1000
        first_s = at_s if first_s is None else first_s
        ahead_s = at_s - first_s
        if ahead_s < -_MPEG_WRAP_S / 2:
            ahead_s += _MPEG_WRAP_S
        places.append(place)
        shifts.append(round(ahead_s * 1000))
    return places, shifts


def _span_ms(line: str) -> tuple[int, int] | None:
    """Start and end of a timing line in milliseconds; None when they cannot be read or are reversed."""
    match = _TIMING.fullmatch(normalize("NFKC", line))
    if match is None:
        return None
    start, end = (_ms(*match.groups()[i : i + 5]) for i in (0, 5))
    return (start, end) if start is not None and end is not None and start <= end else None


def _ms(
    sign: str | None, hours: str | None, minutes: str, seconds: str, fraction: str | None
) -> int | None:
    """Milliseconds of the parts of a time; of one before zero 0; None where a part is no time at all."""
    if int(minutes) > 99 or int(seconds) > 99:
        return None
    whole_s = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    ms = whole_s * 1000 + int((fraction or "0")[:3].ljust(3, "0"))
    return 0 if sign else ms


# their text


def _lines(body: Iterable[str]) -> tuple[str, ...]:
    lines = [line for line in map(_plain, body) if line]
    return tuple(lines) if len(lines) <= _MAX_LINES else (" ".join(lines),)


def _plain(line: str) -> str:
    """A line without tags, with entities as characters, single spaces and no control characters."""
    text = _ENTITY.sub(lambda match: html.unescape(match[0]), _TAG.sub("", line))
    return " ".join(_CONTROL.sub(" ", text).split())


def _once(cues: Sequence[_RawCue]) -> list[_RawCue]:
    """Cues in order without those that are there twice: parts of an HLS stream overlap, styles are drawn in layers."""
    return list(dict.fromkeys(cues))


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
    if cue.start_ms - before.end_ms > _TOUCH_MS:
        return None
    for first in range(len(before.lines)):
        tail = " ".join(before.lines[first:]).split()
        if tail and cue.words[: len(tail)] == tail:
            return len(tail)
    return 0
