"""Run: one evaluation from params.yaml to its results: questions answered and judged, queries searched, all scored."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mgv.config import EvaluateParams
from mgv.errors import ConfigError, WorkspaceError
from mgv.evaluate.answering import LibrarySystem, ModelSystem, OnPlan, OnStep, System, answer_items, given_of
from mgv.evaluate.judges import Task, costs, judge_tasks, load_judge
from mgv.evaluate.ledger import Json, Ledger, Shard, facts_digest
from mgv.evaluate.queries import queries_digest, read_queries
from mgv.evaluate.questions import Item, Questions, items_digest, read_questions
from mgv.evaluate.report import looker, render
from mgv.evaluate.results import Run, write_run, write_text
from mgv.evaluate.retrieval import CONTROLS, PRIOR, evaluate_retrieval, is_hit
from mgv.evaluate.scores import (
    Figure,
    Scored,
    aspect_average,
    confidence_metrics,
    counts,
    needs_judge,
    score_item,
    summarise,
)
from mgv.registry import NEWEST, find_model
from mgv.workspace import Workspace

if TYPE_CHECKING:
    from mgv.api import Library

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Whom to tell what is being done."""

    stage: Callable[[str], None] = lambda name: None
    """`answer`, `judge` or `search` begins."""
    plan: OnPlan = lambda count: None
    step: OnStep = lambda name, step, done: None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question set, a system, and what it has answered so far."""

    questions: Questions
    answers: Ledger
    folder: Path
    """Of the answers: one for each system and set, so that no two runs are ever mixed."""


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

    Raises ConfigError when there is nothing to evaluate, or a part is unknown; WorkspaceError when a file or the
    library is missing.
    """
    if params.questions is None and params.queries is None:
        raise ConfigError("evaluate: name questions or queries (docs/evaluation.md has both formats)")
    started = time.perf_counter()
    facts: Json = {
        "mgv": version("mgv"),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": params.seed,
        "limit": params.limit,
        "num_bootstrap": params.num_bootstrap,
    }
    if library is None and asks_library(params):
        library = open_library(workspace)
    rows: list[Scored] = []
    if params.questions is not None:
        asked = ask(workspace, params, output, library=library, retry_failed=retry_failed, progress=progress)
        verdicts = judge(params, asked, retry_failed=retry_failed, progress=progress)
        rows += [
            score_item(item, given_of(asked.answers.rows[(item.item_id,)]), _of(verdicts, item))
            for item in asked.questions.items
        ]
        facts |= {
            "system": asked.answers.facts,
            "judge": verdicts.facts,
            "judging": costs(verdicts.rows.values()),
        }
        facts["questions"] = {
            "name": Path(params.questions).name,
            "format": params.questions_format,
            "digest": asked.questions.digest,
            "count": len(asked.questions.items),
            "missing": asked.questions.missing,
        }
    if params.queries is not None:
        assert library is not None, "opened above"
        found, facts["queries"] = search(workspace, params, library, progress)
        rows += found
        facts["library"] = library.manifest.digest
    facts["time_s"] = round(time.perf_counter() - started, 1)
    return summed_up(facts, rows, params)


def asks_library(params: EvaluateParams) -> bool:
    """Whether the library is asked or searched, not only a model."""
    return params.queries is not None or params.system == "library"


def ask(
    workspace: Workspace,
    params: EvaluateParams,
    output: Path,
    *,
    library: Library | None = None,
    shard: Shard = Shard(),  # noqa: B008
    retry_failed: bool = False,
    progress: Progress = Progress(),
) -> Asked:
    """Answer the questions, or a shard of them; what was answered before is not asked again."""
    questions = load_questions(workspace, params)
    system: System
    if params.system == "library":
        system = LibrarySystem(library or open_library(workspace), within_video=params.within_video)
    else:
        system = ModelSystem(find_model(workspace, params.model), params)
    facts = system.facts() | {"items": questions.digest}
    folder = output / "answers" / facts_digest(facts)[:12]
    answers = Ledger(folder, "answers", facts, key=("item_id",))
    progress.stage("answer")
    answer_items(
        questions.items,
        system,
        answers,
        shard=shard,
        retry_failed=retry_failed,
        on_plan=progress.plan,
        on_step=progress.step,
    )
    return Asked(questions=questions, answers=answers, folder=folder)


def load_questions(workspace: Workspace, params: EvaluateParams) -> Questions:
    """The questions of params.yaml, `limit` of them. Raises WorkspaceError when the file is not there."""
    assert params.questions is not None, "checked by who calls"
    path = _file(workspace, params.questions, "questions", "run `dvc repro prepare`")
    own = workspace.root if params.questions_format == "samples" else workspace.videos_dir
    videos = workspace.root / params.videos if params.videos else own
    subtitles = workspace.root / params.subtitles if params.subtitles else None
    questions = read_questions(path, params.questions_format, videos=videos, subtitles=subtitles)
    items = sampled(questions.items, params, lambda item: item.item_id)
    return Questions(items=tuple(items), missing=questions.missing, digest=items_digest(items))


