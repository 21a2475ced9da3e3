"""VideoLLM: vision encoder, connector, language model; one model for four published systems.

B batch, T frames, N vision tokens, V vision width, M tokens per frame, K = T*M visual tokens, D model width, L text.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, TextIteratorStreamer
from transformers.modeling_outputs import CausalLMOutputWithPast

from mgv.encoders.vision import VisionEncoder
from mgv.errors import UsageError
from mgv.model.systems import Connector, Question

IGNORED = -100
"""A label that asks for nothing."""


class VideoLLMConfig(PreTrainedConfig):  # type: ignore[misc]
    """Which parts a model is made of. Their weights are named, not held: see mgv/model/checkpoint.py."""

    model_type = "mgv_video_llm"

    def __init__(
        self,
        vision_encoder: dict[str, Any] | None = None,
        connector: dict[str, Any] | None = None,
        language_model: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vision_encoder = vision_encoder or {}
        """name, pretrained, options"""
        self.connector = connector or {}
        """name, options"""
        self.language_model = language_model or {}
        """pretrained"""
        super().__init__(**kwargs)


class VideoLLM(PreTrainedModel):  # type: ignore[misc]
    """Frames and words in, words out."""

    config_class = VideoLLMConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True

    def __init__(
        self,
        config: VideoLLMConfig,
        vision_encoder: VisionEncoder,
        connector: Connector,
        language_model: nn.Module,
    ) -> None:
        super().__init__(config)
        self.vision_encoder = vision_encoder
        self.connector = connector
        self.language_model: Any = language_model
        self._no_split_modules = language_model._no_split_modules  # what FSDP shards by
        self.generation_config: Any = language_model.generation_config

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> VideoLLM:
        """As for any module, but a frozen vision encoder stays in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.vision_encoder.parameters()):
            self.vision_encoder.eval()
        return self

    def encode(self, pixel_values: Tensor, num_frames: Tensor) -> Tensor:
        """Pixels [B, T, 3, S, S] -> features [B, T, N, V]; zeros beyond each clip's frames."""
        trains = any(parameter.requires_grad for parameter in self.vision_encoder.parameters())
        with nullcontext() if trains else torch.no_grad():
            return self.vision_encoder(pixel_values, num_frames)  # type: ignore[no-any-return]

    def connect(self, features: Tensor, question: Question | None = None) -> Tensor:
        """Features [B, T, N, V] -> visual tokens [B, K, D]."""
        weight = next(self.connector.parameters())
        return self.connector(features.to(weight.device, weight.dtype), question).flatten(1, 2)  # type: ignore[no-any-return]

    def see(
        self,
        num_frames: Tensor,
        pixel_values: Tensor | None = None,
        features: Tensor | None = None,
        question_ids: Tensor | None = None,
        question_mask: Tensor | None = None,
    ) -> Tensor:
        """Pixels or cached features (and the question, where the connector reads it) -> visual tokens [B, K, D]."""
        if features is None:
            if pixel_values is None:
                raise UsageError("the batch holds neither pixel_values nor features")
            features = self.encode(pixel_values, num_frames)
        spec = self.vision_encoder.spec
        if features.shape[2:] != (spec.num_tokens, spec.hidden_size):
            raise UsageError(
                f"the features are {list(features.shape)}, expected [B, T, {spec.num_tokens}, {spec.hidden_size}]: "
                "were they made by another vision encoder?"
            )
        question = None
        if question_ids is not None and question_mask is not None:
            question = Question(input_ids=question_ids, attention_mask=question_mask)
        return self.connect(features, question)

    def embed(self, input_ids: Tensor, visual: Tensor, num_frames: Tensor) -> Tensor:
        """Token ids [B, L] and visual tokens [B, K, D] -> [B, L, D]."""
        words = self.get_input_embeddings()(input_ids.clamp(min=0))
        return fuse(words, input_ids, visual, num_frames, self.connector.tokens_per_frame)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        num_frames: Tensor,
        pixel_values: Tensor | None = None,
        features: Tensor | None = None,
        question_ids: Tensor | None = None,
        question_mask: Tensor | None = None,
        labels: Tensor | None = None,
        branches: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, L, vocabulary]. With labels: the mean loss over those that are not -100, and the logits of the
        places that predict one in any row, [B, fewer, vocabulary]; no time goes into the others.

        branches [B, L]: see Processor.pack.
        """
        visual = self.see(num_frames, pixel_values, features, question_ids, question_mask)
        mask, places = attention_mask, positions(attention_mask)
        if branches is not None:
            mask, places = branch_mask(branches), branch_positions(branches)
        asked = labels[:, 1:] if labels is not None else None
        if asked is not None:
            kept = (asked != IGNORED).any(0).nonzero()[:, 0]
            asked = asked[:, kept]
            kwargs["logits_to_keep"] = kept
        output: CausalLMOutputWithPast = self.language_model(
            inputs_embeds=self.embed(input_ids, visual, num_frames),
            attention_mask=mask,
            position_ids=places,
            **kwargs,
        )
        if asked is not None:
            # where an upstream limit has cut off every answer there is nothing to learn, and the mean of nothing is NaN
            output.loss = F.cross_entropy(
                output.logits.flatten(0, 1).float(),
                asked.flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            ) / max(1, int((asked != IGNORED).sum()))
        return output

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        num_frames: Tensor,
        pixel_values: Tensor | None = None,
        features: Tensor | None = None,
        question_ids: Tensor | None = None,
        question_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """New token ids [B, new], left-padded prompts; keywords as for transformers' generate."""
        visual = self.see(num_frames, pixel_values, features, question_ids, question_mask)
        embeds = self.embed(input_ids, visual, num_frames)
        return self.generate_from(embeds, attention_mask, **kwargs)

    @torch.no_grad()
    def generate_from(self, embeds: Tensor, attention_mask: Tensor, **kwargs: Any) -> Tensor:
        """Embeddings [B, L, D] -> new token ids [B, new]. Only new tokens count for a repetition penalty."""
        config = copy.deepcopy(self.generation_config)
        if config.pad_token_id is None:
            end = config.eos_token_id
            config.pad_token_id = end[0] if isinstance(end, list) else end
        others = config.update(**kwargs)
        new_ids: Tensor = self.language_model.generate(
            inputs_embeds=embeds, attention_mask=attention_mask, generation_config=config, **others
        )
        return new_ids

    def stream(self, tokenizer: Any, **inputs: Any) -> Iterator[str]:
        """The answer to a batch of one, piece by piece as it is generated; keywords as for `generate`."""
        streamer = TextIteratorStreamer(tokenizer, skip_special_tokens=True)
        failures: list[BaseException] = []

        def run() -> None:
            try:
                self.generate(streamer=streamer, **inputs)
            except BaseException as error:
                failures.append(error)
                streamer.end()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield from (piece for piece in streamer if piece)
        thread.join()
        if failures:
            raise failures[0]


