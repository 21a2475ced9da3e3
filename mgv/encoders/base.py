"""Protocols of the frozen parts. Shapes: T frames, B texts, D vector width, H and W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mgv.records import Cue, Label

Float32 = NDArray[np.float32]
Uint8 = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Relevance:
    """Where a part's cosine similarities begin to mean something, measured once for its weights."""

    floor: float
    """At or below this a hit is noise."""
    ceiling: float
    """At or above this a hit is as sure as this part gets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameEmbeddings:
    """What a frame embedder says of T frames."""

    vectors: Float32
    """[T, D], unit length."""
    labels: tuple[tuple[Label, ...], ...]
    """Per frame, likeliest first; empty tuples where the part names nothing."""


class TextEmbedder(Protocol):
    """Sentences to vectors, for meaning."""

    dim: int
    relevance: Relevance

    def embed(self, texts: Sequence[str]) -> Float32:
        """B texts -> [B, D], unit length."""
        ...

    def embed_queries(self, queries: Sequence[str]) -> Float32:
        """B queries as a person types them -> [B, D], unit length, in the space of `embed`."""
        ...


MAX_FEW = 160


def embed_few(embedder: TextEmbedder, texts: Sequence[str]) -> Float32:
    """B texts -> [B, D]: as queries when they are few, which spares a cold process the import of torch."""
    return embedder.embed_queries(texts) if len(texts) <= MAX_FEW else embedder.embed(texts)


class FrameEmbedder(Protocol):
    """Frames and queries to vectors of one space."""

    dim: int
    relevance: Relevance

    def embed_frames(self, frames: Uint8) -> FrameEmbeddings:
        """uint8 RGB frames [T, H, W, 3], any size -> T vectors and labels."""
        ...

    def embed_queries(self, queries: Sequence[str]) -> Float32:
        """B queries as a person types them -> [B, D], unit length."""
        ...


class Transcriber(Protocol):
    """Sound to cues."""

    def transcribe(self, audio: Float32) -> list[Cue]:
        """16 kHz mono samples in [-1, 1], [S] -> cues, times from the first sample. Silence gives none.

        The same audio gives the same cues every time.
        """
        ...


class ScreenReader(Protocol):
    """Frames to the words written on them (OCR)."""

    def read(self, frames: Uint8) -> list[str]:
        """uint8 RGB frames [T, H, W, 3] -> T texts, empty where nothing is written."""
        ...
