"""Published layouts, made here with random weights, to folders of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mgv.errors import UsageError, WeightsError
from mgv.model.checkpoint import load_checkpoint
from mgv.model.importing import import_checkpoint
from mgv.model.language import random_language_model
from tests.model.conftest import tiny_clip

Built = Callable[..., Any]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape) * 0.1


def minigpt_state(spelling: str = "", lora: bool = True, rank: int = 4) -> dict[str, Tensor]:
    """As runner_base.py saves it: what learns, by PEFT's names of the day. Beside the tiny random language model."""
    state = {"llama_proj.weight": random(32, 4 * 32), "llama_proj.bias": random(32)}
    for layer in range(2 if lora else 0):
        for target, width in (("q_proj", 32), ("v_proj", 16)):
            prefix = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{target}"
            state[f"{prefix}.lora_A{spelling}.weight"] = random(rank, 32)
            state[f"{prefix}.lora_B{spelling}.weight"] = random(width, rank)
    return state


def write(state: dict[str, Any], path: Path) -> Path:
    torch.save(
        {"model": state, "optimizer": {"state": {}}, "config": {"run": {"seed": 42}}, "epoch": 3},
        path,
    )
    return path


def load(source: Path, output: Path, **options: Any) -> Any:
    options = {"language_model": "random", "vision_pretrained": "random"} | options
    return import_checkpoint(source, output, **options)


@pytest.mark.parametrize("spelling", ["", ".default"])
def test_minigpt4_video_is_taken_over_whole_and_its_lora_counts(
    spelling: str, built: Built, tmp_path: Path
):
    state = minigpt_state(spelling)
    result = load(write(state, tmp_path / "video.pth"), tmp_path / "model")
    assert (result.layout, result.num_tensors, result.num_taken, result.left_aside) == (
        "minigpt",
        10,
        10,
        (),
    )
    model, processor = load_checkpoint(tmp_path / "model", device="cpu")
    # merged by hand: W + 16 / 4 * B A
    plain, _ = built("minigpt4_video")
    plain.connector.load_state_dict(
        {"proj.weight": state["llama_proj.weight"], "proj.bias": state["llama_proj.bias"]}
    )
    for name, weight in plain.language_model.named_parameters():
        key = f"llama_model.base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A{spelling}.weight" in state:
            b, a = state[f"{key}.lora_B{spelling}.weight"], state[f"{key}.lora_A{spelling}.weight"]
            weight.data += 16 / 4 * b @ a
    batch = processor([tiny_clip()])
    with torch.no_grad():
        assert (model(**batch.inputs()).logits - plain(**batch.inputs()).logits).abs().max() < 1e-4
    assert model.generation_config.repetition_penalty == 1.5


