"""The library: init, ingest, remove, materialize, videos, search, ask, search-and-ask."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgv.ask.as_json import answer_json, moments_json, plain
from mgv.cli.app import app
from mgv.cli.console import (
    HERE,
    Json,
    LibraryDir,
    counted,
    length,
    open_library,
    open_workspace,
    printable,
    seconds_bar,
    short,
    show,
    span,
    spinner,
    step_lines,
)
from mgv.errors import UsageError

if TYPE_CHECKING:
    from mgv.ask.library import Library
    from mgv.library.ingest import IngestResult
    from mgv.library.materialize import Report
    from mgv.records import Answer, Moment


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    as_json: Json = False,
) -> None:
    """Make a workspace: a git and DVC repository with params.yaml and dvc.yaml."""
    from mgv.workspace import init_workspace

    workspace = init_workspace(directory)
    show(
        as_json,
        {"workspace": str(workspace.root)},
        f"workspace {workspace.root}\nnext: cd {directory} && mgv ingest FILES_OR_FOLDERS && mgv materialize",
    )


@app.command()
def ingest(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Video files, or folders of them.")
    ],
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Take in videos, each content once, and version them with DVC."""
    from mgv.library import ingest as library_ingest

    if not all(paths):
        raise UsageError("an empty path; say `.` to take in the folder you are in")
    workspace = open_workspace(library)
    with step_lines("ingest") as step:
        results = library_ingest.ingest(
            workspace, map(Path, paths), lambda result: step(_ingest_line(result))
        )
    rejected = [result for result in results if result.outcome == "rejected"]
    counts = counted([result.outcome for result in results])
    show(
        as_json,
        {"files": [asdict(result) for result in results]},
        f"{counts}\nnext: mgv materialize",
    )
    if rejected and len(rejected) == sum(result.outcome != "skipped" for result in results):
        raise typer.Exit(4)


def _ingest_line(result: IngestResult) -> str:
    name = result.name or result.source
    return f"{result.outcome:9}  {printable(name)}" + (
        f"  ({printable(result.reason)})" if result.reason else ""
    )


@app.command()
def remove(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="File names as `mgv videos` lists them.")
    ],
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Take videos out of the library; DVC keeps the versions that had them."""
    from mgv.library import ingest as library_ingest

    removed = library_ingest.remove(open_workspace(library), names)
    show(
        as_json,
        {"removed": removed},
        f"removed {', '.join(map(printable, removed))}\nnext: mgv materialize",
    )


@app.command()
def materialize(
    library: LibraryDir = HERE,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Recompute everything.")] = False,
    as_json: Json = False,
) -> None:
    """Bring frame embeddings and subtitle segments up to date: only what changed is computed."""
    from mgv.library.materialize import materialize as run
    from mgv.registry import champion

    workspace = open_workspace(library)
    with seconds_bar("materialize") as bar:
        report = run(workspace, rebuild=rebuild, on_plan=bar.plan, on_step=bar.step)
    show(as_json, _report_json(report), _report_text(report))
    live = champion(workspace)
    if live is not None and live.library_tag != report.manifest.tag:
        print(
            f"mgv: searches answer from the champion's library {live.library_tag} until this one is promoted: "
            "mgv promote --library-tag newest",
            file=sys.stderr,
        )
    if report.is_worse:
        raise typer.Exit(4)


def _report_json(report: Report) -> dict[str, Any]:
    manifest = report.manifest
    return {
        "computed": list(report.computed),
        "renamed": list(report.renamed),
        "removed": list(report.removed),
        "failed": manifest.failed,
        "kept": dict(report.kept),
        "videos": len(manifest.items) - len(manifest.failed),
        "frames": manifest.num_frames,
        "segments": manifest.num_segments,
        "duration_s": manifest.duration_s,
        "digest": manifest.digest,
        "tag": manifest.tag,
    }


def _report_text(report: Report) -> str:
    manifest = report.manifest
    lines = [
        f"{what} {printable(name)}"
        for what in ("renamed", "removed")
        for name in getattr(report, what)
    ]
    lines += [
        f"failed {printable(name)}: {printable(why)}" for name, why in manifest.failed.items()
    ]
    lines += [
        f"failed {printable(name)}: {printable(why)} (what was computed of it before stays)"
        for name, why in report.kept.items()
    ]
    changed = f"{len(report.computed)} computed" if report.computed else "nothing to compute"
    lines.append(
        f"{changed}; the library holds {len(manifest.items) - len(manifest.failed)} videos "
        f"({length(manifest.duration_s)}), {manifest.num_frames} frames, {manifest.num_segments} segments"
    )
    return "\n".join(lines)


AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="WHEN",
        help="Ask the past: a library's tag, a model version (v3), a date or time, a git commit; or `newest`.",
    ),
]


@app.command()
def videos(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show this one with its words.")
    ] = None,
    library: LibraryDir = HERE,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """List the library's videos and the files that could not be taken in, or show one video with its words."""
    from mgv.library.memory import read_memory

    opened = open_library(library, as_of)
    if name is not None:
        details = _details(opened, name)
        show(as_json, plain(details), _video_text(details))
        return
    rejected = {} if as_of else dict(read_memory(open_workspace(library)).still_rejected())
    rows = [asdict(video) for video in opened.videos()]
    lines = [
        f"{length(video.duration_s):>8}  {video.width}x{video.height}  {video.video_codec}"
        f"{'+' + video.audio_codec if video.audio_codec else ''}  {printable(video.name)}"
        for video in opened.videos()
    ]
    failed = opened.manifest.failed
    lines += [f"{'failed':>8}  {printable(file)}: {printable(why)}" for file, why in failed.items()]
    lines += [
        f"{'rejected':>8}  {printable(file)}: {printable(why)}" for file, why in rejected.items()
    ]
    value = {"videos": rows, "failed": failed, "rejected": rejected}
    show(as_json, value, "\n".join(lines) or "no videos yet")


