"""CLIP and SigLIP towers of transformers, read one layer before the last as LLaVA does (`feature_layer=-2`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mgv.encoders.vision.base import VisionEncoder, VisionSpec, load_tower
from mgv.errors import ConfigError


class ClipTower(VisionEncoder):
    """Frames -> the hidden states of one layer: CLS + patches (CLIP), patches (SigLIP). Later layers are dropped."""

    lora_targets = ("q_proj", "v_proj")

    def __init__(self, tower: Any, image_size_px: int, feature_layer: int, pixels: str) -> None:
        super().__init__()
        config: Any = tower.config
        keep = config.num_hidden_layers + 1 + feature_layer if feature_layer < 0 else feature_layer
        if not 0 < keep <= config.num_hidden_layers:
            raise ConfigError(
                f"feature_layer {feature_layer}: the tower has {config.num_hidden_layers} layers"
            )
        tower.encoder.layers = tower.encoder.layers[:keep]
        for unused in ("post_layernorm", "head"):
            if hasattr(tower, unused):
                setattr(tower, unused, nn.Identity())
        self.tower, self.pixels, self.image_size_px = tower, pixels, image_size_px
        self.spec = VisionSpec(
            hidden_size=config.hidden_size,
            grid=image_size_px // config.patch_size,
            num_prefix_tokens=int(hasattr(tower.embeddings, "class_embedding")),
        )

    def encode(self, pixel_values: Tensor) -> Tensor:
        """[F, 3, S, S] -> [F, N, V]."""
        hidden = self.tower.embeddings(pixel_values, interpolate_pos_encoding=True)
        if hasattr(self.tower, "pre_layrnorm"):
            hidden = self.tower.pre_layrnorm(hidden)
        states: Tensor = self.tower.encoder(inputs_embeds=hidden).last_hidden_state
        return states


def build_clip(
    pretrained: str,
    image_size_px: int | None = None,
    feature_layer: int = -2,
    pixels: str = "clip_crop",
) -> ClipTower:
    """Any CLIP checkpoint of transformers."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    tower = load_tower(CLIPVisionModel, CLIPVisionConfig(**TINY), pretrained)
    return ClipTower(tower, image_size_px or tower.config.image_size, feature_layer, pixels)


def build_siglip(
    pretrained: str,
    image_size_px: int | None = None,
    feature_layer: int = -2,
    pixels: str = "siglip_squash",
) -> ClipTower:
    """Any SigLIP checkpoint of transformers."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    tower = load_tower(SiglipVisionModel, SiglipVisionConfig(**TINY), pretrained)
    return ClipTower(tower, image_size_px or tower.config.image_size, feature_layer, pixels)


TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
