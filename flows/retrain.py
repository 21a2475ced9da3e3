"""Retrain: new videos → library → model → better than the champion? → live.  python -m flows.retrain [--library DIR]

inbox → dvc repro, stage by stage → candidate and champion on the same questions → gate → publish, promote → push

Each stage is a subflow with its own run page at one Prefect server. What is finished is not done again: a run that was
killed goes on where it was. One run at a time holds data/.retrain.lock, which the system frees when a run dies.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
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
from mgv.errors import BusyError, ConfigError, GateError
from mgv.evaluate.gate import Check, checks_at_gate, worse_than_allowed, write_baseline
from mgv.evaluate.results import Run, read_run
from mgv.evaluate.run import asks_library
from mgv.library.inbox import Taken, inbox_folder, take_in
from mgv.library.manifest import newest_library
from mgv.operations import check_budget
from mgv.registry.promotion import EMBEDDERS, standing
from mgv.registry.publishing import DEFAULT_MODEL
from mgv.workspace import Workspace, find_workspace, write_json

STAGES = ("materialize", "prepare", "pretrain_image", "pretrain_video", "instruct", "evaluate")
CANDIDATE = DEFAULT_MODEL
SOURCES = ("params.yaml", "dvc.yaml", "dvc.lock", ".gitignore", "data/videos.dvc", "data/.gitignore",
           "data/prepare/report.json")  # fmt: skip
"""What a commit holds, so that it names the data, the parameters and the results."""


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """What became of a stage."""

    stage: str
    outcome: str
    """`ran`, `restored` (DVC had the result) or `unchanged`."""
    seconds: float
    changes: tuple[str, ...] = ()
    """Paths that it read or made and that are not what they were."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to be done with a candidate."""

    promote: str | None
    """`candidate`; `champion`, which goes on with the new library; or None."""
    reason: str
    checks: tuple[Check, ...] = ()


@contextmanager
def alone(workspace: Workspace, wait: bool) -> Iterator[None]:
    """Be the only retrain of this workspace. Raises BusyError when another is at work, or waits for its end."""
    from filelock import FileLock, Timeout

    path = workspace.root / "data" / ".retrain.lock"
    path.parent.mkdir(exist_ok=True)
    try:
        with FileLock(path, timeout=-1 if wait else 0):
            yield
    except Timeout as error:
        raise BusyError(
            f"{workspace.root}: another retrain is at work here; this one did nothing. Wait for it by --wait"
        ) from error


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
    new = [result.name for result in taken.results if result.outcome in ("added", "updated", "renamed")]
    if new:
        versioning.commit_changes(
            workspace.root, ["data/videos.dvc", "data/.gitignore"], f"Take in {', '.join(map(str, new))}"
        )
    return taken


@task(name="run stage", task_run_name="run {stage}", retry_condition_fn=may_pass, cache_policy=NO_CACHE)
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
        rows = [{"path": path, "was": before.get(path, "")[:12], "is": after[path][:12]} for path in changes]
        create_table_artifact(
            rows, key=stage.replace("_", "-"), description=f"{stage} {outcome}; what is not as it was"
        )
    return run


def _locked(root: Path, stage: str) -> dict[str, str]:
    sides = versioning.lock_digests(root).get(stage, {})
    return sides.get("deps", {}) | sides.get("outs", {})


def run_stages(workspace: Workspace) -> list[StageRun]:
    """All stages in turn; those ahead of the first that something has changed for need no run of DVC."""
    changed = set(versioning.changed_stages(workspace.root))
    known = next(
        (n for n, stage in enumerate(STAGES) if stage in changed or "data/videos.dvc" in changed), len(STAGES)
    )
    unchanged = [StageRun(stage=stage, outcome="unchanged", seconds=0.0) for stage in STAGES[:known]]
    params = workspace.params.retrain
    stage_task = run_stage.with_options(
        retries=params.retries, retry_delay_seconds=10, timeout_seconds=params.stage_hours * 3600
    )
    return unchanged + [stage_task(workspace.root, stage) for stage in STAGES[known:]]


# the decision


