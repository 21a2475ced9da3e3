"""Run: one evaluation from params.yaml to its results: questions answered and judged, queries searched, all scored."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mgv import __version__
from mgv.config import EvaluateParams
from mgv.errors import ConfigError, WorkspaceError
from mgv.evaluate.answering import (
    LibrarySystem,
    ModelSystem,
    OnPlan,
    OnStep,
    System,
    answer_items,
    given_of,
)
from mgv.evaluate.judges import Judge, Task, costs, judge_tasks, load_judge
from mgv.evaluate.ledger import Json, Ledger, Shard, facts_digest
from mgv.evaluate.report import looker, render
from mgv.evaluate.results import SETS, Run, write_run, write_text
from mgv.evaluate.retrieval import CONTROLS, PRIOR, evaluate_retrieval, is_hit
from mgv.evaluate.scores import (
    TASKS,
    Figure,
    Scored,
    aspect_average,
    confidence_metrics,
    failures,
    needs_judge,
    score_item,
    summarise,
)
from mgv.evaluate.sets.queries import queries_digest, read_queries
from mgv.evaluate.sets.questions import EvaluationItem, Questions, items_digest, read_questions
from mgv.evaluate.transcripts import NORMALISED, evaluate_transcripts
from mgv.registry import NEWEST, find_model
from mgv.registry.evaluation import Facts, parse_facts
from mgv.workspace import Workspace

if TYPE_CHECKING:
    from mgv.ask.library import Library

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Whom to tell what is being done."""

    stage: Callable[[str], None] = lambda name: None
    """`answer`, `ask`, `judge`, `search` or `transcripts` begins."""
    plan: OnPlan = lambda count: None
    step: OnStep = lambda name, step, done: None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question set, who is asked, and what was answered so far."""

    task: str
    """Of its rows."""
    questions: Questions
    name: str
    """Of its file."""
    format: str
    system: System
    answers: Ledger
    folder: Path
    """Of the answers: one for each system and set, so that no two runs are ever mixed."""


QUESTION_SETS = {"questions": "question", "library_questions": "ask"}
"""Keys of params.yaml that name questions, and the task of their rows."""


def evaluate(
    workspace: Workspace,
    params: EvaluateParams,
    output: Path,
    *,
    library: Library | None = None,
    retry_failed: bool = False,
    progress: Progress = Progress(),
) -> Run:
    """Evaluate what params say; answers and verdicts are kept under `output`, and a run that was stopped goes on.

    library: an open one, where it is asked (asks_library); None opens the newest.
    What is quick comes first, a model's answers last. Raises ConfigError when there is nothing to evaluate, or a part
    is unknown; WorkspaceError when a file or the library is missing, before anything is asked.
    """
    if not any(getattr(params, key) for key in SETS):
        raise ConfigError(
            f"evaluate: name what to ask: {', '.join(SETS)} (docs/evaluation.md has the formats)"
        )
    started = time.perf_counter()
    facts: Json = {
        "mgv": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": params.seed,
        "limit": params.limit,
        "num_bootstrap": params.num_bootstrap,
    }
    if asks_library(params):
        library = library or open_library(workspace)
        facts["library"] = library.manifest.digest
    opened = {
        key: open_questions(workspace, params, output, key, library)
        for key in QUESTION_SETS
        if getattr(params, key)
    }
    if opened:
        items = [item for asked in opened.values() for item in asked.questions.items]
        judge = load_judge(
            params.judge, {protocol for item in items for protocol in item.protocols}
        )
        facts["judge"] = judge.facts()
    rows: list[Scored] = []
    if params.transcripts:
        assert library is not None, "opened above"
        heard, facts["transcripts"] = transcribed(workspace, params, library, progress)
        rows += heard
    if params.queries:
        assert library is not None, "opened above"
        searched, facts["queries"] = search(workspace, params, library, progress)
        rows += searched
    costly: list[Json] = []
    for key, asked in reversed(opened.items()):
        ask(asked, retry_failed=retry_failed, progress=progress)
        verdicts = judged(asked, judge, retry_failed=retry_failed, progress=progress)
        rows += [
            score_item(
                item, given_of(asked.answers.rows[(item.item_id,)]), _of(verdicts, item), asked.task
            )
            for item in asked.questions.items
        ]
        costly += verdicts.rows.values()
        facts["model" if key == "questions" else "ask"] = asked.answers.facts
        count, missing = len(asked.questions.items), asked.questions.missing
        facts[key] = _set_facts(asked.name, asked.format, asked.questions.digest, count, missing)
    if opened:
        facts["judging"] = costs(costly)
    facts["time_s"] = round(time.perf_counter() - started, 1)
    return summed_up(parse_facts(json.loads(json.dumps(facts))), rows, params)


def asks_library(params: EvaluateParams) -> bool:
    """Whether the library is asked or searched, not only a model."""
    return any(getattr(params, key) for key in SETS[1:])


def _set_facts(name: str, format: str, digest: str, count: int, missing: dict[str, int]) -> Json:
    return {"name": name, "format": format, "digest": digest, "count": count, "missing": missing}


def open_questions(
    workspace: Workspace,
    params: EvaluateParams,
    output: Path,
    key: str,
    library: Library | None = None,
) -> Asked:
    """One of QUESTION_SETS, who is asked, and what was answered before. Raises what `evaluate` does."""
    questions, name, format = load_questions(workspace, params, key)
    system: System
    if key == "library_questions":
        system = LibrarySystem(library or open_library(workspace), within_video=params.within_video)
    else:
        system = ModelSystem(find_model(workspace, params.model), params)
    facts = system.facts() | {"items": questions.digest}
    folder = output / "answers" / facts_digest(facts)[:12]
    return Asked(
        task=QUESTION_SETS[key],
        questions=questions,
        name=name,
        format=format,
        system=system,
        answers=Ledger(folder, "answers", facts, key=("item_id",)),
        folder=folder,
    )


def ask(
    asked: Asked,
    *,
    shard: Shard = Shard(),  # noqa: B008
    retry_failed: bool = False,
    progress: Progress = Progress(),
) -> None:
    """Answer a set, or a shard of it; what was answered before is not asked again."""
    progress.stage("answer" if asked.task == "question" else "ask")
    answer_items(
        asked.questions.items,
        asked.system,
        asked.answers,
        shard=shard,
        retry_failed=retry_failed,
        on_plan=progress.plan,
        on_step=progress.step,
    )


def load_questions(
    workspace: Workspace, params: EvaluateParams, key: str
) -> tuple[Questions, str, str]:
    """A question set, `limit` of it, its file's name and format. Raises WorkspaceError when it is not there."""
    path, format = _source(workspace, params, key, "run `dvc repro prepare`")
    videos, subtitles = workspace.videos_dir, None
    if key == "questions":
        own = workspace.root if format == "samples" else workspace.videos_dir
        videos = workspace.root / params.videos if params.videos else own
        videos = path.parent if params.questions == STARTER else videos
        subtitles = workspace.root / params.subtitles if params.subtitles else None
    questions = read_questions(path, format, videos=videos, subtitles=subtitles)
    items = sampled(questions.items, params, lambda item: item.item_id)
    drawn = Questions(items=tuple(items), missing=questions.missing, digest=items_digest(items))
    return drawn, path.name, format


