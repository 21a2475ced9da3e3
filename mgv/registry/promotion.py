"""Champion: which version is live with which library; a history, replaced as one file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mgv.errors import GateError, UsageError, WorkspaceError
from mgv.files import now, sync, write_json
from mgv.library.manifest import NEWEST, Manifest, find_library, keep_version
from mgv.registry.versions import FORMAT, read_lineage, track, verify, version_names, writing
from mgv.workspace import Workspace

EMBEDDERS = ("frame_embedder", "text_embedder")
"""The parts whose revisions have to be those that a version was evaluated with."""


@dataclass(frozen=True, kw_only=True)
class PublishedVersion:
    """A version of the model."""

    version: str
    folder: Path
    published_at: str
    """ISO-8601, UTC."""
    library_tag: str
    """The library that it was evaluated with."""
    parts: dict[str, str]
    """That library's part revisions."""
    metrics: dict[str, float]
    """Of its evaluation; empty when it was published without one."""
    is_champion: bool


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A line of the champion's history."""

    version: str
    library_tag: str
    at: str
    """ISO-8601, UTC."""
    action: str
    """`promote` or `rollback`."""
    reason: str
    flow_run: str | None


def published(workspace: Workspace) -> list[PublishedVersion]:
    """Every version, the newest last."""
    return [find_published(workspace, version) for version in version_names(workspace)]


def find_published(workspace: Workspace, version: str) -> PublishedVersion:
    """A version. Raises UsageError when there is none of that name."""
    names, current = version_names(workspace), champion(workspace)
    if version not in names:
        raise UsageError(
            f"{version!r} is not published; `mgv models` lists {', '.join(names) or 'none yet'}"
        )
    folder = workspace.published_dir / version
    lineage = read_lineage(folder)
    return PublishedVersion(
        version=version,
        folder=folder,
        published_at=lineage["published_at"],
        library_tag=lineage["library"]["tag"],
        parts=lineage["library"]["parts"],
        metrics=lineage["metrics"],
        is_champion=current is not None and current.version == version,
    )


def champion(workspace: Workspace) -> Promotion | None:
    """What is live; None before the first promotion."""
    entries = history(workspace)
    return entries[-1] if entries else None


def history(workspace: Workspace) -> list[Promotion]:
    """Every promotion and rollback, the newest last. Raises WorkspaceError when champion.json cannot be read."""
    path = workspace.published_dir / "champion.json"
    try:
        return parse_history(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"{path}: cannot be read: {error}") from error


def parse_history(text: str, name: str) -> list[Promotion]:
    """champion.json's text; `name` says in errors where it is from. Raises WorkspaceError."""
    try:
        kept = json.loads(text)
        if kept["format"] != FORMAT:
            raise ValueError(f"its format is {kept['format']}, expected {FORMAT}")
        return [Promotion(**entry) for entry in kept["history"]]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{name}: not a champion's history: {error}; `git checkout` brings it back"
        ) from error


def promote(
    workspace: Workspace,
    version: str | None = None,
    *,
    library_tag: str | None = None,
    reason: str = "",
    flow_run: str | None = None,
) -> Promotion:
    """Make a version live together with a library. What is live already stays as it is.

    version: the newest; where only a library is named, the one that is live. library_tag: a tag, or `newest`, as
    when left out. Raises GateError when the library's embedders are not those that the version was evaluated with,
    WeightsError when its files are damaged, UsageError for what does not exist.
    """
    with writing(workspace):
        entries = history(workspace)
        names = version_names(workspace)
        if not names:
            raise WorkspaceError("nothing is published yet; run `mgv publish`")
        if version is None:
            version = entries[-1].version if library_tag and entries else names[-1]
        about = find_published(workspace, version)
        manifest = find_library(workspace, library_tag or NEWEST)
        if entries and (entries[-1].version, entries[-1].library_tag) == (version, manifest.tag):
            track(workspace, version)
            return entries[-1]
        verify(about.folder)
        _check_embedders(about, manifest)
        keep_version(workspace, manifest)
        entry = _append(workspace, entries, "promote", version, manifest.tag, reason, flow_run)
        track(workspace, version)
        return entry


def rollback(workspace: Workspace, *, reason: str = "") -> Promotion:
    """Make live what was before the last promotion; once more, what was before that.

    Raises WorkspaceError when there is nothing before, WeightsError when that version's files are damaged.
    """
    with writing(workspace):
        entries = history(workspace)
        before = standing(entries)[:-1]
        if not before:
            raise WorkspaceError(
                "there is nothing to roll back to: `mgv models` shows what was live"
            )
        wanted = before[-1]
        verify(workspace.published_dir / wanted.version)
        find_library(workspace, wanted.library_tag)
        return _append(
            workspace, entries, "rollback", wanted.version, wanted.library_tag, reason, None
        )


def standing(entries: list[Promotion]) -> list[Promotion]:
    """The promotions that no rollback took back; the last one is live."""
    stack: list[Promotion] = []
    for entry in entries:
        if entry.action == "rollback":
            stack.pop()
        else:
            stack.append(entry)
    return stack


def _append(
    workspace: Workspace,
    entries: list[Promotion],
    action: str,
    version: str,
    library_tag: str,
    reason: str,
    flow_run: str | None,
) -> Promotion:
    entry = Promotion(
        version=version,
        library_tag=library_tag,
        at=now(),
        action=action,
        reason=reason,
        flow_run=flow_run,
    )
    kept = {"format": FORMAT, "history": [asdict(each) for each in [*entries, entry]]}
    write_json(workspace.published_dir / "champion.json", kept)
    sync(workspace.published_dir)
    return entry


def _check_embedders(about: PublishedVersion, manifest: Manifest) -> None:
    changed = [
        f"{part} is {manifest.parts.get(part)}, was {about.parts.get(part)}"
        for part in EMBEDDERS
        if manifest.parts.get(part) != about.parts.get(part)
    ]
    if changed:
        raise GateError(
            f"{about.version} was evaluated with other embedders than library {manifest.tag} has: "
            f"{'; '.join(changed)}. Evaluate and publish anew, or promote it with its own library: "
            f"`mgv promote {about.version} --library-tag {about.library_tag}`"
        )
