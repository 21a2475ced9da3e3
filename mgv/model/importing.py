"""Importing published checkpoints: other projects' files to folders of ours.

Pickles are read with weights_only, so nothing in them runs. Every tensor is taken over, or named as left aside for a
stated reason, or the file is refused: a checkpoint half loaded answers as if it had never been trained (upstream's
LoRA names changed with PEFT 0.3, and its non-strict loading hid it).
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgv.encoders.vision import VisionSpec, build_vision_encoder
from mgv.errors import MgvError, UsageError, WeightsError
from mgv.model.build import processor_config, vision_defaults
from mgv.model.checkpoint import check_shapes, few, fill, load_tensors, save_tensors
from mgv.model.language import (
    find_language_model,
    load_question_tokenizer,
    load_tokenizer,
    random_language_model,
)
from mgv.model.processor import Processor
from mgv.model.systems import build_connector, published, upstream_keys
from mgv.model.video_llm import VideoLLMConfig

logger = logging.getLogger(__name__)

Route = tuple[str, str]
"""Where a tensor goes: connector, adapter, language_model, vision_encoder or aside; and its name there."""

_LORA = re.compile(
    r"llama_model\.(base_model\.model\.model\.layers\.\d+\.self_attn\.[qv]_proj\.lora_[AB])(?:\.default)?\.weight"
)
_LANGUAGE = ("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")
_EVA_UNUSED = re.compile(r"(head|norm|fc_norm|blocks\.39)\.|(mask_token|rel_pos_bias)")
LORA_ALPHA = 16
PATCH_PX = 14
ROPE_KEYS = {"rope_scaling", "rope_theta"}
"""Of a config.json by transformers 4, now `rope_parameters`; LLaMA-VID for films is stretched 16 times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What came of a checkpoint."""

    layout: str
    folder: Path
    num_tensors: int
    """In the file."""
    num_taken: int
    left_aside: tuple[str, ...]
    """Tensors with no use here: buffers, the image tower of a model that is asked about videos."""


@dataclass(kw_only=True, slots=True)
class _Parts:
    connector: dict[str, Tensor] = field(default_factory=dict)
    adapter: dict[str, Tensor] = field(default_factory=dict)
    language_model: dict[str, Tensor] = field(default_factory=dict)
    vision_encoder: dict[str, Tensor] = field(default_factory=dict)
    aside: dict[str, Tensor] = field(default_factory=dict)


def import_checkpoint(
    source: Path,
    output: Path,
    *,
    language_model: str | None = None,
    vision_pretrained: str | None = None,
    connector: str | None = None,
    connector_options: dict[str, Any] | None = None,
) -> Imported:
    """A published file or folder -> a folder of ours.

    Known: MiniGPT4-Video and MiniGPT-v2 `.pth` (2 tensors, or 2 and 4 a layer: 130), `eva_vit_g.pth`, LanguageBind's
    video tower, LLaMA-VID and Video-LLaVA (folders of shards, or a projector's `.bin`). `language_model` names the
    base that a projector or LoRA belongs to; `connector="minigpt_v2"` tells MiniGPT-v2 from MiniGPT4-Video, which
    have the same tensors. `output` must not exist, or be an empty folder. Raises UsageError when it is anything else,
    WeightsError for anything missing, left over, misshapen or unreadable, MgvError when it cannot be written.
    """
    output = output.absolute()
    check_output(output)
    state: dict[str, Tensor] = {}
    for shard in read_shards(source):
        state |= shard
    layout = find_layout(state, source)
    if connector and (layout != "minigpt" or connector not in ("minigpt4_video", "minigpt_v2")):
        raise UsageError(
            f"{source}: tensors of {layout}; --connector tells minigpt_v2 from minigpt4_video, got {connector}"
        )
    parts, unknown = _Parts(), []
    for name, tensor in state.items():
        route = _ROUTES[layout](name)
        if route is None:
            unknown.append(name)
        else:
            getattr(parts, route[0])[route[1]] = tensor
    if unknown:
        raise WeightsError(
            f"{source}: {len(unknown)} of {len(state)} tensors are not known to the layout {layout}: {few(unknown)}"
        )
    try:
        with _new_folder(output) as partial:
            if layout in ("eva_vit_g", "languagebind"):
                _write_vision(layout, parts.vision_encoder, partial, source)
            else:
                base = _Base.find(parts, source, language_model)
                name = connector or _CONNECTOR[layout]
                _write_model(
                    name, parts, partial, output, base, source, vision_pretrained, connector_options
                )
    except KeyError as error:
        raise WeightsError(
            f"{source}: the checkpoint is partial: missing {error.args[0]}"
        ) from error
    taken = len(state) - len(parts.aside)
    logger.info("%s: %s, %d of %d tensors taken over", source, layout, taken, len(state))
    return Imported(
        layout=layout,
        folder=output,
        num_tensors=len(state),
        num_taken=taken,
        left_aside=tuple(parts.aside),
    )


def check_output(output: Path) -> None:
    """Raises UsageError unless output is a new name or an empty folder other than the current one."""
    advice = "expected a new name or an empty folder; name another DIR (nothing was changed)"
    if not output.is_symlink() and not output.exists():
        return
    if output.is_symlink() or not output.is_dir():
        raise UsageError(f"{output}: is a file or a link, {advice}")
    if output.resolve() == Path.cwd():
        raise UsageError(f"{output}: is the current folder, {advice}")
    if any(output.iterdir()):
        raise UsageError(f"{output}: is a folder that holds files, {advice}")


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A folder next to output, renamed to it at the end; a failure leaves output as it was.

    Raises MgvError when the folder cannot be made, or output was filled in the meantime.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.")
    except OSError as error:
        raise MgvError(f"{output}: the model cannot be written: {error}") from error
    with beside:
        partial = Path(beside.name) / output.name
        partial.mkdir()
        yield partial
        try:
            if output.is_dir():
                output.rmdir()  # refuses a folder that is not empty
            partial.rename(output)
        except OSError as error:
            raise MgvError(f"{output}: the model cannot be put there: {error}") from error


def read_shards(source: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of a file, or of each weights file of a folder. Raises WeightsError when one cannot be read."""
    if source.is_dir():
        files = sorted(source.glob("*.safetensors")) or sorted(
            [*source.glob("*.bin"), *source.glob("*.pth")]
        )
    else:
        files = [source]
    if not files or not files[0].is_file():
        raise WeightsError(f"{source}: no weights (*.safetensors, *.bin, *.pth) there")
    for file in files:
        yield load_tensors(file) if file.suffix == ".safetensors" else read_pickle(file)


def read_pickle(file: Path) -> dict[str, Tensor]:
    """A `torch.save` file's tensors, without running anything in it; those under `model` where there is one."""
    try:
        raw: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (
        OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        first = f"{type(error).__name__}: {error}".strip().splitlines()[0].split(". ")[0]
        raise WeightsError(
            f"{file}: cannot be read as a file of weights, or is cut short ({first})"
        ) from error
    state = raw.get("model", raw) if isinstance(raw, dict) else raw
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{file}: holds no named tensors")
    if not all(isinstance(name, str) and isinstance(t, Tensor) for name, t in state.items()):
        raise WeightsError(f"{file}: holds other things than named tensors")
    return state


def find_layout(state: Mapping[str, Tensor], source: Path) -> str:
    """Which project's names these are."""
    if "llama_proj.weight" in state or any(map(_LORA.fullmatch, state)):
        return "minigpt"
    if any(name.startswith("model.vlm_att_") for name in state):
        _check_text_encoder(state, source)
        return "llama_vid"
    if "model.mm_projector.0.weight" in state:
        return "video_llava"
    if "pos_embed" in state and "blocks.0.attn.qkv.weight" in state:
        return "eva_vit_g"
    if "vision_model.encoder.layers.0.temporal_embedding" in state:
        return "languagebind"
    raise WeightsError(
        f"{source}: tensors of none of the layouts MiniGPT4-Video, MiniGPT-v2, EVA ViT-g, LanguageBind, LLaMA-VID, "
        f"Video-LLaVA: {few(sorted(state))}"
    )


def _check_text_encoder(state: Mapping[str, Tensor], source: Path) -> None:
    """Raises WeightsError for another text encoder than LLaMA-VID's `qformer_pretrain` beside EVA ViT-g."""
    kind = str(config_beside(source).get("bert_type", ""))
    has_map = any(name.startswith("model.vlm_att_bert_proj.") for name in state)
    if has_map or (kind and "qformer_pretrain" not in kind):
        has_queries = "model.vlm_att_query" in state
        encoder = kind or ("a Q-Former beside another vision tower" if has_queries else "raw_bert")
        raise WeightsError(
            f"{source}: LLaMA-VID with the text encoder {encoder}; expected `qformer_pretrain` beside EVA ViT-g, which "
            "all published weights have: train such a one, or take a published one"
        )


def _is_buffer(name: str) -> bool:
    return name.endswith(("rotary_emb.inv_freq", "position_ids"))


def _renamed(name: str, connector: str) -> str | None:
    """A connector's tensor by our name; None when it is not the connector's."""
    keys = upstream_keys(connector)
    first = next((old for old in keys if name.startswith(old) and "." in old), None)
    if first is None:
        return None
    for old, new in keys.items():
        name = name.replace(old, new)
    return name


def _route_minigpt(name: str) -> Route | None:
    if lora := _LORA.fullmatch(name):
        return "adapter", f"{lora[1]}.weight"
    if ours := _renamed(name, "minigpt4_video"):
        return "connector", ours
    return ("aside", name) if _is_buffer(name) else None


def _route_llama_vid(name: str) -> Route | None:
    return _route_llava(name, "llama_vid", "model.vision_tower.vision_tower.", None)


def _route_video_llava(name: str) -> Route | None:
    return _route_llava(name, "video_llava", "model.video_tower.video_tower.", "model.image_tower.")


def _route_llava(name: str, connector: str, tower: str, unused: str | None) -> Route | None:
    if _is_buffer(name) or (unused and name.startswith(unused)):
        return "aside", name
    if name.startswith(tower):
        return "vision_encoder", name.removeprefix(tower)
    if name.startswith(_LANGUAGE):
        return "language_model", name
    ours = _renamed(name, connector)
    return ("connector", ours) if ours else None


def _route_eva(name: str) -> Route | None:
    if _EVA_UNUSED.match(name):
        return "aside", name
    return (
        ("vision_encoder", name)
        if name.startswith(("cls_token", "pos_embed", "patch_embed.", "blocks."))
        else None
    )


def _route_languagebind(name: str) -> Route | None:
    if name.startswith("vision_model.") and not _is_buffer(name):
        return "vision_encoder", name.removeprefix("vision_model.")
    known = (
        "text_model.",
        "vision_model.",
        "text_projection.",
        "visual_projection.",
        "logit_scale",
    )
    return ("aside", name) if name.startswith(known) else None


_ROUTES: dict[str, Callable[[str], Route | None]] = {
    "minigpt": _route_minigpt,
    "llama_vid": _route_llama_vid,
    "video_llava": _route_video_llava,
    "eva_vit_g": _route_eva,
    "languagebind": _route_languagebind,
}
_CONNECTOR = {"minigpt": "minigpt4_video", "llama_vid": "llama_vid", "video_llava": "video_llava"}


# vision towers


def eva_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LAVIS's names of EVA ViT-g to those of transformers' Blip2VisionModel: q, k, v biases in one, k's zero."""
    names = {
        "norm1.": "layer_norm1.",
        "norm2.": "layer_norm2.",
        "attn.qkv.": "self_attn.qkv.",
        "attn.proj.": "self_attn.projection.",
        "mlp.": "mlp.",
    }
    tops = {
        "cls_token": "embeddings.class_embedding",
        "pos_embed": "embeddings.position_embedding",
        "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
        "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    }
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if block is None:
            ours[tops.get(name, name)] = tensor
        elif block[2] == "attn.q_bias":
            value = state.get(f"blocks.{block[1]}.attn.v_bias", tensor)
            bias = torch.cat([tensor, torch.zeros_like(tensor), value])
            ours[f"encoder.layers.{block[1]}.self_attn.qkv.bias"] = bias
        elif block[2] != "attn.v_bias":
            old = next((old for old in names if block[2].startswith(old)), block[2])
            ours[f"encoder.layers.{block[1]}.{names.get(old, old)}{block[2].removeprefix(old)}"] = (
                tensor
            )
    return ours


def _write_vision(layout: str, state: dict[str, Tensor], folder: Path, source: Path) -> None:
    """A tower's config.json and weights, each tensor in its place."""
    if layout == "eva_vit_g":
        _write_eva(eva_state(state), folder, source)
        return
    from transformers import CLIPVisionConfig

    from mgv.encoders.vision.languagebind import temporal_tower

    width, _, _, patch = state["embeddings.patch_embedding.weight"].shape
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_num_layers(state, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, width // 64),
        image_size=patch * int((len(state["embeddings.position_embedding.weight"]) - 1) ** 0.5),
        patch_size=patch,
        hidden_act="gelu",
        projection_dim=768,
    )
    rows = state.get("encoder.layers.0.temporal_embedding")
    if rows is None:
        raise WeightsError(f"{source}: the video tower has no temporal attention")
    fill(temporal_tower(config, rows.shape[1]), state, str(source))
    config.save_pretrained(folder)
    save_tensors(state, folder / "model.safetensors")


def _write_eva(state: dict[str, Tensor], folder: Path, source: Path) -> None:
    from torch import nn
    from transformers import Blip2VisionConfig, Blip2VisionModel

    _, num_positions, width = state["embeddings.position_embedding"].shape
    patch = state["embeddings.patch_embedding.weight"].shape[-1]
    config = Blip2VisionConfig(
        hidden_size=width,
        intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_num_layers(state, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, width // 88),
        image_size=patch * int((num_positions - 1) ** 0.5),
        patch_size=patch,
    )
    with torch.device("meta"):
        tower = Blip2VisionModel(config)
    norm = {
        f"post_layernorm.{name}": tensor
        for name, tensor in nn.LayerNorm(width).state_dict().items()
    }
    check_shapes(tower.state_dict(), state | norm, str(source))
    config.save_pretrained(folder)
    save_tensors(state | norm, folder / "model.safetensors")


def _num_layers(state: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(
        (int(match[1]) for name in state if (match := re.match(pattern, name))), default=-1
    )


# whole models


@dataclass(frozen=True, kw_only=True, slots=True)
class _Base:
    """The language model that a checkpoint belongs to."""

    name: str
    config: Any
    tokenizer: Any
    is_own: bool
    """Its weights are in the checkpoint."""

    @classmethod
    def find(cls, parts: _Parts, source: Path, language_model: str | None) -> _Base:
        from transformers import AutoConfig, LlamaConfig

        if parts.language_model:
            raw = read_config(source)
            known = LlamaConfig().to_dict().keys() - {"model_type", "architectures"} | ROPE_KEYS
            config = LlamaConfig(**{key: value for key, value in raw.items() if key in known})
            return cls(
                name="language_model",
                config=config,
                tokenizer=load_tokenizer(str(source)),
                is_own=True,
            )
        if language_model is None:
            raise UsageError(
                f"{source}: holds no language model; name its base with --language-model"
            )
        if language_model == "random":
            model, tokenizer = random_language_model()
            return cls(name=language_model, config=model.config, tokenizer=tokenizer, is_own=False)
        where = find_language_model(language_model)
        try:
            config = AutoConfig.from_pretrained(where)
            return cls(
                name=language_model, config=config, tokenizer=load_tokenizer(where), is_own=False
            )
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"language model {language_model!r} cannot be read: {error}"
            ) from error


def read_config(source: Path) -> dict[str, Any]:
    """The config.json beside the weights."""
    folder = source if source.is_dir() else source.parent
    try:
        raw: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder}/config.json: cannot be read: {error}") from error
    return raw


def config_beside(source: Path) -> dict[str, Any]:
    """The config.json beside the weights, or nothing where there is none."""
    folder = source if source.is_dir() else source.parent
    return read_config(source) if (folder / "config.json").is_file() else {}


def _write_model(
    connector: str,
    parts: _Parts,
    partial: Path,
    output: Path,
    base: _Base,
    source: Path,
    vision_pretrained: str | None,
    connector_options: dict[str, Any] | None,
) -> None:
    """Check every part against the base, then write the folder that load_checkpoint reads."""
    defaults = published(connector)
    check_lora(parts.adapter, base.config, str(source))
    vision = vision_pretrained or "starter"
    tower = Path(vision)
    if parts.vision_encoder:
        tower, vision = partial / "vision_encoder", str(output / "vision_encoder")
        tower.mkdir()
        kind = "eva_vit_g" if defaults.vision_encoder == "eva_clip_g" else "languagebind"
        _write_vision(kind, parts.vision_encoder, tower, source)
    options = vision_defaults(connector, defaults.vision_encoder, vision) | _image_size(
        connector, source, tower
    )
    spec = _vision_spec(connector, parts.connector, options, tower)
    chosen = _connector_options(connector, parts.connector, source) | (connector_options or {})
    part = build_connector(connector, spec, base.config.hidden_size, **chosen)
    fill(part, parts.connector, f"{source} (connector beside {base.name})")
    config = VideoLLMConfig(
        vision_encoder={"name": defaults.vision_encoder, "pretrained": vision, "options": options},
        connector={"name": connector, "options": chosen},
        language_model={"pretrained": str(output / base.name) if base.is_own else base.name},
        training={"connector": "full", "language_model": "full" if base.is_own else "lora"},
    )
    sizes = {"vocab_size": base.config.vocab_size, "hidden_size": base.config.hidden_size}
    config.language_model["probe"] = sizes
    config.save_pretrained(partial)
    save_tensors(parts.connector, partial / "connector.safetensors")
    if parts.adapter:
        _write_adapter(parts.adapter, partial / "adapter", base.name)
    if base.is_own:
        _check_language_model(parts.language_model, base.config, str(source))
        (partial / "language_model").mkdir()
        base.config.save_pretrained(partial / "language_model")
        save_tensors(parts.language_model, partial / "language_model" / "model.safetensors")
        base.tokenizer.save_pretrained(partial / "language_model")
    written = processor_config(
        connector,
        tokens_per_frame=part.tokens_per_frame,
        pixels=options.get(
            "pixels", "video_crop" if connector == "video_llava" else "imagenet_squash"
        ),
        image_size_px=spec.grid * PATCH_PX,
        language_config=base.config,
    )
    questions = "random" if base.name == "random" else "starter"
    question_tokenizer = load_question_tokenizer(questions) if written.reads_question else None
    Processor(written, base.tokenizer, question_tokenizer).save(partial)
    _write_generation(partial, base, defaults.generation)


def check_lora(state: Mapping[str, Tensor], config: Any, what: str) -> None:
    """Raises WeightsError unless there is no LoRA tensor, or A and B for q_proj and v_proj of every layer, fitting."""
    if not state:
        return
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    widths = {
        "q_proj": config.num_attention_heads * head,
        "v_proj": config.num_key_value_heads * head,
    }
    rank = max((tensor.shape[0] for name, tensor in state.items() if "lora_A" in name), default=0)
    expected = {}
    for layer in range(config.num_hidden_layers):
        for target, width in widths.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            expected[f"{prefix}.lora_A.weight"] = torch.empty(
                rank, config.hidden_size, device="meta"
            )
            expected[f"{prefix}.lora_B.weight"] = torch.empty(width, rank, device="meta")
    check_shapes(expected, state, f"{what}: its LoRA does not fit the language model")


def _check_language_model(state: Mapping[str, Tensor], config: Any, what: str) -> None:
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        own = LlamaForCausalLM(config).state_dict()
    check_shapes(own, state, f"{what}: its language model is not whole")


def _vision_spec(
    connector: str, state: Mapping[str, Tensor], options: dict[str, Any], tower: Path
) -> VisionSpec:
    """The shape of the features that the connector reads: its width by its tensors, its grid by the tower's config."""
    if str(tower) == "random":
        return build_vision_encoder(published(connector).vision_encoder, "random", **options).spec
    first = {"video_llava": "mlp.0.weight", "llama_vid": "key_proj.weight"}.get(
        connector, "proj.weight"
    )
    if first not in state:
        raise WeightsError(f"the checkpoint has no {first} for the connector {connector}")
    width = state[first].shape[1] // (4 if first == "proj.weight" else 1)
    known = (
        read_config(tower)
        if (tower / "config.json").is_file()
        else {"image_size": 224, "patch_size": PATCH_PX}
    )
    size_px = options.get("image_size_px") or known["image_size"]
    return VisionSpec(hidden_size=width, grid=size_px // known["patch_size"])


def _image_size(connector: str, source: Path, tower: Path) -> dict[str, int]:
    """LLaMA-VID's 336 px beside a tower of 224 px; its config tells them by the name of an image processor."""
    if connector != "llama_vid" or str(tower) == "random":
        return {}
    size = re.search(r"-(\d+)/?$", str(config_beside(source).get("image_processor", "")))
    return {"image_size_px": int(size[1])} if size else {}


def _connector_options(connector: str, state: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """LLaMA-VID's kinds, from the tensors' shapes and the config beside them."""
    if connector != "llama_vid":
        return {}
    words = state["qformer.embeddings.word_embeddings.weight"]
    raw = config_beside(source) or {"compress_type": "mean"}
    return {
        "content": raw.get("compress_type") or "all",
        "num_queries": state["query"].shape[1],
        "vocab_size": words.shape[0],
        "qformer": {
            "hidden_size": words.shape[1],
            "num_hidden_layers": _num_layers(state, r"qformer\.encoder\.layer\.(\d+)\."),
            "num_attention_heads": max(1, words.shape[1] // 64),
            "intermediate_size": state[
                "qformer.encoder.layer.0.intermediate_query.dense.weight"
            ].shape[0],
            "max_position_embeddings": state["qformer.embeddings.position_embeddings.weight"].shape[
                0
            ],
        },
    }


def _write_adapter(state: dict[str, Tensor], folder: Path, base: str) -> None:
    from peft import LoraConfig

    folder.mkdir()
    rank = next(tensor.shape[0] for name, tensor in state.items() if "lora_A" in name)
    LoraConfig(
        r=rank,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.05,
        target_modules=["q_proj", "v_proj"],
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    ).save_pretrained(folder)
    save_tensors(state, folder / "adapter_model.safetensors")


def _write_generation(folder: Path, base: _Base, published_generation: dict[str, Any]) -> None:
    from transformers import GenerationConfig

    config = GenerationConfig(
        do_sample=False,
        bos_token_id=base.tokenizer.bos_token_id,
        eos_token_id=base.tokenizer.eos_token_id,
        pad_token_id=base.tokenizer.pad_token_id,
        **published_generation,
    )
    config.save_pretrained(folder)
