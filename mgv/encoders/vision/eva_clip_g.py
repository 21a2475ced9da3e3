"""EVA-CLIP ViT-g/14, the eye of MiniGPT-4, MiniGPT-v2, MiniGPT4-Video and LLaMA-VID.

As create_eva_vit_g in minigpt4/models/eva_vit.py: 1408 wide, 39 blocks (the 40-block net less its last), 16 heads,
hidden 6144, GELU, pre-norm eps 1e-6, q and v biased and k not, learned positions; the raw stream after block 39.
transformers' Blip2VisionModel is that network plus a trained final norm, which is taken off here.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from mgv.encoders.vision.base import VisionEncoder, VisionSpec, load_tower
from mgv.errors import ConfigError

LN_VISION_EPS = 1e-5


class EvaClipG(VisionEncoder):
    """Frames -> CLS + patches of EVA ViT-g.

    `norm="identity"` applies MiniGPT's `ln_vision`: a LayerNorm in float32 whose scale is one and shift zero, as
    published checkpoints leave it untrained (BLIP-2's trained norm would break them). LLaMA-VID takes `norm="none"`.
    """

    lora_targets = ("qkv",)

    def __init__(
        self, tower: Any, image_size_px: int, norm: Literal["identity", "none"], pixels: str
    ) -> None:
        super().__init__()
        config = tower.config
        if image_size_px % config.patch_size:
            raise ConfigError(
                f"image_size_px {image_size_px} is not a multiple of the patch {config.patch_size}"
            )
        if norm not in ("identity", "none"):
            raise ConfigError(f"eva_clip_g: norm is `identity` or `none`, got {norm!r}")
        tower.post_layernorm = nn.Identity()
        self.tower, self.norm, self.pixels, self.image_size_px = tower, norm, pixels, image_size_px
        grid = image_size_px // config.patch_size
        self.spec = VisionSpec(hidden_size=config.hidden_size, grid=grid)

    def encode(self, pixel_values: Tensor) -> Tensor:
        """[F, 3, S, S] -> [F, 1 + grid**2, V]."""
        embedded = self.tower.embeddings(pixel_values, interpolate_pos_encoding=True)
        hidden: Tensor = self.tower.encoder(inputs_embeds=embedded).last_hidden_state
        if self.norm == "identity":
            hidden = F.layer_norm(hidden.float(), hidden.shape[-1:], eps=LN_VISION_EPS).to(
                hidden.dtype
            )
        return hidden


def build_eva_clip_g(
    pretrained: str,
    image_size_px: int | None = None,
    norm: Literal["identity", "none"] = "identity",
    pixels: str = "imagenet_squash",
) -> EvaClipG:
    """Weights: a folder made by `mgv import-checkpoint eva_vit_g.pth`, a BLIP-2 checkpoint, or `random`."""
    from transformers import Blip2VisionConfig, Blip2VisionModel

    tiny = Blip2VisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        initializer_range=0.02,
    )
    tower = load_tower(Blip2VisionModel, tiny, pretrained)
    return EvaClipG(tower, image_size_px or tower.config.image_size, norm, pixels)
