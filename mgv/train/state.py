"""Resume: the state of a run between two steps, written whole or not at all.

    FOLDER/step-000120/trainable.safetensors     what learns, by name
                       optimizer.pt              AdamW's moments by parameter name; read with weights_only
                       state.json                step, what the run is (fingerprint), last of all

What learns at a step, the order of the data and dropout all follow from the seed and the step, so nothing else is kept.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from mgv.errors import MgvError
from mgv.files import sync
from mgv.model.checkpoint import load_tensors, save_tensors

logger = logging.getLogger(__name__)

PREFIX = "step-"


def save_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, fingerprint: str, keep: int,
    is_main: bool = True,
) -> None:  # fmt: skip
    """Write the state after a step; older ones but the last `keep` go. Every process calls it, the main one writes.

    Raises MgvError when it cannot be written (a full disk): the ones before it are left as they were.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    tensors = learnt_weights(model)
    moments = get_optimizer_state_dict(model, optimizer, options=options)
    if not is_main:
        return
    partial = folder / f".{PREFIX}{step:06}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_tensors(tensors, partial / "trainable.safetensors")
        torch.save(moments, partial / "optimizer.pt")
        about = {"step": step, "fingerprint": fingerprint}
        (partial / "state.json").write_text(json.dumps(about), encoding="utf-8")
        for file in partial.iterdir():
            sync(file)
        place = folder / f"{PREFIX}{step:06}"
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
        sync(folder)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # each library tells a full disk in its own way
        shutil.rmtree(partial, ignore_errors=True)
        before = states(folder)
        kept = (
            f"step {step_of(before[-1])} is kept, run the same command to go on from it"
            if before
            else "none before"
        )
        raise MgvError(
            f"{folder}: the state after step {step} cannot be written: {error} ({kept})"
        ) from error
    for old in states(folder)[:-keep]:
        shutil.rmtree(old)


def learnt_weights(model: nn.Module) -> dict[str, Any]:
    """What learns, by name, whole on every process; every process calls it."""
    options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True)
    learning = {
        _plain(name) for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    return {n: t for n, t in get_model_state_dict(model, options=options).items() if n in learning}


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> int:
    """Put the last state of the same run into model and optimizer; how many steps it had done, 0 without one.

    A state of another run (other data, params or weights) is left out and said; one that was cut short falls back to
    the one before it.
    """
    for place in reversed(states(folder)):
        try:
            about = json.loads((place / "state.json").read_text(encoding="utf-8"))
            if about["fingerprint"] != fingerprint:
                logger.warning(
                    "%s: of a run with other data, params or weights; starting anew", place
                )
                return 0
            tensors = load_tensors(place / "trainable.safetensors")
            moments = torch.load(place / "optimizer.pt", weights_only=True, map_location="cpu")
        except (OSError, ValueError, KeyError, RuntimeError, EOFError, MgvError) as error:
            logger.warning("%s: cannot be read (%s); trying the one before it", place, error)
            continue
        options = StateDictOptions(full_state_dict=True, strict=False, ignore_frozen_params=True)
        set_model_state_dict(model, dict(tensors), options=options)
        set_optimizer_state_dict(model, optimizer, moments, options=options)
        return int(about["step"])
    return 0


def states(folder: Path) -> list[Path]:
    """The finished states, oldest first."""
    return sorted(place for place in folder.glob(f"{PREFIX}*") if (place / "state.json").is_file())


def step_of(place: Path) -> int:
    """The step in a state's name."""
    return int(place.name.removeprefix(PREFIX))


def _plain(name: str) -> str:
    """A parameter's name without what wrappers put ahead of it."""
    return name.replace("_checkpoint_wrapped_module.", "").removeprefix("module.")
