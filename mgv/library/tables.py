"""Tables: how LanceDB lays them out on disk, for those that look without opening them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

TABLES = ("videos", "frames", "segments")


def has_versions(uri: str, versions: Mapping[str, int]) -> bool:
    """Whether a local store has these versions of its tables (Lance names a version's file from the top down).

    An object store is believed: asking it takes a connection.
    """
    return "://" in uri or all(
        Path(uri, f"{name}.lance", "_versions", f"{2**64 - 1 - version}.manifest").exists()
        for name, version in versions.items()
    )
