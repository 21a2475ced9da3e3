"""MiniGPT-v2: large language model as a unified interface for vision-language multi-task learning (arXiv 2310.09478).

States encode_img of minigpt4/models/minigpt_v2.py (Vision-CAIR/MiniGPT-4): drop CLS, join each 4 raster-adjacent
patches, one linear layer. 448 px -> 32 x 32 = 1024 patches -> 256 tokens an image; 5632 -> 4096 for Llama-2-7B.
"""

from __future__ import annotations

from torch import Tensor, nn

from mgv.encoders.vision import VisionSpec
from mgv.errors import ConfigError
from mgv.model.systems.base import Connector, PublishedDefaults, Question, concat_neighbours

UPSTREAM_KEYS = {"llama_proj.": "proj."}
PUBLISHED = PublishedDefaults(
    vision_encoder="eva_clip_g",
    vision_options={"image_size_px": 448},
    num_frames=1,
    prompt="minigpt_v2",
)


class MiniGPTv2(Connector):
    """Each `group` neighbouring patches become one token."""

    def __init__(self, vision: VisionSpec, model_size: int, group: int = 4) -> None:
        super().__init__()
        if vision.num_patches % group:
            raise ConfigError(
                f"connector: {vision.num_patches} patches ({vision.grid} x {vision.grid}) cannot be joined by {group}; "
                "choose another image_size_px or group"
            )
        self.num_prefix_tokens, self.group = vision.num_prefix_tokens, group
        self.tokens_per_frame = vision.num_patches // group
        self.proj = nn.Linear(vision.hidden_size * group, model_size)

    def forward(self, features: Tensor, question: Question | None = None) -> Tensor:
        """[B, T, N, V] -> [B, T, P / group, D]."""
        patches = features[:, :, self.num_prefix_tokens :]
        return self.proj(concat_neighbours(patches, self.group))  # type: ignore[no-any-return]
