"""Segments: cues joined and cut into windows of words that are short enough to point at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mgv.records import Cue, Segment

MAX_GAP_S = 2.0
"""A silence this long ends a segment."""
MAX_CHARS = 1000
"""Nobody says more within a segment; a file that claims so is cut here."""
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSERS = "\"')]}»”’"


def split_segments(cues: Sequence[Cue], length_s: float) -> list[Segment]:
    """Cues → segments of at most length_s, in order of time, with every word exactly once.

    Neighbours closer than MAX_GAP_S are joined while they fit. A full segment ends at its last sentence end
    past length_s / 2, where there is one. A cue longer than length_s is cut at words, each given time in
    proportion to its characters; a single word that stays longer ends after length_s.
    """
    assert length_s > 0, length_s
    ordered = sorted(cues, key=lambda cue: (cue.start_s, cue.end_s))
    pieces = [piece for cue in ordered for piece in _cut(cue, length_s)]
    pieces.sort(key=lambda piece: piece.start_s)  # long cues may overlap
    segments: list[Segment] = []
    window: list[Cue] = []
    end_s, num_chars = 0.0, 0  # of the window
    for piece in pieces:
        while window and not _joins(window[0].start_s, end_s, num_chars, piece, length_s):
            paused = piece.start_s - end_s >= MAX_GAP_S
            count = len(window) if paused else _best_end(window, length_s)
            segments.append(_join(window[:count]))
            window = window[count:]
            end_s = max((cue.end_s for cue in window), default=0.0)
            num_chars = sum(len(cue.text) + 1 for cue in window)
        window.append(piece)
        end_s = max(end_s, piece.end_s) if len(window) > 1 else piece.end_s
        num_chars += len(piece.text) + 1
    if window:
        segments.append(_join(window))
    return segments


def _cut(cue: Cue, length_s: float) -> Iterator[Cue]:
    """A cue as pieces of at most length_s, cut at words."""
    words = cue.text.split()
    if not words:
        return
    duration_s = max(cue.end_s - cue.start_s, 0.0)
    if duration_s <= length_s:
        yield Cue(start_s=cue.start_s, end_s=max(cue.end_s, cue.start_s), text=" ".join(words))
        return
    second_per_char = duration_s / sum(len(word) + 1 for word in words)
    taken: list[str] = []
    start = here = 0  # characters, each word with the space after it
    for word in [*words, None]:
        stop = here + len(word) + 1 if word is not None else here
        if taken and (word is None or (stop - start) * second_per_char > length_s * (1 + 1e-9)):
            start_s = cue.start_s + start * second_per_char
            end_s = min(cue.start_s + here * second_per_char, start_s + length_s)
            yield Cue(start_s=start_s, end_s=end_s, text=" ".join(taken))
            taken, start = [], here
        if word is not None:
            taken.append(word)
            here = stop


def _joins(start_s: float, end_s: float, num_chars: int, piece: Cue, length_s: float) -> bool:
    """Whether a piece may follow a window of these bounds in one segment."""
    if piece.start_s - end_s >= MAX_GAP_S or num_chars + len(piece.text) > MAX_CHARS:
        return False
    return max(end_s, piece.end_s) - start_s <= length_s * (1 + 1e-9)


def _best_end(window: list[Cue], length_s: float) -> int:
    """How many cues of a full window to close with: to its last sentence end past its half, else all."""
    for count in range(len(window), 0, -1):
        ends_sentence = window[count - 1].text.rstrip(_CLOSERS).endswith(_SENTENCE_ENDS)
        if ends_sentence and window[count - 1].end_s - window[0].start_s >= length_s / 2:
            return count
    return len(window)


def _join(window: list[Cue]) -> Segment:
    return Segment(
        start_s=window[0].start_s,
        end_s=max(cue.end_s for cue in window),
        text=" ".join(cue.text for cue in window),
    )
