"""Vision encoders: video frames to patch features, the frozen eyes of the video language model.

A name chooses the code, `pretrained` the weights: `random` is tiny and seeded, `starter` the embedded default,
anything else a folder or hub id. B batch, T frames, N vision tokens a frame, V vision width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mgv.encoders.vision.base import VisionEncoder, VisionSpec
from mgv.encoders.vision.clip import build_clip, build_siglip
from mgv.encoders.vision.efficientnet_lite import build_efficientnet_lite
from mgv.encoders.vision.eva_clip_g import build_eva_clip_g
from mgv.encoders.vision.languagebind import build_languagebind
from mgv.encoders.vision.pixels import PIXELS, to_pixel_values
from mgv.errors import ConfigError

__all__ = [
    "PIXELS",
    "VISION_ENCODERS",
    "VisionEncoder",
    "VisionSpec",
    "build_vision_encoder",
    "to_pixel_values",
]

VISION_ENCODERS: dict[str, Callable[..., VisionEncoder]] = {
    "eva_clip_g": build_eva_clip_g,
    "clip": build_clip,
    "siglip": build_siglip,
    "languagebind": build_languagebind,
    "efficientnet_lite": build_efficientnet_lite,
}


def build_vision_encoder(name: str, pretrained: str, **options: Any) -> VisionEncoder:
    """The encoder of that name in evaluation mode, on the CPU. Raises ConfigError for an unknown name or option."""
    if name not in VISION_ENCODERS:
        raise ConfigError(
            f"model.vision_encoder.name: {name!r} is none of {', '.join(VISION_ENCODERS)}"
        )
    try:
        return VISION_ENCODERS[name](pretrained, **options).eval()
    except TypeError as error:
        raise ConfigError(
            f"vision encoder {name!r} does not take these options: {error}"
        ) from error