STARTER = "starter"


def _source(
    workspace: Workspace, params: EvaluateParams, key: str, advice: str
) -> tuple[Path, str]:
    """The file of a set, and its format. Raises WorkspaceError when it is not there."""
    name: str = getattr(params, key)
    if name == STARTER:
        from mgv.evaluate.sets.starter import starter_set

        return starter_set(key), "samples" if key == "questions" else "mgv"
    path = workspace.root / name
    if not path.exists():
        raise WorkspaceError(f"{path}: not there; {advice}, or name another file by evaluate.{key}")
    return path, getattr(params, f"{key}_format", "mgv")


def sampled(items: Sequence[T], params: EvaluateParams, key: Callable[[T], str]) -> list[T]:
    """`limit` of the items, drawn by the seed, the same on every run; in the order of their ids."""
    ordered = sorted(items, key=key)
    if params.limit is None or params.limit >= len(ordered):
        return ordered
    return sorted(random.Random(params.seed).sample(ordered, params.limit), key=key)


def judged(asked: Asked, judge: Judge, *, retry_failed: bool, progress: Progress) -> Ledger:
    """Verdicts on the open questions that were answered."""
    facts = judge.facts() | {"answers": facts_digest(asked.answers.facts)}
    verdicts = Ledger(
        asked.folder, f"verdicts-{facts_digest(facts)[:12]}", facts, key=("item_id", "protocol")
    )
    tasks = [
        task
        for item in asked.questions.items
        for task in _tasks(item, asked.answers.rows[(item.item_id,)])
    ]
    progress.stage("judge")
    judge_tasks(
        tasks,
        judge,
        verdicts,
        retry_failed=retry_failed,
        on_plan=progress.plan,
        on_step=progress.step,
    )
    return verdicts


def _tasks(item: EvaluationItem, row: Json) -> list[Task]:
    given = given_of(row)
    if not needs_judge(item, given):
        return []
    return [
        Task(
            item_id=item.item_id,
            protocol=protocol,
            question=item.question,
            reference=item.answer or "",
            answer=given.answer or "",
            also_asked=item.also_asked,
            also_answer=given.also_answer,
        )
        for protocol in item.protocols
    ]


