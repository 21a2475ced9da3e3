"""Adapters: what they add, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mgv.errors import ConfigError
from mgv.model.adapt import Lora, adapt, merge_adapters, part_sizes
from tests.model.conftest import tiny_clip


def test_the_published_lora_is_on_q_and_v_with_a_quarter_of_its_product(built: Callable[..., Any]):
    model, _ = built("minigpt4_video")
    adapt(model)
    weights = dict(model.language_model.named_modules())
    layer = weights["base_model.model.model.layers.1.self_attn.v_proj"]
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(3, 32)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (a.shape, b.shape) == ((64, 32), (16, 64))
    expected = x @ (layer.base_layer.weight + 0.25 * b @ a).T
    model.eval()
    assert torch.allclose(layer(x), expected, atol=1e-5)
    targets = {
        name.rsplit(".", 1)[1] for name, module in weights.items() if hasattr(module, "lora_A")
    }
    assert targets == {"q_proj", "v_proj"}


def test_merging_keeps_the_answers(built: Callable[..., Any]):
    model, processor = built("minigpt4_video")
    adapt(model, lora=Lora(rank=4), vision_encoder="lora")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    batch = processor([tiny_clip()])
    with torch.no_grad():
        before = model(**batch.inputs()).logits
        after = merge_adapters(model)(**batch.inputs()).logits
    assert (before - after).abs().max() < 1e-4
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_parameters_are_counted_by_part(built: Callable[..., Any]):
    model, _ = built("minigpt4_video")
    adapt(model)
    sizes = part_sizes(model)
    assert sizes["vision_encoder"].trainable == 0
    assert sizes["connector"].trainable == sizes["connector"].total == 4 * 32 * 32 + 32
    # 2 layers, r 64: q 32 -> 32, v 32 -> 16 (two of four heads)
    assert sizes["language_model"].trainable == 2 * (64 * 32 + 32 * 64 + 64 * 32 + 16 * 64)


def test_the_published_models_learn_as_many_parameters_as_their_logs_say():
    llama = 32 * (2 * (64 * 4096 + 4096 * 64))
    mistral = 32 * ((64 * 4096 + 4096 * 64) + (64 * 4096 + 1024 * 64))
    projector = 5632 * 4096 + 4096
    assert (llama, mistral, projector) == (33_554_432, 27_262_976, 23_072_768)


def test_adapting_again_keeps_the_adapter(built: Callable[..., Any]):
    model, _ = built("minigpt4_video")
    adapt(model, lora=Lora(rank=4))
    before = {name for name, _ in model.named_parameters()}
    adapt(model, language_model="frozen")
    assert part_sizes(model)["language_model"].trainable == 0
    adapt(model, lora=Lora(rank=4))
    assert {name for name, _ in model.named_parameters()} == before
    assert part_sizes(model)["language_model"].trainable > 0


def test_misfits_are_told(built: Callable[..., Any]):
    model, _ = built("minigpt4_video", vision_encoder="efficientnet_lite")
    with pytest.raises(ConfigError, match=r"model\.adapt\.connector: 'some' is none of"):
        adapt(model, connector="some")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="it is small"):
        adapt(model, connector="lora")
    with pytest.raises(ConfigError, match="no attention for a LoRA"):
        adapt(model, vision_encoder="lora")
    with pytest.raises(ConfigError, match="LoRA targets query"):
        adapt(model, lora=Lora(targets=("query",)))
