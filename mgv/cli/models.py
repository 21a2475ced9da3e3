"""The model: prepare, train, evaluate, compare, import-checkpoint."""

from __future__ import annotations

import logging
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
    bars,
    count_bars,
    length,
    open_workspace,
    printable,
    short,
    show,
    spinner,
)
from mgv.errors import UsageError

if TYPE_CHECKING:
    from mgv.config import EvaluateParams
    from mgv.data.report import PrepareReport
    from mgv.evaluate.compare import Comparison
    from mgv.evaluate.results import Run
    from mgv.train.stages import StageReport


@app.command()
def prepare(
    library: LibraryDir = HERE,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check", metavar="FILE", help="Only report what is wrong with this annotation file."
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--source", metavar="NAME", help="With --check: its format, see docs/data.md."
        ),
    ] = "samples",
    media: Annotated[
        Path | None,
        typer.Option(
            "--media", metavar="DIR", help="With --check: look the media up in this folder."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make training samples from annotations and videos, split by content, in data/prepare."""
    if check is not None:
        _check(check, source, media, as_json)
        return
    from mgv.data.prepare import prepare as run
    from mgv.data.report import report_json

    workspace = open_workspace(library)
    with count_bars("prepare") as progress:
        report = run(workspace, progress)
    shown = report_json(report) | {"bad_rows": [str(row) for row in report.bad_rows]}
    del shown["first_bad_rows"]
    show(as_json, shown, _prepared_text(report))


def _prepared_text(report: PrepareReport) -> str:
    lines = [f"bad row  {printable(str(row))}" for row in report.bad_rows[:20]]
    if len(report.bad_rows) > len(lines):
        lines.append(f"bad row  and {len(report.bad_rows) - len(lines)} more (--json lists all)")
    for (stage, split), tally in report.tallies():
        counts = tally.counts
        lines.append(
            f"{stage:15} {split:10}  {counts['samples']:>8,} samples  {counts['turns']:>8,} turns  "
            f"{length(counts['milliseconds'] / 1000):>9}"
        )
    return "\n".join(lines) or "no samples"


def _check(path: Path, source: str, media: Path | None, as_json: bool) -> None:
    """Print every fault of an annotation file; exit with 2 when there are any."""
    from mgv.data.check import check_annotations

    if media is not None and not media.is_dir():
        raise UsageError(f"{media}: no such folder")
    with count_bars("check") as progress:
        report = check_annotations(path, source, media, lambda done: progress(path.name, done, 0))
    left_out = len(report.bad_rows) - len(report.faults)
    numbers = {"samples": report.num_samples, "turns": report.num_turns, "left_out": left_out}
    faults = [str(row) for row in report.faults]
    lines = [printable(fault) for fault in faults]
    lines.append(f"{report.num_samples} samples, {report.num_turns} turns, {len(faults)} faults")
    if left_out:
        lines.append(f"{left_out} rows are about no video or image and would be left out")
    show(as_json, {**numbers, "faults": faults}, "\n".join(lines))
    if faults:
        raise typer.Exit(2)


@app.command()
def train(
    stages: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STAGE...", help="pretrain_image, pretrain_video, instruct; all when left out."
        ),
    ] = None,
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Train the video language model on data/prepare, stage by stage; a stopped run continues."""
    from mgv.train.stages import STAGES, train_stage

    workspace = open_workspace(library)
    logging.getLogger("mgv.train").setLevel(logging.INFO)
    reports = []
    for stage in stages or STAGES:
        with count_bars(stage) as progress:
            reports.append(train_stage(workspace, stage, progress))
    show(as_json, {"stages": [_stage_json(report) for report in reports]}, _trained_text(reports))


def _stage_json(report: StageReport) -> dict[str, Any]:
    scores, outcome = report.scores, report.outcome
    return {
        "stage": report.stage,
        "folder": str(report.folder),
        "steps": outcome.num_steps,
        "seconds": round(outcome.seconds, 1),
        "validation_loss": None if scores is None else round(scores.loss, 4),
        "validation_accuracy": None if scores is None else scores.accuracy,
    }


def _trained_text(reports: list[StageReport]) -> str:
    lines = []
    for report in reports:
        line = (
            f"{report.stage:15} {report.outcome.num_steps} steps in {report.outcome.seconds:.0f} s"
        )
        if report.scores is not None:
            line += f"; validation loss {report.scores.loss:.3f}"
            if report.scores.accuracy is not None:
                line += f", {report.scores.accuracy:.1%} of closed questions right"
        lines.append(line)
    ask = f"mgv ask VIDEO QUESTION --answerer video_llm --pretrained {reports[-1].folder}"
    return "\n".join([*lines, f"next: {ask}"])


@app.command()
def evaluate(
    library: LibraryDir = HERE,
    starter: Annotated[
        bool,
        typer.Option(
            "--starter", help="The demo library and the starter model, on their own sets."
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The folder of a trained model, `starter` or `champion`."),
    ] = None,
    questions: Annotated[
        str | None, typer.Option(metavar="FILE", help="Questions to the model about clips.")
    ] = None,
    questions_format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="samples, mgv, msvd, tvqa, ... (docs/evaluation.md)."),
    ] = None,
    videos: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the questions' videos lie.")
    ] = None,
    subtitles: Annotated[
        str | None, typer.Option(metavar="PATH", help="A folder of subtitles, or TVQA's file.")
    ] = None,
    no_subtitles: Annotated[
        bool, typer.Option("--no-subtitles", help="Show the model frames only.")
    ] = False,
    library_questions: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Questions to the library, by search and ask."),
    ] = None,
    library_questions_format: Annotated[
        str | None, typer.Option(metavar="NAME", help="mgv, tvqa_long, ... (docs/evaluation.md).")
    ] = None,
    queries: Annotated[
        str | None, typer.Option(metavar="FILE", help="Queries to search the library for.")
    ] = None,
    queries_format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="mgv, msrvtt, didemo, tvr, ... (docs/evaluation.md)."),
    ] = None,
    transcripts: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Reference subtitles for the library's speech recognition."
        ),
    ] = None,
    judge: Annotated[str | None, typer.Option(metavar="NAME", help="rule, openai or hf.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", metavar="N", help="Only N of each.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only answer this part; a run without it joins them."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what failed.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Instead of the workspace's results/."),
    ] = None,
    gate: Annotated[
        bool,
        typer.Option("--gate", help="Fail (exit code 10) when worse than the baseline allows."),
    ] = False,
    freeze: Annotated[
        Path | None,
        typer.Option("--freeze", metavar="FILE", help="Write the baseline of later gates."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how good a model or a library is: scores, controls, confidence, and a page (results/report.html).

    Without --starter, --questions, --library-questions, --queries or --transcripts all that params.yaml names is
    asked; else only what is named here. `starter` in place of a file is the set that comes with mgv.
    """
    from mgv.evaluate.ledger import parse_shard
    from mgv.evaluate.run import QUESTION_SETS, Progress, open_questions, write_results
    from mgv.evaluate.run import ask as ask_questions
    from mgv.evaluate.run import evaluate as run_evaluation

    workspace = open_workspace(library)
    given = {
        "model": model if model == "champion" else _from_here(model),
        "questions": _from_here(questions),
        "questions_format": questions_format,
        "videos": _from_here(videos),
        "subtitles": _from_here(subtitles),
        "use_subtitles": False if no_subtitles else None,
        "library_questions": _from_here(library_questions),
        "library_questions_format": library_questions_format,
        "queries": _from_here(queries),
        "queries_format": queries_format,
        "transcripts": _from_here(transcripts),
        "judge": judge,
        "limit": limit,
    }
    params = _evaluate_params(workspace.params.evaluate, given, starter)
    folder = output or workspace.results_dir
    with bars(every=100) as bar:
        progress = Progress(stage=bar.stage, plan=bar.plan, step=bar.step)
        if shard is not None:
            part = parse_shard(shard)
            asked = [
                open_questions(workspace, params, folder, key)
                for key in QUESTION_SETS
                if getattr(params, key)
            ]
            for each in asked:
                ask_questions(each, shard=part, retry_failed=retry_failed, progress=progress)
            done = {
                "answered": sum(len(each.answers.rows) for each in asked),
                "questions": sum(len(each.questions.items) for each in asked),
            }
            show(as_json, done, f"{done['answered']} of {done['questions']} questions are answered")
            return
        run = run_evaluation(
            workspace, params, folder, retry_failed=retry_failed, progress=progress
        )
        write_results(folder, run, workspace.videos_dir)
    show(
        as_json,
        {"metrics": run.metrics, "facts": run.facts.as_json()},
        f"{_run_text(run)}\n→ {folder / 'report.html'}",
    )
    _finish_gate(run, params, workspace.root, gate, freeze)


def _from_here(path: str | None) -> str | None:
    """A path of the command line counts from where the person is, one of params.yaml from the workspace."""
    return path if path in (None, "starter") else str(Path(path).expanduser().absolute())


def _evaluate_params(
    params: EvaluateParams, given: dict[str, Any], starter: bool
) -> EvaluateParams:
    """The section with what the command line says in its place; sets that it names are asked, no others."""
    from dataclasses import replace

    from pydantic import ValidationError

    from mgv.evaluate.results import SETS

    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if starter:
        chosen = {"model": "starter", **dict.fromkeys(SETS, "starter"), **chosen}
    elif chosen.keys() & set(SETS):
        chosen = {**dict.fromkeys(SETS), **chosen}
    if (judge := chosen.pop("judge", None)) is not None:
        chosen["judge"] = replace(params.judge, name=judge)
    try:
        return replace(params, **chosen)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{'-'.join(map(str, first['loc']))}: {first['msg']}") from error


def _finish_gate(
    run: Run, params: EvaluateParams, root: Path, gate: bool, freeze: Path | None
) -> None:
    """Hold the run against its baseline; then freeze it, so that no run is held against itself."""
    from mgv.errors import ConfigError
    from mgv.evaluate.gate import check_gate, write_baseline

    if gate:
        if params.baseline is None:
            raise ConfigError(
                "evaluate.baseline: names no file; make one by `mgv evaluate --freeze FILE`"
            )
        for check in check_gate(run, root / params.baseline, params.gate):
            print(
                f"gate  {check.metric}  {check.baseline:.4f} → {check.value:.4f}", file=sys.stderr
            )
    if freeze is not None:
        write_baseline(freeze.absolute(), run)


def _run_text(run: Run) -> str:
    """The figures of a run, a line each, and how many items failed."""
    of_controls = ("recall_at_1", "moment_recall_at_1_iou_0_5", "iou", "nothing_found")
    lines = [
        f"{printable(name):50}  {figure.value:7.3f}  [{figure.low:.3f}, {figure.high:.3f}]  {figure.count}"
        for name, figure in run.figures.items()
        if name.count(".") == 1 or (name.count(".") == 2 and name.endswith(of_controls))
    ]
    lines += [
        f"{name:50}  {run.metrics[name]:7.3f}"
        for name in sorted(run.metrics.keys() - run.figures.keys())
    ]
    return "\n".join(lines)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A folder that `mgv evaluate` wrote.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another, held against the first.")],
    as_json: Json = False,
) -> None:
    """Compare two evaluations item by item: what differs beyond chance, and which items flipped."""
    from mgv.evaluate.compare import compare as run_comparison
    from mgv.evaluate.results import read_run

    comparison = run_comparison(read_run(a), read_run(b))
    show(as_json, plain(asdict(comparison)), _comparison_text(comparison))


def _comparison_text(comparison: Comparison) -> str:
    lines = [f"beware: {printable(warning)}" for warning in comparison.warnings]
    lines += [
        f"{each.metric:45}  {each.a:.3f} → {each.b:.3f}  {each.difference:+.3f} [{each.low:+.3f}, {each.high:+.3f}]"
        f"  p {each.p_value:.3f}  {each.count}{'' if each.is_clear else '  (may be chance)'}"
        for each in comparison.differences
    ]
    for to in ("wrong", "right"):
        flipped = [flip for flip in comparison.flips if flip.to == to]
        lines.append(f"{len(flipped)} became {to}")
        lines += [
            f"  {printable(flip.key)}  {printable(short(flip.text, 60))}\n"
            f"    {printable(short(flip.a, 60))} → {printable(short(flip.b, 60))}"
            for flip in flipped[:20]
        ]
    if comparison.only_a or comparison.only_b:
        lines.append(
            f"not compared: {comparison.only_a} items only in A, {comparison.only_b} only in B"
        )
    return "\n".join(lines)


@app.command("import-checkpoint")
def import_checkpoint(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A published .pth, .bin, .safetensors, or a folder."),
    ],
    output: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    language_model: Annotated[
        str | None,
        typer.Option(metavar="WEIGHTS", help="The base that a projector or LoRA belongs to."),
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(metavar="WEIGHTS", help="The vision encoder's weights: a folder or hub id."),
    ] = None,
    connector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Say minigpt_v2 for its .pth, else it is read as minigpt4_video."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a published checkpoint into mgv's format; every tensor is used, or the import is refused."""
    from mgv.model.importing import import_checkpoint as run

    with spinner("importing"):
        imported = run(
            source,
            output,
            language_model=language_model,
            vision_pretrained=vision,
            connector=connector,
        )
    aside = f", {len(imported.left_aside)} without use here" if imported.left_aside else ""
    show(
        as_json,
        plain(asdict(imported)),
        f"{imported.layout}: {imported.num_taken} of {imported.num_tensors} tensors{aside} → {imported.folder}",
    )
