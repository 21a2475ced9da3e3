"""Checkpoints: a model as a Hub-style folder. Only safetensors and JSON, never a pickle.

    config.json                which parts, what was trained, a probe of the base model
    connector.safetensors
    adapter/                   the language model's LoRA in PEFT's form, or
    language_model/            all of its weights, where it was trained in full
    vision_adapter/            likewise for the vision encoder, or
    vision_encoder.safetensors
    processor_config.json, tokenizer files, question_tokenizer/
    generation_config.json
    README.md                  the model card

Frozen base weights are named, not copied.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mgv.config import Quantization
from mgv.errors import MgvError, WeightsError
from mgv.model.adapt import under_peft
from mgv.model.build import build_video_llm
from mgv.model.processor import Processor
from mgv.model.video_llm import VideoLLM, VideoLLMConfig

STARTER_MODEL = Path(__file__).with_name("starter")
"""The folder of the video language model that comes with mgv, trained by `mgv train` on the starter data set."""
PROBE_SIZE = 16
PROBE_TOLERANCE = 0.02


def model_folder(pretrained: str, root: Path = Path()) -> Path:
    """Where a video language model lies: `starter`, or a folder relative to root."""
    return STARTER_MODEL if pretrained == "starter" else root / pretrained


def save_checkpoint(
    model: VideoLLM,
    processor: Processor,
    folder: Path,
    card: str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the folder beside its name, then put it there in one step; an older one is replaced.

    Raises MgvError where it cannot be written.

    dtype: of the connector and the adapters, float16 halves them; None leaves them as they are.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        model.config.language_model["probe"] = probe(model.language_model)
        model.config.architectures = ["VideoLLM"]
        model.config.save_pretrained(partial)
        model.generation_config.save_pretrained(partial)
        save_tensors(model.connector.state_dict(), partial / "connector.safetensors", dtype)
        _save_part(
            model.language_model, partial, "adapter", _training(model, "language_model"), dtype
        )
        _save_part(
            model.vision_encoder.tower,
            partial,
            "vision_adapter",
            _training(model, "vision_encoder"),
            dtype,
        )
        processor.save(partial)
        if (partial / "language_model").is_dir():
            processor.tokenizer.save_pretrained(partial / "language_model")
        (partial / "README.md").write_text(card or model_card(model), encoding="utf-8")
        replace_folder(partial, folder)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # each library tells a full disk in its own way
        shutil.rmtree(partial, ignore_errors=True)
        raise MgvError(f"{folder}: the model cannot be written: {error}") from error


def load_checkpoint(
    folder: Path,
    *,
    language_model: str | None = None,
    vision_pretrained: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantization: Quantization = "none",
    device_map: str | None = None,
) -> tuple[VideoLLM, Processor]:
    """Read what save_checkpoint wrote; base weights by the names in it, or those given here.

    Raises WeightsError when a file or tensor is missing, left over or of another shape, or the base model differs.
    """
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder}: no config.json; is it a folder made by `mgv`?")
    config = _read_config(folder)
    whole = folder / "language_model"
    base = str(whole) if whole.is_dir() else language_model or config.language_model["pretrained"]
    vision = config.vision_encoder
    own_tower = folder / "vision_encoder"
    pretrained = vision_pretrained or (
        str(own_tower) if own_tower.is_dir() else vision["pretrained"]
    )
    model, _ = build_video_llm(
        config.connector["name"],
        vision_encoder=vision["name"],
        vision_pretrained=pretrained,
        vision_options=vision["options"],
        language_model=base,
        connector_options=config.connector["options"],
        device=device,
        dtype=dtype,
        quantization=quantization,
        device_map=device_map,
    )
    check_probe(model.language_model, config.language_model.get("probe"), base)
    fill(
        model.connector,
        load_tensors(folder / "connector.safetensors"),
        f"{folder}/connector.safetensors",
    )
    if (folder / "adapter").is_dir():
        model.language_model = load_adapter(model.language_model, folder / "adapter")
    if (folder / "vision_adapter").is_dir():
        model.vision_encoder.tower = load_adapter(
            model.vision_encoder.tower, folder / "vision_adapter"
        )
    if (folder / "vision_encoder.safetensors").is_file():
        state = load_tensors(folder / "vision_encoder.safetensors")
        fill(model.vision_encoder.tower, state, f"{folder}/vision_encoder.safetensors")
    model.config = config
    model.requires_grad_(False)
    if (folder / "generation_config.json").is_file():
        model.generation_config = type(model.generation_config).from_pretrained(folder)
    return model.eval(), Processor.load(folder)


def _read_config(folder: Path) -> VideoLLMConfig:
    """A model folder's config.json. Raises WeightsError for one that is broken or of another kind of model."""
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder}/config.json: cannot be read: {error}") from error
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind != VideoLLMConfig.model_type:
        raise WeightsError(
            f"{folder}: a model of the kind {kind}, expected {VideoLLMConfig.model_type}; `mgv train` and "
            "`mgv import-checkpoint` make such folders"
        )
    config: VideoLLMConfig = VideoLLMConfig.from_pretrained(folder)
    return config


