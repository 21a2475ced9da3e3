"""The starter's eye: EfficientNet-Lite2's last grid, 1280 channels, as patch features. Weights come in a package."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mgv.encoders.vision.base import VisionEncoder, VisionSpec, seeded
from mgv.errors import ConfigError

STRIDE_PX = 32


class EfficientNetLiteEncoder(VisionEncoder):
    """Frames -> the cells of the grid in raster order; no CLS."""

    def __init__(self, network: Any, hidden_size: int, image_size_px: int) -> None:
        super().__init__()
        if image_size_px % STRIDE_PX:
            raise ConfigError(
                f"efficientnet_lite: image_size_px {image_size_px} is not a multiple of {STRIDE_PX}"
            )
        self.tower, self.pixels, self.image_size_px = network, "efficientnet_squash", image_size_px
        self.spec = VisionSpec(hidden_size=hidden_size, grid=image_size_px // STRIDE_PX, num_prefix_tokens=0)

    def encode(self, pixel_values: Tensor) -> Tensor:
        """[F, 3, S, S] -> [F, grid**2, V]."""
        cells: Tensor = self.tower.features(pixel_values)
        return cells.flatten(2).transpose(1, 2)


def build_efficientnet_lite(pretrained: str, image_size_px: int = 256) -> EfficientNetLiteEncoder:
    """`starter` reads the package's weights; `random` is narrow and seeded."""
    from mgv.encoders.efficientnet_lite import EfficientNetLite

    if pretrained == "random":
        with seeded():
            return EfficientNetLiteEncoder(EfficientNetLite(0.2, 0.3, 10, 32), 32, image_size_px)
    if pretrained != "starter":
        raise ConfigError(f"efficientnet_lite: pretrained is `starter` or `random`, got {pretrained!r}")
    from safetensors.torch import load_file

    from mgv.starter import vision_weights

    network = EfficientNetLite()
    network.load_state_dict(load_file(vision_weights()))
    return EfficientNetLiteEncoder(network.fold_batch_norms(), 1280, image_size_px)
