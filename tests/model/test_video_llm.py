"""The model as a whole: tiny, random, on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from mgv.errors import UsageError
from mgv.model.adapt import PARTS, Lora, adapt, part_sizes
from mgv.model.processor import Batch
from mgv.model.video_llm import fuse, positions
from tests.model.conftest import ARCHITECTURES, tiny_clip

LENGTHS = (("what is it?", 3), ("why?", 1), ("a far longer question about it?", 2))


def test_fusing_writes_each_named_token_in_its_place():
    words = torch.zeros(2, 5, 1)
    visual = torch.tensor([[10.0, 11, 12, 13], [20.0, 21, 0, 0]])[..., None]
    ids = torch.tensor(
        [[7, -1, -2, -3, -4], [-1, -2, -1, -2, 7]]
    )  # the second shows its frame twice
    fused = fuse(words, ids, visual, torch.tensor([2, 1]), tokens_per_frame=2)
    assert fused[..., 0].tolist() == [[0, 10, 11, 12, 13], [20, 21, 20, 21, 0]]


def test_a_prompt_for_another_connector_is_refused():
    ids = torch.tensor([[7, -1, -2, -3, -4]])  # two frames of 2 tokens, read as one of 4
    with pytest.raises(
        UsageError, match=r"prompts reach \[1\] frames at 4 tokens each, the batch gives \[2\]"
    ):
        fuse(torch.zeros(1, 5, 1), ids, torch.zeros(1, 8, 1), torch.tensor([2]), tokens_per_frame=4)


def test_positions_skip_padding():
    assert positions(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])).tolist() == [
        [0, 0, 0, 1],
        [0, 1, 2, 2],
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_of_unequal_lengths_equals_the_single_runs(name: str, built: Callable[..., Any]):
    model, processor = built(name)
    clips = [tiny_clip(question, frames, seed) for seed, (question, frames) in enumerate(LENGTHS)]
    batch = processor(clips)
    assert batch.attention_mask.sum(1).unique().numel() == 3
    with torch.no_grad():
        together = model(**batch.inputs()).logits
        for row, clip in enumerate(clips):
            alone = model(**processor([clip]).inputs()).logits[0]
            assert (together[row, -len(alone) :] - alone).abs().max() < 1e-4
    words = model.generate(**batch.inputs(), max_new_tokens=3)
    for row, clip in enumerate(clips):
        alone = model.generate(**processor([clip]).inputs(), max_new_tokens=3)[0].tolist()
        assert words[row].tolist()[: len(alone)] == alone


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_cached_features_equal_pixels(name: str, built: Callable[..., Any]):
    model, processor = built(name)
    clip = tiny_clip()
    batch = processor([clip])
    with torch.no_grad():
        features = model.encode(batch.pixel_values, batch.num_frames)[0]
        chosen = len(batch.prompts[0].frames)
        stored = replace(
            clip, frames=None, features=features, frame_times_s=clip.frame_times_s[:chosen]
        )
        cached = processor([replace(stored, cues=())])
        plain = processor([replace(clip, cues=())])
        difference = model(**plain.inputs()).logits - model(**cached.inputs()).logits
    assert cached.pixel_values is None
    assert difference.abs().max() < 1e-5


def train(model: Any, batch: Any, num_steps: int, rate: float) -> list[float]:
    """The loss at each step of training on one batch."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    losses = []
    for _ in range(num_steps):
        loss = model(**batch.inputs()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_learns_its_answers_and_generates(name: str, built: Callable[..., Any]):
    model, processor = built(name)
    adapt(model, language_model="full")
    batch = processor([tiny_clip(answer="ab"), tiny_clip("why?", 2, 1, answer="ba")])
    losses = train(model, batch, num_steps=20, rate=1e-2)
    assert losses[-1] < losses[0] / 2
    model.eval()
    new_ids = model.generate(**processor([tiny_clip()]).inputs(), max_new_tokens=4)
    assert new_ids.shape[0] == 1
    assert 1 <= new_ids.shape[1] <= 4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_learns_through_lora_and_its_connector(
    name: str, built: Callable[..., Any]
):
    model, processor = built(name)
    adapt(model, language_model="lora", lora=Lora(rank=8, dropout=0.0))
    losses = train(model, processor([tiny_clip(answer="ab")]), num_steps=6, rate=2e-2)
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_the_loss_is_over_the_answer_alone(built: Callable[..., Any]):
    model, processor = built("minigpt4_video")
    batch = processor([tiny_clip(answer="ab"), tiny_clip("longer question?", 2, answer="abcd")])
    inputs = batch.inputs()
    with torch.no_grad():
        loss = model(**inputs).loss
        del inputs["labels"]
        log_probabilities = model(**inputs).logits.log_softmax(-1)
    terms = []
    for row, prompt in enumerate(batch.prompts):
        first = len(prompt.input_ids)
        for place, target in enumerate(prompt.answer_ids):
            terms.append(-log_probabilities[row, first + place - 1, target])
    assert len(terms) == 3 + 5
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("chosen", "learning"),
    [
        ({}, {"connector", "language_model"}),
        ({"language_model": "frozen"}, {"connector"}),
        ({"connector": "frozen", "vision_encoder": "lora"}, {"vision_encoder", "language_model"}),
        ({"vision_encoder": "full", "language_model": "full"}, set(PARTS)),
    ],
)
def test_gradients_exist_only_in_what_learns(
    chosen: dict[str, Any], learning: set[str], built: Callable[..., Any]
):
    model, processor = built("minigpt4_video")
    adapt(model, **chosen)
    model.train()
    model(**processor([tiny_clip(answer="yes")]).inputs()).loss.backward()
    assert {part for part, size in part_sizes(model).items() if size.trainable} == learning
    for part in PARTS:
        for parameter in getattr(model, part).parameters():
            assert parameter.requires_grad or parameter.grad is None
        with_gradient = any(
            parameter.grad is not None for parameter in getattr(model, part).parameters()
        )
        assert with_gradient is (part in learning)


