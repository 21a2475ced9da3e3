"""The starter's eye: EfficientNet-Lite2's grids as patch features. Weights come in a package.

The last grid, of 1280 channels, says what is shown and has forgotten its colour, which a classifier does not need: a
linear probe told the colour of shapes in 20 % of unseen cases from it, and in 86 % from the stem's 32 channels. So a
patch is the last grid's cell beside the means of the stem's and the stride-8 grid's cells within it, each normalised
to the same length; features of several depths, as in DenseConnector (arXiv 2405.13800).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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
        self.spec = VisionSpec(
            hidden_size=hidden_size, grid=image_size_px // STRIDE_PX, num_prefix_tokens=0
        )

    def encode(self, pixel_values: Tensor) -> Tensor:
        """[F, 3, S, S] -> [F, grid**2, V]."""
        depths = []
        for grid in self.tower.pyramid(pixel_values):
            cells = F.adaptive_avg_pool2d(grid, self.spec.grid).flatten(2).transpose(1, 2)
            depths.append(F.normalize(cells, dim=-1) * self.spec.hidden_size**0.5)
        return torch.cat(depths, dim=-1)


def build_efficientnet_lite(pretrained: str, image_size_px: int = 256) -> EfficientNetLiteEncoder:
    """`starter` reads the package's weights; `random` is narrow and seeded."""
    from mgv.encoders.efficientnet_lite import EfficientNetLite

    if pretrained == "random":
        with seeded():
            return EfficientNetLiteEncoder(
                EfficientNetLite(0.2, 0.3, 10, 32), 32 + 8 + 32, image_size_px
            )
    if pretrained != "starter":
        raise ConfigError(
            f"efficientnet_lite: pretrained is `starter` or `random`, got {pretrained!r}"
        )
    from safetensors.torch import load_file

    from mgv.starter.weights import vision_weights

    network = EfficientNetLite()
    network.load_state_dict(load_file(vision_weights()))
    return EfficientNetLiteEncoder(network.fold_batch_norms(), 32 + 48 + 1280, image_size_px)
