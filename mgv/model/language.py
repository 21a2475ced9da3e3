"""Language models: a causal language model and its tokenizer, by `pretrained`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_language_model(pretrained: str, device: str = "auto") -> tuple[Any, Any]:
    """A causal language model in evaluation mode, and its tokenizer.

    `starter` is SmolLM2-135M-Instruct, a folder or hub id anything AutoModelForCausalLM takes.
    Raises WeightsError when the weights are not at hand.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mgv.encoders.devices import choose_device
    from mgv.errors import WeightsError
    from mgv.starter import language_model_dir

    place = choose_device(device)
    dtype = (
        "float32" if place == "cpu" else "auto"
    )  # without bfloat16 units, a CPU is many times slower in it
    source = language_model_dir() if pretrained == "starter" else Path(pretrained)
    where = str(source) if source.is_dir() else pretrained
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
        model = AutoModelForCausalLM.from_pretrained(where, dtype=dtype)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise WeightsError(f"language model {pretrained!r} cannot be loaded: {first}") from error
    return model.to(place).eval(), tokenizer
