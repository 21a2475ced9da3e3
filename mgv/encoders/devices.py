"""Devices: which one a part runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
        raise ConfigError(
            f"device {device!r} is not on this machine; it has auto, {', '.join(present)}"
        )
    return device


@contextmanager
def one_thread() -> Iterator[None]:
    """Have the calling thread compute on one core.

    A decoder multiplies small matrices, token by token. Shared among threads, each waits for the others at every one:
    on a busy machine two threads did 7 times the work of one.
    """
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
