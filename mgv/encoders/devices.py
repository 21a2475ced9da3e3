"""Devices: which one a part runs on."""

from __future__ import annotations

from mgv.errors import ConfigError


def choose_device(device: str = "auto") -> str:
    """`auto` takes CUDA, then MPS, then the CPU; a named device must be there.

    Takes `auto`, `cpu`, `cuda`, `cuda:<number>` or `mps`; gives a name that torch takes.
    """
    import torch

    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if num_cuda:
        present[:0] = ["cuda", *(f"cuda:{index}" for index in range(num_cuda))]
    if device == "auto":
        return present[0]
    if device not in present:
        raise ConfigError(f"device {device!r} is not on this machine; it has auto, {', '.join(present)}")
    return device