def fuse(
    words: Tensor, input_ids: Tensor, visual: Tensor, num_frames: Tensor, tokens_per_frame: int
) -> Tensor:
    """Write visual tokens [B, K, D] over the places that name them: words [B, L, D] -> [B, L, D].

    The id -1 - k names visual token k. A prompt must reach exactly the frames it was given.
    """
    index = -1 - input_ids  # [B, L]
    reached = torch.where(input_ids < 0, index // tokens_per_frame + 1, 0).amax(1)
    if not torch.equal(reached, num_frames.to(reached.device)):
        raise UsageError(
            f"prompts reach {reached.tolist()} frames at {tokens_per_frame} tokens each, "
            f"the batch gives {num_frames.tolist()}: were they written for another connector?"
        )
    places = index.clamp(min=0)[..., None].expand(-1, -1, words.shape[-1])
    chosen = visual.to(words.device, words.dtype).gather(1, places)
    return torch.where((input_ids < 0)[..., None], chosen, words)


def positions(attention_mask: Tensor) -> Tensor:
    """The place of each token among those that count, [B, L]; padding takes 0."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def branch_mask(branches: Tensor) -> Tensor:
    """Who sees whom, bool [B, 1, L, L]: what comes earlier and is shared (0) or of the own branch."""
    length = branches.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=branches.device).tril()
    shared = (branches == 0)[:, None, :]
    own = branches[:, None, :] == branches[:, :, None]
    return (earlier & (shared | own))[:, None]


def branch_positions(branches: Tensor) -> Tensor:
    """The place of each token, [B, L]: a branch goes on from what is shared, as if it were the only one."""
    index = torch.arange(branches.shape[1], device=branches.device).expand_as(branches)
    begins = branches.diff(dim=1, prepend=branches[:, :1]) != 0
    start = torch.where(begins, index, 0).cummax(1).values
    num_shared = (branches == 0).sum(1, keepdim=True)
    return torch.where(branches > 0, num_shared + index - start, index)
