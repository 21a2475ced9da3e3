"""mgv: ask a library of videos, get an answer with the moments it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgv.api import Library

__version__ = "0.1.0"
__all__ = ["Library", "__version__"]


def __getattr__(name: str) -> Any:
    """`mgv.Library`, imported only when used, so that `mgv --help` stays quick."""
    if name == "Library":
        from mgv.api import Library

        return Library
    raise AttributeError(f"module 'mgv' has no attribute {name!r}")
