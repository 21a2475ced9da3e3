"""The command line. Only this module prints: results on stdout, progress and warnings on stderr.

Nothing heavy is imported here: each command imports what it runs.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgv.errors import MgvError, UsageError

if TYPE_CHECKING:
    from mgv.api import Library
    from mgv.config import EvaluateParams
    from mgv.data.report import PrepareReport
    from mgv.evaluate.compare import Comparison
    from mgv.evaluate.results import Run
    from mgv.evaluate.run import Progress
    from mgv.library.ingest import IngestResult
    from mgv.library.materialize import Report
    from mgv.records import Answer, Moment
    from mgv.train.stages import StageReport
    from mgv.workspace import Workspace

app = typer.Typer(
    name="mgv",
    help="Ask a library of videos; get an answer with the moments it rests on.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

LibraryDir = Annotated[
    Path,
    typer.Option(
        "--library", "-l", metavar="DIR", envvar="MGV_LIBRARY", help="The workspace, or a folder in it."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", metavar="N", help="How many moments at most.")]
In = Annotated[
    list[str] | None, typer.Option("--in", metavar="VIDEO", help="Only in this video (repeat for several).")
]
AnswererName = Annotated[
    str | None, typer.Option("--answerer", metavar="NAME", help="Instead of params.yaml's; see `mgv parts`.")
]
Pretrained = Annotated[
    str | None,
    typer.Option("--pretrained", metavar="WEIGHTS", help="The answerer's: a folder, hub id or model name."),
]
HERE = Path()


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
) -> None:
    logging.getLogger("mgv").setLevel(logging.INFO if verbose else logging.WARNING)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    as_json: Json = False,
) -> None:
    """Make a workspace: a git and DVC repository with params.yaml and dvc.yaml."""
    from mgv.workspace import init_workspace

    workspace = init_workspace(directory)
    _show(
        as_json,
        {"workspace": str(workspace.root)},
        f"workspace {workspace.root}\nnext: cd {directory} && mgv ingest FILES_OR_FOLDERS && mgv materialize",
    )


@app.command()
def ingest(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Video files, or folders of them.")],
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Take videos in, each once by content, and version them with DVC."""
    from mgv.library import ingest as library_ingest

    if not all(paths):
        raise UsageError("an empty path; say `.` to take in the folder you are in")
    workspace = _workspace(library)
    with _steps("ingest") as step:
        results = library_ingest.ingest(
            workspace, map(Path, paths), lambda result: step(_ingest_line(result))
        )
    rejected = [result for result in results if result.outcome == "rejected"]
    counts = _counts([result.outcome for result in results])
    _show(as_json, {"files": [asdict(result) for result in results]}, f"{counts}\nnext: mgv materialize")
    if rejected and len(rejected) == len(results):
        raise typer.Exit(4)


