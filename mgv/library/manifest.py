"""Manifest: data/library.json, which says what the finished library is. Readers start from it, DVC pins it.

data/manifests/<tag>.json keeps every finished library's, so that an older one can be read as long as LanceDB has it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from dataclasses import asdict, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mgv.config import MaterializeParams
from mgv.errors import WorkspaceError
from mgv.files import write_json
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)

FORMAT = 1
NEWEST = "newest"
"""Stands for the library of data/library.json wherever a tag is named."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A video of the library, with the keys of what was computed of it."""

    video_id: str
    name: str
    frames_key: str
    segments_key: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A finished run of materialise."""

    store: str
    """As in params.yaml: relative to the workspace, or a URI."""
    tag: str
    """The name that all tables carry at these versions."""
    versions: dict[str, int]
    digest: str
    """Digest of the content: equal for equal libraries, however they were made."""
    parts: dict[str, str]
    """Revision of every part that made it."""
    params: MaterializeParams
    """What it was made with: a search asks it with the same parts, whatever params.yaml says by now."""
    num_frames: int
    num_segments: int
    duration_s: float
    items: tuple[Item, ...]
    """Every video, by name; those that failed too."""
    failed: dict[str, str]
    """File name of each unreadable video → the reason."""
    finished_at: str = field(default="", compare=False)
    """When it was finished, ISO-8601 in UTC; empty of libraries older than this field."""
    listing: str | None = field(default=None, compare=False)
    """DVC's hash of the data/videos that it was made of: older versions of a raw video are found by it."""


_TAG = re.compile(r"[0-9a-f]{12}-[0-9]+")


def write_version(workspace: Workspace, manifest: Manifest) -> None:
    """Write data/manifests/<tag>.json, then data/library.json, each whole or not at all."""
    keep_version(workspace, manifest)
    write_json(workspace.manifest, {"format": FORMAT, **asdict(manifest)})


def keep_version(workspace: Workspace, manifest: Manifest) -> None:
    """Write data/manifests/<tag>.json."""
    write_json(_version_path(workspace, manifest.tag), {"format": FORMAT, **asdict(manifest)})


def forget_versions(workspace: Workspace, store: str, kept: Collection[str]) -> None:
    """Remove data/manifests/<tag>.json of tags that this store does not have, or no longer."""
    for path in workspace.manifests_dir.glob("*.json"):
        if not is_tag(path.stem) or path.stem in kept:
            continue
        manifest = _read_or_warn(path)
        if manifest is not None and manifest.store == store:
            path.unlink(missing_ok=True)


def read_version(workspace: Workspace, tag: str) -> Manifest | None:
    """The library of this tag; None when it is not kept here. Raises WorkspaceError when it cannot be understood."""
    if not is_tag(tag):
        return None
    if (manifest := read_manifest(_version_path(workspace, tag))) is not None:
        return manifest
    newest = read_manifest(workspace.manifest)
    return newest if newest is not None and newest.tag == tag else None


def versions(workspace: Workspace) -> list[Manifest]:
    """Every finished library that is kept here, the newest last; damaged manifests are left out with a warning."""
    by_tag = {
        path.stem: _read_or_warn(path)
        for path in workspace.manifests_dir.glob("*.json")
        if is_tag(path.stem)
    }
    if (newest := _read_or_warn(workspace.manifest)) is not None and by_tag.get(newest.tag) is None:
        by_tag[newest.tag] = newest
    kept = (manifest for manifest in by_tag.values() if manifest is not None)
    return sorted(kept, key=lambda manifest: (manifest.finished_at, manifest.versions["videos"]))


def _read_or_warn(path: Path) -> Manifest | None:
    """The manifest; None, with a warning, where it is damaged: the others are as good as they were."""
    try:
        return read_manifest(path)
    except WorkspaceError as error:
        logger.warning("%s", error)
        return None


def newest_library(workspace: Workspace) -> Manifest:
    """data/library.json. Raises WorkspaceError where there is none yet."""
    manifest = read_manifest(workspace.manifest)
    if manifest is None:
        raise WorkspaceError(
            f"{workspace.root}: nothing materialised yet; run `mgv ingest FILES` and `mgv materialize`"
        )
    return manifest


def find_library(workspace: Workspace, tag: str) -> Manifest:
    """The library of a tag or `newest`, or one of the same content (a tag begins with the content's digest).

    Raises WorkspaceError when none is kept here.
    """
    if tag == NEWEST:
        return newest_library(workspace)
    if (manifest := read_version(workspace, tag)) is not None:
        return manifest
    digest = tag.partition("-")[0]
    for manifest in reversed(versions(workspace)):
        if manifest.tag.partition("-")[0] == digest:
            return manifest
    raise WorkspaceError(
        f"library {tag} is not kept here; `mgv materialize` makes it again from the same videos and parameters, "
        "`mgv promote --library-tag newest` goes on with the newest one"
    )


def is_tag(text: str) -> bool:
    """Whether this is how a library's tag is written."""
    return _TAG.fullmatch(text) is not None


def _version_path(workspace: Workspace, tag: str) -> Path:
    return workspace.manifests_dir / f"{tag}.json"


def read_manifest(path: Path) -> Manifest | None:
    """The manifest; None when there is none yet. Raises WorkspaceError when it cannot be understood."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(str(path), str(error)) from error
    return parse_manifest(text, str(path))


def parse_manifest(text: str, name: str) -> Manifest:
    """A manifest's text; `name` says in errors where it is from. Raises WorkspaceError."""
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        return TypeAdapter(Manifest).validate_python(raw)
    except ValidationError as error:
        fault = error.errors()[0]
        raise _unreadable(name, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, str(error)) from error


def _unreadable(name: str, reason: str) -> WorkspaceError:
    return WorkspaceError(f"{name}: not a library manifest ({reason}); run `mgv doctor --fix`")
