"""Retrain: new videos → library → model → better than the champion? → live.  python -m flows.retrain [--library DIR]

inbox → dvc repro, stage by stage → candidate and champion on the same questions → gate → publish, promote → push

Each stage is a subflow with its own run page at one Prefect server. What is finished is not done again: a run that was
killed goes on where it was. One run at a time holds data/.retrain.lock, which the system frees when a run dies.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import FLOW_RUN, PARENT, may_pass, run_flow
from flows.evaluate import evaluate
from flows.notices import tell, tell_of_failure
from mgv import registry, versioning
from mgv.errors import ConfigError, GateError
from mgv.evaluate.results import read_run
from mgv.library.inbox import Taken, inbox_folder, take_in
from mgv.operations.cleaning import check_budget
from mgv.retrain import (
    CANDIDATE,
    Decision,
    Note,
    alone,
    carry_out,
    decide,
    decision_key,
    read_note,
    write_note,
)
from mgv.workspace import Workspace, find_workspace

STAGES = ("materialize", "prepare", "pretrain_image", "pretrain_video", "instruct", "evaluate")


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """What became of a stage."""

    stage: str
    outcome: str
    """`ran`, `restored` (DVC had the result) or `unchanged`."""
    seconds: float
    changes: tuple[str, ...] = ()
    """Paths that it read or made and that are not what they were."""


@task(
    name="take in videos",
    retries=3,
    retry_delay_seconds=[2, 15, 60],
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def take_in_videos(library: Path, inbox: Path) -> Taken:
    """The inbox's new videos, into data/videos and a commit."""
    log = get_run_logger()
    workspace = find_workspace(library)
    taken = take_in(workspace, inbox, workspace.params.retrain.settle_s)
    for result in taken.results:
        level = log.warning if result.outcome == "rejected" else log.info
        level("%s %s %s", result.outcome, result.name or result.source, result.reason or "")
    for name in taken.waiting:
        log.info("%s is still being written, and waits for the next run", name)
    new = [
        result.name for result in taken.results if result.outcome in ("added", "updated", "renamed")
    ]
    if new:
        versioning.commit_changes(
            workspace.root,
            ["data/videos.dvc", "data/.gitignore"],
            f"Take in {', '.join(map(str, new))}",
        )
    return taken