def _of(verdicts: Ledger, item: EvaluationItem) -> dict[str, Json]:
    judgements = {
        protocol: verdicts.rows.get((item.item_id, protocol)) for protocol in item.protocols
    }
    return {protocol: row for protocol, row in judgements.items() if row is not None}


def search(
    workspace: Workspace, params: EvaluateParams, library: Library, progress: Progress
) -> tuple[list[Scored], Json]:
    """Every query's scores, for the library and its controls; and what was asked."""
    path, format = _source(workspace, params, "queries", "write one (docs/evaluation.md)")
    queries = sampled(read_queries(path, format), params, lambda query: query.query_id)
    progress.stage("search")
    searched = evaluate_retrieval(
        library, queries, depth=params.search_depth, on_plan=progress.plan, on_step=progress.step
    )
    count = len([row for row in searched.rows if row.task == "query"])
    return searched.rows, _set_facts(
        path.name, format, queries_digest(queries), count, searched.missing
    )


def transcribed(
    workspace: Workspace, params: EvaluateParams, library: Library, progress: Progress
) -> tuple[list[Scored], Json]:
    """The word error rate of every video that has a reference; and what was compared."""
    folder, _ = _source(
        workspace, params, "transcripts", "make a folder of .vtt or .srt named as the videos"
    )
    progress.stage("transcripts")
    compared = evaluate_transcripts(library, folder, on_plan=progress.plan, on_step=progress.step)
    facts = _set_facts(
        folder.name, "subtitles", compared.digest, len(compared.rows), compared.missing
    )
    transcriber = library.manifest.parts["transcriber"]
    return compared.rows, facts | {
        "unscored": compared.unscored, "transcriber": transcriber, "normalised": NORMALISED,
    }  # fmt: skip


def open_library(workspace: Workspace) -> Library:
    """The workspace's newest library, live or not yet. Raises WorkspaceError where there is none."""
    from mgv.ask.library import Library

    return Library.open(workspace.root, as_of=NEWEST)


def write_results(folder: Path, run: Run, videos_dir: Path) -> None:
    """Everything that a run leaves behind: the page first, metrics.json last."""
    write_text(folder / "report.html", render(run, looker(videos_dir)))
    write_run(folder, run)


def summed_up(facts: Facts, rows: Sequence[Scored], params: EvaluateParams) -> Run:
    """The rows of a run with what they come to."""
    chance: dict[str, Any] = {"num_bootstrap": params.num_bootstrap, "seed": params.seed}
    figures: dict[str, Figure] = {}
    others: dict[str, float] = {}
    sets = facts.sets()
    for (task, prefix), key in zip(TASKS.items(), SETS, strict=True):
        own = [row for row in rows if row.task == task]
        if key in sets:
            figures |= summarise(own, prefix=prefix, **chance)
            others[f"{prefix}.count"] = float(len(own))
            others[f"{prefix}.missing_videos"] = float(len(sets[key].missing))
        if own and key in QUESTION_SETS:
            others |= failures(own, prefix) | confidence_metrics(own, prefix, "accuracy")
            if (average := aspect_average(figures, prefix)) is not None:
                others[f"{prefix}.aspects"] = average
    if heard := [row for row in rows if row.task == "transcript"]:
        others["transcripts.words"] = sum(row.weight for row in heard)
    if facts.transcripts:
        others["transcripts.unscored"] = float(len(facts.transcripts.unscored))
    searched = [row for row in rows if row.task == "query"]
    if searched:
        for control in (*CONTROLS, PRIOR):
            own = [row for row in rows if row.task == f"query.{control}"]
            summary = summarise(own, prefix=f"retrieval.{control}", **chance)
            figures |= {name: figure for name, figure in summary.items() if ".kind." not in name}
        others |= _search_confidence(searched)
    metrics = {name: figure.value for name, figure in figures.items()} | others
    metrics = {name: round(value, 6) for name, value in metrics.items()}
    return Run(facts=facts, figures=figures, metrics=metrics, rows=tuple(rows))


def _search_confidence(rows: Sequence[Scored]) -> dict[str, float]:
    """Whether the best moment's score tells queries that were served rightly from those that were not."""
    from dataclasses import replace

    scored = [
        replace(row, scores={"hit": is_hit(row)})
        for row in rows
        if "nothing_found" not in row.scores
    ]
    return {
        name: value
        for name, value in confidence_metrics(scored, "retrieval", "hit").items()
        if "auroc" in name
    }