def _ingest_line(result: IngestResult) -> str:
    name = result.name or result.source
    return f"{result.outcome:9}  {_printable(name)}" + (
        f"  ({_printable(result.reason)})" if result.reason else ""
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

    removed = library_ingest.remove(_workspace(library), names)
    _show(
        as_json, {"removed": removed}, f"removed {', '.join(map(_printable, removed))}\nnext: mgv materialize"
    )


@app.command()
def materialize(
    library: LibraryDir = HERE,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Compute everything anew.")] = False,
    as_json: Json = False,
) -> None:
    """Bring frame embeddings and subtitle segments up to date: only what changed is computed."""
    from mgv.library.materialize import materialize as run

    workspace = _workspace(library)
    with _bar("materialize") as (plan, step):
        report = run(workspace, rebuild=rebuild, on_plan=plan, on_step=step)
    _show(as_json, _report_json(report), _report_text(report))


def _report_json(report: Report) -> dict[str, Any]:
    manifest = report.manifest
    return {
        "computed": list(report.computed),
        "renamed": list(report.renamed),
        "removed": list(report.removed),
        "failed": manifest.failed,
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
        f"{what} {_printable(name)}" for what in ("renamed", "removed") for name in getattr(report, what)
    ]
    lines += [f"failed {_printable(name)}: {_printable(why)}" for name, why in manifest.failed.items()]
    changed = f"{len(report.computed)} computed" if report.computed else "nothing to compute"
    lines.append(
        f"{changed}; the library holds {len(manifest.items) - len(manifest.failed)} videos "
        f"({_length(manifest.duration_s)}), {manifest.num_frames} frames, {manifest.num_segments} segments"
    )
    return "\n".join(lines)


@app.command()
def prepare(
    library: LibraryDir = HERE,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="Only say what is wrong with this annotation file."),
    ] = None,
    source: Annotated[
        str, typer.Option("--source", metavar="NAME", help="With --check: its format, see docs/data.md.")
    ] = "samples",
    media: Annotated[
        Path | None,
        typer.Option("--media", metavar="DIR", help="With --check: look the media up in this folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make training samples of annotations and videos, split by content, in data/prepare."""
    if check is not None:
        _check(check, source, media, as_json)
        return
    from mgv.data.prepare import prepare as run
    from mgv.data.report import report_json

    workspace = _workspace(library)
    with _count_bar("prepare") as progress:
        report = run(workspace, progress)
    shown = report_json(report) | {"bad_rows": [str(row) for row in report.bad_rows]}
    del shown["first_bad_rows"]
    _show(as_json, shown, _prepared_text(report))


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
    """Train the video language model on data/prepare, stage by stage; a run that was stopped goes on."""
    from mgv.train.stages import STAGES, train_stage

    workspace = _workspace(library)
    logging.getLogger("mgv.train").setLevel(logging.INFO)
    reports = []
    for stage in stages or STAGES:
        with _count_bar(stage) as progress:
            reports.append(train_stage(workspace, stage, progress))
    _show(as_json, {"stages": [_stage_json(report) for report in reports]}, _trained_text(reports))


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
        line = f"{report.stage:15} {report.outcome.num_steps} steps in {report.outcome.seconds:.0f} s"
        if report.scores is not None:
            line += f"; validation loss {report.scores.loss:.3f}"
            if report.scores.accuracy is not None:
                line += f", {report.scores.accuracy:.1%} of closed questions right"
        lines.append(line)
    ask = f"mgv ask VIDEO QUESTION --answerer video_llm --pretrained {reports[-1].folder}"
    return "\n".join([*lines, f"next: {ask}"])


def _prepared_text(report: PrepareReport) -> str:
    lines = [f"bad row  {_printable(str(row))}" for row in report.bad_rows[:20]]
    if len(report.bad_rows) > len(lines):
        lines.append(f"bad row  and {len(report.bad_rows) - len(lines)} more (--json lists all)")
    for (stage, split), tally in report.tallies():
        counts = tally.counts
        lines.append(
            f"{stage:15} {split:10}  {counts['samples']:>8,} samples  {counts['turns']:>8,} turns  "
            f"{_length(counts['milliseconds'] / 1000):>9}"
        )
    return "\n".join(lines) or "no samples"


def _check(path: Path, source: str, media: Path | None, as_json: bool) -> None:
    """Print every fault of an annotation file; exit with 2 when there are any."""
    from mgv.data.check import check_annotations

    if media is not None and not media.is_dir():
        raise UsageError(f"{media}: no such folder")
    with _count_bar("check") as progress:
        report = check_annotations(path, source, media, lambda done: progress(path.name, done, 0))
    left_out = len(report.bad_rows) - len(report.faults)
    numbers = {"samples": report.num_samples, "turns": report.num_turns, "left_out": left_out}
    faults = [str(row) for row in report.faults]
    lines = [_printable(fault) for fault in faults]
    lines.append(f"{report.num_samples} samples, {report.num_turns} turns, {len(faults)} faults")
    if left_out:
        lines.append(f"{left_out} rows are about no video or image and would be left out")
    _show(as_json, {**numbers, "faults": faults}, "\n".join(lines))
    if faults:
        raise typer.Exit(2)


@app.command()
def videos(library: LibraryDir = HERE, as_json: Json = False) -> None:
    """List the library's videos."""
    opened = _library(library)
    rows = [asdict(video) for video in opened.videos()]
    lines = [
        f"{_length(video.duration_s):>8}  {video.width}x{video.height}  {video.video_codec}"
        f"{'+' + video.audio_codec if video.audio_codec else ''}  {_printable(video.name)}"
        for video in opened.videos()
    ]
    lines += [
        f"{'failed':>8}  {_printable(name)}: {_printable(why)}"
        for name, why in opened.manifest.failed.items()
    ]
    _show(as_json, {"videos": rows, "failed": opened.manifest.failed}, "\n".join(lines) or "no videos yet")


@app.command()
def search(
    query: Annotated[str, typer.Argument(help='What to look for, for example "a white parrot".')],
    library: LibraryDir = HERE,
    limit: Limit = None,
    videos: In = None,
    as_json: Json = False,
) -> None:
    """Find moments: by what is seen, what is meant and the words said."""
    with _spinner("searching"):
        moments = _library(library).search(query, limit=limit, videos=videos)
    _show(as_json, {"query": query, "moments": _moments_json(moments)}, _moments_text(moments))


@app.command()
def ask(
    video: Annotated[str, typer.Argument(help="A video of the library, by file name.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    library: LibraryDir = HERE,
    answerer: AnswererName = None,
    pretrained: Pretrained = None,
    as_json: Json = False,
) -> None:
    """Ask one video."""
    _answer(library, question, [video], answerer, pretrained, as_json)


@app.command("search-and-ask")
def search_and_ask(
    question: Annotated[
        str, typer.Argument(help='A question, or a scene: "scene where the rocket lifts off".')
    ],
    library: LibraryDir = HERE,
    videos: In = None,
    answerer: AnswererName = None,
    pretrained: Pretrained = None,
    as_json: Json = False,
) -> None:
    """Ask the whole library: an answer with the moments it rests on."""
    _answer(library, question, videos, answerer, pretrained, as_json)


def _answer(
    library: Path,
    question: str,
    videos: list[str] | None,
    answerer: str | None,
    pretrained: str | None,
    as_json: bool,
) -> None:
    with _spinner("reading"):
        opened = _library(library)
        if answerer or pretrained:
            opened.use_answerer(answerer, pretrained)
        answer = opened.ask(question, videos=videos)
    _show(as_json, _answer_json(answer), _answer_text(answer))


@app.command()
def evaluate(
    library: LibraryDir = HERE,
    system: Annotated[
        str | None, typer.Option(metavar="NAME", help="model, or library (search and ask).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="The folder of a trained model, or `starter`.")
    ] = None,
    questions: Annotated[
        str | None, typer.Option(metavar="FILE", help="A question file; `none` leaves questions out.")
    ] = None,
    questions_format: Annotated[
        str | None, typer.Option(metavar="NAME", help="samples, mgv, msvd, tvqa, ... (docs/evaluation.md).")
    ] = None,
    videos: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the questions' videos lie.")
    ] = None,
    subtitles: Annotated[
        str | None, typer.Option(metavar="PATH", help="A folder of subtitles, or TVQA's file.")
    ] = None,
    no_subtitles: Annotated[bool, typer.Option("--no-subtitles", help="Show the model frames only.")] = False,
    queries: Annotated[
        str | None, typer.Option(metavar="FILE", help="A query file; `none` leaves search out.")
    ] = None,
    queries_format: Annotated[
        str | None, typer.Option(metavar="NAME", help="mgv, msrvtt, didemo, tvr, ... (docs/evaluation.md).")
    ] = None,
    judge: Annotated[str | None, typer.Option(metavar="NAME", help="rule, openai or hf.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", metavar="N", help="Only N of each.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only answer this part; a run without it joins them.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again what failed.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Instead of the workspace's results/."),
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Fail (exit code 10) when worse than the baseline allows.")
    ] = False,
    freeze: Annotated[
        Path | None, typer.Option("--freeze", metavar="FILE", help="Write the baseline of later gates.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how good a model or a library is: scores, controls, confidence, and a page (results/report.html)."""
    from mgv.evaluate.ledger import parse_shard
    from mgv.evaluate.run import ask as ask_questions
    from mgv.evaluate.run import evaluate as run_evaluation
    from mgv.evaluate.run import write_results

    workspace = _workspace(library)
    given = {
        "system": system,
        "model": model if model in (None, "starter") else _from_here(model),
        "questions": questions and _from_here(questions),
        "questions_format": questions_format,
        "videos": videos and _from_here(videos),
        "subtitles": subtitles and _from_here(subtitles),
        "use_subtitles": False if no_subtitles else None,
        "queries": queries and _from_here(queries),
        "queries_format": queries_format,
        "judge": judge,
        "limit": limit,
    }
    params = _evaluate_params(workspace.params.evaluate, given)
    folder = output or workspace.root / "results"
    with _progress() as progress:
        if shard is not None:
            asked = ask_questions(
                workspace,
                params,
                folder,
                shard=parse_shard(shard),
                retry_failed=retry_failed,
                progress=progress,
            )
            done = {"answered": len(asked.answers.rows), "questions": len(asked.questions.items)}
            _show(as_json, done, f"{done['answered']} of {done['questions']} questions are answered")
            return
        run = run_evaluation(workspace, params, folder, retry_failed=retry_failed, progress=progress)
        write_results(folder, run, workspace.videos_dir)
    _finish_gate(run, params, workspace.root, gate, freeze)
    _show(
        as_json, {"metrics": run.metrics, "facts": run.facts}, f"{_run_text(run)}\n→ {folder / 'report.html'}"
    )


def _from_here(path: str) -> str:
    """A path of the command line counts from where the person is, one of params.yaml from the workspace."""
    return path if path == "none" else str(Path(path).expanduser().absolute())


def _evaluate_params(params: EvaluateParams, given: dict[str, Any]) -> EvaluateParams:
    """The section with what the command line says in its place; `none` stands for null."""
    from dataclasses import replace

    from pydantic import ValidationError

    chosen: dict[str, Any] = {
        key: None if value == "none" else value for key, value in given.items() if value is not None
    }
    if (judge := chosen.pop("judge", None)) is not None:
        chosen["judge"] = replace(params.judge, name=judge)
    try:
        return replace(params, **chosen)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{'-'.join(map(str, first['loc']))}: {first['msg']}") from error


def _finish_gate(run: Run, params: EvaluateParams, root: Path, gate: bool, freeze: Path | None) -> None:
    """Freeze a baseline, or hold the run against it."""
    from mgv.errors import ConfigError
    from mgv.evaluate.gate import check_gate, write_baseline

    if freeze is not None:
        write_baseline(freeze.absolute(), run)
    if gate:
        if params.baseline is None:
            raise ConfigError("evaluate.baseline: names no file; make one by `mgv evaluate --freeze FILE`")
        for check in check_gate(run, root / params.baseline, params.gate):
            print(f"gate  {check.metric}  {check.baseline:.4f} → {check.value:.4f}", file=sys.stderr)


def _run_text(run: Run) -> str:
    """The figures of a run, a line each, and how many items failed."""
    told = ("recall_at_1", "moment_recall_at_1_iou_0_5", "iou", "nothing_found")  # of each control
    lines = [
        f"{_printable(name):50}  {figure.value:7.3f}  [{figure.low:.3f}, {figure.high:.3f}]  {figure.count}"
        for name, figure in run.figures.items()
        if name.count(".") == 1 or (name.count(".") == 2 and name.endswith(told))
    ]
    lines += [
        f"{name:50}  {run.metrics[name]:7.3f}" for name in sorted(run.metrics.keys() - run.figures.keys())
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
    _show(as_json, _plain(asdict(comparison)), _comparison_text(comparison))


def _comparison_text(comparison: Comparison) -> str:
    lines = [f"beware: {_printable(warning)}" for warning in comparison.warnings]
    lines += [
        f"{each.metric:45}  {each.a:.3f} → {each.b:.3f}  {each.difference:+.3f} [{each.low:+.3f}, {each.high:+.3f}]"
        f"  p {each.p_value:.3f}  {each.count}{'' if each.is_clear else '  (may be chance)'}"
        for each in comparison.differences
    ]
    for to in ("wrong", "right"):
        flipped = [flip for flip in comparison.flips if flip.to == to]
        lines.append(f"{len(flipped)} became {to}")
        lines += [
            f"  {_printable(flip.key)}  {_printable(_short(flip.text, 60))}\n"
            f"    {_printable(_short(flip.a, 60))} → {_printable(_short(flip.b, 60))}"
            for flip in flipped[:20]
        ]
    if comparison.only_a or comparison.only_b:
        lines.append(f"not compared: {comparison.only_a} items only in A, {comparison.only_b} only in B")
    return "\n".join(lines)


@app.command()
def parts(as_json: Json = False) -> None:
    """List the parts that params.yaml can name."""
    from mgv.answer import ANSWERERS
    from mgv.encoders.parts import FAMILIES
    from mgv.evaluate.judges import JUDGES

    named = {family: sorted(names) for family, names in FAMILIES.items()}
    named |= {"answerer": sorted(ANSWERERS), "judge": sorted(JUDGES)}
    _show(as_json, named, "\n".join(f"{family:15}  {'  '.join(names)}" for family, names in named.items()))


@app.command()
def doctor(library: LibraryDir = HERE, as_json: Json = False) -> None:
    """Say what is installed, which weights are at hand, which device, and what to do about what is missing."""
    from mgv.doctor import examine

    checks = examine(library)
    lines = [
        f"{'ok' if check.ok else check.level:8}  {check.name:18}  {check.found}"
        + ("" if check.ok else f"\n{'':30}→ {check.advice}")
        for check in checks
    ]
    _show(as_json, {"checks": [asdict(check) for check in checks]}, "\n".join(lines))
    if any(check.level == "missing" and not check.ok for check in checks):
        raise typer.Exit(6)


@app.command("import-checkpoint")
def import_checkpoint(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A published .pth, .bin, .safetensors, or a folder.")
    ],
    output: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    language_model: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="The base that a projector or LoRA belongs to.")
    ] = None,
    vision: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="The vision encoder's weights: a folder or hub id.")
    ] = None,
    connector: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Say minigpt_v2 for its .pth, else it is read as minigpt4_video."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a published checkpoint a folder of ours: every tensor is taken over, or it is refused."""
    from mgv.model.importing import import_checkpoint as run

    with _spinner("importing"):
        imported = run(
            source, output, language_model=language_model, vision_pretrained=vision, connector=connector
        )
    aside = f", {len(imported.left_aside)} without use here" if imported.left_aside else ""
    _show(
        as_json,
        _plain(asdict(imported)),
        f"{imported.layout}: {imported.num_taken} of {imported.num_tensors} tensors{aside} → {imported.folder}",
    )


@app.command()
def setup(as_json: Json = False) -> None:
    """Convert the starter weights once, so that no other command has to."""
    from mgv.starter import prepare_starter, starter_status

    with _steps("setup") as step:
        prepare_starter(lambda part: step(f"{part.word:9} {part.what}"))
    status = [asdict(part) for part in starter_status()]
    _show(as_json, {"starter": _plain(status)}, "starter weights are ready")


def main() -> None:
    """Run the command line. An error that a person can mend is one line, with the exit code of its class."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.ERROR, format="mgv: %(message)s", stream=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, _stop)
    try:
        app()
    except MgvError as error:
        print(f"mgv: {_printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)


class _Stopped(MgvError):
    exit_code = 130


def _stop(*_: object) -> None:
    raise _Stopped("stopped; what was finished is kept")


_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def _workspace(start: Path) -> Workspace:
    from mgv.workspace import find_workspace

    return find_workspace(start)


def _library(start: Path) -> Library:
    from mgv.api import Library

    return Library.open(start)


def _show(as_json: bool, value: Any, text: str) -> None:
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    shown = json.dumps(value, ensure_ascii=ascii_only, indent=1) if as_json else text
    try:
        if shown:
            print(shown, flush=True)
    except BrokenPipeError:  # its reader went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _moments_json(moments: Sequence[Moment]) -> list[dict[str, Any]]:
    return [_plain(asdict(moment)) for moment in moments]


def _moments_text(moments: Sequence[Moment]) -> str:
    if not moments:
        return "nothing relevant found"
    return "\n".join(
        f"{number}  {_printable(moment.video)}  {_span(moment)}  {moment.score:.2f}  {'+'.join(moment.channels)}"
        + _detail(moment)
        for number, moment in enumerate(moments, start=1)
    )


def _detail(moment: Moment) -> str:
    said = f"\n   “{_short(moment.text)}”" if moment.text else ""
    seen = f"\n   sees: {', '.join(moment.labels)}" if moment.labels and "frames" in moment.channels else ""
    return said + seen


def _answer_json(answer: Answer) -> dict[str, Any]:
    return {
        "query": answer.question,
        "answer": answer.text,
        "citations": [_plain(asdict(citation)) for citation in answer.citations],
        "moments": _moments_json(answer.moments),
    }


def _answer_text(answer: Answer) -> str:
    if answer.text is None:
        return "nothing in the library answers that"
    cited = [
        f"[{citation.number}] {_printable(citation.video)}  {_span(citation)}"
        for citation in answer.citations
    ]
    return "\n".join([answer.text, "", *cited])


def _span(stretch: Any) -> str:
    from mgv.records import clock

    return f"{clock(stretch.start_s)}-{clock(stretch.end_s)}"


def _length(duration_s: float) -> str:
    from mgv.records import clock

    return clock(round(duration_s))


def _short(text: str, limit: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + " …"


def _printable(text: str) -> str:
    """Text for one line of a terminal: control characters are shown, not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _plain(value: Any) -> Any:
    """Tuples and paths as JSON knows them."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _counts(outcomes: list[str]) -> str:
    return ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes)) or "nothing found"


@contextmanager
def _spinner(what: str) -> Iterator[None]:
    """A moving sign on a terminal while something takes a while."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextmanager
def _steps(what: str) -> Iterator[Callable[[str], None]]:
    """A line on stderr for each step, with a moving sign in between on a terminal."""
    with _spinner(what):
        yield lambda line: print(line, file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Progress]:
    """What an evaluation is doing: a bar for each of its stages on a terminal, else a line now and then."""
    from mgv.evaluate.run import Progress

    if not sys.stderr.isatty():
        state = {"stage": "", "done": 0, "of": 0}

        def step(name: str, step: str, done: float) -> None:
            if step == "done":
                state["done"] += 1  # type: ignore[operator]
                if state["done"] in (1, state["of"]) or state["done"] % 100 == 0:  # type: ignore[operator]
                    print(f"{state['stage']} {state['done']}/{state['of']}", file=sys.stderr)

        yield Progress(
            stage=lambda name: state.update(stage=name, done=0),
            plan=lambda count: state.update(of=count),
            step=step,
        )
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:7}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        def stage(name: str) -> None:
            bars.add_task(name, total=None, now="")

        yield Progress(
            stage=stage,
            plan=lambda count: bars.update(bars.task_ids[-1], total=count),
            step=lambda name, step, done: bars.update(
                bars.task_ids[-1], advance=float(step == "done"), now=escape(_printable(name))
            ),
        )


@contextmanager
def _bar(what: str) -> Iterator[tuple[Callable[[int], None], Callable[[str, str, float], None]]]:
    """A progress bar over videos on a terminal; elsewhere a line for each finished video."""
    if not sys.stderr.isatty():
        total = [0, 0]

        def plan(count: int) -> None:
            total[1] = count

        def step(name: str, step: str, done: float) -> None:
            if step == "done":
                total[0] += 1
                print(f"{what} {total[0]}/{total[1]}  {_printable(name)}", file=sys.stderr)

        yield plan, step
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None, now="")

        def advance(name: str, step: str, done: float) -> None:
            progress.update(task, advance=step == "done", now=escape(f"{_printable(name)} {step} {done:.0%}"))

        yield lambda count: progress.update(task, total=count), advance


@contextmanager
def _count_bar(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar or, where the end is not known, a count for each named part; elsewhere a line for each finished part."""
    if not sys.stderr.isatty():

        def line(name: str, done: int, total: int) -> None:
            if done == total:
                print(f"{what} {_printable(name)}  {done}", file=sys.stderr)

        yield line
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn(f"{what} {{task.description}}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(escape(_printable(name)), total=None)
            bars.update(tasks[name], completed=done, total=total or None)

        yield advance


if __name__ == "__main__":
    main()
