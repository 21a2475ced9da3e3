"""Embedded subtitles: text tracks inside a video file, and the language that its sound is in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av.packet import Packet
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from mgv.media.container import DECODE_ERRORS, open_container, packets, read_clock
from mgv.media.languages import language_of
from mgv.media.subtitles import MAX_CUES, Subtitles, from_timed_lines

_PICTURES = frozenset({"hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle", "xsub", "dvb_teletext"})


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTrack:
    """A subtitle track of a video file."""

    number: int
    """Among the file's subtitle tracks, from 0."""
    codec: str
    language: str | None
    title: str
    is_forced: bool
    is_sdh: bool
    is_default: bool

    @property
    def refusal(self) -> str:
        """Why it does not tell what is said; empty where it may."""
        if self.codec in _PICTURES:
            return "its subtitles are pictures"
        if self.is_forced:
            return "it holds forced subtitles only"
        return "it holds a commentary" if "commentary" in self.title.lower() else ""

    def __str__(self) -> str:
        return f"track {self.number + 1} ({', '.join(filter(None, [self.language, self.title, self.codec]))})"


def text_tracks(path: Path) -> list[TextTrack]:
    """The subtitle tracks of a file, the one that best tells what is said first. Raises MediaError when unreadable."""
    with open_container(path) as container:
        spoken = _sound_language(container)
        tracks = [
            _described(number, stream) for number, stream in enumerate(container.streams.subtitles)
        ]
    languages = [language for language in (spoken, "en", None) if language or spoken is None]

    def rank(track: TextTrack) -> tuple[Any, ...]:
        place = languages.index(track.language) if track.language in languages else len(languages)
        return bool(track.refusal), place, track.is_sdh, not track.is_default, track.number

    return sorted(tracks, key=rank)


def read_text_track(path: Path, track: TextTrack) -> Subtitles:
    """What a text track says, in times from the video's beginning. Raises MediaError when the file is unreadable."""
    clock = read_clock(path)
    lines: list[tuple[float, float, str]] = []
    with open_container(path) as container:
        stream = container.streams.subtitles[track.number]
        for packet in packets(container, stream):
            if packet.pts is None or len(lines) >= MAX_CUES:
                continue
            start_s = float(packet.pts * packet.time_base) - clock.origin_s
            end_s = start_s + float((packet.duration or 0) * packet.time_base)
            lines += [(start_s, end_s, text) for text in _texts(packet)]
    return from_timed_lines(lines, track.codec)


def spoken_language(path: Path) -> str | None:
    """The language of a file's default sound track, two letters; None where the file does not say."""
    with open_container(path) as container:
        return _sound_language(container)


def _sound_language(container: Any) -> str | None:
    audio = container.streams.best("audio")
    return language_of(audio.language or "") if audio is not None else None


def _described(number: int, stream: SubtitleStream) -> TextTrack:
    title = str(stream.metadata.get("title", ""))
    return TextTrack(
        number=number,
        codec=stream.codec_context.name if stream.codec_context else "unknown",
        language=language_of(stream.language or ""),
        title="".join(c for c in title if c.isprintable())[:60],
        is_forced=bool(stream.disposition & Disposition.forced) or "forced" in title.lower(),
        is_sdh=bool(stream.disposition & Disposition.hearing_impaired) or "sdh" in title.lower(),
        is_default=bool(stream.disposition & Disposition.default),
    )


def _texts(packet: Packet[Any]) -> list[str]:
    try:
        subtitles = packet.decode()
    except DECODE_ERRORS:
        return []
    return [
        s.dialogue.decode("utf-8", "replace")
        for s in subtitles
        if isinstance(s, AssSubtitle) and s.dialogue
    ]
