"""What a vision encoder is, and what its features look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mgv.errors import ConfigError, WeightsError

FRAMES_PER_PASS = 64
UNUSED = ("post_layernorm.", "head.")
"""Weights after the layer that features are read from."""
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionSpec:
    """The shape of an encoder's features, known before any frame is seen."""

    hidden_size: int
    """V"""
    grid: int
    """Patches per side."""
    num_prefix_tokens: int = 1
    """Tokens ahead of the patches (CLS)."""

    @property
    def num_patches(self) -> int:
        return self.grid**2

    @property
    def num_tokens(self) -> int:
        """N"""
        return self.num_prefix_tokens + self.num_patches


class VisionEncoder(nn.Module):
    """Pixels [B, T, 3, S, S] -> features [B, T, N, V]. A subclass encodes frames in `encode`."""

    spec: VisionSpec
    image_size_px: int
    """S"""
    pixels: str
    """How frames become pixels: a name in PIXELS."""
    across_frames: bool = False
    """True when a frame's features depend on the other frames, so a video must be encoded in one pass."""
    tower: Any
    lora_targets: tuple[str, ...] = ()
    """Layers of the tower that a LoRA adapts."""

    def encode(self, pixel_values: Tensor) -> Tensor:
        """[F, 3, S, S] -> [F, N, V]; with across_frames [B, T, 3, S, S] -> [B, T, N, V]."""
        raise NotImplementedError

    def forward(self, pixel_values: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """[B, T, 3, S, S] -> [B, T, N, V], a bounded number of frames at a time.

        Frames beyond num_frames [B] are padding: they are not looked at, their features are zero.
        """
        pixel_values = pixel_values.to(next(self.parameters()).dtype)
        counts = (
            [pixel_values.shape[1]] * len(pixel_values)
            if num_frames is None
            else num_frames.tolist()
        )
        videos = [video[:count] for video, count in zip(pixel_values, counts, strict=True)]
        if self.across_frames:
            encoded = [self.encode(video[None])[0] for video in videos]
        else:
            passes = torch.split(torch.cat(videos), FRAMES_PER_PASS)
            encoded = list(
                torch.split(torch.cat([self.encode(frames) for frames in passes]), counts)
            )
        return pad_sequence(encoded, batch_first=True)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random weights made inside are the same every time; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_tower(tower: Any, tiny: Any, pretrained: str) -> Any:
    """A transformers vision tower: seeded from its tiny config for `random`, else read from a folder or hub id.

    Also from a checkpoint of the whole model that it is the eye of. Raises WeightsError when a weight is missing,
    which transformers would make up at random.
    """
    if pretrained == "starter":
        raise ConfigError(
            f"{tower.__name__} has no starter weights; set `pretrained` to a folder, a hub id or `random`, "
            "or choose the vision encoder efficientnet_lite"
        )
    if pretrained == "random":
        with seeded():
            return tower(tiny)
    what = f"vision encoder {pretrained!r}"
    network, info = loaded(
        lambda: tower.from_pretrained(
            pretrained,
            output_loading_info=True,
            key_mapping={r"^vision_model\.": "", r"^model\.vision_model\.": ""},
        ),
        what,
    )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(UNUSED))
    if missing:
        raise WeightsError(
            f"{what}: {len(missing)} weights are missing, among them {', '.join(missing[:3])}"
        )
    return network


def loaded(load: Callable[[], Result], what: str) -> Result:
    """The result of load, its failures told as a WeightsError."""
    try:
        return load()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{what} cannot be loaded: {first}") from error


def read_state(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files."""
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
    if not state:
        raise WeightsError(
            f"{folder}: no *.safetensors in it; import weights with `mgv import-checkpoint`"
        )
    return state
