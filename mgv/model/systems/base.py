"""What a connector is: vision features in, a fixed number of language tokens a frame out.

B batch, T frames, N vision tokens, P patches, V vision width, M tokens per frame, D model width, Q question length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """The question as ids of the connector's own tokenizer, for connectors that read it."""

    input_ids: Tensor
    """[B, Q]"""
    attention_mask: Tensor
    """[B, Q]"""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedDefaults:
    """What a system was published with: the defaults of a model built by the connector's name."""

    vision_encoder: str
    vision_options: dict[str, Any] = field(default_factory=dict)
    num_frames: int
    """Frames of a video at most."""
    prompt: str
    """A name in mgv.model.prompt.PROMPTS."""
    generation: dict[str, Any] = field(default_factory=dict)
    """How the published evaluation generates, beside greedily."""
    tiny_options: dict[str, Any] = field(default_factory=dict)
    """The connector's options beside a tiny random language model."""


class Connector(nn.Module):
    """Vision features [B, T, N, V] (and, if reads_question, the question) -> language tokens [B, T, M, D]."""

    tokens_per_frame: int
    """M: fixed when built, so prompts can be written before any frame is seen."""
    reads_question: bool = False

    def forward(self, features: Tensor, question: Question | None = None) -> Tensor:
        """[B, T, N, V] -> [B, T, M, D]."""
        raise NotImplementedError


def concat_neighbours(patches: Tensor, group: int) -> Tensor:
    """[..., P, V] -> [..., P/group, group*V]: each run of `group` patches in raster order becomes one token.

    As encode_img of minigpt4/models/mini_gpt4_llama_v2.py and minigpt_v2.py: a horizontal strip, not a 2x2 block.
    Contiguous, since torch may multiply a strided view by another kernel when a gradient is wanted, and then the same
    weights give logits that differ by 1e-7.
    """
    *leading, num_patches, width = patches.shape
    return patches.reshape(*leading, num_patches // group, group * width).contiguous()
