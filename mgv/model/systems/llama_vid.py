"""LLaMA-VID: an image is worth 2 tokens in large language models (arXiv 2311.17043).

States vlm_attention and token_generation of llamavid/model/llamavid_arch.py (dvlab-research/LLaMA-VID), the
`qformer_pretrain` kind. A Q-Former reads the question and the whole frame; its 32 states attend to the patches and
their mean is the context token; the patches pooled are the content tokens. Video, "mean": 1 + 1 = 2 tokens a frame at
1 frame a second; "grid:g": 1 + g*g; images, "all": 1 + 256 (224 px) or 1 + 576 (336 px).
The paper writes Mean(Softmax(Q X^T) X); the code has a linear map on the keys, divides by sqrt(V), and adds a linear
map on the result; the values are the raw features. Its grid pools by side // g, so a g that does not divide the side
leaves a rest of the patches out (3 and 5 of 16), or gives another number of tokens than g*g, which is refused here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgv.encoders.vision import VisionSpec
from mgv.errors import ConfigError
from mgv.model.systems.base import Connector, PublishedDefaults, Question

UPSTREAM_KEYS = {
    "model.mm_projector.": "content_proj.",
    "model.vlm_att_encoder.bert.embeddings.LayerNorm.": "qformer.embeddings.layernorm.",
    "model.vlm_att_encoder.bert.": "qformer.",
    "attention.self.": "attention.attention.",
    "model.vlm_att_query": "query",
    "model.vlm_att_ln.": "vision_norm.",
    "model.vlm_att_projector.": "query_proj.",
    "model.vlm_att_key_projector.": "key_proj.",
    "model.vlm_att_val_projector.": "value_proj.",
}
TINY_QFORMER = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
PUBLISHED = PublishedDefaults(
    vision_encoder="eva_clip_g",
    vision_options={"norm": "none", "pixels": "clip_crop"},
    num_frames=180,
    prompt="llama_vid",
    tiny_options={"qformer": TINY_QFORMER, "vocab_size": 64, "num_queries": 4},
)
BERT_VOCAB_SIZE = 30523
"""bert-base-uncased and the added [DEC]."""
FRAMES_PER_PASS = 64


class LlamaVid(Connector):
    """One question-guided context token and a few content tokens a frame."""

    reads_question = True

    def __init__(
        self,
        vision: VisionSpec,
        model_size: int,
        content: str = "mean",
        num_queries: int = 32,
        qformer: dict[str, Any] | None = None,
        vocab_size: int = BERT_VOCAB_SIZE,
    ) -> None:
        super().__init__()
        from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

        width = vision.hidden_size
        self.num_prefix_tokens, self.content = vision.num_prefix_tokens, content
        self.tokens_per_frame = 1 + num_content_tokens(content, vision)
        config = InstructBlipQFormerConfig(
            vocab_size=vocab_size,
            encoder_hidden_size=width,
            cross_attention_frequency=2,
            **(qformer or {}),
        )
        self.qformer = InstructBlipQFormerModel(config)
        self.query = nn.Parameter(
            torch.randn(1, num_queries, config.hidden_size) * config.initializer_range
        )
        self.vision_norm = nn.LayerNorm(width)
        self.query_proj = nn.Linear(config.hidden_size, width)
        self.key_proj = nn.Linear(width, width)
        self.value_proj = nn.Linear(width, model_size)
        self.content_proj = nn.Sequential(
            nn.Linear(width, model_size), nn.GELU(), nn.Linear(model_size, model_size)
        )

    def forward(self, features: Tensor, question: Question | None = None) -> Tensor:
        """[B, T, N, V] -> [B, T, 1 + content, D]."""
        assert question is not None, (
            "llama_vid reads the question; the Processor puts it in the batch"
        )
        num_frames = features.shape[1]
        input_ids = question.input_ids.repeat_interleave(num_frames, 0)  # [B*T, Q]
        mask = question.attention_mask.repeat_interleave(num_frames, 0)
        parts = zip(
            torch.split(features.flatten(0, 1), FRAMES_PER_PASS),
            torch.split(input_ids, FRAMES_PER_PASS),
            torch.split(mask, FRAMES_PER_PASS),
            strict=True,
        )
        tokens = torch.cat([self._tokens(*part) for part in parts])
        return tokens.reshape(*features.shape[:2], *tokens.shape[1:])

    def _tokens(self, features: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
        """F frames [F, N, V] with their questions [F, Q] -> [F, M, D]."""
        queries = self.query.expand(len(features), -1, -1)
        states = self.qformer(
            input_ids=input_ids,
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1),
            query_embeds=queries,
            encoder_hidden_states=self.vision_norm(features),
        ).last_hidden_state[:, : queries.shape[1]]
        patches = features[:, self.num_prefix_tokens :]
        context = context_attention(self.query_proj(states), self.key_proj(patches), patches)
        content = self.content_proj(pool_content(patches, self.content))
        return torch.cat([self.value_proj(context), content], dim=1)


def context_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[F, 32, V], [F, P, V], [F, P, V] -> [F, 1, V]: the mean over queries of softmax(Q K^T / sqrt(V)) X."""
    scores: Tensor = queries @ keys.transpose(-1, -2) / values.shape[-1] ** 0.5  # [F, 32, P]
    return scores.softmax(-1).mean(1, keepdim=True) @ values


def pool_content(patches: Tensor, content: str) -> Tensor:
    """[F, P, V] -> [F, content, V]: `all` patches, a `grid:g` of their means, or one `mean`."""
    if content == "all":
        return patches
    if content == "mean":
        return patches.mean(1, keepdim=True)
    side, num_cells = int(patches.shape[1] ** 0.5), int(content.removeprefix("grid:"))
    image = patches.transpose(1, 2).reshape(len(patches), -1, side, side)  # [F, V, side, side]
    return F.avg_pool2d(image, side // num_cells).flatten(2).transpose(1, 2)


def num_content_tokens(content: str, vision: VisionSpec) -> int:
    """How many content tokens a frame has. Raises ConfigError for an unknown kind, or a grid that does not divide."""
    if content == "all":
        return vision.num_patches
    if content == "mean":
        return 1
    cells = content.removeprefix("grid:")
    if not (content.startswith("grid:") and cells.isdigit() and int(cells) > 1):
        raise ConfigError(
            f"llama_vid: content is `all`, `mean` or `grid:<2 or more>`, got {content!r}"
        )
    side = vision.grid
    known = [g for g in range(2, side + 1) if side // (side // g) == g]
    if int(cells) not in known:
        raise ConfigError(
            f"llama_vid: {content} does not divide the side of {side} patches; "
            f"choose a grid of {', '.join(map(str, known))}"
        )
    return int(cells) ** 2
