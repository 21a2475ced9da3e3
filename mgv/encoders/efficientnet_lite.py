"""EfficientNet-Lite: the starter's image network, an ImageNet classifier whose grid also serves as patch features.

EfficientNet (Tan and Le 2019, arXiv 1905.11946) without squeeze-and-excite and with ReLU6, as in
tensorflow/tpu models/official/efficientnet/lite/efficientnet_lite_builder.py. The names of the parameters are
those of the published PyTorch weights. B images, K classes, H and W pixels, h and w cells (a 32nd of H and W).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STAGES = (  # repeats, kernel, stride, expansion, channels: of Lite0; Lite2 is 1.1 as wide and 1.2 as deep
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BATCH_NORM_EPS = 1e-3


def scaled_width(channels: int, width: float) -> int:
    """Channels times width, to the nearest multiple of 8 that loses no more than a tenth."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled


def same_padding(size_px: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME: zeros before and after, the odd one after, so that the output has ceil(size / stride)."""
    total = max((math.ceil(size_px / stride) - 1) * stride + kernel - size_px, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution padded as in TensorFlow."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if kernel == 1:
            return super().forward(input)
        above, below = same_padding(input.shape[-2], kernel, stride)
        left, right = same_padding(input.shape[-1], kernel, stride)
        if above == below and left == right:
            padding = (above, left)
            return nn.functional.conv2d(
                input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
            )
        return super().forward(nn.functional.pad(input, (left, right, above, below)))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class InvertedBottleneck(nn.Module):
    """Widen, filter each channel, narrow; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.has_expansion = expansion != 1
        self.has_skip = stride == 1 and inputs == outputs
        if self.has_expansion:
            self._expand_conv = SameConv2d(inputs, wide, 1)
            self._bn0: nn.Module = batch_norm(wide)
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self._bn1: nn.Module = batch_norm(wide)
        self._project_conv = SameConv2d(wide, outputs, 1)
        self._bn2: nn.Module = batch_norm(outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        x: Tensor = inputs
        if self.has_expansion:
            x = nn.functional.relu6(self._bn0(self._expand_conv(x)))
        x = nn.functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + inputs if self.has_skip else x


class EfficientNetLite(nn.Module):
    """Images to a grid of 1280 channels, and to ImageNet logits. The defaults are Lite2."""

    def __init__(
        self,
        width: float = 1.1,
        depth: float = 1.2,
        num_classes: int = 1000,
        num_features: int = 1280,
    ) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, stride=2)
        self._bn0: nn.Module = batch_norm(32)
        self._blocks = nn.ModuleList()
        inputs = 32
        for index, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
            outputs = scaled_width(channels, width)
            # Lite keeps the first and the last stage at one block
            num_blocks = repeats if index in (0, len(STAGES) - 1) else math.ceil(depth * repeats)
            for block in range(num_blocks):
                self._blocks.append(
                    InvertedBottleneck(
                        inputs, outputs, kernel, stride if block == 0 else 1, expansion
                    )
                )
                inputs = outputs
        self._conv_head = SameConv2d(inputs, num_features, 1)
        self._bn1: nn.Module = batch_norm(num_features)
        self._fc = nn.Linear(num_features, num_classes)

    def features(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 1280, h, w], the grid before pooling."""
        return self.pyramid(pixel_values)[-1]

    def pyramid(self, pixel_values: Tensor) -> list[Tensor]:
        """Grids from fine to coarse: the stem's (stride 2), the last at stride 8, and the one before pooling."""
        x = stem = nn.functional.relu6(self._bn0(self._conv_stem(pixel_values)))
        middle = x
        for block in self._blocks:
            x = block(x)
            if x.shape[-1] * 4 >= stem.shape[-1]:
                middle = x
        return [stem, middle, nn.functional.relu6(self._bn1(self._conv_head(x)))]

    def classify(self, features: Tensor) -> Tensor:
        """[B, 1280, h, w] -> logits [B, K]."""
        logits: Tensor = self._fc(features.mean(dim=(2, 3)))
        return logits

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, K]."""
        return self.classify(self.features(pixel_values))

    def fold_batch_norms(self) -> EfficientNetLite:
        """Put each batch norm into the convolution before it: the same results (in evaluation mode), quicker."""
        self.eval()
        for module in (self, *self._blocks):
            for conv, norm in _conv_norm_pairs(module):
                setattr(
                    module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                )
                setattr(module, norm, nn.Identity())
        return self


def _conv_norm_pairs(module: nn.Module) -> Iterable[tuple[str, str]]:
    if isinstance(module, EfficientNetLite):
        return (("_conv_stem", "_bn0"), ("_conv_head", "_bn1"))
    pairs = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    return [pair for pair in pairs if hasattr(module, pair[0])]


def to_pixel_values(frames: Tensor, size_px: int) -> Tensor:
    """uint8 RGB [B, H, W, 3] -> float [B, 3, size_px, size_px] as the weights were trained: (value - 127) / 128.

    The whole frame is squashed into the square: nothing at its edges is lost, and retrieval was better than with
    the centre cropped or the frame padded.
    """
    pixels = frames.permute(0, 3, 1, 2)
    if pixels.device.type != "cpu":  # torch resizes bytes, much quicker, only there
        pixels = pixels.float()
    pixels = nn.functional.interpolate(pixels, (size_px, size_px), mode="bilinear", antialias=True)
    return (pixels.float() - 127.0) / 128.0