def test_the_published_rank_is_scaled_by_a_quarter(tmp_path: Path):
    load(write(minigpt_state(rank=64), tmp_path / "video.pth"), tmp_path / "model")
    adapter = json.loads((tmp_path / "model" / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (64, 16, 0.05)
    assert sorted(adapter["target_modules"]) == ["q_proj", "v_proj"]


def test_an_image_checkpoint_of_two_tensors_is_whole(tmp_path: Path):
    result = load(write(minigpt_state(lora=False), tmp_path / "image.pth"), tmp_path / "model")
    assert (result.num_taken, result.num_tensors) == (2, 2)
    model, _ = load_checkpoint(tmp_path / "model", device="cpu")
    assert not hasattr(model.language_model, "peft_config")


def test_the_real_shapes_have_130_tensors(tmp_path: Path):
    """Llama-2-7B's layers, its LoRA of rank 1 to stay small."""
    from transformers import LlamaConfig

    from mgv.model.importing import check_lora

    state = {}
    for layer in range(32):
        for target in ("q_proj", "v_proj"):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            state[f"{prefix}.lora_A.weight"], state[f"{prefix}.lora_B.weight"] = (
                random(1, 4096),
                random(4096, 1),
            )
    assert len(state) + 2 == 130
    check_lora(state, LlamaConfig(), "llama")
    with pytest.raises(WeightsError, match=r"expected \[1024, 1\]"):
        check_lora(state, LlamaConfig(num_key_value_heads=8), "mistral's base")


def test_buffers_of_older_versions_are_left_aside(tmp_path: Path):
    state = minigpt_state() | {
        "llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq": random(4)
    }
    result = load(write(state, tmp_path / "video.pth"), tmp_path / "model")
    assert result.num_taken == 10
    assert len(result.left_aside) == 1


def test_minigpt_v2_is_told_by_name(tmp_path: Path):
    load(write(minigpt_state(), tmp_path / "v2.pth"), tmp_path / "model", connector="minigpt_v2")
    _, processor = load_checkpoint(tmp_path / "model", device="cpu")
    assert processor.config.prompt == "minigpt_v2"


def test_a_partial_foreign_or_dangerous_file_is_refused_and_leaves_nothing(tmp_path: Path):
    file, output = tmp_path / "video.pth", tmp_path / "model"

    def refuse(state: dict[str, Any] | bytes, message: str) -> None:
        file.write_bytes(state) if isinstance(state, bytes) else write(state, file)
        with pytest.raises(WeightsError, match=message):
            load(file, output)
        assert not output.exists()

    partial = minigpt_state()
    partial.popitem()
    refuse(partial, "its LoRA does not fit the language model: missing base_model.*v_proj.lora_B")
    refuse(
        minigpt_state() | {"visual_encoder.cls_token": random(1)}, "1 of 11 tensors are not known"
    )
    refuse({"llama_proj.weight": random(32, 128)}, "missing proj.bias")
    refuse(
        minigpt_state() | {"llama_proj.weight": random(48, 128), "llama_proj.bias": random(48)},
        "proj.weight is",
    )
    lora_alone = {name: tensor for name, tensor in minigpt_state().items() if "lora" in name}
    refuse(lora_alone, "missing proj.bias; missing proj.weight")
    refuse({"some.weight": random(2)}, "tensors of none of the layouts")
    refuse(b"not a checkpoint", "cannot be read as a file of weights")
    refuse(
        b"hello", "cannot be read as a file of weights"
    )  # which begins like an instruction of pickle
    refuse({"llama_proj.weight": random(2), 5: random(1)}, "other things than named tensors")  # type: ignore[dict-item]
    eva = {"pos_embed": random(1, 5, 88), "blocks.0.attn.qkv.weight": random(264, 88)}
    refuse(eva, "partial: missing embeddings.patch_embedding.weight")
    refuse(
        {"model.vlm_att_query": random(1, 4, 24)},
        "partial: missing qformer.embeddings.word_embeddings",
    )
    refuse(
        {"vision_model.encoder.layers.0.temporal_embedding": random(1, 8, 64)},
        "partial: missing embeddings",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["video.pth"]
    with pytest.raises(
        UsageError, match="--connector tells minigpt_v2 from minigpt4_video, got llama_vid"
    ):
        load(write(minigpt_state(), file), output, connector="llama_vid")
    with pytest.raises(WeightsError, match="no such folder"):
        load(write(minigpt_state(), file), output, language_model="/no/such")
    torch.save({"model": shutil.rmtree}, file)  # a function: weights-only loading will not have it
    with pytest.raises(WeightsError, match="cannot be read as a file of weights"):
        load(file, output)
    with pytest.raises(WeightsError, match="no weights"):
        load(tmp_path / "nothing.pth", output)
    with pytest.raises(UsageError, match="--language-model"):
        import_checkpoint(write(minigpt_state(), file), output)


@pytest.mark.parametrize("kind", ["folder", "file", "link", "current folder"])
def test_an_import_never_touches_what_it_did_not_make(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write(minigpt_state(), tmp_path / "video.pth")
    (tmp_path / "thesis").mkdir()
    output = tmp_path / "model"
    if kind == "folder":
        output.mkdir()
        (output / "chapter.txt").write_text("mine")
    elif kind == "file":
        output.write_text("mine")
    elif kind == "link":
        output.symlink_to(tmp_path / "thesis")
    else:
        monkeypatch.chdir(tmp_path / "thesis")
        output = Path(".")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="expected a new name or an empty folder"):
        load(source, output)
    assert sorted(tmp_path.rglob("*")) == before
    assert kind != "folder" or (output / "chapter.txt").read_text() == "mine"
    assert kind != "file" or output.read_text() == "mine"


def test_an_import_into_an_empty_folder_leaves_its_neighbours_alone(tmp_path: Path):
    for name in (".model.partial", ".model.old", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / ".model.old" / "mine.txt").write_text("mine")
    load(write(minigpt_state(), tmp_path / "video.pth"), tmp_path / "model")
    assert (tmp_path / "model" / "config.json").is_file()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".model.old", ".model.partial", "model", "video.pth"]
    assert (tmp_path / ".model.old" / "mine.txt").read_text() == "mine"


def llama_state() -> dict[str, Tensor]:
    return dict(random_language_model()[0].state_dict())


def source_folder(path: Path, state: dict[str, Tensor], **extra: Any) -> Path:
    """A published folder: two shards, config.json, tokenizer."""
    path.mkdir()
    names = sorted(state)
    for number, part in enumerate((names[::2], names[1::2])):
        torch.save(
            {name: state[name] for name in part},
            path / f"pytorch_model-0000{number + 1}-of-00002.bin",
        )
    model, tokenizer = random_language_model()
    raw = (
        model.config.to_dict()
        | {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}
        | extra
    )
    (path / "config.json").write_text(json.dumps(raw))
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("name", ["mine", "."])
def test_a_folder_that_holds_anything_is_left_as_it_is(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    source = write(minigpt_state(), tmp_path / "video.pth")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(folder if name == "." else tmp_path)
    with pytest.raises(UsageError, match="expected a new name or an empty folder"):
        load(source, Path(name))
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    (folder / "thesis.txt").unlink()
    monkeypatch.chdir(tmp_path)
    assert load(source, Path("mine")).num_taken == 10  # an empty folder is as good as none


def test_llama_vid_comes_over_with_its_language_model(built: Built, tmp_path: Path):
    model, _ = built("llama_vid")
    ours = model.connector.state_dict()
    state = llama_state()
    top = {
        "query_proj": "vlm_att_projector",
        "key_proj": "vlm_att_key_projector",
        "value_proj": "vlm_att_val_projector",
        "vision_norm": "vlm_att_ln",
        "content_proj": "mm_projector",
    }
    for name, tensor in ours.items():
        part, _, rest = name.partition(".")
        if part == "query":
            state["model.vlm_att_query"] = tensor
        elif part == "qformer":
            rest = rest.replace("embeddings.layernorm", "embeddings.LayerNorm")
            rest = rest.replace("attention.attention.", "attention.self.")
            state[f"model.vlm_att_encoder.bert.{rest}"] = tensor
        else:
            state[f"model.{top[part]}.{rest}"] = tensor
    state["model.vlm_att_encoder.bert.embeddings.position_ids"] = torch.arange(512)[None]
    folder = source_folder(tmp_path / "llama-vid", state, compress_type="mean")
    result = import_checkpoint(
        folder,
        tmp_path / "model",
        vision_pretrained="random",
        connector_options={"qformer": model.config.connector["options"]["qformer"]},
    )
    assert result.layout == "llama_vid"
    assert result.num_taken == len(state) - 1
    again, _ = load_checkpoint(tmp_path / "model", device="cpu")
    for name, tensor in again.connector.state_dict().items():
        assert torch.equal(tensor, ours[name]), name
    assert torch.equal(again.language_model.lm_head.weight, state["lm_head.weight"])


def test_llama_vid_with_another_text_encoder_is_refused(tmp_path: Path):
    raw = llama_state() | {
        "model.vlm_att_encoder.bert.embeddings.word_embeddings.weight": random(64, 24),
        "model.vlm_att_bert_proj.weight": random(24, 32),
        "model.mm_projector.0.weight": random(32, 32),
    }
    told = source_folder(tmp_path / "told", raw, bert_type="raw_bert_layer:2")
    with pytest.raises(
        WeightsError, match=r"the text encoder raw_bert_layer:2; expected `qformer_pretrain`"
    ):
        import_checkpoint(told, tmp_path / "model")
    with pytest.raises(WeightsError, match="the text encoder raw_bert; expected"):
        import_checkpoint(source_folder(tmp_path / "untold", raw), tmp_path / "model")
    clip_tower = raw | {"model.vlm_att_query": random(1, 4, 24)}
    with pytest.raises(WeightsError, match="a Q-Former beside another vision tower; expected"):
        import_checkpoint(source_folder(tmp_path / "clip", clip_tower), tmp_path / "model")


def test_video_llava_comes_over_with_its_temporal_tower(tmp_path: Path):
    from transformers import CLIPVisionConfig

    from mgv.encoders.vision.languagebind import temporal_tower

    tower = temporal_tower(
        CLIPVisionConfig(
            hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1, image_size=56,
            patch_size=14, hidden_act="gelu",
        ),
        8,
    )  # fmt: skip
    vision = {
        f"model.video_tower.video_tower.{name}": tensor
        for name, tensor in tower.state_dict().items()
    }
    projector = {
        "0.weight": random(32, 64),
        "0.bias": random(32),
        "2.weight": random(32, 32),
        "2.bias": random(32),
    }
    state = (
        llama_state()
        | vision
        | {f"model.mm_projector.{name}": tensor for name, tensor in projector.items()}
    )
    state["model.image_tower.image_tower.embeddings.class_embedding"] = random(64)
    result = import_checkpoint(source_folder(tmp_path / "video-llava", state), tmp_path / "model")
    assert result.left_aside == ("model.image_tower.image_tower.embeddings.class_embedding",)
    again, processor = load_checkpoint(tmp_path / "model", device="cpu")
    assert again.vision_encoder.across_frames
    assert torch.equal(
        again.vision_encoder.tower.encoder.layers[0].temporal_embedding,
        tower.encoder.layers[0].temporal_embedding,
    )
    assert torch.equal(again.connector.mlp[0].weight, projector["0.weight"])
    assert processor.config.prompt == "video_llava"
    new_ids = again.generate(
        **processor([tiny_clip(num_frames=2, cues=())]).inputs(), max_new_tokens=2
    )
    assert new_ids.shape[0] == 1


def test_stretched_positions_come_over(tmp_path: Path):
    """LLaMA-VID for films: position 16 is turned as far as position 1 was, and the context is 16 times as long."""
    raw = {
        "rope_scaling": {"type": "linear", "factor": 16.0},
        "rope_theta": 500.0,
        "rope_parameters": None,
    }
    state = llama_state() | {f"model.mm_projector.{i}.weight": random(32, 32) for i in (0, 2)}
    state |= {f"model.mm_projector.{i}.bias": random(32) for i in (0, 2)}
    source = source_folder(tmp_path / "long", state, **raw, max_position_embeddings=65536)
    import_checkpoint(source, tmp_path / "model", vision_pretrained="random")
    model, processor = load_checkpoint(tmp_path / "model", device="cpu")
    cosines, _ = model.language_model.model.rotary_emb(torch.zeros(1), torch.tensor([[16]]))
    expected = torch.cos(torch.tensor([1.0, 500**-0.25, 500**-0.5, 500**-0.75] * 2))  # head size 8
    assert torch.allclose(cosines[0, 0], expected, atol=1e-6)
    assert processor.config.context_tokens == 65536


def test_eva_vit_g_becomes_a_vision_encoder_and_its_last_block_goes(tmp_path: Path):
    from mgv.encoders.vision import build_vision_encoder
    from tests.encoders.test_vision import eva_by_hand, lavis_state

    state = lavis_state(width=88, hidden=32, depth=2, grid=2, patch=14)
    extra = {
        "norm.weight": random(88),
        "head.weight": random(10, 88),
        "blocks.39.norm1.weight": random(88),
    }
    torch.save(state | extra, tmp_path / "eva_vit_g.pth")
    result = import_checkpoint(tmp_path / "eva_vit_g.pth", tmp_path / "eva")
    assert set(result.left_aside) == set(extra)
    encoder = build_vision_encoder("eva_clip_g", str(tmp_path / "eva"), norm="none")
    image = torch.randn(3, 28, 28)
    positions = state["pos_embed"][0].double().numpy()
    expected = torch.tensor(eva_by_hand(state, image.double().numpy(), 1, 14, positions))
    with torch.no_grad():
        assert (encoder(image[None, None])[0, 0] - expected).abs().max() < 1e-4
    del state["blocks.1.attn.q_bias"]
    torch.save(state, tmp_path / "eva_vit_g.pth")
    with pytest.raises(WeightsError, match=r"missing encoder\.layers\.1\.self_attn\.qkv\.bias"):
        import_checkpoint(tmp_path / "eva_vit_g.pth", tmp_path / "eva2")


def test_language_bind_gives_its_video_tower(tmp_path: Path):
    from transformers import CLIPVisionConfig

    from mgv.encoders.vision import build_vision_encoder
    from mgv.encoders.vision.languagebind import temporal_tower

    config = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=1,
        image_size=28,
        patch_size=14,
    )
    tower = temporal_tower(config, 4)
    state = {f"vision_model.{name}": tensor for name, tensor in tower.state_dict().items()}
    state |= {
        "text_model.embeddings.token_embedding.weight": random(4, 4),
        "logit_scale": torch.tensor(2.6),
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    result = import_checkpoint(tmp_path / "pytorch_model.bin", tmp_path / "tower")
    assert (result.layout, len(result.left_aside)) == ("languagebind", 2)
    encoder = build_vision_encoder("languagebind", str(tmp_path / "tower"))
    assert encoder.tower.encoder.layers[0].temporal_embedding.shape == (1, 4, 64)
