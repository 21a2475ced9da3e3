"""OCR: the words written on frames. Slow (about a second a frame), so only frames that changed are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from mgv.config import PartParams
from mgv.encoders.base import Float32, ScreenReader, Uint8
from mgv.errors import ConfigError
from mgv.packages import install_command

GRID = 32
"""Frames are compared as grids of this many cells a side."""
CHANGED = 0.02
"""A frame is read when this share of the grid's cells differs from the frame last read."""
CELL_DIFFERENCE = 12.0
"""Levels of 255 by which a cell must differ."""
MIN_CONFIDENCE = 0.6


class RapidOcr:
    """A screen reader around rapidocr's ONNX models."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def read(self, frames: Uint8) -> list[str]:
        """uint8 RGB frames [T, H, W, 3] -> T texts; a frame like the one before has its text."""
        texts: list[str] = []
        last: Float32 | None = None
        for frame in frames:
            grid = luma_grid(frame)
            if last is None or changed(last, grid):
                texts.append(self._read_one(frame))
                last = grid
            else:
                texts.append(texts[-1])
        return texts

    def _read_one(self, frame: Uint8) -> str:
        lines, _times = self._engine(np.ascontiguousarray(frame[:, :, ::-1]))  # takes BGR
        return " ".join(
            text for _box, text, confidence in lines or [] if float(confidence) >= MIN_CONFIDENCE
        )


def luma_grid(frame: Uint8) -> Float32:
    """[H, W, 3] -> mean brightness of GRID x GRID cells."""
    rows = np.array_split(frame.mean(axis=2), GRID, axis=0)
    cells = [
        [cell.mean() if cell.size else 0.0 for cell in np.array_split(row, GRID, axis=1)]
        for row in rows
    ]
    return np.array(cells, dtype=np.float32)


def changed(before: Float32, after: Float32) -> bool:
    """Whether enough cells of the grid differ."""
    return bool((np.abs(after - before) > CELL_DIFFERENCE).mean() > CHANGED)


def load_none(params: PartParams) -> None:
    """No screen reader."""


def load(params: PartParams) -> ScreenReader:
    """rapidocr, whose models come with its package."""
    if params.pretrained != "starter":
        raise ConfigError(
            f"materialize.ocr.pretrained: rapidocr knows only its own models: starter, not {params.pretrained!r}"
        )
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise ConfigError(
            f"materialize.ocr: rapidocr is not installed; run {install_command('ocr')}"
        ) from error
    return RapidOcr(RapidOCR())
