"""Whisper: openai-whisper on samples (no ffmpeg program), with what it invents over noise and silence left out."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from mgv.config import TranscriberParams
from mgv.encoders.base import Float32, Transcriber
from mgv.encoders.devices import one_thread
from mgv.encoders.speech import NOT_ENGLISH, EnergyTranscriber, Heard, recognise
from mgv.errors import WeightsError
from mgv.records import Cue
from mgv.starter.weights import whisper_checkpoint

logger = logging.getLogger(__name__)


class WhisperTranscriber:
    """A transcriber around an openai-whisper model."""

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
        import whisper

        with one_thread():
            result = whisper.transcribe(
                self._model,
                audio,
                language=self._language,
                temperature=0.0,  # the fallback to higher ones draws at random
                condition_on_previous_text=False,  # or one wrong window spoils those after it
                fp16=self._model.device.type == "cuda",
            )
        return [
            Heard(
                start_s=segment["start"],
                end_s=segment["end"],
                text=segment["text"],
                no_speech=segment["no_speech_prob"],
                mean_log_prob=segment["avg_logprob"],
                compression=segment["compression_ratio"],
            )
            for segment in result["segments"]
        ]


def load(params: TranscriberParams) -> Transcriber:
    """The transcriber of `params`: `pretrained` is starter, random, or the path of an openai-whisper checkpoint."""
    if params.pretrained == "random":
        return EnergyTranscriber()
    path = (
        whisper_checkpoint()
        if params.pretrained == "starter"
        else Path(params.pretrained).expanduser()
    )
    if not path.is_file():
        raise WeightsError(
            f"materialize.transcriber.pretrained: {params.pretrained}: no such file; "
            "whisper takes starter, or the path of an openai-whisper checkpoint (.pt)"
        )
    model = load_checkpoint(path, params.device)
    _warm_tokenizer(model)
    language = params.language or (None if model.is_multilingual else "en")
    checks = params.language is None and not model.is_multilingual
    return WhisperTranscriber(model, language, checks_language=checks)


def load_checkpoint(path: Path, device: str) -> Any:
    """An openai-whisper model from its checkpoint, read without unpickling code."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    from mgv.encoders.devices import choose_device

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        model = Whisper(ModelDimensions(**checkpoint["dims"]))
        model.load_state_dict(checkpoint["model_state_dict"])
    except (
        Exception
    ) as error:  # torch.load and load_state_dict fail in many ways; each means the same
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path}: not an openai-whisper checkpoint ({reason})") from error
    return model.to(choose_device(device)).eval()


def _warm_tokenizer(model: Any) -> None:
    """Build whisper's tokenizer, which it keeps: it leaves a file open, and that warning is not the user's."""
    from whisper.tokenizer import get_tokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        get_tokenizer(
            model.is_multilingual,
            num_languages=model.num_languages,
            language="en",
            task="transcribe",
        )