@task(
    name="run stage",
    task_run_name="run {stage}",
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def run_stage(library: Path, stage: str) -> StageRun:
    """`dvc repro STAGE`; what DVC starts is a subflow of this run. Its output is logged here too."""
    log = get_run_logger()
    before, started = _locked(library, stage), time.perf_counter()
    with get_client(sync_client=True) as client:
        server = str(client.api_url)
    environment = {FLOW_RUN: str(flow_run.id), PARENT: str(os.getpid()), "PREFECT_API_URL": server}
    outcome = versioning.repro(library, stage, lambda line: log.info("%s", line), environment)
    after = _locked(library, stage)
    changes = [path for path in after if after[path] != before.get(path)]
    run = StageRun(
        stage=stage,
        outcome=outcome,
        seconds=round(time.perf_counter() - started, 1),
        changes=tuple(changes),
    )
    if outcome != "unchanged":
        rows = [
            {"path": path, "was": before.get(path, "")[:12], "is": after[path][:12]}
            for path in changes
        ]
        create_table_artifact(
            rows,
            key=stage.replace("_", "-"),
            description=f"{stage} {outcome}; what is not as it was",
        )
    return run


def _locked(root: Path, stage: str) -> dict[str, str]:
    sides = versioning.lock_digests(root).get(stage, {})
    return sides.get("deps", {}) | sides.get("outs", {})


def run_stages(workspace: Workspace) -> list[StageRun]:
    """All stages in turn; those ahead of the first that something has changed for need no run of DVC."""
    changed = set(versioning.changed_stages(workspace.root))
    known = next(
        (n for n, stage in enumerate(STAGES) if stage in changed or "data/videos.dvc" in changed),
        len(STAGES),
    )
    unchanged = [
        StageRun(stage=stage, outcome="unchanged", seconds=0.0) for stage in STAGES[:known]
    ]
    params = workspace.params.retrain
    stage_task = run_stage.with_options(
        retries=params.retries, retry_delay_seconds=10, timeout_seconds=params.stage_hours * 3600
    )
    return unchanged + [stage_task(workspace.root, stage) for stage in STAGES[known:]]


@task(
    name="push",
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_condition_fn=lambda task, run, state: (
        not isinstance(state.result(raise_on_failure=False), ConfigError)
    ),
    cache_policy=NO_CACHE,
)
def push(library: Path, version: str | None) -> list[str]:
    """To the remotes of DVC and git; a version that is promoted also to the Hub where params.yaml names a place."""
    workspace = find_workspace(library)
    notes = versioning.push(workspace.root)
    if version is not None and (place := workspace.params.publish.push_to_hub):
        notes.append(f"{version} pushed to {registry.push_to_hub(workspace, version, place)}")
    for note in notes:
        get_run_logger().info("%s", note)
    return notes


def _run_name() -> str:
    given = flow_run.parameters.get("library") or "."
    return f"retrain {Path(str(given)).absolute().name} {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(
    name="retrain",
    flow_run_name=_run_name,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def retrain(library: Path = Path(), inbox: Path | None = None, wait: bool = False) -> Any:
    """Take in what is new, train what it changes, and make it live when it is no worse than what is.

    wait: for another retrain of this workspace to end, instead of being refused.
    """
    workspace = find_workspace(library)
    params = workspace.params
    if params.evaluate.model != CANDIDATE:
        raise ConfigError(
            f"evaluate.model is {params.evaluate.model}; retrain needs the candidate, {CANDIDATE}"
        )
    check_budget(workspace)
    os.environ[FLOW_RUN] = str(flow_run.id)
    with alone(workspace, wait):
        taken = take_in_videos(workspace.root, inbox or inbox_folder(workspace))
        stages = run_stages(workspace)
        key, last = decision_key(workspace), read_note(workspace)
        known = last if last and last.key == key else None
        if known and known.done:
            report(workspace, taken, stages, None, "nothing new")
            return Completed(
                name="NothingNew", message="nothing new", data={"outcome": "nothing new"}
            )
        decision = (
            known.decision if known else decide(workspace, partial(_evaluate, workspace.root))
        )
        write_note(workspace, Note(key=key, decision=decision, done=False))
        promotion = carry_out(workspace, decision, str(flow_run.id))
        outcome = "promoted" if decision.promote == "candidate" else "refused"
        promoted = promotion.version if promotion and outcome == "promoted" else None
        notes = push(workspace.root, promoted) if params.retrain.push else []
        live = (
            f"{promotion.version} with library {promotion.library_tag}" if promotion else "no model"
        )
        report(workspace, taken, stages, decision, f"{outcome}; live: {live}", notes)
        tell(workspace, f"mgv: candidate {outcome}", f"{decision.reason}\nlive: {live}")
        write_note(workspace, Note(key=key, decision=decision, done=True))
    data = {"outcome": outcome, "reason": decision.reason, "live": live}
    return Completed(name=outcome.capitalize(), message=f"{outcome}: {decision.reason}", data=data)


def _evaluate(root: Path, model: str, output: Path) -> None:
    """Evaluate what is live, as a subflow."""
    evaluate(root, model=model, output=output, live=True)


def report(
    workspace: Workspace,
    taken: Taken,
    stages: Sequence[StageRun],
    decision: Decision | None,
    outcome: str,
    notes: Sequence[str] = (),
) -> None:
    """The run's page: what came in, what ran, the scores, and where everything is."""
    get_run_logger().info("%s", outcome)
    videos = [
        [result.name or Path(result.source).name, result.outcome, result.reason or ""]
        for result in taken.results
    ]
    videos += [[name, "waiting", "still being written"] for name in taken.waiting]
    lines = [
        f"# {outcome}",
        decision.reason if decision else "",
        "## Videos",
        _table(["video", "outcome", "reason"], videos),
    ]
    rows = [
        [each.stage, each.outcome, f"{each.seconds:.0f} s", ", ".join(each.changes)]
        for each in stages
    ]
    lines += ["## Stages", _table(["stage", "outcome", "time", "not as it was"], rows)]
    if decision and decision.checks:
        scores = [
            [
                c.metric,
                f"{c.baseline:.4f}",
                f"{c.value:.4f}",
                f"{c.tolerance:g}",
                "yes" if c.passed else "no",
            ]
            for c in decision.checks
        ]
        lines += [
            "## Scores",
            _table(["metric", "champion", "candidate", "tolerance", "passed"], scores),
        ]
    elif decision:
        metrics = read_run(workspace.results_dir).metrics
        scores = [
            [name, f"{value:.4f}"]
            for name, value in sorted(metrics.items())
            if ".kind." not in name
        ]
        lines += ["## Scores", _table(["metric", "candidate"], scores)]
    commit = versioning.head(workspace.root)
    lines += [
        "## Links",
        f"* commit {commit[0] if commit else 'none'}",
        *(f"* {note}" for note in notes),
    ]
    page = workspace.results_dir / "report.html"
    if page.is_file():
        lines.append(f"* the evaluation: [{page.name}]({page.as_uri()})")
    create_markdown_artifact(
        "\n\n".join(line for line in lines if line), key="retrain", description=outcome
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "none"
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *cells])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    parser.add_argument(
        "--inbox", type=Path, metavar="DIR", help="instead of params.yaml's retrain.inbox"
    )
    parser.add_argument("--wait", action="store_true", help="wait while another retrain is at work")
    given = parser.parse_args()
    done = run_flow(retrain, library=given.library, inbox=given.inbox, wait=given.wait)
    raise SystemExit(GateError.exit_code if done["outcome"] == "refused" else 0)
