"""Words: which words of a query mean something, and how many of them a text holds. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_QUERY_CHARS = 2_000
"""Of a longer query the beginning is used."""

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
    words = re.findall(r"\w+", query[:MAX_QUERY_CHARS].lower())
    return list(dict.fromkeys(word for word in words if word not in _STOP_WORDS))


def coverage(words: Sequence[str], text: str) -> float:
    """The share of words that text holds, by their stems."""
    held = {stem(word) for word in re.findall(r"\w+", text.lower())}
    return sum(stem(word) in held for word in words) / len(words)


def stem(word: str) -> str:
    """A word without its English ending, roughly: enough for "lifts", "lifted" and "lifting" to meet."""
    for ending in ("ingly", "edly", "ing", "ies", "ied", "ed", "es", "ly", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            base = word.removesuffix(ending) + ("y" if ending in ("ies", "ied") else "")
            return base[:-1] if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "ls" else base
    return word
