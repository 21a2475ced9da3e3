"""Hub: models of transformers, from a folder or by hub id, without progress bars and with errors of ours."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from mgv.errors import WeightsError

DIGESTED_BYTES = 65_536
"""Of a weights file's head and of its tail; smaller files are read whole."""


def from_pretrained(auto_class: Any, pretrained: str | Path, **options: Any) -> Any:
    """`auto_class.from_pretrained(...)`; what it cannot load is a WeightsError of one line."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        return auto_class.from_pretrained(pretrained, **options)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{pretrained}: cannot be loaded as {auto_class.__name__} ({reason}); "
            "`pretrained` is starter, random, a folder, or the id of a model that is on the hub or in its local cache"
        ) from error


def weights_revision(pretrained: str) -> str:
    """What weights `pretrained` stands for now, without loading them.

    A folder or file: a digest of names, sizes and contents (of large files, of head and tail). A hub id: with the
    commit of the snapshot in the local cache, when there is one.
    """
    path = Path(pretrained).expanduser()
    if path.exists():
        return f"{path.name}@{_digest(path)}"
    commit = _cached_commit(pretrained)
    return f"{pretrained}@{commit}" if commit else pretrained


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix()} {size}\n".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(DIGESTED_BYTES))
            if size > DIGESTED_BYTES:
                opened.seek(max(size - DIGESTED_BYTES, DIGESTED_BYTES))
                digest.update(opened.read())
    return digest.hexdigest()[:16]


def _cached_commit(hub_id: str) -> str | None:
    """As huggingface_hub lays its cache out: models--<owner>--<name>/refs/main holds the commit."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    try:
        ref = hub / f"models--{hub_id.replace('/', '--')}" / "refs" / "main"
        return ref.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None
