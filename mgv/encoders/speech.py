"""Speech: what both recognisers share: where there is sound at all, and which of the words heard were really said.

S samples at 16 kHz.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgv.encoders.base import Float32
from mgv.records import Cue

SAMPLE_RATE_HZ = 16_000
STEP_S = 0.03
SILENCE_RMS = 0.002
"""-54 dB of full scale: quieter than a quiet room through a microphone."""
MAX_PAUSE_S = 6.0
"""A longer silence ends a span: recognisers invent words in it."""
MARGIN_S = 0.3
MAX_COMPRESSION = 2.4
"""Whisper's own bound for words that repeat themselves."""
MAYBE_NO_SPEECH = 0.3
SURE_NO_SPEECH = 0.7
LOOP_PAUSE_S = 0.25
LOOP_PART_S = 6.0
"""Where the recogniser repeats itself it hears each stretch between such pauses alone, and none longer than this."""
QUIET_RMS = 0.01
"""-40 dB: speech whose loud parts are below this is raised."""
LEAST_RMS = 1e-5
RAISED_RMS = 0.1
STEADY = 2.0
"""Loud parts that are no more than this times as loud as the quiet ones are a fan, not speech."""
FOREIGN_LOG_PROB = -1.0
"""Speech of another language, heard by a recogniser that knows one only: mean log probability of its tokens. With
tiny.en: English -0.3 to -0.9 (with noise), German, Dutch, Polish, Russian, Swedish, Turkish, French -1.0 to -2.4."""
FOREIGN_LETTERS = 20
"""Fewer say nothing of the language."""
NOT_ENGLISH = (
    "what is said here does not sound like English, the only language that this recogniser knows: its words are left "
    "out. For another language choose a multilingual Whisper by materialize.transcriber.pretrained (for example "
    "large-v3); if it is English, say so by materialize.transcriber.language: en"
)
GHOSTS = frozenset(
    {
        "you",
        "bye",
        "oh",
        "mmm",
        "hmm",
        "thank you",
        "thanks for watching",
        "thank you for watching",
        "music",
    }
)
"""What Whisper says when it hears nothing; believed when it is sure that somebody speaks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What a recogniser says it heard, with its doubts."""

    start_s: float
    end_s: float
    text: str
    no_speech: float
    """Probability that nobody spoke."""
    mean_log_prob: float
    """Mean log probability of the tokens."""
    compression: float
    """Length over compressed length: high for words that repeat."""


