"""`text`: a language model words an answer from the sentences that were said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mgv.ask.answer import Answerer, describe
from mgv.ask.evidence import Passage
from mgv.ask.prompt import INSTRUCTION, harmless, prompt_hash, user_prompt
from mgv.config import AnswererParams
from mgv.encoders.base import TextEmbedder
from mgv.records import Locate, Moment


class TextAnswerer:
    """`text`: a language model reads whole sentences and answers in a sentence or two.

    Small models invent freely, so what it writes counts only where a sentence carries it (mgv/ask/grounding.py);
    otherwise the sentence is quoted (mgv/ask/replies.py).
    """

    prompt = prompt_hash()
    """Of every question's."""

    def __init__(self, model: Any, tokenizer: Any, max_new_tokens: int) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._max_new_tokens = max_new_tokens

    def phrase(self, question: str, passages: Sequence[Passage]) -> str | None:
        """The model's own words: greedy, so that the same evidence gives the same answer."""
        return self._generate(user_prompt(question, passages))

    def write(self, question: str, moments: Sequence[Moment]) -> str | None:
        """The same from moments, their words and labels."""
        lines = (
            f"[{number}] {harmless(describe(moment))}"
            for number, moment in enumerate(moments, start=1)
        )
        return self._generate("Notes:\n" + "\n".join(lines) + f"\n\nQuestion: {harmless(question)}")

    def _generate(self, prompt: str) -> str | None:
        import torch

        chat = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": prompt}]
        if self._tokenizer.chat_template:
            inputs = self._tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        else:  # a base model
            inputs = self._tokenizer(f"{prompt}\nAnswer:", return_tensors="pt")
        inputs = inputs.to(self._model.device)
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.eos_token_id,
            )
        new = output[0, inputs["input_ids"].shape[1] :]
        text = str(self._tokenizer.decode(new, skip_special_tokens=True)).strip()
        text = _whole_sentences(text) if len(new) >= self._max_new_tokens else text
        return None if text.lower().strip(" .") in ("", "none") else text


def _whole_sentences(text: str) -> str:
    """Text without the sentence that was cut off at its end."""
    whole = [part for part in re.split(r"(?<=[.!?…])\s+", text) if part and part[-1] in ".!?…"]
    return " ".join(whole) or text


def load(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    from mgv.model.language import load_language_model

    model, tokenizer = load_language_model(params.pretrained, params.device)
    return TextAnswerer(model, tokenizer, params.max_new_tokens)
