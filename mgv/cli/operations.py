"""Operations: clean, metrics."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgv.ask.as_json import plain
from mgv.cli.app import app
from mgv.cli.console import HERE, Json, LibraryDir, open_workspace, printable, show, step_lines
from mgv.errors import UsageError

if TYPE_CHECKING:
    from mgv.operations.cleaning import Cleanup

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds", "w": "weeks"}


@app.command()
def clean(
    keep: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Newest libraries that stay, instead of params.yaml's."
        ),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Only what is older, for example 30d or 12h.")
    ] = None,
    keep_receipts: Annotated[
        bool, typer.Option("--keep-receipts", help="Keep every library that a receipt names.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be deleted.")
    ] = False,
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Delete old libraries, training states, features, stored answers and temporary files."""
    from mgv.operations import cleaning as operations

    workspace = open_workspace(library)
    age = None if older_than is None else _age(older_than)
    with step_lines("clean") as step:
        done = operations.clean(
            workspace,
            keep=keep,
            older_than=age,
            keep_receipts=keep_receipts,
            dry_run=dry_run,
            on_step=lambda what: step(f"clean {what}"),
        )
    show(as_json, plain(asdict(done)) | {"bytes": done.num_bytes}, _clean_text(done))
    operations.check_budget(workspace)


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([wdhms])", text)
    if match is None:
        raise UsageError(
            f"--older-than {text!r}: expected a number and w, d, h, m or s, for example 30d"
        )
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def _clean_text(done: Cleanup) -> str:
    from mgv.operations.cleaning import gigabytes

    verb = "would go" if done.dry_run else "gone"
    lines = [
        f"{verb:8}  {gigabytes(each.num_bytes):>9}  {each.kind:9}  {printable(each.what)}"
        for each in done.removed
    ]
    for tag in done.retired:
        lines.append(f"{'would leave' if done.dry_run else 'left'} the list  library {tag}")
    if done.waiting:
        lines.append(
            f"{len(done.waiting)} libraries are out of the list; their tables go with a clean after "
            "operations.grace_hours"
        )
    verb = "would be freed" if done.dry_run else "freed"
    lines.append(f"{gigabytes(done.num_bytes)} {verb}")
    lines += [
        f"{gigabytes(size):>9}  {kind}"
        for kind, size in sorted(done.usage.items(), key=lambda item: -item[1])
        if size
    ]
    if done.usage["dvc_cache"] > 100e6:
        lines.append(
            "DVC's cache is yours to clean: `dvc gc --workspace --all-commits --dry` says what no commit needs"
        )
    return "\n".join(lines)


@app.command()
def metrics(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.prom",
            help="Write them to this file, for node_exporter.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=1, max=65535, help="Serve them on 127.0.0.1 until stopped."
        ),
    ] = None,
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Show figures for Prometheus: videos, live model, scores, disk, last retrain."""
    from mgv.operations import metrics as monitor

    workspace = open_workspace(library)
    if port is not None:
        server, thread = monitor.serve_metrics(workspace, port)
        show(
            as_json, {"url": f"http://127.0.0.1:{port}/metrics"}, f"http://127.0.0.1:{port}/metrics"
        )
        try:
            thread.join()
        finally:
            server.shutdown()
        return
    if output is not None:
        monitor.write_metrics(workspace, output)
        show(as_json, {"file": str(output)}, "")
        return
    values: list[dict[str, Any]] = [asdict(each) for each in monitor.measure(workspace)]
    show(as_json, {"metrics": values}, "" if as_json else monitor.exposition(workspace).rstrip())
