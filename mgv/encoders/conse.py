"""ConSE: frames and text in one space without a model trained on both.

Norouzi et al. 2013 (arXiv 1312.5650), section 3: a frame's vector is the probability-weighted mean of the text vectors
of its likeliest classes; a query is embedded by the same text embedder. Ours differs in three ways, each measured on
276 frames of 16 real videos with 90 queries: the vector of a class is that of "a photo of a <all its names>"; the
posterior is softened before the likeliest are taken; and a query that many classes answer a little must be met
better than one that few answer, or "a penguin" is at home in every video with a bird (see `with_reach`).
T frames, B queries, K classes, D width of a text vector.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

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
from mgv.errors import ConfigError
from mgv.records import Label
from mgv.starter.weights import cache_dir, vision_weights

logger = logging.getLogger(__name__)

SIZE_PX = 260
"""What EfficientNet-Lite2 was trained at."""
RANDOM_SIZE_PX = 64
BATCH_SIZE = 16
TEMPERATURE = 3.0
NUM_CLASSES = 50
"""How many of the likeliest classes make a frame's vector. The paper has temperature 1 and ten classes: the right
video was first for 38 % of 21 queries and among five for 86 %; so it is 57 % and 95 %."""
NUM_NEAREST = 20
MIN_REACH = 0.25
NUM_LABELS = 5
PROMPT = "a photo of a {}"
BLANK_STD = 3.0
"""Of a frame's values, 0 to 255: less is one colour, with the noise of compression."""
DARK = 48.0
RELEVANCE = Relevance(floor=0.15, ceiling=0.3)
"""Best frame of the right video: median 0.24, a tenth below 0.17. Best frame of all for what no video shows: median
0.21, a tenth above 0.24; for what was only said: median 0.12, a tenth above 0.2."""
RANDOM_RELEVANCE = Relevance(floor=0.0, ceiling=1.0)

_ASKING = re.compile(
    r"^(?:please |can you |could you |i want to see |show me |find me |find |look for |search for |give me |get me )*"
    r"(?:(?:all |any |some |the |a |an |that |those |every )*"
    r"(?:scenes?|moments?|parts?|clips?|videos?|footage|frames?|shots?|pictures?|images?|photos?|segments?|places?|time)"
    r" (?:where|when|in which|with|of|that shows?|showing|which shows?|containing|about) )?",
    re.IGNORECASE,
)


def read_class_names() -> list[str]:
    """The names of the 1000 ImageNet classes, in the order of the network's outputs."""
    text = (
        resources.files("mgv").joinpath("assets/imagenet_classes.txt").read_text(encoding="utf-8")
    )
    return text.splitlines()


