"""Sentence: any sentence encoder that transformers loads, with mean pooling and unit length.

As sentence-transformers does for its models without a projection (all-MiniLM, all-mpnet, e5, gte, bge-like models with
mean pooling): the mean of the last layer over the text's tokens, then unit length (Reimers and Gurevych 2019,
arXiv 1908.10084). Nothing is put before a text: models that want a prefix ("query: ") lose a little.
B texts, L tokens, D width.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mgv.config import PartParams
from mgv.encoders.base import Float32, Relevance, TextEmbedder
from mgv.encoders.bert import NumpyBert
from mgv.starter.weights import text_model_dir

MAX_TOKENS = 256
"""What all-MiniLM-L6-v2 was trained with; the rest of a longer text is not read."""
BATCH_SIZE = 32
RELEVANCE = Relevance(floor=0.25, ceiling=0.6)
"""Of all-MiniLM-L6-v2. Best segment of the right video: median 0.55, a tenth below 0.31. Best segment of all for what
nobody said: median 0.12, one in twenty above 0.25."""
PAIRS = (
    ("how do plants make their food", "Leaves turn sunlight, water and air into sugar."),
    ("interest rates", "The central bank made borrowing dearer again this spring."),
    (
        "replacing a flat tyre",
        "Loosen the nuts, lift the car with the jack and pull the wheel off.",
    ),
    ("baking bread at home", "Knead the dough, let it rise for an hour and put it in a hot oven."),
    (
        "the goal that won the match",
        "In the last minute she shot the ball past the keeper into the net.",
    ),
    ("why is the sky blue", "Air scatters short waves of light more than long ones."),
    ("signing in without a password", "Your phone shows a code, and the page lets you in."),
    ("a city in ancient times", "The Romans built baths, roads and a theatre inside the walls."),
    ("learning the guitar", "Put three fingers on the strings for your first chord."),
    ("what to do about a headache", "Drink some water, lie down in the dark and take a tablet."),
)
"""A question, and what would be said where it is answered: to see where an encoder's cosines begin to count."""
RANDOM_DIM = 64


class SentenceEncoder:
    """A text embedder around a transformers encoder."""

    def __init__(
        self, tokenizer: Any, model: Any, device: str, relevance: Relevance | None = None
    ) -> None:
        self._tokenizer, self._model, self._device = tokenizer, model, device
        self.dim: int = model.config.hidden_size
        self.relevance = relevance or measured_relevance(self.embed)

    def embed(self, texts: Sequence[str]) -> Float32:
        """B texts -> [B, D], unit length. Texts of like length go through together."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for begin in range(0, len(order), BATCH_SIZE):
            batch = order[begin : begin + BATCH_SIZE]
            vectors[batch] = self._embed_batch([texts[index] for index in batch])
        return vectors

    def embed_queries(self, queries: Sequence[str]) -> Float32:
        """B queries -> [B, D], unit length, each by itself."""
        return np.concatenate([self.embed([query]) for query in queries])

    def _embed_batch(self, texts: list[str]) -> Float32:
        import torch

        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            hidden = self._model(**tokens).last_hidden_state  # [B, L, D]
            mask = tokens["attention_mask"].unsqueeze(-1)  # [B, L, 1]
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            vectors: Float32 = torch.nn.functional.normalize(mean.float(), dim=1).cpu().numpy()
        return vectors


class StarterEncoder:
    """The embedded all-MiniLM-L6-v2: stretches of speech through torch, queries without it (mgv/encoders/bert.py).

    Both ways give the same vectors to within 1e-6; a library's rows are always made by torch.
    """

    relevance = RELEVANCE

    def __init__(self, params: PartParams) -> None:
        self._params, self._queries = params, NumpyBert(text_model_dir(), MAX_TOKENS)
        self.dim = self.embed_queries([""]).shape[1]

    def embed(self, texts: Sequence[str]) -> Float32:
        """B texts -> [B, D], unit length."""
        return self._torch.embed(texts)

    def embed_queries(self, queries: Sequence[str]) -> Float32:
        """B queries -> [B, D], unit length."""
        return np.stack([self._queries.embed(query) for query in queries])

    @cached_property
    def _torch(self) -> SentenceEncoder:
        return _load_torch(text_model_dir(), self._params.device, RELEVANCE)


def measured_relevance(embed: Callable[[Sequence[str]], Float32]) -> Relevance:
    """Of PAIRS: the floor passes one wrong pair in twenty, the ceiling half of the right ones."""
    questions, answers = (
        embed([question for question, _ in PAIRS]),
        embed([answer for _, answer in PAIRS]),
    )
    cosines = questions @ answers.T
    is_right = np.eye(len(PAIRS), dtype=bool)
    floor, ceiling = np.quantile(cosines[~is_right], 0.95), np.median(cosines[is_right])
    return Relevance(floor=float(floor), ceiling=float(max(ceiling, floor + 0.01)))


class HashedWords:
    """The `random` text embedder: a seeded random vector per word, summed. Texts that share words are alike."""

    dim = RANDOM_DIM
    relevance = Relevance(floor=0.4, ceiling=0.9)  # two unrelated words: 0 +- 1/8

    def embed(self, texts: Sequence[str]) -> Float32:
        """B texts -> [B, D], unit length; the same in every process."""
        sums = [sum((_word_vector(w) for w in _words(text)), _word_vector("")) for text in texts]
        vectors: Float32 = np.array(sums, dtype=np.float32).reshape(len(texts), self.dim)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def embed_queries(self, queries: Sequence[str]) -> Float32:
        """B queries -> [B, D], unit length."""
        return self.embed(queries)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@lru_cache(maxsize=4096)
def _word_vector(word: str) -> Float32:
    """The empty word, which every text has, counts little."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(RANDOM_DIM).astype(np.float32)
    return vector if word else vector * np.float32(0.01)


def load(params: PartParams) -> TextEmbedder:
    """The sentence encoder of `params`."""
    if params.pretrained == "random":
        return HashedWords()
    if params.pretrained == "starter":
        return StarterEncoder(params)
    return _load_torch(params.pretrained, params.device, None)


def _load_torch(source: str | Path, device: str, relevance: Relevance | None) -> SentenceEncoder:
    from transformers import AutoModel, AutoTokenizer

    from mgv.encoders.devices import choose_device
    from mgv.encoders.hub import from_pretrained

    place = choose_device(device)
    tokenizer = from_pretrained(AutoTokenizer, source)
    model = from_pretrained(AutoModel, source).to(place).eval()
    return SentenceEncoder(tokenizer, model, place, relevance)