def decision(workspace: Workspace) -> Verdict:
    """Compare the candidate, as evaluated in results/, with what is live, on the same questions."""
    params = workspace.params
    candidate = read_run(workspace.root / "results")
    champion = registry.champion(workspace)
    compared = True
    if taken_back(workspace):
        checks: list[Check] = []
        faults = ["this model was rolled back: `mgv promote VERSION` makes it live again"]
    elif (
        champion is not None and same_model(workspace, champion.version) and not asks_library(params.evaluate)
    ):
        return Verdict(promote="candidate", reason="the same model, with the new library")
    else:
        checks, faults, compared = _checks(workspace, candidate, champion is not None)
    if not faults:
        better = f"as good as {champion.version} or better" if champion else "the first version"
        return Verdict(promote="candidate", reason=better, checks=tuple(checks))
    follows = champion is not None and all(each.passed or not _of_library(each) for each in checks)
    if follows and compared:
        return Verdict(promote="champion", reason="; ".join(faults), checks=tuple(checks))
    return Verdict(promote=None, reason="; ".join(faults), checks=tuple(checks))


def _checks(workspace: Workspace, candidate: Run, has_champion: bool) -> tuple[list[Check], list[str], bool]:
    """Each metric of `retrain.gate` beside the champion's, of `evaluate.gate` beside the baseline's; what is worse;
    whether all could be compared: other questions or another judge cannot.
    """
    params = workspace.params
    compared = True
    checks: list[Check] = []
    faults: list[str] = []
    against: list[tuple[Path, dict[str, float], str]] = []
    incumbent = registry.CHAMPION if has_champion else params.retrain.incumbent
    if params.retrain.gate and incumbent != "none":
        output = workspace.root / "results" / "champion"
        evaluate(workspace.root, model=incumbent, output=output, live=True)
        write_baseline(output / "baseline.json", read_run(output))
        against.append((output / "baseline.json", params.retrain.gate, "retrain.gate"))
    if params.evaluate.baseline and params.evaluate.gate:
        against.append((workspace.root / params.evaluate.baseline, params.evaluate.gate, "evaluate.gate"))
    for baseline, tolerances, key in against:
        try:
            checks += checks_at_gate(candidate, baseline, tolerances, key)
        except GateError as error:
            faults.append(str(error))
            compared = False
    return checks, [*faults, *worse_than_allowed(checks)], compared


def _of_library(check: Check) -> bool:
    """Whether a metric speaks of the library, not of the model alone."""
    return not check.metric.startswith("qa.")


def same_model(workspace: Workspace, version: str) -> bool:
    """Whether a published version is the candidate, weight for weight."""
    lineage = registry.read_lineage(workspace.published_dir / version)
    return bool(lineage["model"]["digest"] == registry.folder_digest(workspace.root / CANDIDATE))


def taken_back(workspace: Workspace) -> bool:
    """Whether the candidate is a version that a person rolled back."""
    entries = registry.history(workspace)
    gone = {entry.version for entry in entries} - {entry.version for entry in standing(entries)}
    return any(same_model(workspace, version) for version in gone)


# what follows from it


def carry_out(workspace: Workspace, verdict: Verdict) -> registry.Promotion | None:
    """Commit, publish, promote and tag; what an earlier run did already is left as it is."""
    tag, run, reason = newest_library(workspace).tag, str(flow_run.id), verdict.reason
    words = {"candidate": "Retrain", "champion": "Retrain: candidate refused", None: "Retrain: refused"}
    message = f"{words[verdict.promote]}\n\n{verdict.reason}\nlibrary {tag}, flow run {run}"
    versioning.commit_changes(workspace.root, list(SOURCES), message)
    if verdict.promote is None:
        return registry.champion(workspace)
    if verdict.promote == "champion":
        champion = registry.champion(workspace)
        assert champion is not None, "or the verdict would be another"
        version, reason = champion.version, f"candidate refused: {reason}"
    else:
        version = (
            published_candidate(workspace)
            or registry.publish(workspace, results=workspace.root / "results", flow_run=run).version
        )
    promotion = registry.promote(workspace, version, library_tag=tag, reason=reason, flow_run=run)
    kept = sorted((workspace.root / "models/published").glob("*.dvc"))
    names = ["models/published/champion.json", "models/published/.gitignore", *SOURCES]
    versioning.commit_changes(
        workspace.root,
        [*names, *(path.relative_to(workspace.root).as_posix() for path in kept)],
        f"Promote {version} with library {tag}",
    )
    versioning.tag(workspace.root, f"mgv-{version}", f"{version}, live since {promotion.at}")
    return promotion