def conse_vectors(
    logits: Float32,
    class_vectors: Float32,
    temperature: float = TEMPERATURE,
    num_classes: int = NUM_CLASSES,
) -> Float32:
    """Logits [T, K] and unit class vectors [K, D] -> frame vectors [T, D], unit length."""
    posterior = _softmax(logits / temperature)
    likeliest = np.argsort(-posterior, axis=1, kind="stable")[:, :num_classes]  # [T, num_classes]
    weights = np.take_along_axis(posterior, likeliest, axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    mean = np.einsum("tk,tkd->td", weights, class_vectors[likeliest])
    return _unit(mean)


def with_reach(queries: Float32, class_vectors: Float32) -> Float32:
    """Unit queries [B, D] -> [B, D + 1], unit length, shortened in the first D by how well the classes answer each.

    A query's reach is its mean cosine with the NUM_NEAREST classes nearest to it: about what a frame that shows it
    can have. Cosines with frames are divided by it (times MIN_REACH), so that one floor serves all queries; the last
    number makes up the length, and is zero in frames.
    """
    cosines = queries @ class_vectors.T
    reach = np.sort(cosines, axis=1)[:, -NUM_NEAREST:].mean(axis=1, keepdims=True)  # [B, 1]
    share = np.minimum(1.0, MIN_REACH / np.maximum(reach, MIN_REACH))
    return np.concatenate([queries * share, np.sqrt(1.0 - share**2)], axis=1).astype(np.float32)


def likeliest_labels(
    logits: Float32, names: Sequence[str], num_labels: int
) -> tuple[tuple[Label, ...], ...]:
    """Logits [T, K] -> per frame the likeliest classes by their first name, with the network's own probability."""
    posterior = _softmax(logits)
    order = np.argsort(-posterior, axis=1, kind="stable")[:, :num_labels]
    return tuple(
        tuple(Label(name=names[k].split(",")[0], probability=float(row[k])) for k in likeliest)
        for row, likeliest in zip(posterior, order, strict=True)
    )


def blank_frames(frames: Uint8) -> dict[int, str]:
    """The places of frames [T, H, W, 3] that are of one colour, and what a person calls it.

    A classifier of things names some thing in every frame; in an empty one there is none to be found.
    """
    places = {}
    for index, frame in enumerate(frames):
        small = frame[::4, ::4].reshape(-1, 3).astype(np.float32)
        if small.std(axis=0).max() < BLANK_STD:
            light = float(small.mean())
            places[index] = "black" if light < DARK else "white" if light > 255 - DARK else "blank"
    return places


def what_is_seen(query: str) -> str:
    """A query without the words of asking: "show me the scene where a dog runs" -> "a dog runs"."""
    rest = _ASKING.sub("", query.strip(), count=1).strip()
    return rest or query


def _softmax(logits: Float32) -> Float32:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def _unit(vectors: Float32) -> Float32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


class Conse:
    """The frame embedder. The network is loaded at the first frame, the text embedder at the first query."""

    def __init__(
        self,
        params: PartParams,
        class_vectors: Float32,
        text_embedder: Callable[[], TextEmbedder],
    ) -> None:
        self._params = params
        self._class_vectors, self._text_embedder = class_vectors, text_embedder
        self._names = read_class_names()
        self.dim = class_vectors.shape[1] + 1
        self.relevance = RANDOM_RELEVANCE if params.pretrained == "random" else RELEVANCE

    def embed_frames(self, frames: Uint8) -> FrameEmbeddings:
        """uint8 RGB frames [T, H, W, 3] -> T vectors and labels."""
        if not len(frames):
            return FrameEmbeddings(vectors=np.zeros((0, self.dim), dtype=np.float32), labels=())
        logits = np.concatenate(
            [
                self._logits(frames[begin : begin + BATCH_SIZE])
                for begin in range(0, len(frames), BATCH_SIZE)
            ]
        )
        vectors = conse_vectors(logits, self._class_vectors)
        labels = list(likeliest_labels(logits, self._names, NUM_LABELS))
        for index, name in blank_frames(frames).items():
            vectors[index], labels[index] = self._text_embedder().embed([f"a {name} screen"])[0], ()
        return FrameEmbeddings(
            vectors=np.concatenate([vectors, np.zeros((len(frames), 1), dtype=np.float32)], axis=1),
            labels=tuple(labels),
        )

    def embed_queries(self, queries: Sequence[str]) -> Float32:
        """B queries -> [B, D + 1], unit length."""
        vectors = self._text_embedder().embed_queries([what_is_seen(query) for query in queries])
        return with_reach(vectors, self._class_vectors)

    @cached_property
    def _network(self) -> tuple[Any, int]:
        return _load_network(self._params, self._device)

    @cached_property
    def _device(self) -> str:
        from mgv.encoders.devices import choose_device

        return choose_device(self._params.device)

    def _logits(self, frames: Uint8) -> Float32:
        import torch

        from mgv.encoders.efficientnet_lite import to_pixel_values

        network, size_px = self._network
        with torch.inference_mode():
            pixel_values = to_pixel_values(torch.from_numpy(frames).to(self._device), size_px)
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
            logits: Float32 = network(pixel_values).cpu().numpy()
        return logits


def load(
    params: PartParams, text_embedder: Callable[[], TextEmbedder], text_revision: str
) -> FrameEmbedder:
    """conse with the starter's image network, or with a tiny seeded one."""
    if params.pretrained not in ("starter", "random"):
        raise ConfigError(
            f"materialize.frame_embedder.pretrained: conse knows starter and random, not {params.pretrained!r}; "
            "other weights are for frame embedder clip"
        )
    return Conse(params, _class_vectors(text_embedder, text_revision), text_embedder)


def _load_network(params: PartParams, device: str) -> tuple[Any, int]:
    """The image network, ready to run, and the size of its pictures."""
    import torch
    from safetensors.torch import load_file

    from mgv.encoders.efficientnet_lite import EfficientNetLite

    if params.pretrained == "starter":
        network, size_px = EfficientNetLite(), SIZE_PX
        network.load_state_dict(load_file(vision_weights()))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network, size_px = (
                EfficientNetLite(width=0.25, depth=0.3, num_features=64),
                RANDOM_SIZE_PX,
            )
    network = network.fold_batch_norms().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network, size_px


def _class_vectors(text_embedder: Callable[[], TextEmbedder], text_revision: str) -> Float32:
    """The text vectors of the classes [K, D], from the cache when this text embedder has made them before."""
    prompts = [PROMPT.format(name) for name in read_class_names()]
    key = hashlib.sha256("\n".join([text_revision, *prompts]).encode()).hexdigest()[:16]
    path = cache_dir() / "conse" / f"{key}.npy"
    try:
        cached: Float32 = np.load(path, allow_pickle=False)
        return cached
    except (OSError, ValueError, EOFError):
        vectors = text_embedder().embed(prompts)
        _write_vectors(path, vectors)
        return vectors


def _write_vectors(path: Path, vectors: Float32) -> None:
    making = path.with_suffix(f".{os.getpid()}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(making, vectors)
        making.replace(path)
    except OSError as error:
        logger.warning("%s: cannot be kept (%s); it will be computed again", path, error)