def _details(opened: Library, name: str) -> dict[str, Any]:
    """A video's facts, where its words come from, and its cues."""
    if (reason := opened.manifest.failed.get(name)) is not None:
        return {"name": name, "state": "failed", "reason": reason, "start_s": 0.0, "cues": []}
    source, cues = opened.subtitles(name)
    video = opened.video(name)
    return {
        **asdict(video),
        "state": "ready",
        "words": source,
        "cues": [asdict(cue) for cue in cues],
    }


def _video_text(details: dict[str, Any]) -> str:
    facts = {
        key: value for key, value in details.items() if key != "cues" and value not in ("", None)
    }
    lines = [f"{key:12}  {printable(str(value))}" for key, value in facts.items()]
    for cue in details["cues"]:
        lines.append(f"{length(cue['start_s']):>12}  {printable(cue['text'])}")
    return "\n".join(lines)


Limit = Annotated[
    int | None,
    typer.Option("--top", "-k", "--limit", "-n", metavar="N", help="How many moments at most."),
]


In = Annotated[
    list[str] | None,
    typer.Option("--in", metavar="VIDEO", help="Only in this video (repeat for several)."),
]


AnswererName = Annotated[
    str | None,
    typer.Option("--answerer", metavar="NAME", help="Instead of params.yaml's; see `mgv parts`."),
]


Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained", metavar="WEIGHTS", help="The answerer's: a folder, hub id or model name."
    ),
]


@app.command()
def search(
    words: Annotated[
        list[str],
        typer.Argument(metavar="QUERY...", help="What to look for, for example: a white parrot."),
    ],
    library: LibraryDir = HERE,
    limit: Limit = None,
    videos: In = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Find moments: by what is seen, what is meant and the words said."""
    query = " ".join(words)
    with spinner("searching"):
        moments = open_library(library, as_of).search(query, limit=limit, videos=videos)
    show(as_json, {"query": query, "moments": moments_json(moments)}, _moments_text(moments))


@app.command()
def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[VIDEO] QUESTION...",
            help="A question; before it the video's file name, to ask that one.",
        ),
    ],
    library: LibraryDir = HERE,
    videos: In = None,
    answerer: AnswererName = None,
    pretrained: Pretrained = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Ask the library, or one of its videos: an answer with the moments it rests on."""
    _answer(library, words, videos, answerer, pretrained, as_of, as_json)


@app.command("search-and-ask")
def search_and_ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="QUESTION...", help="A question, or a scene: scene where the rocket lifts off."
        ),
    ],
    library: LibraryDir = HERE,
    videos: In = None,
    answerer: AnswererName = None,
    pretrained: Pretrained = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Ask the whole library: an answer with the moments it rests on."""
    _answer(library, words, videos, answerer, pretrained, as_of, as_json)


def _answer(
    library: Path,
    words: list[str],
    videos: list[str] | None,
    answerer: str | None,
    pretrained: str | None,
    as_of: str | None,
    as_json: bool,
) -> None:
    with spinner("reading"):
        opened = open_library(library, as_of)
        if answerer or pretrained:
            opened = opened.with_answerer(answerer, pretrained)
        named, question = _split_video(words, opened)
        answer = opened.ask(question, videos=[*named, *(videos or [])] or None)
    show(as_json, answer_json(answer), _answer_text(answer))


def _split_video(words: list[str], library: Library) -> tuple[list[str], str]:
    """The video that the words begin with, if any, and the question."""
    from mgv.media.probe import is_video_name

    first, *rest = words
    known = any(first in (video.name, video.video_id) for video in library.videos())
    if rest and (known or is_video_name(Path(first))):
        return [first], " ".join(rest)
    if known:
        raise UsageError(f"{first} is a video; add a question: mgv ask {first} QUESTION")
    return [], " ".join(words)


def _moments_text(moments: Sequence[Moment]) -> str:
    if not moments:
        return "nothing relevant found"
    return "\n".join(
        f"{number}  {printable(moment.video)}  {span(moment)}  {moment.score:.2f}  {'+'.join(moment.channels)}"
        + _detail(moment)
        for number, moment in enumerate(moments, start=1)
    )


def _said(moment: Moment) -> str:
    return f"\n   “{short(moment.text)}”" if moment.text else ""


def _detail(moment: Moment) -> str:
    said = _said(moment)
    seen = (
        f"\n   sees: {', '.join(moment.labels)}"
        if moment.labels and "frames" in moment.channels
        else ""
    )
    return said + seen


def _answer_text(answer: Answer) -> str:
    receipt = [f"receipt {answer.receipt_id}"] if answer.receipt_id else []
    if answer.text is None:
        near = [
            f"   {printable(moment.video)}  {span(moment)}" + _said(moment)
            for moment in answer.nearest
        ]
        nearest = ["nearest:", *near] if near else []
        because = f": {printable(answer.reason)}" if answer.reason else ""
        return "\n".join([f"no answer{because}", *nearest, *receipt])
    cited = [
        f"[{citation.number}] {printable(citation.video)}  {span(citation)}"
        for citation in answer.citations
    ]
    return "\n".join([printable(answer.text), *([""] if cited else []), *cited, *receipt])
