"""Video-LLaVA: learning united visual representation by alignment before projection (arXiv 2311.10122).

States build_vision_projector (mlp2x_gelu) and encode_videos of videollava/model (PKU-YuanGroup/Video-LLaVA): a
two-layer MLP on every vision token of 8 frames. The paper counts 256 tokens a frame; the released video tower keeps
CLS (LanguageBindVideoTower.feature_select returns all), so published weights expect 257: 8 x 257 = 2056 tokens.
"""

from __future__ import annotations

from torch import Tensor, nn

from mgv.encoders.vision import VisionSpec
from mgv.model.systems.base import Connector, PublishedDefaults, Question

UPSTREAM_KEYS = {"model.mm_projector.": "mlp."}
PUBLISHED = PublishedDefaults(vision_encoder="languagebind", num_frames=8, prompt="video_llava")


class VideoLlava(Connector):
    """Every vision token becomes one language token; `keep_prefix=False` drops CLS (256 a frame)."""

    def __init__(self, vision: VisionSpec, model_size: int, keep_prefix: bool = True) -> None:
        super().__init__()
        self.num_dropped = 0 if keep_prefix else vision.num_prefix_tokens
        self.tokens_per_frame = vision.num_tokens - self.num_dropped
        self.mlp = nn.Sequential(
            nn.Linear(vision.hidden_size, model_size), nn.GELU(), nn.Linear(model_size, model_size)
        )

    def forward(self, features: Tensor, question: Question | None = None) -> Tensor:
        """[B, T, N, V] -> [B, T, M, D]."""
        return self.mlp(features[:, :, self.num_dropped :])  # type: ignore[no-any-return]
