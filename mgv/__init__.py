"""mgv: ask a library of videos, get an answer with the moments it rests on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Read once, when torch is first imported. By default torch's threads spin at every barrier; where another process
# wants the cores, that makes a query of 15 ms one of 500 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from mgv.ask.library import Library

__version__ = "0.1.0"
__all__ = ["Library", "__version__"]


def __getattr__(name: str) -> Any:
    """`mgv.Library`, imported only when used, so that `mgv --help` stays quick."""
    if name == "Library":
        from mgv.ask.library import Library

        return Library
    raise AttributeError(f"module 'mgv' has no attribute {name!r}")
