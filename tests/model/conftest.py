"""Tiny seeded models, and Mistral's own tokenizer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgv.model.build import build_processor, build_video_llm
from mgv.model.language import sentencepiece_tokenizer
from mgv.model.processor import Clip, Processor
from mgv.model.video_llm import VideoLLM
from mgv.records import Cue

torch.set_num_threads(1)  # tiny tensors: threads would only wait for one another
ARCHITECTURES = ("minigpt4_video", "minigpt_v2", "video_llava", "llama_vid")
TinyModel = tuple[VideoLLM, Processor]


@pytest.fixture(scope="session")
def mistral_file() -> Path:
    """The SentencePiece model of Mistral-7B-Instruct v0.1 and v0.2, of mistral-common (`make install`).

    The package lies outside the import path: transformers would use it where it finds it, and is not asked to.
    """
    path = Path(sys.prefix, "share", "mgv-tests", "mistral_common", "data", "tokenizer.model.v1")
    if not path.exists():
        pytest.skip(f"{path} is missing: make install")
    return path


@pytest.fixture(scope="session")
def pieces(mistral_file: Path) -> Any:
    """SentencePiece itself, the reference for token ids."""
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(mistral_file))


@pytest.fixture(scope="session")
def mistral_tokenizer(mistral_file: Path) -> Any:
    return sentencepiece_tokenizer(mistral_file)


@pytest.fixture(scope="session")
def built() -> Callable[..., TinyModel]:
    """Makes a tiny model and its Processor."""

    def make(connector: str, mode: str = "corrected", **options: Any) -> TinyModel:
        model, tokenizer = build_video_llm(connector, device="cpu", **options)
        for index, parameter in enumerate(model.connector.parameters()):
            with torch.no_grad():
                generator = torch.Generator().manual_seed(index)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        return model, build_processor(model, tokenizer, mode=mode, max_new_tokens=16)  # type: ignore[arg-type]

    return make


def tiny_clip(
    question: str = "what is it?", num_frames: int = 3, seed: int = 0, **kwargs: Any
) -> Clip:
    """Random frames a second apart and two cues."""
    frames = np.random.default_rng(seed).integers(0, 255, (num_frames, 40, 60, 3), dtype=np.uint8)
    cues = (
        Cue(start_s=0.1, end_s=0.5, text="hello there"),
        Cue(start_s=1.2, end_s=1.9, text="good bye"),
    )
    return Clip(
        question=question,
        frames=frames,
        frame_times_s=tuple(float(i) for i in range(num_frames)),
        cues=kwargs.pop("cues", cues),
        frame_rate=25.0,
        **kwargs,
    )
