"""LanceDB's import without its REST client: half of the time that a search's imports take.

lancedb imports the models of `lance_namespace_urllib3_client`, and with them that package's __init__, which builds
validators for every call of a REST catalogue. Here the package stands without its __init__, which runs when one of
its own names is asked for.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_PACKAGE = "lance_namespace_urllib3_client"


class _DeferredPackage(ModuleType):
    """A package whose submodules can be imported before its __init__ has run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on an ordinary package
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def defer_rest_client() -> None:
    """Put the package's place-holder into sys.modules, unless it is imported or missing."""
    if _PACKAGE in sys.modules or (spec := find_spec(_PACKAGE)) is None:
        return
    package = _DeferredPackage(_PACKAGE)
    package.__spec__, package.__path__ = spec, spec.submodule_search_locations or []
    package.__file__, package.__loader__, package.__package__ = spec.origin, spec.loader, _PACKAGE
    sys.modules[_PACKAGE] = package