def _file(workspace: Workspace, name: str, key: str, advice: str) -> Path:
    path = workspace.root / name
    if not path.exists():
        raise WorkspaceError(f"{path}: not there; {advice}, or name another file by evaluate.{key}")
    return path


def sampled(items: Sequence[T], params: EvaluateParams, key: Callable[[T], str]) -> list[T]:
    """`limit` of the items, drawn by the seed, the same on every run; in the order of their ids."""
    ordered = sorted(items, key=key)
    if params.limit is None or params.limit >= len(ordered):
        return ordered
    return sorted(random.Random(params.seed).sample(ordered, params.limit), key=key)


def judge(params: EvaluateParams, asked: Asked, *, retry_failed: bool, progress: Progress) -> Ledger:
    """Verdicts on the open questions that were answered."""
    judge = load_judge(params.judge, {name for item in asked.questions.items for name in item.protocols})
    facts = judge.facts() | {"answers": facts_digest(asked.answers.facts)}
    verdicts = Ledger(
        asked.folder, f"verdicts-{facts_digest(facts)[:12]}", facts, key=("item_id", "protocol")
    )
    tasks = [
        task for item in asked.questions.items for task in _tasks(item, asked.answers.rows[(item.item_id,)])
    ]
    progress.stage("judge")
    judge_tasks(
        tasks, judge, verdicts, retry_failed=retry_failed, on_plan=progress.plan, on_step=progress.step
    )
    return verdicts


def _tasks(item: Item, row: Json) -> list[Task]:
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


def _of(verdicts: Ledger, item: Item) -> dict[str, Json]:
    found = {protocol: verdicts.rows.get((item.item_id, protocol)) for protocol in item.protocols}
    return {protocol: row for protocol, row in found.items() if row is not None}


def search(
    workspace: Workspace, params: EvaluateParams, library: Library, progress: Progress
) -> tuple[list[Scored], Json]:
    """Every query's scores, for the library and its controls; and what was asked."""
    assert params.queries is not None, "checked by who calls"
    path = _file(workspace, params.queries, "queries", "write one (docs/evaluation.md)")
    queries = sampled(read_queries(path, params.queries_format), params, lambda query: query.query_id)
    progress.stage("search")
    found = evaluate_retrieval(
        library, queries, depth=params.search_depth, on_plan=progress.plan, on_step=progress.step
    )
    facts = {
        "name": path.name,
        "format": params.queries_format,
        "digest": queries_digest(queries),
        "count": len([row for row in found.rows if row.task == "query"]),
        "missing": found.missing,
    }
    return found.rows, facts


def open_library(workspace: Workspace) -> Library:
    """The workspace's newest library, live or not yet. Raises WorkspaceError where there is none."""
    from mgv.api import Library

    return Library.open(workspace.root, as_of=NEWEST)


def write_results(folder: Path, run: Run, videos_dir: Path) -> None:
    """Everything that a run leaves behind: the page first, metrics.json last."""
    write_text(folder / "report.html", render(run, looker(videos_dir)))
    write_run(folder, run)


def summed_up(facts: Json, rows: Sequence[Scored], params: EvaluateParams) -> Run:
    """The rows of a run with what they come to."""
    chance: dict[str, Any] = {"num_bootstrap": params.num_bootstrap, "seed": params.seed}
    figures: dict[str, Figure] = {}
    others: dict[str, float] = {}
    asked = [row for row in rows if row.task == "question"]
    if asked:
        figures |= summarise(asked, prefix="qa", **chance)
        others |= counts(asked, "qa") | confidence_metrics(asked, "qa", "accuracy")
        others["qa.missing_videos"] = float(len(facts["questions"]["missing"]))
        if (average := aspect_average(figures, "qa")) is not None:
            others["qa.aspects"] = average
    searched = [row for row in rows if row.task == "query"]
    if searched:
        figures |= summarise(searched, prefix="retrieval", **chance)
        others["retrieval.count"] = float(len(searched))
        others["retrieval.missing_videos"] = float(len(facts["queries"]["missing"]))
        for control in (*CONTROLS, PRIOR):
            own = [row for row in rows if row.task == f"query.{control}"]
            found = summarise(own, prefix=f"retrieval.{control}", **chance)
            figures |= {name: figure for name, figure in found.items() if ".kind." not in name}
        others |= _search_confidence(searched)
    metrics = {name: figure.value for name, figure in figures.items()} | others
    metrics = {name: round(value, 6) for name, value in metrics.items()}
    return Run(facts=json.loads(json.dumps(facts)), figures=figures, metrics=metrics, rows=tuple(rows))


def _search_confidence(rows: Sequence[Scored]) -> dict[str, float]:
    """Whether the best moment's score tells queries that were served rightly from those that were not."""
    from dataclasses import replace

    told = [replace(row, scores={"hit": is_hit(row)}) for row in rows if "nothing_found" not in row.scores]
    return {
        name: value for name, value in confidence_metrics(told, "retrieval", "hit").items() if "auroc" in name
    }
