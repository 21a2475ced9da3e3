"""CLIP: any image-text model of transformers with two towers: CLIP, SigLIP, SigLIP 2 and their kin.

Pixels are prepared here from the model's own preprocessor_config.json, in torch: no torchvision. T frames, B texts,
D width, S pixels a side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgv.config import PartParams
from mgv.encoders.base import (
    Float32,
    FrameEmbedder,
    FrameEmbeddings,
    Relevance,
    TextEmbedder,
    Uint8,
)
from mgv.encoders.hub import from_pretrained
from mgv.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

BATCH_SIZE = 16
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP = Relevance(floor=0.2, ceiling=0.32)
"""Pairs that belong together lie about 0.3, others below 0.2: LAION-400M kept pairs above 0.3 (arXiv 2111.02114,
section 3), and CLIPScore stretches cosines by 2.5 because they seldom pass 0.4 (arXiv 2104.08718, section 3)."""
SIGLIP = Relevance(floor=0.03, ceiling=0.16)
"""A SigLIP pair is as likely as not at -bias/scale = 16.5/118 = 0.14 for so400m, 0.11 for base (arXiv 2303.15343,
released `logit_scale` and `logit_bias`); unrelated ones lie about 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelSpec:
    """How a model wants its pixels."""

    size_px: int
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    center_crop: bool = True
    """Keep the shape and take the square in the middle; else squash the whole frame into the square."""


def read_pixel_spec(folder: Path, size_px: int) -> PixelSpec:
    """From preprocessor_config.json, else CLIP's own at the model's image size."""
    try:
        raw: dict[str, Any] = json.loads(
            (folder / "preprocessor_config.json").read_text(encoding="utf-8")
        )
    except FileNotFoundError:
        return PixelSpec(size_px=size_px)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{folder / 'preprocessor_config.json'}: cannot be read ({error})"
        ) from error
    return PixelSpec(
        size_px=size_px,
        mean=tuple(raw.get("image_mean") or CLIP_MEAN),
        std=tuple(raw.get("image_std") or CLIP_STD),
        center_crop=bool(raw.get("do_center_crop", False)),
    )


def to_pixel_values(frames: Tensor, spec: PixelSpec) -> Tensor:
    """uint8 RGB [T, H, W, 3] -> float [T, 3, S, S]."""
    import torch

    pixels = frames.permute(0, 3, 1, 2).float() / 255.0
    height, width = pixels.shape[-2:]
    if spec.center_crop:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[..., top : top + side, left : left + side]
    size = (spec.size_px, spec.size_px)
    pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(
        0.0, 1.0
    )
    mean = torch.tensor(spec.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels - mean) / std


class ClipEmbedder:
    """A frame embedder around a two-tower model."""

    def __init__(
        self,
        model: Any,
        tokenize: Callable[[list[str]], Any],
        spec: PixelSpec,
        device: str,
        relevance: Relevance,
    ) -> None:
        self._model, self._tokenize, self._spec, self._device = model, tokenize, spec, device
        self.relevance = relevance
        self.dim = self.embed_queries(["a photo"]).shape[1]

    def embed_frames(self, frames: Uint8) -> FrameEmbeddings:
        """uint8 RGB frames [T, H, W, 3] -> T vectors; it names nothing."""
        import torch

        vectors = np.zeros((len(frames), self.dim), dtype=np.float32)
        with torch.inference_mode():
            for begin in range(0, len(frames), BATCH_SIZE):
                batch = torch.from_numpy(frames[begin : begin + BATCH_SIZE]).to(self._device)
                out = self._model.get_image_features(
                    pixel_values=to_pixel_values(batch, self._spec)
                )
                vectors[begin : begin + BATCH_SIZE] = _unit(out)
        return FrameEmbeddings(vectors=vectors, labels=((),) * len(frames))

    def embed_queries(self, queries: Sequence[str]) -> Float32:
        """B queries -> [B, D], unit length."""
        import torch

        with torch.inference_mode():
            return _unit(
                self._model.get_text_features(**self._tokenize(list(queries)).to(self._device))
            )


def _unit(features: Any) -> Float32:
    """transformers 5 gives an output with `pooler_output`, earlier ones the tensor."""
    import torch

    tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
    vectors: Float32 = torch.nn.functional.normalize(tensor.float(), dim=1).cpu().numpy()
    return vectors


def load(
    params: PartParams, text_embedder: Callable[[], TextEmbedder], text_revision: str
) -> FrameEmbedder:
    """The model of `params.pretrained`, a folder or hub id; it has its own text tower."""
    from mgv.encoders.devices import choose_device

    device = choose_device(params.device)
    if params.pretrained == "random":
        return _random_clip(device)
    if params.pretrained == "starter":
        raise WeightsError(
            "materialize.frame_embedder: clip has no starter weights; set pretrained to a folder or hub id "
            "(openai/clip-vit-base-patch32, google/siglip2-base-patch16-224), or name conse"
        )
    from transformers import AutoModel, AutoTokenizer

    model = from_pretrained(AutoModel, params.pretrained).to(device).eval()
    tokenizer = from_pretrained(AutoTokenizer, params.pretrained)
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise WeightsError(
            f"{params.pretrained}: a {type(model).__name__}; clip takes CLIP or SigLIP models"
        )
    is_siglip = "siglip" in model.config.model_type
    max_length = model.config.text_config.max_position_embeddings

    def tokenize(texts: list[str]) -> Any:
        # SigLIP was trained on texts padded to the full length, without an attention mask
        tokens = tokenizer(
            [text.lower() if is_siglip else text for text in texts],
            padding="max_length" if is_siglip else True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        )
        if is_siglip:
            tokens.pop("attention_mask", None)
        return tokens

    spec = read_pixel_spec(_local_folder(params.pretrained), model.config.vision_config.image_size)
    return ClipEmbedder(model, tokenize, spec, device, SIGLIP if is_siglip else CLIP)


def _local_folder(pretrained: str) -> Path:
    """The folder itself, or the hub's local snapshot with the preprocessor's settings."""
    path = Path(pretrained).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(pretrained, "preprocessor_config.json")).parent
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return path


def _random_clip(device: str) -> ClipEmbedder:
    """A tiny seeded CLIP that reads bytes."""
    import torch
    from transformers import BatchEncoding, CLIPConfig, CLIPModel

    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    end, length = 257, 64
    config = CLIPConfig(
        text_config={
            **tower, "vocab_size": 258, "max_position_embeddings": length,
            "bos_token_id": 256, "eos_token_id": end, "pad_token_id": end,
        },
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config).to(device).eval()

    def tokenize(texts: list[str]) -> Any:
        rows = [[256, *text.encode()[: length - 2], end] for text in texts]
        longest = max(map(len, rows))
        input_ids = torch.tensor([row + [end] * (longest - len(row)) for row in rows])
        return BatchEncoding({"input_ids": input_ids})

    return ClipEmbedder(
        model, tokenize, PixelSpec(size_px=32), device, Relevance(floor=0.2, ceiling=0.9)
    )
