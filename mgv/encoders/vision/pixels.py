"""Pixels: uint8 frames to what a vision tower was trained on. T frames, H and W their size, S the tower's side."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mgv.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIGLIP_MEAN, SIGLIP_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def imagenet_squash(frame: NDArray[np.uint8], size_px: int) -> Tensor:
    """MiniGPT-v2 and MiniGPT4-Video: squashed to a square, ImageNet mean and deviation.

    As Blip2ImageEvalProcessor in minigpt4/processors/blip_processors.py (the CLIP figures it is given are ignored).
    """
    image = Image.fromarray(frame).resize((size_px, size_px), Image.Resampling.BICUBIC)
    return _normalise(_to_unit(image), IMAGENET_MEAN, IMAGENET_STD)


def siglip_squash(frame: NDArray[np.uint8], size_px: int) -> Tensor:
    """SigLIP: squashed to a square, to [-1, 1]."""
    image = Image.fromarray(frame).resize((size_px, size_px), Image.Resampling.BICUBIC)
    return _normalise(_to_unit(image), SIGLIP_MEAN, SIGLIP_STD)


def clip_crop(frame: NDArray[np.uint8], size_px: int) -> Tensor:
    """CLIP and LLaMA-VID: the short side to S, the centre S x S, CLIP mean and deviation (CLIPImageProcessor)."""
    height, width = frame.shape[:2]
    long = int(size_px * max(height, width) / min(height, width))
    shape = (size_px, long) if width <= height else (long, size_px)
    image = Image.fromarray(frame).resize(shape, Image.Resampling.BICUBIC)
    left, top = (shape[0] - size_px) // 2, (shape[1] - size_px) // 2
    return _normalise(
        _to_unit(image.crop((left, top, left + size_px, top + size_px))), CLIP_MEAN, CLIP_STD
    )


def video_crop(frame: NDArray[np.uint8], size_px: int) -> Tensor:
    """LanguageBind and Video-LLaVA: normalised, the short side to S by plain bilinear, the centre S x S.

    As get_video_transform in languagebind/video/processing_video.py, less its random mirroring (p = 0.5, also
    at inference), which makes left and right a coin toss.
    """
    height, width = frame.shape[:2]
    long = math.floor(max(height, width) / min(height, width) * size_px)
    shape = (long, size_px) if width < height else (size_px, long)
    pixels = _normalise(
        torch.from_numpy(frame).permute(2, 0, 1).float() / 255.0, CLIP_MEAN, CLIP_STD
    )
    pixels = F.interpolate(pixels[None], shape, mode="bilinear", align_corners=False)[0]
    top, left = round((shape[0] - size_px) / 2.0), round((shape[1] - size_px) / 2.0)
    return pixels[:, top : top + size_px, left : left + size_px]


def efficientnet_squash(frame: NDArray[np.uint8], size_px: int) -> Tensor:
    """EfficientNet-Lite: squashed to a square, (value - 127) / 128."""
    from mgv.encoders.efficientnet_lite import to_pixel_values as to_lite_pixels

    return to_lite_pixels(torch.from_numpy(frame)[None], size_px)[0]


PIXELS: dict[str, Callable[[NDArray[np.uint8], int], Tensor]] = {
    "imagenet_squash": imagenet_squash,
    "clip_crop": clip_crop,
    "video_crop": video_crop,
    "siglip_squash": siglip_squash,
    "efficientnet_squash": efficientnet_squash,
}


def to_pixel_values(frames: NDArray[np.uint8], pixels: str, size_px: int) -> Tensor:
    """uint8 RGB [T, H, W, 3] -> float32 [T, 3, S, S] by the recipe named `pixels`."""
    if pixels not in PIXELS:
        raise ConfigError(f"pixels: {pixels!r} is none of {', '.join(PIXELS)}")
    return torch.stack([PIXELS[pixels](np.ascontiguousarray(frame), size_px) for frame in frames])


def _to_unit(image: Image.Image) -> Tensor:
    """An RGB image -> float [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0


def _normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
