"""Where answers come from: explain, replay, diff, lineage."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgv.ask.as_json import plain
from mgv.cli.app import app
from mgv.cli.console import (
    HERE,
    Json,
    LibraryDir,
    open_workspace,
    printable,
    short,
    show,
    span,
    spinner,
)
from mgv.cli.library import AnswererName, In

if TYPE_CHECKING:
    from mgv.ask.receipts import Receipt
    from mgv.lineage.diff import Cause, Diff, Side
    from mgv.lineage.replay import Replay
    from mgv.records import Answer, Citation

ReceiptId = Annotated[
    str,
    typer.Argument(metavar="ID", help="An answer's receipt: its id, how the id begins, or `last`."),
]


@app.command()
def explain(receipt: ReceiptId, library: LibraryDir = HERE, as_json: Json = False) -> None:
    """Show what made an answer: videos, library, moments, frames, parts, model, parameters."""
    from mgv.ask.receipts import read_receipt

    content = read_receipt(open_workspace(library), receipt)
    show(as_json, plain(asdict(content)), _receipt_text(content))


def _receipt_text(receipt: Receipt) -> str:
    state, model = receipt.library, receipt.model
    names = {moment.video_id: moment.video for moment in receipt.moments}
    asked = (
        "the whole library"
        if receipt.videos is None
        else ", ".join(names.get(v, v[:12]) for v in receipt.videos)
    )
    lines = [
        ("receipt", f"{receipt.receipt_id}  asked {receipt.asked_at}"),
        ("question", short(receipt.question, 400)),
        ("asked of", asked),
        ("answer", receipt.answer or "none: nothing in the library answers that"),
    ]
    looks = {look.number: look.times_s for look in receipt.looks}
    cited = {citation.number for citation in receipt.citations}
    for number, moment in enumerate(receipt.moments, start=1):
        mark = f"[{number}]" if number in cited else f" {number} "
        lines.append(("moments" if number == 1 else "", f"{mark} {moment.video}  {span(moment)}  "
                      f"{moment.score:.4f}  {'+'.join(moment.channels)}"))  # fmt: skip
        if number in looks:
            lines.append(
                ("", f"    frames at {', '.join(f'{time_s:.3f}' for time_s in looks[number])} s")
            )
    for number, source in enumerate(receipt.sources):
        place = source.path or "no longer in data/videos"
        lines.append(("videos" if number == 0 else "", f"{source.name}  SHA-256 {source.video_id}"))
        lines.append(("", f"    {place}, DVC {source.listing or 'does not track it'}, "
                      f"git {source.commit or 'has not committed it'}"))  # fmt: skip
    versions = ", ".join(f"{name} {number}" for name, number in state.versions.items())
    lines.append(("library", f"{state.tag} ({versions}) in {state.store}"))
    lines.append(("", f"content {state.digest}"))
    lines += [
        ("parts" if place == 0 else "", f"{name}  {part}")
        for place, (name, part) in enumerate(state.parts.items())
    ]
    lines.append(("answerer", f"{model.name}, {model.version or model.pretrained}"))
    lines.append(("", f"weights {model.weights or 'not known'}"))
    lines.append(("parameters", receipt.params_hash))
    lines.append(("flow run", receipt.flow_run or "none"))
    lines.append(
        ("software", ", ".join(f"{name} {value}" for name, value in receipt.software.items()))
    )
    return "\n".join(f"{title:<11} {printable(text)}" for title, text in lines)


@app.command()
def replay(receipt: ReceiptId, library: LibraryDir = HERE, as_json: Json = False) -> None:
    """Re-ask a receipt's question against the versions that answered it, and check that the answer is the same."""
    from mgv.ask.receipts import read_receipt
    from mgv.lineage.replay import replay as run

    workspace = open_workspace(library)
    with spinner("asking again"):
        outcome = run(workspace, read_receipt(workspace, receipt))
    show(as_json, _replay_json(outcome), _replay_text(outcome))
    if not outcome.identical:
        raise typer.Exit(1)


def _replay_json(outcome: Replay) -> dict[str, Any]:
    return plain(asdict(outcome))  # type: ignore[no-any-return]


