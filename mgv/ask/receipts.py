"""Receipts: what made an answer, kept in data/receipts/<id>.json when it is given.

A receipt names everything that the answer was made of: the library's tag and table versions, the raw videos by content
with DVC's hash and git's commit, the moments and the frames looked at, the parts and the answerer by revision, the
parameters in full, the flow run. A digest over its content shows when it was changed or damaged since.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mgv import __version__
from mgv.config import AskParams, SearchParams
from mgv.errors import MgvError, UsageError, WorkspaceError
from mgv.library.raw import VideoSource
from mgv.records import Citation, Look, Moment
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)

FORMAT = 2
"""Of receipts written now. 1, before answers had kinds and quotes, is read as well."""
FLOW_RUN = "MGV_FLOW_RUN"
"""The environment variable in which a flow gives its run's id: mgv does not know Prefect."""
LAST = "last"
"""Names the newest receipt."""
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]{3}[a-z2-7]{5}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True, kw_only=True)
class LibraryState:
    """The library that was asked."""

    tag: str
    versions: dict[str, int]
    """Of each table."""
    digest: str
    """Of its content."""
    store: str
    parts: dict[str, str]
    """Revision of every part that it was made, and is searched, with."""


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """Who answered. Its parameters are in Receipt.ask.answerer."""

    name: str
    pretrained: str
    version: str | None
    """Of a published model: `v3`."""
    weights: str
    """Revision of its weights: a folder's digest, a package's version, a hub's commit. Empty: not known here."""
    listing: str | None = None
    """DVC's hash of a model's folder that is a stage's output (dvc.lock): its cache may keep what is trained over."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What made one answer."""

    receipt_id: str
    asked_at: str
    """ISO-8601, UTC."""
    question: str
    videos: tuple[str, ...] | None
    """The ids of the videos that were asked; None: the whole library."""
    answer: str | None
    citations: tuple[Citation, ...]
    moments: tuple[Moment, ...]
    looks: tuple[Look, ...]
    sources: tuple[VideoSource, ...]
    """The moments' raw videos."""
    library: LibraryState
    model: ModelState
    search: SearchParams
    ask: AskParams
    params_hash: str
    """SHA-256 of `search` and `ask`."""
    flow_run: str | None
    software: dict[str, str]
    """Versions of mgv and of what computes, and the device."""
    kind: str = ""
    """Of the question: mgv.ask.kinds."""
    reason: str | None = None
    """Why there was no answer."""
    nearest: tuple[Moment, ...] = ()
    prompt: str = ""
    """Version and SHA-256 of the prompt that a language model was given; empty: none was asked."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What receipts need to be replayed: each with the ids of those that need it."""

    library_tags: dict[str, list[str]] = field(default_factory=dict)
    models: dict[str, list[str]] = field(default_factory=dict)
    """Published model versions."""


def keep(workspace: Workspace, receipt: Receipt) -> Receipt:
    """Write a receipt under a new id, which no other has; the receipt with that id.

    Raises MgvError when it cannot be written.
    """
    folder = receipts_dir(workspace)
    beside = folder / f".{os.getpid()}-{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            while True:
                named = replace(receipt, receipt_id=_new_id(receipt.asked_at))
                beside.write_text(_written(named), encoding="utf-8")
                if _put(beside, folder / f"{named.receipt_id}.json"):
                    return named
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise MgvError(f"{folder}: no receipt can be written: {error.strerror}") from error


def _put(written: Path, path: Path) -> bool:
    """Give a whole file its name, unless another has it."""
    try:
        os.link(written, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        os.replace(written, path)
    return True


def read_receipt(workspace: Workspace, wanted: str) -> Receipt:
    """The receipt of this id, of an id that begins so, or the `last` one.

    Raises UsageError when none or several are meant, WorkspaceError when it was changed or damaged since.
    """
    return _read(receipts_dir(workspace) / f"{_found(workspace, wanted)}.json")


def receipt_ids(workspace: Workspace) -> list[str]:
    """The ids of all receipts, oldest first."""
    try:
        names = os.listdir(receipts_dir(workspace))
    except FileNotFoundError:
        return []
    return sorted(
        name.removesuffix(".json") for name in names if _ID.fullmatch(name.removesuffix(".json"))
    )


def receipts_dir(workspace: Workspace) -> Path:
    """Where they are kept. Deleting one forgets one answer's making and harms nothing else."""
    return workspace.root / "data" / "receipts"


def needs(workspace: Workspace) -> Needs:
    """The library tags and published models without which some receipt can no longer be replayed."""
    needed = Needs()
    for receipt_id in receipt_ids(workspace):
        try:
            raw = json.loads(
                (receipts_dir(workspace) / f"{receipt_id}.json").read_text(encoding="utf-8")
            )
            tag, model = str(raw["library"]["tag"]), raw["model"]["version"]
        except (OSError, ValueError, LookupError, TypeError):
            logger.warning("receipt %s is damaged and keeps nothing", receipt_id)
            continue
        needed.library_tags.setdefault(tag, []).append(receipt_id)
        if model is not None:
            needed.models.setdefault(str(model), []).append(receipt_id)
    return needed


def params_hash(search: SearchParams, ask: AskParams) -> str:
    """SHA-256 of the parameters that a question is answered with."""
    return _digest({"search": asdict(search), "ask": asdict(ask)})


def flow_run() -> str | None:
    """The id of the flow run that this process belongs to."""
    return os.environ.get(FLOW_RUN) or None


@cache
def software() -> Mapping[str, str]:
    """Versions of mgv and of what computes an answer."""
    return {"mgv": __version__} | {
        name: version(name) for name in ("torch", "transformers", "lancedb")
    }


def _new_id(asked_at: str) -> str:
    """Ordered by time, then by chance: 20261124-031502-482k3f9x."""
    when = datetime.fromisoformat(asked_at).astimezone(UTC)
    chance = "".join(secrets.choice(_LETTERS) for _ in range(5))
    return f"{when:%Y%m%d-%H%M%S}-{when.microsecond // 1000:03}{chance}"


def _found(workspace: Workspace, wanted: str) -> str:
    ids = receipt_ids(workspace)
    if wanted == LAST:
        if not ids:
            raise UsageError("no receipts yet: ask something first")
        return ids[-1]
    meant = [each for each in ids if each.startswith(wanted)] if wanted else []
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise UsageError(
            f"{wanted!r} begins {len(meant)} receipts: {', '.join(meant[:3])}, …; give more of the id"
        )
    raise UsageError(f"{wanted[:60]!r} is no receipt of this workspace; an answer's last line names its receipt, "
                     "`last` is the newest")  # fmt: skip


def _written(receipt: Receipt) -> str:
    content = {"format": FORMAT, **asdict(receipt)}
    return json.dumps(content | {"digest": _digest(content)}, indent=1) + "\n"


def _read(path: Path) -> Receipt:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        digest, content = raw.pop("digest"), raw
        if digest != _digest(content):
            raise ValueError("its content is not what its digest was made of")
        if content.pop("format") not in (1, FORMAT):
            raise ValueError(
                f"its format is neither 1 nor {FORMAT}; another version of mgv wrote it"
            )
        receipt = TypeAdapter(Receipt).validate_python(content)
        if receipt.receipt_id != path.stem:
            raise ValueError(f"it is the receipt of {receipt.receipt_id[:40]!r}")
        return receipt
    except ValidationError as error:
        reason = f"{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = str(error)
    raise WorkspaceError(
        f"receipt {path.stem} was changed or damaged ({reason}); it proves nothing"
    )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
