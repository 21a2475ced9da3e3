"""Speech: what both recognisers share: where there is sound at all, and which of the words heard were really said.

S samples at 16 kHz.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

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
GHOSTS = frozenset(
    {"you", "bye", "oh", "mmm", "hmm", "thank you", "thanks for watching", "thank you for watching", "music"}
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


def to_cues(heard: Sequence[Heard], audio: Float32) -> list[Cue]:
    """What was really said, as cues inside the sound."""
    length_s = len(audio) / SAMPLE_RATE_HZ
    cues = []
    for one in heard:
        start_s, end_s = max(0.0, one.start_s), min(length_s, one.end_s)
        words = audio[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
        if was_said(one) and len(words) and loudness(words).max() > SILENCE_RMS:
            cues.append(Cue(start_s=round(start_s, 3), end_s=round(end_s, 3), text=one.text.strip()))
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

    WORDS = ("amber", "bridge", "cedar", "delta", "ember", "forest", "garden", "harbour", "island", "jungle")

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