def _replay_text(outcome: Replay) -> str:
    lines = (
        [f"identical: {printable(outcome.answer.text or 'no answer')}"]
        if outcome.identical
        else ["it differs"]
    )
    lines += [f"  {printable(each)}" for each in outcome.differences]
    lines += [f"not as it was: {printable(each)}" for each in outcome.remarks]
    return "\n".join(lines)


@app.command()
def diff(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="As for --as-of: a tag, v3, a date, a commit, newest."),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    query: Annotated[str, typer.Argument(help="The question to ask both.")],
    library: LibraryDir = HERE,
    videos: In = None,
    answerer: AnswererName = None,
    as_json: Json = False,
) -> None:
    """Ask two states the same question, and find out whether data, index, model or parameters differ."""
    from mgv.lineage.diff import diff as run

    with spinner("asking both"):
        comparison = run(open_workspace(library), a, b, query, videos, answerer)
    show(as_json, plain(asdict(comparison)), _diff_text(comparison))


def _diff_text(comparison: Diff) -> str:
    lines = [*_side_lines("A", comparison.a), *_side_lines("B", comparison.b), ""]
    if not (comparison.answer_changed or comparison.moments_changed):
        lines.append("both answer the same, from the same moments")
    elif not comparison.answer_changed:
        lines.append("both answer the same, from other moments")
    else:
        lines.append(
            "they answer differently, from "
            + ("other" if comparison.moments_changed else "the same")
            + " moments"
        )
    lines += _moment_lines(comparison.a.answer, comparison.b.answer)
    for cause in comparison.causes:
        lines.append(f"{cause.factor:<11} {_effect(cause)}")
        lines += [f"{'':<11} {printable(each)}" for each in cause.changes[:20]]
        if len(cause.changes) > 20:
            lines.append(f"{'':<11} and {len(cause.changes) - 20} more (--json lists all)")
    return "\n".join(lines)


def _side_lines(letter: str, side: Side) -> list[str]:
    model = f", model {side.version}" if side.version else ""
    lines = [f"{letter}  {side.name}: library {side.library_tag}{model}"]
    lines.append(f"   {printable(side.answer.text or 'nothing in the library answers that')}")
    return lines + [f"   {_cited(citation)}" for citation in side.answer.citations]


def _cited(citation: Citation) -> str:
    return f"[{citation.number}] {printable(citation.video)}  {span(citation)}"


def _moment_lines(a: Answer, b: Answer) -> list[str]:
    """Moments that only one side found."""
    one, other = ({(m.video_id, m.start_s, m.end_s): m for m in side.moments} for side in (a, b))
    gone = [
        f"  only A  {printable(one[key].video)}  {span(one[key])}"
        for key in one
        if key not in other
    ]
    return gone + [
        f"  only B  {printable(other[key].video)}  {span(other[key])}"
        for key in other
        if key not in one
    ]


def _effect(cause: Cause) -> str:
    if not cause.changes:
        return "the same"
    what = [
        name
        for name, is_so in (("the moments", cause.moments), ("the answer", cause.answer))
        if is_so
    ]
    return f"changes {' and '.join(what)}" if what else "differs, without effect here"


lineage = typer.Typer(help="Show runs with their inputs and outputs.", no_args_is_help=True)
app.add_typer(lineage, name="lineage")


@lineage.command()
def export(
    library: LibraryDir = HERE,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="WHICH",
            help="materialize, prepare, train, evaluate, publish, ask; a library's tag, v3, a receipt (repeatable).",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of stdout.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write runs as OpenLineage events, one JSON object a line (with --json one array)."""
    from mgv.lineage.openlineage import events

    rows = list(events(open_workspace(library), run))
    text = (
        json.dumps(rows, indent=1) if as_json else "".join(json.dumps(each) + "\n" for each in rows)
    )
    if output is None:
        sys.stdout.write(text)
        return
    from mgv.errors import MgvError

    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MgvError(f"{output}: cannot be written: {error.strerror}") from error
    print(f"{len(rows)} events in {output}", file=sys.stderr)