def test_a_frozen_vision_encoder_stays_in_evaluation_mode(built: Callable[..., Any]):
    model, _ = built("minigpt4_video")
    adapt(model)
    model.train()
    assert model.connector.training
    assert not model.vision_encoder.training


def test_generation_stops_at_the_end_mark_and_streams_the_same_words(built: Callable[..., Any]):
    model, processor = built("minigpt4_video")
    batch = processor([tiny_clip()])
    free = model.generate(**batch.inputs(), max_new_tokens=8)[0].tolist()
    stopped = model.generate(**batch.inputs(), max_new_tokens=8, eos_token_id=free[2])[0].tolist()
    assert stopped == free[: free.index(free[2]) + 1]
    text = "".join(model.stream(processor.tokenizer, **batch.inputs(), max_new_tokens=8))
    assert text == processor.tokenizer.decode(free, skip_special_tokens=True)


def test_a_failure_while_streaming_is_raised(built: Callable[..., Any]):
    model, processor = built("minigpt4_video")
    inputs = processor([tiny_clip()]).inputs() | {"num_frames": torch.tensor([2])}
    with pytest.raises(UsageError, match="prompts reach"):
        list(model.stream(processor.tokenizer, **inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_stays_near(dtype: torch.dtype, built: Callable[..., Any]):
    model, processor = built("minigpt4_video")
    batch = processor([tiny_clip()])
    with torch.no_grad():
        exact = model(**batch.inputs()).logits
        half = model.to(dtype)(**batch.inputs()).logits
    assert half.dtype == dtype
    assert (half.float() - exact).abs().max() < 0.1


def test_the_hub_port_of_video_llava_gives_the_same_logits():
    """transformers' VideoLlava (whose towers are plain CLIP) with the same random weights, eight frames."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        VideoLlavaConfig,
        VideoLlavaForConditionalGeneration,
    )

    from mgv.encoders.vision.clip import TINY, ClipTower
    from mgv.model.systems import build_connector
    from mgv.model.video_llm import VideoLLM, VideoLLMConfig

    language = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=100,
    )
    config = VideoLlavaConfig(
        vision_config=CLIPVisionConfig(**TINY),
        text_config=language,
        video_token_index=99,
        image_token_index=98,
    )
    torch.manual_seed(0)
    port = VideoLlavaForConditionalGeneration(config).eval()
    encoder = ClipTower(copy.deepcopy(port.model.video_tower), 56, -2, "video_crop")
    connector = build_connector("video_llava", encoder.spec, 32)
    projector = port.model.multi_modal_projector.state_dict()
    names = {"linear_1": "mlp.0", "linear_2": "mlp.2"}
    connector.load_state_dict(
        {names[n.split(".")[0]] + "." + n.split(".")[1]: t for n, t in projector.items()}
    )
    from transformers import LlamaForCausalLM

    llama = LlamaForCausalLM(language)
    llama.model.load_state_dict(port.model.language_model.state_dict())
    llama.lm_head.load_state_dict(port.lm_head.state_dict())
    model = VideoLLM(
        VideoLLMConfig(connector={"name": "video_llava"}), encoder, connector, llama.eval()
    )
    pixels = torch.randn(1, 8, 3, 56, 56)
    num_visual = 8 * 17
    theirs = torch.tensor([[1, 5] + [99] * num_visual + [6, 7]])
    ours = torch.tensor([[1, 5] + [-1 - k for k in range(num_visual)] + [6, 7]])
    with torch.no_grad():
        expected = port(
            theirs, attention_mask=torch.ones_like(theirs), pixel_values_videos=pixels
        ).logits
        got = model(ours, torch.ones_like(ours), torch.tensor([8]), pixel_values=pixels).logits
    assert (got - expected).abs().max() < 1e-5


def test_a_batch_moves_as_one():
    batch = Batch(
        input_ids=torch.ones(1, 2), attention_mask=torch.ones(1, 2), num_frames=torch.ones(1)
    )
    moved = batch.to("meta")
    assert {tensor.device.type for tensor in moved.inputs().values()} == {"meta"}
    assert set(moved.inputs()) == {"input_ids", "attention_mask", "num_frames"}
