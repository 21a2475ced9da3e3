"""Publishing: publish, models, promote, rollback."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgv.ask.as_json import plain
from mgv.cli.app import app
from mgv.cli.console import HERE, Json, LibraryDir, open_workspace, printable, show, spinner

if TYPE_CHECKING:
    from mgv.registry import Promotion, PublishedVersion

_TOLD = ("qa.accuracy", "qa.score", "retrieval.recall_at_1", "retrieval.moment_recall_at_1_iou_0_5")
"""Metrics that `mgv models` shows."""
_NUM_ENTRIES = 10

Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Kept in the champion's history.")
]


@app.command()
def publish(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL_FOLDER", help="Instead of models/train/instruct."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The model's evaluation, instead of the workspace's results/."
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME", help="Also push it to this Hub repository (token: HF_TOKEN)."
        ),
    ] = None,
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Make a model and its evaluation a version that never changes, in models/published."""
    from mgv import registry

    workspace = open_workspace(library)
    with spinner("publishing"):
        made = registry.publish(workspace, model, results=results)
    text = f"{_published_line(made)}\nnext: mgv promote {made.version}"
    repo_id = push_to_hub or workspace.params.publish.push_to_hub
    address = None
    if repo_id is not None:
        with spinner("pushing"):
            address = registry.push_to_hub(workspace, made.version, repo_id)
        text = f"{_published_line(made)}\npushed to {address}\nnext: mgv promote {made.version}"
    show(as_json, _published_json(made) | {"pushed_to": address}, text)


@app.command()
def models(library: LibraryDir = HERE, as_json: Json = False) -> None:
    """List the published versions, and what was live when."""
    from mgv import registry

    workspace = open_workspace(library)
    versions, entries = registry.published(workspace), registry.history(workspace)
    lines = [_published_line(each) for each in versions]
    if entries:
        lines += ["", *(_promotion_line(entry) for entry in entries[-_NUM_ENTRIES:])]
    listing = {
        "models": [_published_json(each) for each in versions],
        "champion": asdict(entries[-1]) if entries else None,
        "history": [asdict(entry) for entry in entries],
    }
    show(as_json, listing, "\n".join(lines) or "nothing published yet; next: mgv publish")


@app.command()
def promote(
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="VERSION",
            help="Instead of the newest (with --library-tag alone: the live one).",
        ),
    ] = None,
    library_tag: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="A library's tag, instead of `newest`."),
    ] = None,
    reason: Reason = "",
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Make a published version live, with a library: what answers from now on."""
    from mgv import registry

    with spinner("promoting"):
        entry = registry.promote(
            open_workspace(library), version, library_tag=library_tag, reason=reason
        )
    show(as_json, asdict(entry), f"live: {entry.version} with library {entry.library_tag}")


@app.command()
def rollback(reason: Reason = "", library: LibraryDir = HERE, as_json: Json = False) -> None:
    """Make live again what was before the last promotion."""
    from mgv import registry

    entry = registry.rollback(open_workspace(library), reason=reason)
    show(as_json, asdict(entry), f"live: {entry.version} with library {entry.library_tag}")


def _published_json(version: PublishedVersion) -> dict[str, Any]:
    fields: dict[str, Any] = plain(asdict(version))
    return fields


def _published_line(version: PublishedVersion) -> str:
    sign = "*" if version.is_champion else " "
    scores = [f"{name} {version.metrics[name]:.3f}" for name in _TOLD if name in version.metrics]
    shown = "  ".join(scores) or ("scored" if version.metrics else "not evaluated")
    return f"{sign} {version.version:5} {version.published_at[:16]}  library {version.library_tag}  {shown}"


def _promotion_line(entry: Promotion) -> str:
    why = f"  ({printable(entry.reason)})" if entry.reason else ""
    return f"  {entry.at[:16]}  {entry.action:8}  {entry.version} with library {entry.library_tag}{why}"
