"""Words: which words of a query mean something, and how many of them a text holds. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
"""Scripts that put no space between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_WORD = re.compile(rf"[{UNSPACED}]+|[^\W{UNSPACED}]+")
_UNSPACED_WORD = re.compile(rf"[{UNSPACED}]+")
MAX_QUERY_CHARS = 2_000
"""Of a longer query the beginning is used."""

LONG_WORD = 5
"""From this many letters on, a stem may differ in one."""

_STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be because been before being between both but by can could did
    do does doing down during each few for from further had has have having he her here hers him his how i if in
    into is it its just like me more most my no nor not now of off on once only or other our out over own said same
    say says she should so some such than that the their them then there these they this those through to too
    under until up very was we were what when where which while who whom whose why will with would you your
    clip clips find footage frame frames moment moments part picture scene scenes shot shots show shown shows
    somebody someone something talk talks video videos
    """.split()  # noqa: SIM905
)


def content_words(query: str) -> list[str]:
    """The query's words that mean something, in order and once each: without function words and "scene where …"."""
    words = _WORD.findall(folded(query[:MAX_QUERY_CHARS]))
    return list(dict.fromkeys(word for word in words if word not in _STOP_WORDS))


def coverage(words: Sequence[str], text: str) -> float:
    """The share of words that text holds, by their stems; a long word may differ in a letter (licence, license).

    Of a run of a script without spaces counts the share of its pairs of characters.
    """
    plain = folded(text)
    held = {stem(word) for word in _WORD.findall(plain)}
    return sum(_held(word, plain, held) for word in words) / len(words)


def _held(word: str, text: str, stems: set[str]) -> float:
    if pieces := pairs(word):
        return sum(piece in text for piece in pieces) / len(pieces)
    return float(any(alike(stem(word), other) for other in stems))


def pairs(word: str) -> list[str]:
    """Each two neighbouring characters of a word of a script without spaces; [] for any other word."""
    if not _UNSPACED_WORD.fullmatch(word):
        return []
    return [word[i : i + 2] for i in range(len(word) - 1)] or [word]


def folded(text: str) -> str:
    """Text in lower case, Latin letters without their accents: "Café" and "cafe" meet."""
    return "".join(map(_folded_letter, unicodedata.normalize("NFC", text.lower())))


def _folded_letter(letter: str) -> str:
    if letter.isascii():
        return letter
    base = unicodedata.normalize("NFD", letter)[0]
    return base if base.isascii() and base.isalpha() else letter


def alike(one: str, other: str) -> bool:
    """Whether two stems are the same, or both long and a letter apart: another spelling, or a misheard name."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    if len(short) < LONG_WORD or len(long) - len(short) > 1 or any(c.isdigit() for c in long):
        return False
    same = next(
        (i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short)
    )
    return short[same + (len(short) == len(long)) :] == long[same + 1 :]


def stem(word: str) -> str:
    """A word without its English ending, roughly: enough for "lifts", "lifted" and "lifting" to meet."""
    for ending in ("ingly", "edly", "ing", "ies", "ied", "ed", "es", "ly", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            base = word.removesuffix(ending) + ("y" if ending in ("ies", "ied") else "")
            return (
                base[:-1]
                if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "ls"
                else base
            )
    return word
