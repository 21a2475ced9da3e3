"""Encoding: which characters the bytes of a subtitle file are."""

from __future__ import annotations

from dataclasses import dataclass

import chardet
from chardet import DetectionDict, EncodingEra

FAR_MORE = 3.0
LEAST_CONFIDENCE = 0.05
_LIKELY = ("Windows-", "GB", "Big5", "CP9", "EUC", "KOI8")
"""Encodings that subtitle files have; a detector's other guesses (old Macs, DOS) are no reason for doubt."""
SURE_GAP = 0.02
"""A detector's first guess that is not this much more confident than another text's is a doubt worth a warning."""
_TRIED_BYTES = 1 << 16
_ONE_BYTE_RULE = 0.2
"""Of ordinary UTF-16 text in any script: the digits, spaces and line ends of the times give this share of zeros."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A file's text, and how it was read."""

    text: str
    encoding: str
    doubt: str = ""
    """What else it could be; empty where there is none."""


def decode_text(content: bytes) -> Decoded:
    """Bytes -> text: by byte order mark, as UTF-8, as UTF-16 without a mark, else as chardet's best guess."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Decoded(text=content.decode("utf-16", errors="replace"), encoding="UTF-16")
    if (wide := _utf_16_without_mark(content)) is not None:
        return wide
    try:
        return Decoded(text=content.decode("utf-8-sig"), encoding="UTF-8")
    except UnicodeDecodeError:
        return _guessed(content)


def _utf_16_without_mark(content: bytes) -> Decoded | None:
    """UTF-16 whose digits and line ends, which every subtitle file has, leave a zero in every other byte."""
    head = content[:_TRIED_BYTES]
    low, high = head[1::2].count(0), head[0::2].count(0)
    if max(low, high) < _ONE_BYTE_RULE * max(len(head) // 2, 1):
        return None
    encoding = "utf-16-le" if low > high else "utf-16-be"
    return Decoded(text=content.decode(encoding, errors="replace"), encoding=encoding.upper())


def _guesses(head: bytes) -> list[DetectionDict]:
    """chardet's, best first: of the encodings still in use, unless one of the old ones is far more likely."""
    modern = chardet.detect_all(head, encoding_era=EncodingEra.MODERN_WEB)
    every = chardet.detect_all(head)
    return every if every[0]["confidence"] > FAR_MORE * modern[0]["confidence"] else modern


def _guessed(content: bytes) -> Decoded:
    guesses = _guesses(content[:_TRIED_BYTES])
    readings: list[tuple[str, float, str]] = []
    for guess in guesses:
        name = guess["encoding"]
        try:
            readings.append((str(name), guess["confidence"], content.decode(str(name))))
        except (LookupError, UnicodeDecodeError):
            continue
    if not readings:
        text = content.decode("utf-8", errors="replace")
        return Decoded(
            text=text, encoding="UTF-8", doubt="it is damaged: some characters cannot be read"
        )
    encoding, confidence, text = readings[0]
    others = [
        name
        for name, other, reading in readings[1:]
        if reading != text and confidence - other < SURE_GAP and name.startswith(_LIKELY)
    ]
    doubt = f"it may be {' or '.join(others[:2])}" if others else ""
    if not doubt and confidence < LEAST_CONFIDENCE:
        doubt = "that is a guess"
    return Decoded(text=text, encoding=encoding, doubt=doubt)
