"""Answer: moments → an answer whose every citation exists.

An answerer is a part, chosen by name. It reads the question and the moments' evidence and may write [1], [2], …
for the moments it used; what it writes is then held against the evidence, whoever wrote it: numbers that name
no moment are taken out, and an answer that cites nothing is given the moment it shares most words with.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from mgv.config import AnswererParams
from mgv.encoders.base import TextEmbedder
from mgv.errors import ConfigError, WeightsError
from mgv.library.words import content_words, coverage
from mgv.records import Answer, Citation, Locate, Moment, Written, clock
from mgv.registry import file_digests

_CITATION = re.compile(r"\s*\[(\d+(?:\s*,\s*\d+)*)\]")
GROUNDED = 0.75
"""A written answer stands when at least this share of its content words are in the evidence or the question."""


class Answerer(Protocol):
    """Writes an answer from evidence. One that looks at frames has an attribute `watches` that is true."""

    def write(self, question: str, moments: Sequence[Moment]) -> Written | str | None:
        """The answer, with [n] for the n-th moment (from 1); None when the moments do not hold one.

        Who looks at frames says at which (Written.looks).
        """
        ...


def describe(moment: Moment) -> str:
    """A moment's evidence in one line: where, what is said, what is seen."""
    parts = [f"{moment.video} at {clock(moment.start_s)}-{clock(moment.end_s)}."]
    if moment.text:
        parts.append(f'Words: "{moment.text}"')
    if moment.labels:
        parts.append(f"Picture: {', '.join(moment.labels)}.")
    return " ".join(parts)


def answer(question: str, moments: Sequence[Moment], answerer: Answerer) -> Answer:
    """A cited answer from ranked moments. Without moments, or when they hold none, `text` is None."""
    written = answerer.write(question, moments) if moments else None
    if not isinstance(written, Written):
        written = Written(text=written)
    nothing = Answer(question=question, text=None, citations=(), moments=tuple(moments), looks=written.looks)
    if not written.text or not written.text.strip():
        return nothing
    text, numbers = cite(written.text.strip(), moments)
    citations = tuple(_citation(number, moments[number - 1]) for number in numbers)
    return replace(nothing, text=text, citations=citations)


def cite(text: str, moments: Sequence[Moment]) -> tuple[str, list[int]]:
    """The text with only citations that exist, and their numbers in order. At least one, where there are moments."""
    numbers: list[int] = []

    def keep(match: re.Match[str]) -> str:
        given = [int(number) for number in match[1].split(",")]
        known = [number for number in given if 1 <= number <= len(moments)]
        numbers.extend(known)
        return "".join(f" [{number}]" for number in dict.fromkeys(known))

    cited = _CITATION.sub(keep, text).strip()
    if not numbers:
        words = content_words(cited)
        shared = [coverage(words, describe(moment)) if words else 0.0 for moment in moments]
        numbers = [shared.index(max(shared)) + 1]
        cited = f"{cited} [{numbers[0]}]"
    return cited, sorted(set(numbers))


def _citation(number: int, moment: Moment) -> Citation:
    return Citation(
        number=number,
        video=moment.video,
        video_id=moment.video_id,
        start_s=moment.start_s,
        end_s=moment.end_s,
    )


def grounded(written: str, question: str, evidence: str) -> bool:
    """Whether an answer says something, and in the words of the evidence: every number, GROUNDED of the rest."""
    words = content_words(_CITATION.sub("", written))
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


def _load_text(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    from mgv.model.language import load_language_model

    model, tokenizer = load_language_model(params.pretrained, params.device)
    return TextAnswerer(model, tokenizer, embedder, params.max_new_tokens)


def _load_seeing(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    from mgv.answerers import SEEING

    return SEEING[params.name](params, locate)


ANSWERERS: dict[str, Callable[[AnswererParams, TextEmbedder, Locate], Answerer]] = {
    "text": _load_text,
    "video_llm": _load_seeing,
    "hf": _load_seeing,
    "openai": _load_seeing,
}
"""Answerers by name."""


def load_answerer(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    """The answerer of params.yaml; those that look at frames read them from the file that `locate` names.

    Raises ConfigError for a name that does not exist.
    """
    if params.name not in ANSWERERS:
        raise ConfigError(f"ask.answerer.name: {params.name!r} is not one of {', '.join(sorted(ANSWERERS))}")
    return ANSWERERS[params.name](params, embedder, locate)


def answerer_weights(params: AnswererParams) -> str:
    """The revision of an answerer's weights: a folder's digest, a package's version, a hub's commit. Loads nothing.

    Of an endpoint only the model's name is known: what answers under it may change at any time. Raises WeightsError
    for a folder that is not there.
    """
    from mgv.encoders.hub import weights_revision
    from mgv.starter import LANGUAGE, package_version

    if params.name == "openai":
        return f"{params.base_url} {params.pretrained}"
    if params.name == "video_llm":
        from mgv.model.checkpoint import model_folder

        return _model_digest(model_folder(params.pretrained))
    if params.pretrained == "starter":
        return f"{LANGUAGE.package}-{package_version(LANGUAGE)}"
    return weights_revision(params.pretrained).rpartition("@")[2]


_ABOUT = re.compile(r"README\.md|(train|lineage|metrics|run)\.json|(curves|training)/.*")
"""Files of a model's folder that tell of it and answer nothing; publishing adds some."""


def _model_digest(folder: Path) -> str:
    """SHA-256 of what a video language model answers with: equal for a trained model and its published version."""
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder}: no model there (config.json is missing)")
    digests = {name: digest for name, digest in file_digests(folder).items() if not _ABOUT.fullmatch(name)}
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()