def probe(language_model: Any) -> dict[str, Any]:
    """What tells one base model from another: its sizes and a few of its embeddings."""
    weight = language_model.get_input_embeddings().weight
    places = torch.linspace(0, weight.numel() - 1, PROBE_SIZE, dtype=torch.float64).long()
    values = weight.detach().flatten()[places.to(weight.device)].float().tolist()
    return {"vocab_size": weight.shape[0], "hidden_size": weight.shape[1], "embeddings": values}


def check_probe(language_model: Any, expected: Mapping[str, Any] | None, name: str) -> None:
    """Raises WeightsError when the language model is not the one that the checkpoint was trained on."""
    if not expected:
        return
    own = probe(language_model)
    for size in ("vocab_size", "hidden_size"):
        if own[size] != expected[size]:
            raise WeightsError(
                f"language model {name!r} has {size} {own[size]}, the checkpoint was trained on one with "
                f"{expected[size]}; name the right one"
            )
    if "embeddings" in expected:
        difference = [
            abs(a - b) for a, b in zip(own["embeddings"], expected["embeddings"], strict=True)
        ]
        bound = [PROBE_TOLERANCE * abs(value) + 1e-6 for value in expected["embeddings"]]
        if any(d > b for d, b in zip(difference, bound, strict=True)):
            raise WeightsError(
                f"language model {name!r} is not the one that the checkpoint was trained on"
            )


def fill(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load every tensor, each of its shape, none left over. Raises WeightsError that names those at fault."""
    check_shapes(module.state_dict(), state, what)
    module.load_state_dict(state)


def check_shapes(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Raises WeightsError unless the tensors are those, each of its shape."""
    faults = [f"missing {name}" for name in sorted(own.keys() - state.keys())]
    faults += [f"left over {name}" for name in sorted(state.keys() - own.keys())]
    for name in sorted(own.keys() & state.keys()):
        if own[name].shape != state[name].shape:
            faults.append(f"{name} is {list(state[name].shape)}, expected {list(own[name].shape)}")
    if faults:
        raise WeightsError(f"{what}: {few(faults, '; ')}")


def few(names: list[str], between: str = ", ") -> str:
    """The first three, and how many more there are."""
    return between.join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def load_adapter(network: nn.Module, folder: Path) -> Any:
    """The network under the PEFT adapter of a folder, every tensor of it in place."""
    from peft import LoraConfig, set_peft_model_state_dict
    from peft.utils import get_peft_model_state_dict

    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{folder}: no readable adapter_config.json: {error}") from error
    config.base_model_name_or_path = None  # the probe says whether it is the right one
    state = load_tensors(folder / "adapter_model.safetensors")
    adapted: Any = under_peft(network, config)
    what = f"{folder}: the adapter is not for this base model"
    check_shapes(get_peft_model_state_dict(adapted), state, what)
    set_peft_model_state_dict(adapted, state)
    return adapted


def save_tensors(state: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> None:
    """One safetensors file."""
    from safetensors.torch import save_file

    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()
    }
    save_file(tensors, path, {"format": "pt"})


def load_tensors(path: Path) -> dict[str, Tensor]:
    """One safetensors file. Raises WeightsError when it is missing or cut short."""
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    return tensors


def model_card(model: VideoLLM) -> str:
    """A README with the metadata that the Hub reads."""
    config = model.config
    base = config.language_model["pretrained"]
    trained = ", ".join(
        f"{part} {how}" for part, how in (getattr(config, "training", None) or {}).items()
    )
    about = {"library_name": "mgv", "pipeline_tag": "video-text-to-text", "base_model": base}
    header = "\n".join(f"{key}: {json.dumps(value)}" for key, value in about.items())
    return (
        f"---\n{header}\n---\n\n# Video language model: {config.connector['name']}\n\n"
        f"* vision encoder: {config.vision_encoder['name']} ({config.vision_encoder['pretrained']})\n"
        f"* connector: {config.connector['name']}, {model.connector.tokens_per_frame} tokens a frame\n"
        f"* language model: {base}\n* trained: {trained or 'not yet'}\n\n"
        "Load it with `mgv.model.checkpoint.load_checkpoint(folder)`. Frozen base weights are not in this folder.\n"
    )


def replace_folder(partial: Path, folder: Path) -> None:
    """Put a finished folder in the place of an older one."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _training(model: VideoLLM, part: str) -> str:
    chosen = getattr(model.config, "training", None) or {}
    return str(chosen.get(part, "frozen"))


def _save_part(
    network: Any, folder: Path, adapter: str, training: str, dtype: torch.dtype | None
) -> None:
    """A part's adapter, or all of its weights where it was trained in full."""
    if hasattr(network, "peft_config"):
        from peft.utils import get_peft_model_state_dict

        config = copy.copy(network.peft_config["default"])
        config.base_model_name_or_path = (
            None  # a place of this machine; config.json names the base model
        )
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # equal models are equal files
        config.save_pretrained(folder / adapter)
        save_tensors(
            get_peft_model_state_dict(network),
            folder / adapter / "adapter_model.safetensors",
            dtype,
        )
    elif training == "full" and adapter == "adapter":
        network.save_pretrained(folder / "language_model")
    elif training == "full":
        save_tensors(network.state_dict(), folder / "vision_encoder.safetensors")
