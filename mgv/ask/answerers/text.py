"""`text`: a language model answers from the moments' words, or the nearest sentence is quoted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mgv.ask.answer import CITATION, Answerer, describe
from mgv.config import AnswererParams
from mgv.encoders.base import TextEmbedder
from mgv.library.words import content_words, coverage
from mgv.records import Locate, Moment, clock

GROUNDED = 0.75
"""A written answer stands when at least this share of its content words are in the evidence or the question."""


def grounded(written: str, question: str, evidence: str) -> bool:
    """Whether an answer says something, and in the words of the evidence: every number, GROUNDED of the rest."""
    words = content_words(CITATION.sub("", written))
    asked = set(content_words(question))
    numbers = [word for word in words if any(c.isdigit() for c in word)]
    known = f"{evidence} {question}"
    echoes = "Words:" in written or "Picture:" in written or written.count('"') % 2
    return (
        not echoes
        and any(word not in asked for word in words)
        and coverage(words, known) >= GROUNDED
        and (not numbers or coverage(numbers, known) == 1.0)
    )


class TextAnswerer:
    """`text`: a language model reads the moments' words and labels and answers in a sentence or two.

    Small models invent freely, so an answer stands only when its words are the evidence's (GROUNDED). Otherwise
    the sentence of the evidence that is nearest to the question is quoted instead.
    """

    def __init__(self, model: Any, tokenizer: Any, embedder: TextEmbedder, max_new_tokens: int) -> None:
        self._model, self._tokenizer, self._embedder = model, tokenizer, embedder
        self._max_new_tokens = max_new_tokens

    def write(self, question: str, moments: Sequence[Moment]) -> str | None:
        written = self._generate(question, moments)
        evidence = " ".join(f"{moment.text} {' '.join(moment.labels)}" for moment in moments)
        return written if grounded(written, question, evidence) else self._quote(question, moments)

    def _generate(self, question: str, moments: Sequence[Moment]) -> str:
        """The model's own words: greedy, so that the same evidence gives the same answer."""
        import torch

        notes = "\n".join(f"[{number}] {describe(moment)}" for number, moment in enumerate(moments, start=1))
        chat = [
            {
                "role": "system",
                "content": "You answer a question about videos in one short sentence. "
                "Use only the words of the notes.",
            },
            {"role": "user", "content": f"Notes:\n{notes}\n\nQuestion: {question}"},
        ]
        if self._tokenizer.chat_template:
            inputs = self._tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        else:  # a base model
            inputs = self._tokenizer(f"{chat[1]['content']}\nAnswer:", return_tensors="pt")
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
        return _whole_sentences(text) if len(new) >= self._max_new_tokens else text

    def _quote(self, question: str, moments: Sequence[Moment]) -> str:
        """The sentence nearest to the question, or what the best moment shows where nothing is said."""
        said = [
            (sentence, number)
            for number, moment in enumerate(moments, start=1)
            for sentence in _sentences(moment.text)
        ]
        first = moments[0]
        if not said or (not first.text and first.labels):
            shown = f" shows {', '.join(first.labels)}" if first.labels else " matches"
            return f"{first.video} at {clock(first.start_s)}-{clock(first.end_s)}{shown} [1]."
        vectors = self._embedder.embed([question, *(sentence for sentence, _ in said)])
        sentence, number = said[int((vectors[1:] @ vectors[0]).argmax())]
        return f"“{sentence}” [{number}]"


def _sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<=[.!?…])\s+", text) if part.strip()]


def _whole_sentences(text: str) -> str:
    """Text without the sentence that was cut off at its end."""
    whole = [sentence for sentence in _sentences(text) if sentence[-1] in ".!?…"]
    return " ".join(whole) or text


def load(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    from mgv.model.language import load_language_model

    model, tokenizer = load_language_model(params.pretrained, params.device)
    return TextAnswerer(model, tokenizer, embedder, params.max_new_tokens)
