"""`openai`: an endpoint that speaks as OpenAI's looks at the moments' frames."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgv.ask.answer import Answerer
from mgv.ask.answerers.frames import INSTRUCTION, said, shown
from mgv.ask.endpoint import Endpoint
from mgv.config import AnswererParams
from mgv.encoders.base import TextEmbedder
from mgv.records import Locate, Moment, Written


class OpenAIAnswerer:
    """`openai`: any endpoint with `/chat/completions`; frames go in as JPEG. The key comes from the environment."""

    watches = True

    def __init__(self, locate: Locate, params: AnswererParams) -> None:
        self._endpoint = Endpoint("ask.answerer", params)
        self._locate, self._params = locate, params

    def write(self, question: str, moments: Sequence[Moment]) -> Written:
        content, looks = shown(
            moments,
            self._locate,
            self._params.num_frames,
            lambda frame: {"type": "image_url", "image_url": {"url": data_url(frame)}},
        )
        content.append({"type": "text", "text": question})
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": content},
        ]
        text = said(self._endpoint.chat(messages, self._params.max_new_tokens).text)
        return Written(text=text, looks=looks)


def data_url(frame: NDArray[np.uint8]) -> str:
    """A frame as a JPEG inside an address."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def load(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    return OpenAIAnswerer(locate, params)
