"""LanguageBind's video tower (arXiv 2310.01852), the eye of Video-LLaVA: CLIP ViT-L/14 that also attends over time.

As CLIPEncoderLayer in languagebind/video/modeling_video.py: ahead of each layer's spatial attention every position
attends to itself in the other frames. transformers' VideoLlava port drops these weights without a word, so its
towers are plain CLIP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer

from mgv.encoders.vision.base import load_tower, loaded, read_state, seeded
from mgv.encoders.vision.clip import TINY, ClipTower
from mgv.errors import WeightsError


class TemporalLayer(CLIPEncoderLayer):  # type: ignore[misc]
    """A CLIP layer with attention over time in front. The names of its parameters are LanguageBind's."""

    def __init__(self, config: CLIPVisionConfig, num_frames: int) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.temporal_embedding = nn.Parameter(torch.randn(1, num_frames, width) * width**-0.5)
        self.temporal_attn = CLIPAttention(config)
        self.temporal_layer_norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def across_time(self, hidden: Tensor) -> Tensor:
        """[B, T, N, V] -> the same: each of the N positions attends over its T frames.

        Of twice as many frames as it has positions for, or thrice, each run of so many is a video of its own.
        """
        num_frames, num_positions = hidden.shape[1], self.temporal_embedding.shape[1]
        window = num_positions if num_frames % num_positions == 0 else num_frames
        videos = hidden.reshape(-1, window, *hidden.shape[2:])  # [B * T / window, window, N, V]
        columns: Tensor = videos.transpose(1, 2).flatten(0, 1)  # [... * N, window, V]
        if window > 1:
            columns = columns + self._positions(window)
        columns = columns + self.temporal_attn(self.temporal_layer_norm1(columns))[0]
        return (
            columns.reshape(len(videos), -1, *columns.shape[1:])
            .transpose(1, 2)
            .reshape(hidden.shape)
        )

    def _positions(self, num_frames: int) -> Tensor:
        """The learned positions [1, T, V]; for another T than they were learned for, interpolated."""
        if num_frames == self.temporal_embedding.shape[1]:
            return self.temporal_embedding
        positions = self.temporal_embedding.transpose(1, 2)
        return F.interpolate(
            positions, size=num_frames, mode="linear", align_corners=False
        ).transpose(1, 2)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, N, V] -> [B, T, N, V]."""
        hidden = self.across_time(hidden)
        frames: Tensor = super().forward(hidden.flatten(0, 1), None)
        return frames.reshape(hidden.shape)


class LanguageBind(ClipTower):
    """Videos -> CLS + patches of every frame, read one layer before the last."""

    across_frames = True

    def encode(self, pixel_values: Tensor) -> Tensor:
        """[B, T, 3, S, S] -> [B, T, 1 + grid**2, V]."""
        hidden: Tensor
        frames = self.tower.embeddings(pixel_values.flatten(0, 1), interpolate_pos_encoding=True)
        hidden = self.tower.pre_layrnorm(frames)
        hidden = hidden.reshape(*pixel_values.shape[:2], *hidden.shape[1:])
        for layer in self.tower.encoder.layers:
            hidden = layer(hidden)
        return hidden


def temporal_tower(config: CLIPVisionConfig, num_frames: int) -> Any:
    """A CLIP vision tower whose every layer is temporal, with fresh weights."""
    tower = CLIPVisionModel(config)
    layers = [TemporalLayer(tower.config, num_frames) for _ in range(config.num_hidden_layers)]
    tower.encoder.layers = nn.ModuleList(layers)
    return tower


def build_languagebind(
    pretrained: str,
    image_size_px: int | None = None,
    feature_layer: int = -2,
    num_frames: int = 8,
    pixels: str = "video_crop",
) -> LanguageBind:
    """Weights: a folder with the video tower's config.json and safetensors (`mgv import-checkpoint`), or `random`."""
    if pretrained == "random":
        with seeded():
            tower = temporal_tower(CLIPVisionConfig(**TINY), num_frames)
    elif not Path(pretrained).is_dir():
        tower = load_tower(CLIPVisionModel, None, pretrained)  # says what is wrong with the name
        raise WeightsError(
            f"languagebind: {pretrained!r} is not a folder; bring the weights to one first"
        )
    else:
        folder = Path(pretrained)
        config = loaded(
            lambda: CLIPVisionConfig.from_pretrained(folder), f"vision encoder {pretrained!r}"
        )
        state = read_state(folder)
        rows = (
            state["encoder.layers.0.temporal_embedding"].shape[1]
            if _has_time(state)
            else num_frames
        )
        if not _has_time(state):
            raise WeightsError(
                f"{folder}: no temporal attention in it; use the vision encoder `clip` for such weights"
            )
        tower = temporal_tower(config, rows)
        loaded(lambda: tower.load_state_dict(state), f"vision encoder {pretrained!r}")
    return LanguageBind(tower, image_size_px or tower.config.image_size, feature_layer, pixels)


def _has_time(state: dict[str, Tensor]) -> bool:
    return "encoder.layers.0.temporal_embedding" in state
