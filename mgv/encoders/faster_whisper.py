"""faster-whisper: Whisper through CTranslate2, on a CPU twice as fast as openai-whisper with the same weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mgv.config import TranscriberParams
from mgv.encoders.base import Float32, Transcriber
from mgv.encoders.speech import NOT_ENGLISH, EnergyTranscriber, Heard, recognise
from mgv.errors import ConfigError, WeightsError
from mgv.records import Cue
from mgv.starter.weights import faster_whisper_dir

logger = logging.getLogger(__name__)


class FasterWhisperTranscriber:
    """A transcriber around a faster-whisper model."""

    def __init__(self, model: Any, language: str | None, *, checks_language: bool = False) -> None:
        """checks_language: the model knows English only, and nobody has said that it is spoken."""
        self._model, self._language, self._checks_language = model, language, checks_language

    def transcribe(self, audio: Float32) -> list[Cue]:
        """16 kHz mono samples [S] -> cues. Greedy, so the same each time."""
        cues, is_foreign = recognise(audio, self._hear)
        if is_foreign and self._checks_language:
            logger.warning("%s", NOT_ENGLISH)
            return []
        return cues

    def _hear(self, audio: Float32) -> list[Heard]:
        segments, _info = self._model.transcribe(
            audio,
            language=self._language,
            temperature=0.0,
            beam_size=1,
            condition_on_previous_text=False,
        )
        return [
            Heard(
                start_s=segment.start,
                end_s=segment.end,
                text=segment.text,
                no_speech=segment.no_speech_prob,
                mean_log_prob=segment.avg_logprob,
                compression=segment.compression_ratio,
            )
            for segment in segments
        ]


def load(params: TranscriberParams) -> Transcriber:
    """The transcriber of `params`: `pretrained` is starter, random, a CTranslate2 folder, or a hub id."""
    if params.pretrained == "random":
        return EnergyTranscriber()
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise ConfigError(
            "materialize.transcriber: faster_whisper is not installed; `pip install faster-whisper`, or use whisper"
        ) from error
    from mgv.encoders.devices import choose_device

    device = choose_device(params.device)
    kind, _, index = ("cpu" if device == "mps" else device).partition(":")  # CTranslate2 has no MPS
    folder = (
        faster_whisper_dir()
        if params.pretrained == "starter"
        else Path(params.pretrained).expanduser()
    )
    try:
        model = WhisperModel(
            str(folder) if folder.is_dir() else params.pretrained,
            device=kind,
            device_index=int(index or 0),
            compute_type="float16" if kind == "cuda" else "int8",
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"faster_whisper {params.pretrained!r} cannot be loaded: {reason}"
        ) from error
    is_multilingual = model.model.is_multilingual
    language = params.language or (None if is_multilingual else "en")
    checks = params.language is None and not is_multilingual
    return FasterWhisperTranscriber(model, language, checks_language=checks)
