"""Checkpoints: what is written is read back, and nothing else passes for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mgv.errors import ConfigError, WeightsError
from mgv.model.adapt import Lora, adapt
from mgv.model.checkpoint import load_checkpoint, save_checkpoint
from tests.model.conftest import ARCHITECTURES, tiny_clip

Built = Callable[..., Any]


def saved(
    built: Built, folder: Path, name: str = "minigpt4_video", **adapted: Any
) -> tuple[Any, Any]:
    model, processor = built(name)
    adapt(model, lora=Lora(rank=4), **adapted)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    save_checkpoint(model.eval(), processor, folder)
    return model, processor


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    "adapted",
    [{}, {"vision_encoder": "lora"}, {"vision_encoder": "full", "language_model": "full"}],
)
def test_a_model_comes_back_as_it_was(
    name: str, adapted: dict[str, Any], built: Built, tmp_path: Path
):
    model, processor = saved(built, tmp_path / "model", name, **adapted)
    again, reader = load_checkpoint(tmp_path / "model", device="cpu")
    assert reader.config == processor.config
    clip = tiny_clip()
    with torch.no_grad():
        first = model(**processor([clip]).inputs()).logits
        second = again(**reader([clip]).inputs()).logits
    assert torch.equal(first, second)
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_the_folder_is_what_the_hub_expects_and_holds_no_pickle(built: Built, tmp_path: Path):
    saved(built, tmp_path / "model")
    names = {
        str(path.relative_to(tmp_path / "model"))
        for path in (tmp_path / "model").rglob("*")
        if path.is_file()
    }
    assert {
        "config.json", "connector.safetensors", "generation_config.json", "README.md", "processor_config.json",
        "tokenizer.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
    } <= names  # fmt: skip
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: ")
    assert "4 tokens a frame" in card
    assert not list(tmp_path.glob(".*"))
    adapter = load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors")
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in adapter


def test_equal_adapters_are_equal_files_whatever_order_a_set_has(built: Built, tmp_path: Path):
    model, processor = built("minigpt4_video")
    adapt(
        model,
        lora=Lora(rank=4, targets=("v_proj", "q_proj", "k_proj", "o_proj", "up_proj", "gate_proj")),
    )
    save_checkpoint(model, processor, tmp_path / "model")
    config = json.loads((tmp_path / "model/adapter/adapter_config.json").read_text())
    assert config["target_modules"] == [
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]


def test_saving_again_replaces_the_folder(built: Built, tmp_path: Path):
    saved(built, tmp_path / "model")
    (tmp_path / "model" / "stray.txt").write_text("old")
    saved(built, tmp_path / "model")
    assert not (tmp_path / "model" / "stray.txt").exists()


def change(file: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(file)
    edit(state)
    save_file(state, file, {"format": "pt"})


def test_a_partial_or_wrong_checkpoint_is_refused(built: Built, tmp_path: Path):
    folder = tmp_path / "model"
    cases: list[tuple[Callable[[], object], str]] = [
        (
            lambda: change(folder / "connector.safetensors", lambda s: s.pop("proj.bias")),
            "missing proj.bias",
        ),
        (
            lambda: change(folder / "connector.safetensors", lambda s: s.update(x=torch.ones(1))),
            "left over x",
        ),
        (
            lambda: change(
                folder / "connector.safetensors", lambda s: s.update({"proj.bias": torch.ones(5)})
            ),
            r"proj.bias is \[5\], expected \[32\]",
        ),
        (lambda: (folder / "connector.safetensors").write_bytes(b"half"), "cannot be read"),
        (lambda: (folder / "connector.safetensors").unlink(), "cannot be read"),
        (
            lambda: change(folder / "adapter" / "adapter_model.safetensors", lambda s: s.popitem()),
            "the adapter is not for this base model: missing base_model",
        ),
        (lambda: (folder / "adapter" / "adapter_config.json").unlink(), "adapter_config.json"),
        (lambda: (folder / "config.json").unlink(), "no config.json"),
        (lambda: (folder / "config.json").write_text("{"), "config.json: cannot be read"),
        (
            lambda: (folder / "config.json").write_text('{"model_type": "llama"}'),
            "a model of the kind llama",
        ),
        (
            lambda: (folder / "processor_config.json").write_text("{}"),
            "processor_config.json or a tokenizer is",
        ),
        (
            lambda: (folder / "tokenizer.json").unlink(),
            "processor_config.json or a tokenizer is missing",
        ),
    ]
    for damage, message in cases:
        saved(built, folder)
        damage()
        with pytest.raises(WeightsError, match=message):
            load_checkpoint(folder, device="cpu")


def test_another_base_model_is_refused(built: Built, tmp_path: Path):
    saved(built, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["language_model"]["probe"]["embeddings"][3] += 1.0
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="is not the one that the checkpoint was trained on"):
        load_checkpoint(tmp_path / "model", device="cpu")
    config["language_model"]["probe"]["vocab_size"] = 32000
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        WeightsError, match="has vocab_size 259, the checkpoint was trained on one with 32000"
    ):
        load_checkpoint(tmp_path / "model", device="cpu")


def test_the_same_base_in_half_precision_is_accepted(built: Built, tmp_path: Path):
    from mgv.model.checkpoint import check_probe, probe

    model, _ = built("minigpt4_video")
    expected = probe(model.language_model)
    check_probe(model.language_model.to(torch.bfloat16), expected, "random")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_quantised_weights_without_a_gpu_are_told(tmp_path: Path):
    from mgv.model.language import load_language_model

    with pytest.raises(ConfigError, match="8bit: needs a CUDA GPU"):
        load_language_model("some/model", quantization="8bit", device="cpu")


def test_weights_are_read_in_the_numbers_asked_for():
    from mgv.model.language import load_language_model

    assert load_language_model("random", "cpu", dtype="bfloat16")[0].dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="'float31' is none of auto, float32, bfloat16, float16"):
        load_language_model("random", "cpu", dtype="float31")


def test_a_language_model_that_is_not_there_is_told():
    from mgv.model.language import load_language_model

    with pytest.raises(WeightsError, match="language model '/no/such': no such folder"):
        load_language_model("/no/such", device="cpu")


def test_a_language_model_with_missing_weights_is_refused(tmp_path: Path):
    from mgv.model.language import load_language_model, random_language_model

    model, tokenizer = random_language_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load_language_model(str(tmp_path), device="cpu")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    change(
        tmp_path / "model.safetensors", lambda state: state.pop("model.layers.1.mlp.up_proj.weight")
    )
    with pytest.raises(
        WeightsError, match=r"1 weights are missing: model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        load_language_model(str(tmp_path), device="cpu")
