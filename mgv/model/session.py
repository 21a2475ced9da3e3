"""Sessions: several questions about one stretch of video, which is read once.

The language model's keys and values of everything ahead of the question are kept. A later question prefills only its
own words. Where the connector reads the question (LLaMA-VID) its visual tokens change, so only the features are kept.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mgv.model.processor import Batch, Clip, Processor
from mgv.model.video_llm import VideoLLM


class VideoSession:
    """Questions about one clip, each answered as if it were the first."""

    def __init__(self, model: VideoLLM, processor: Processor, clip: Clip) -> None:
        self.model, self.processor, self.clip = model, processor, clip
        self._frames: tuple[int, ...] | None = None
        self._features: Tensor | None = None
        self._visual: Tensor | None = None
        self._cache: Any = None
        self._cached_ids: list[int] = []

    @property
    def shown(self) -> tuple[int, ...]:
        """The clip's frames that the last prompt showed, by place: a long question leaves some out."""
        return self._frames or ()

    def ask(self, question: str, history: tuple[tuple[str, str], ...] = (), **kwargs: Any) -> str:
        """The answer's text; keywords as for VideoLLM.generate."""
        return self.ask_with_confidence(question, history, **kwargs)[0]

    def ask_with_confidence(
        self, question: str, history: tuple[tuple[str, str], ...] = (), **kwargs: Any
    ) -> tuple[str, float]:
        """The answer's text, and how sure the model was: the geometric mean of its tokens' probabilities."""
        from transformers import LogitsProcessorList

        sureness = Confidence()
        new_ids = self.generate(
            question, history, logits_processor=LogitsProcessorList([sureness]), **kwargs
        )
        text: str = self.processor.tokenizer.decode(new_ids[0], skip_special_tokens=True)
        return text.strip(), sureness.mean()

    @torch.no_grad()
    def generate(
        self, question: str, history: tuple[tuple[str, str], ...] = (), **kwargs: Any
    ) -> Tensor:
        """The answer's token ids, [1, new]."""
        clip = replace(self.clip, question=question, history=history, answer=None)
        device = self.model.get_input_embeddings().weight.device
        batch = self.processor([clip], vision=False).to(device)  # type: ignore[arg-type]
        visual = self._look(batch)
        ids: list[int] = batch.input_ids[0].tolist()
        self._keep_shared(ids)
        embeds = self.model.embed(batch.input_ids, visual, batch.num_frames)
        new_ids = self.model.generate_from(
            embeds, batch.attention_mask, past_key_values=self._cache, **kwargs
        )
        self._cached_ids = [*ids, *new_ids[0].tolist()][: self._cache.get_seq_length()]
        return new_ids

    def _look(self, batch: Batch) -> Tensor:
        """The visual tokens of the frames that this prompt shows: those of the last one, or new ones."""
        frames = batch.prompts[0].frames
        if self._features is None or frames != self._frames:
            self._features, self._visual = self._encode(frames), None
        if self._visual is None or self.model.connector.reads_question:
            self._visual = self.model.see(
                batch.num_frames,
                features=self._features,
                question_ids=batch.question_ids,
                question_mask=batch.question_mask,
            )
            self._frames, self._cache, self._cached_ids = frames, None, []
        return self._visual

    def _encode(self, frames: tuple[int, ...]) -> Tensor:
        """The features of these frames, [1, T, N, V]."""
        if self.clip.features is not None:
            return self.clip.features[list(frames)][None]
        device = next(self.model.vision_encoder.parameters()).device
        pixels = self.processor.pixel_values(self.clip, frames).to(device)
        return self.model.encode(pixels[None], torch.tensor([len(frames)]))

    def _keep_shared(self, ids: list[int]) -> None:
        """Cut the cache back to what the new prompt has in common with it; one token at least is left to read."""
        from transformers import DynamicCache

        shared = 0
        while (
            shared < min(len(self._cached_ids), len(ids) - 1)
            and self._cached_ids[shared] == ids[shared]
        ):
            shared += 1
        slides = self._cache is not None and any(
            getattr(layer, "is_sliding", False) for layer in self._cache.layers
        )
        if shared == 0 or slides:
            self._cache = DynamicCache(config=self.model.language_model.config)
            return
        excess = self._cache.get_seq_length() - shared
        if excess:
            self._cache.crop(-excess)


class Confidence:
    """A logits processor that changes nothing and notes how likely each greedily taken token of the first row was."""

    def __init__(self) -> None:
        self._log_chances: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._log_chances.append(float(scores[0].float().log_softmax(-1).max()))
        return scores

    def mean(self) -> float:
        """The geometric mean of the probabilities; 0 where nothing was written."""
        return (
            math.exp(sum(self._log_chances) / len(self._log_chances)) if self._log_chances else 0.0
        )