def loudness(audio: Float32) -> Float32:
    """[S] -> root mean square of each step of STEP_S."""
    step = int(STEP_S * SAMPLE_RATE_HZ)
    num_steps = -(-len(audio) // step)
    padded = np.zeros(num_steps * step, dtype=np.float32)
    padded[: len(audio)] = audio
    rms: Float32 = np.sqrt(np.mean(padded.reshape(num_steps, step) ** 2, axis=1))
    return rms


def sounding_spans(audio: Float32, max_pause_s: float = MAX_PAUSE_S) -> list[tuple[int, int]]:
    """[S] -> the spans (first sample, last + 1) that are not silent; pauses up to max_pause_s stay inside a span."""
    loud = np.flatnonzero(loudness(audio) > SILENCE_RMS)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) * STEP_S > max_pause_s)
    firsts = loud[np.concatenate([[0], breaks + 1])]
    lasts = loud[np.concatenate([breaks, [len(loud) - 1]])]
    step, margin = int(STEP_S * SAMPLE_RATE_HZ), int(MARGIN_S * SAMPLE_RATE_HZ)
    return [
        (max(0, int(first) * step - margin), min(len(audio), (int(last) + 1) * step + margin))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def levelled(audio: Float32) -> Float32:
    """[S], raised where it is quiet speech: its loud parts are quiet, and much louder than the rest."""
    steps = loudness(audio)
    loud, low = (float(np.quantile(steps, q)) for q in (0.95, 0.2)) if len(steps) else (0.0, 0.0)
    if not LEAST_RMS < loud < QUIET_RMS or loud < STEADY * low:
        return audio
    return np.asarray(np.clip(audio * np.float32(RAISED_RMS / loud), -1.0, 1.0), dtype=np.float32)


def recognise(audio: Float32, hear: Callable[[Float32], list[Heard]]) -> tuple[list[Cue], bool]:
    """What is said in [S], and whether it sounds like a language that the recogniser does not know.

    hear: the recogniser, times from the first sample that it is given. Each span that sounds is heard by itself; a
    stretch where it repeats itself is heard again in short parts, since it then misses what follows.
    """
    audio = levelled(audio)
    heard: list[Heard] = []
    for begin, end in sounding_spans(audio):
        heard += _shifted(
            _heard_again(audio[begin:end], hear(audio[begin:end]), hear), begin / SAMPLE_RATE_HZ
        )
    return to_cues(heard, audio), sounds_foreign(heard)


def sounds_foreign(heard: Sequence[Heard]) -> bool:
    """Whether a recogniser of one language has heard another: it is unsure of nearly all that it wrote."""
    letters = [sum(c.isalpha() for c in one.text) for one in heard]
    if sum(letters) < FOREIGN_LETTERS:
        return False
    total = sum(count * one.mean_log_prob for count, one in zip(letters, heard, strict=True))
    return total / sum(letters) < FOREIGN_LOG_PROB


def _heard_again(
    audio: Float32, heard: list[Heard], hear: Callable[[Float32], list[Heard]]
) -> list[Heard]:
    """The same, with every run of repetitions heard once more in short parts."""
    result: list[Heard] = []
    for place, one in enumerate(heard):
        if one.compression <= MAX_COMPRESSION:
            result.append(one)
        elif not (place and heard[place - 1].compression > MAX_COMPRESSION):
            after = (
                other.start_s for other in heard[place:] if other.compression <= MAX_COMPRESSION
            )
            first, last = (
                round(s * SAMPLE_RATE_HZ)
                for s in (one.start_s, next(after, len(audio) / SAMPLE_RATE_HZ))
            )
            for begin, end in _short_parts(audio[first:last]):
                part = audio[first + begin : first + end]
                result += _shifted(hear(part), (first + begin) / SAMPLE_RATE_HZ)
    return result


def _short_parts(audio: Float32) -> Iterator[tuple[int, int]]:
    size = int(LOOP_PART_S * SAMPLE_RATE_HZ)
    for begin, end in sounding_spans(audio, LOOP_PAUSE_S):
        for start in range(begin, end, size):
            yield start, min(start + size, end)


def _shifted(heard: Sequence[Heard], by_s: float) -> list[Heard]:
    return [replace(one, start_s=one.start_s + by_s, end_s=one.end_s + by_s) for one in heard]


def to_cues(heard: Sequence[Heard], audio: Float32) -> list[Cue]:
    """What was really said, as cues inside the sound."""
    length_s = len(audio) / SAMPLE_RATE_HZ
    cues = []
    for one in heard:
        start_s, end_s = max(0.0, one.start_s), min(length_s, one.end_s)
        words = audio[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
        if was_said(one) and len(words) and loudness(words).max() > SILENCE_RMS:
            cues.append(
                Cue(start_s=round(start_s, 3), end_s=round(end_s, 3), text=one.text.strip())
            )
    return cues


def was_said(heard: Heard) -> bool:
    """Whether to believe it.

    Measured with tiny.en: speech (read, narrated, synthetic, over music or noise) has no_speech below 0.3, what is
    invented over noise, tones, clicks, beeps and effects above 0.4, and most of that repeats itself. Doubt about the
    words alone is no reason: a name that Whisper does not know has a mean log probability of -1.4.
    """
    if not re.search(r"\w", heard.text) or heard.compression > MAX_COMPRESSION:
        return False
    if heard.no_speech > SURE_NO_SPEECH or heard.mean_log_prob < -2.0:
        return False
    ghost = re.sub(r"[^a-z ]", "", heard.text.lower()).strip() in GHOSTS
    return not (heard.no_speech > MAYBE_NO_SPEECH and (ghost or heard.mean_log_prob < -1.0))


class EnergyTranscriber:
    """The `random` transcriber: each stretch of sound gives a cue, its words drawn by a digest of its samples."""

    WORDS = (
        "amber",
        "bridge",
        "cedar",
        "delta",
        "ember",
        "forest",
        "garden",
        "harbour",
        "island",
        "jungle",
    )

    def transcribe(self, audio: Float32) -> list[Cue]:
        """16 kHz mono samples [S] -> one cue per stretch between pauses of half a second."""
        return [
            Cue(
                start_s=round(begin / SAMPLE_RATE_HZ, 3),
                end_s=round(end / SAMPLE_RATE_HZ, 3),
                text=" ".join(self._words(audio[begin:end])),
            )
            for begin, end in sounding_spans(audio, max_pause_s=0.5)
        ]

    def _words(self, audio: Float32) -> list[str]:
        digest = hashlib.sha256(np.ascontiguousarray(audio, dtype="<f4").tobytes()).digest()
        num_words = max(1, round(2 * len(audio) / SAMPLE_RATE_HZ))
        return [self.WORDS[digest[i % len(digest)] % len(self.WORDS)] for i in range(num_words)]
