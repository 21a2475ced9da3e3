"""faster-whisper: Whisper through CTranslate2, on a CPU twice as fast as openai-whisper with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mgv.config import TranscriberParams
from mgv.encoders.base import Float32, Transcriber
from mgv.encoders.speech import SAMPLE_RATE_HZ, EnergyTranscriber, Heard, sounding_spans, to_cues
from mgv.errors import ConfigError, WeightsError
from mgv.records import Cue
from mgv.starter.weights import faster_whisper_dir


class FasterWhisperTranscriber:
    """A transcriber around a faster-whisper model."""

    def __init__(self, model: Any, language: str | None) -> None:
        self._model, self._language = model, language

    def transcribe(self, audio: Float32) -> list[Cue]:
        """16 kHz mono samples [S] -> cues. Greedy, so the same each time."""
        heard: list[Heard] = []
        for begin, end in sounding_spans(audio):
            heard += self._hear(audio[begin:end], begin / SAMPLE_RATE_HZ)
        return to_cues(heard, audio)

    def _hear(self, audio: Float32, start_s: float) -> list[Heard]:
        segments, _info = self._model.transcribe(
            audio, language=self._language, temperature=0.0, beam_size=1, condition_on_previous_text=False
        )
        return [
            Heard(
                start_s=start_s + segment.start,
                end_s=start_s + segment.end,
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
    folder = faster_whisper_dir() if params.pretrained == "starter" else Path(params.pretrained).expanduser()
    try:
        model = WhisperModel(
            str(folder) if folder.is_dir() else params.pretrained,
            device=kind,
            device_index=int(index or 0),
            compute_type="float16" if kind == "cuda" else "int8",
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"faster_whisper {params.pretrained!r} cannot be loaded: {reason}") from error
    return FasterWhisperTranscriber(model, params.language or (None if model.model.is_multilingual else "en"))
