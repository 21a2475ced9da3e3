"""`hf`: a vision-language model of transformers looks at the moments' frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mgv.ask.answer import Answerer
from mgv.ask.answerers.frames import INSTRUCTION, said, shown
from mgv.config import AnswererParams
from mgv.encoders.base import TextEmbedder
from mgv.errors import UsageError, WeightsError
from mgv.records import Locate, Moment, Written


class HubAnswerer:
    """`hf`: any vision-language model of transformers with a chat template; a moment's frames go in as images."""

    watches = True

    def __init__(self, model: Any, processor: Any, locate: Locate, params: AnswererParams) -> None:
        self._model, self._processor = model, processor
        self._locate, self._params = locate, params

    def write(self, question: str, moments: Sequence[Moment]) -> Written:
        import torch
        from PIL import Image

        content, looks = shown(
            moments,
            self._locate,
            self._params.num_frames,
            lambda frame: {"type": "image", "image": Image.fromarray(frame)},
        )
        content.append({"type": "text", "text": f"{INSTRUCTION}\n{question}"})
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device)
        num_tokens, most_new = inputs["input_ids"].shape[1], self._params.max_new_tokens
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if context and num_tokens + most_new > context:
            raise UsageError(
                f"the moments and the question are {num_tokens} tokens: the model reads {context}, {most_new} are kept "
                "for the answer; lower ask.answerer.num_frames or ask.moments"
            )
        with torch.inference_mode():
            output = self._model.generate(**inputs, max_new_tokens=most_new, do_sample=False)
        new = output[0, num_tokens:]
        text = said(str(self._processor.decode(new, skip_special_tokens=True)))
        return Written(text=text, looks=looks)


def load(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from mgv.encoders.devices import choose_device
    from mgv.model.language import weights_options

    place = choose_device(params.device)
    options = weights_options(params.quantization, params.device_map, place)
    try:
        processor = AutoProcessor.from_pretrained(params.pretrained)
        model = AutoModelForImageTextToText.from_pretrained(
            params.pretrained, dtype="auto", **options
        )
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise WeightsError(f"answerer {params.pretrained!r} cannot be loaded: {first}") from error
    return HubAnswerer((model if options else model.to(place)).eval(), processor, locate, params)