def published_candidate(workspace: Workspace) -> str | None:
    """The version that is the candidate already, with the newest library's embedders."""
    parts = newest_library(workspace).parts
    for each in reversed(registry.published(workspace)):
        if all(each.parts.get(part) == parts.get(part) for part in EMBEDDERS) and same_model(
            workspace, each.version
        ):
            return each.version
    return None


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


# the run


def _key(workspace: Workspace) -> str:
    """What a decision rests on: every stage's inputs and outputs, and the gates."""
    params, lock = workspace.params, workspace.root / "dvc.lock"
    gates = {
        "retrain": params.retrain.gate,
        "evaluate": params.evaluate.gate,
        "baseline": params.evaluate.baseline,
    }
    return sha256(lock.read_bytes() + json.dumps(gates, sort_keys=True).encode()).hexdigest()


def _read_note(path: Path) -> dict[str, Any]:
    """The last decision, and whether all of it was done; empty when there is none that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


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
    note = workspace.root / "data" / "retrain.json"
    with alone(workspace, wait):
        taken = take_in_videos(workspace.root, inbox or inbox_folder(workspace))
        stages = run_stages(workspace)
        key, last = _key(workspace), _read_note(note)
        if last.get("key") == key and last.get("done"):
            report(workspace, taken, stages, None, "nothing new")
            return Completed(name="NothingNew", message="nothing new", data={"outcome": "nothing new"})
        if last.get("key") == key:
            verdict = Verdict(
                **{**last["verdict"], "checks": tuple(Check(**c) for c in last["verdict"]["checks"])}
            )
        else:
            verdict = decision(workspace)
            write_json(note, {"key": key, "verdict": asdict(verdict), "done": False})
        promotion = carry_out(workspace, verdict)
        outcome = "promoted" if verdict.promote == "candidate" else "refused"
        promoted = promotion.version if promotion and outcome == "promoted" else None
        notes = push(workspace.root, promoted) if params.retrain.push else []
        live = f"{promotion.version} with library {promotion.library_tag}" if promotion else "no model"
        report(workspace, taken, stages, verdict, f"{outcome}; live: {live}", notes)
        tell(workspace, f"mgv: candidate {outcome}", f"{verdict.reason}\nlive: {live}")
        write_json(note, {"key": key, "verdict": asdict(verdict), "done": True})
    data = {"outcome": outcome, "reason": verdict.reason, "live": live}
    return Completed(name=outcome.capitalize(), message=f"{outcome}: {verdict.reason}", data=data)


def report(
    workspace: Workspace,
    taken: Taken,
    stages: Sequence[StageRun],
    verdict: Verdict | None,
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
        verdict.reason if verdict else "",
        "## Videos",
        _table(["video", "outcome", "reason"], videos),
    ]
    rows = [[each.stage, each.outcome, f"{each.seconds:.0f} s", ", ".join(each.changes)] for each in stages]
    lines += ["## Stages", _table(["stage", "outcome", "time", "not as it was"], rows)]
    if verdict and verdict.checks:
        scores = [
            [c.metric, f"{c.baseline:.4f}", f"{c.value:.4f}", f"{c.tolerance:g}", "yes" if c.passed else "no"]
            for c in verdict.checks
        ]
        lines += ["## Scores", _table(["metric", "champion", "candidate", "tolerance", "passed"], scores)]
    elif verdict:
        found = read_run(workspace.root / "results").metrics
        scores = [[name, f"{value:.4f}"] for name, value in sorted(found.items()) if ".kind." not in name]
        lines += ["## Scores", _table(["metric", "candidate"], scores)]
    commit = versioning.head(workspace.root)
    lines += ["## Links", f"* commit {commit[0] if commit else 'none'}", *(f"* {note}" for note in notes)]
    page = workspace.root / "results" / "report.html"
    if page.is_file():
        lines.append(f"* the evaluation: [{page.name}]({page.as_uri()})")
    create_markdown_artifact("\n\n".join(line for line in lines if line), key="retrain", description=outcome)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "none"
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *cells])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--inbox", type=Path, metavar="DIR", help="instead of params.yaml's retrain.inbox")
    parser.add_argument("--wait", action="store_true", help="wait while another retrain is at work")
    given = parser.parse_args()
    done = run_flow(retrain, library=given.library, inbox=given.inbox, wait=given.wait)
    raise SystemExit(GateError.exit_code if done["outcome"] == "refused" else 0)
