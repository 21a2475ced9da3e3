"""Adapting: which parts of a model learn, and how: frozen, by LoRA, or in full.

LoRA (arXiv 2106.09685): W x + (alpha / r) B A x. MiniGPT4-Video's is r 64, alpha 16 (so 0.25), dropout 0.05 on
q_proj and v_proj, in all three stages.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from mgv.errors import ConfigError
from mgv.model.video_llm import VideoLLM

Training = Literal["frozen", "lora", "full"]
PARTS = ("vision_encoder", "connector", "language_model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """A low-rank adapter."""

    rank: int = 64
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Layers of the language model that get one; a vision encoder names its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSize:
    """How many parameters a part has, and how many of them learn."""

    total: int
    trainable: int


def adapt(
    model: VideoLLM,
    *,
    vision_encoder: Training = "frozen",
    connector: Training = "full",
    language_model: Training = "lora",
    lora: Lora | None = None,
) -> None:
    """Set what learns. Raises ConfigError where a part has no layers for a LoRA."""
    chosen = {
        "vision_encoder": vision_encoder,
        "connector": connector,
        "language_model": language_model,
    }
    for part, training in chosen.items():
        if training not in get_args(Training):
            raise ConfigError(
                f"model.adapt.{part}: {training!r} is none of {', '.join(get_args(Training))}"
            )
    lora = lora or Lora()
    if connector == "lora":
        raise ConfigError("model.adapt.connector: it is small, train it `full` or keep it `frozen`")
    vision_targets = model.vision_encoder.lora_targets
    if vision_encoder == "lora" and not vision_targets:
        raise ConfigError("model.adapt.vision_encoder: this encoder has no attention for a LoRA")
    model.requires_grad_(False)
    if language_model == "lora":
        model.language_model = with_lora(model.language_model, lora, lora.targets, "CAUSAL_LM")
    if vision_encoder == "lora":
        model.vision_encoder.tower = with_lora(
            model.vision_encoder.tower, lora, vision_targets, None
        )
    for part, training in chosen.items():
        if training == "full":
            _require_floating(getattr(model, part), part)
            getattr(model, part).requires_grad_(True)
    model.config.training = chosen
    model.train(model.training)


def with_lora(network: nn.Module, lora: Lora, targets: tuple[str, ...], task: str | None) -> Any:
    """The network under a PEFT LoRA (float32 also over half-precision weights), or with its old one learning again."""
    from peft import LoraConfig, PeftModel, prepare_model_for_kbit_training

    if isinstance(network, PeftModel):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_("lora_" in name)
        return network
    if getattr(network, "is_quantized", False):
        network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        bias="none",
        task_type=task,
    )
    try:
        return under_peft(network, config)
    except ValueError as error:
        raise ConfigError(f"model.adapt: LoRA targets {', '.join(targets)}: {error}") from error


def under_peft(network: nn.Module, config: Any) -> Any:
    """peft's get_peft_model, less its use of a name that transformers will drop."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        return get_peft_model(network, config)


def part_sizes(model: VideoLLM) -> dict[str, PartSize]:
    """Parameters by part."""
    return {
        part: PartSize(
            total=sum(p.numel() for p in getattr(model, part).parameters()),
            trainable=sum(p.numel() for p in getattr(model, part).parameters() if p.requires_grad),
        )
        for part in PARTS
    }


def merge_adapters(model: VideoLLM) -> VideoLLM:
    """Fold the LoRA into the weights, W + (alpha / r) B A: the same answers, nothing to add at run time."""
    if hasattr(model.language_model, "merge_and_unload"):
        model.language_model = model.language_model.merge_and_unload()
    if hasattr(model.vision_encoder.tower, "merge_and_unload"):
        model.vision_encoder.tower = model.vision_encoder.tower.merge_and_unload()
    return model


def _require_floating(part: nn.Module, name: str) -> None:
    if any(not parameter.is_floating_point() for parameter in part.parameters()):
        raise ConfigError(
            f"model.adapt.{name}: quantised weights cannot be trained in full; use `lora`"
        )
