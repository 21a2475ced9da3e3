"""Parts in use: the frozen parts of one params.yaml, each loaded when first needed and then kept."""

from __future__ import annotations

import threading
from functools import cached_property

from mgv.config import MaterializeParams
from mgv.encoders import parts
from mgv.encoders.base import FrameEmbedder, ScreenReader, TextEmbedder, Transcriber


class Parts:
    """The parts that a library is made and searched with. Safe to share between threads."""

    def __init__(self, params: MaterializeParams) -> None:
        self._params = params
        self._loading = threading.RLock()
        self.transcribing = threading.Lock()
        """Held around a transcription: Whisper's decoder keeps state in its model."""

    @cached_property
    def _text_embedder(self) -> TextEmbedder:
        return parts.load_text_embedder(self._params.text_embedder)

    @cached_property
    def _frame_embedder(self) -> FrameEmbedder:
        return parts.load_frame_embedder(self._params.frame_embedder, self._params.text_embedder)

    @cached_property
    def _transcriber(self) -> Transcriber:
        return parts.load_transcriber(self._params.transcriber)

    @cached_property
    def _screen_reader(self) -> ScreenReader | None:
        return parts.load_screen_reader(self._params.ocr)

    @property
    def text_embedder(self) -> TextEmbedder:
        with self._loading:
            return self._text_embedder

    @property
    def frame_embedder(self) -> FrameEmbedder:
        with self._loading:
            return self._frame_embedder

    @property
    def transcriber(self) -> Transcriber:
        with self._loading:
            return self._transcriber

    @property
    def screen_reader(self) -> ScreenReader | None:
        with self._loading:
            return self._screen_reader
