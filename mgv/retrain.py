"""Retrain: what becomes of a candidate: live, refused, or left as it is.

flows/retrain.py runs the stages; here is what it decides, without Prefect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mgv import registry, versioning
from mgv.errors import GateError
from mgv.evaluate.gate import GateCheck, checks_at_gate, worse_than_allowed, write_baseline
from mgv.evaluate.results import Run, read_run
from mgv.evaluate.run import asks_library
from mgv.files import folder_digest, holding, write_json
from mgv.library.manifest import newest_library
from mgv.registry.promotion import EMBEDDERS, standing
from mgv.registry.publishing import DEFAULT_MODEL
from mgv.workspace import Workspace

EvaluateModel = Callable[[str, Path], None]
"""Evaluates a model (`champion`, `starter` or a folder) as what is live, into a folder of results."""

CANDIDATE = DEFAULT_MODEL


SOURCES = ("params.yaml", "dvc.yaml", "dvc.lock", ".gitignore", "data/videos.dvc", "data/.gitignore",
           "data/prepare/report.json")  # fmt: skip
"""What a commit holds, so that it names the data, the parameters and the results."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to be done with a candidate."""

    promote: str | None
    """`candidate`; `champion`, which goes on with the new library; or None."""
    reason: str
    checks: tuple[GateCheck, ...] = ()


@contextmanager
def alone(workspace: Workspace, wait: bool) -> Iterator[None]:
    """Be the only retrain of this workspace. Raises BusyError when another is at work, or waits for its end."""
    busy = f"{workspace.root}: another retrain is at work here; this one did nothing. Wait for it by --wait"
    with holding(workspace.root / "data" / ".retrain.lock", busy, timeout_s=-1 if wait else 0):
        yield


def decide(workspace: Workspace, evaluate: EvaluateModel) -> Decision:
    """Compare the candidate, as evaluated in results/, with what is live, on the same questions."""
    params = workspace.params
    candidate = read_run(workspace.results_dir)
    champion = registry.champion(workspace)
    compared = True
    if taken_back(workspace):
        checks: list[GateCheck] = []
        faults = ["this model was rolled back: `mgv promote VERSION` makes it live again"]
    elif (
        champion is not None
        and same_model(workspace, champion.version)
        and not asks_library(params.evaluate)
    ):
        return Decision(promote="candidate", reason="the same model, with the new library")
    else:
        checks, faults, compared = _checks(workspace, candidate, evaluate, champion is not None)
    if not faults:
        better = f"as good as {champion.version} or better" if champion else "the first version"
        return Decision(promote="candidate", reason=better, checks=tuple(checks))
    follows = champion is not None and all(each.passed or not _of_library(each) for each in checks)
    if follows and compared:
        return Decision(promote="champion", reason="; ".join(faults), checks=tuple(checks))
    return Decision(promote=None, reason="; ".join(faults), checks=tuple(checks))


def _checks(
    workspace: Workspace, candidate: Run, evaluate: EvaluateModel, has_champion: bool
) -> tuple[list[GateCheck], list[str], bool]:
    """Each metric of `retrain.gate` beside the champion's, of `evaluate.gate` beside the baseline's; what is worse;
    whether all could be compared: other questions or another judge cannot.
    """
    params = workspace.params
    compared = True
    checks: list[GateCheck] = []
    faults: list[str] = []
    against: list[tuple[Path, dict[str, float], str]] = []
    incumbent = registry.CHAMPION if has_champion else params.retrain.incumbent
    if params.retrain.gate and incumbent != "none":
        output = workspace.results_dir / "champion"
        evaluate(incumbent, output)
        write_baseline(output / "baseline.json", read_run(output))
        against.append((output / "baseline.json", params.retrain.gate, "retrain.gate"))
    if params.evaluate.baseline and params.evaluate.gate:
        against.append(
            (workspace.root / params.evaluate.baseline, params.evaluate.gate, "evaluate.gate")
        )
    for baseline, tolerances, key in against:
        try:
            checks += checks_at_gate(candidate, baseline, tolerances, key)
        except GateError as error:
            faults.append(str(error))
            compared = False
    return checks, [*faults, *worse_than_allowed(checks)], compared


def _of_library(check: GateCheck) -> bool:
    """Whether a metric speaks of the library, not of the model alone."""
    return not check.metric.startswith("qa.")


def same_model(workspace: Workspace, version: str) -> bool:
    """Whether a published version is the candidate, weight for weight."""
    lineage = registry.read_lineage(workspace.published_dir / version)
    return bool(lineage["model"]["digest"] == folder_digest(workspace.root / CANDIDATE))


def taken_back(workspace: Workspace) -> bool:
    """Whether the candidate is a version that a person rolled back."""
    entries = registry.history(workspace)
    gone = {entry.version for entry in entries} - {entry.version for entry in standing(entries)}
    return any(same_model(workspace, version) for version in gone)


def carry_out(workspace: Workspace, decision: Decision, run: str) -> registry.Promotion | None:
    """Commit, publish, promote and tag; what an earlier run did already is left as it is. run: the flow run's id."""
    tag, reason = newest_library(workspace).tag, decision.reason
    words = {
        "candidate": "Retrain",
        "champion": "Retrain: candidate refused",
        None: "Retrain: refused",
    }
    message = f"{words[decision.promote]}\n\n{decision.reason}\nlibrary {tag}, flow run {run}"
    versioning.commit_changes(workspace.root, list(SOURCES), message)
    if decision.promote is None:
        return registry.champion(workspace)
    if decision.promote == "champion":
        champion = registry.champion(workspace)
        assert champion is not None, "or the verdict would be another"
        version, reason = champion.version, f"candidate refused: {reason}"
    else:
        version = (
            published_candidate(workspace)
            or registry.publish(workspace, results=workspace.results_dir, flow_run=run).version
        )
    promotion = registry.promote(workspace, version, library_tag=tag, reason=reason, flow_run=run)
    kept = sorted(workspace.published_dir.glob("*.dvc"))
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


def decision_key(workspace: Workspace) -> str:
    """What a decision rests on: every stage's inputs and outputs, and the gates."""
    params, lock = workspace.params, workspace.root / "dvc.lock"
    gates = {
        "retrain": params.retrain.gate,
        "evaluate": params.evaluate.gate,
        "baseline": params.evaluate.baseline,
    }
    return sha256(lock.read_bytes() + json.dumps(gates, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Note:
    """The last decision, and whether all of it was carried out."""

    key: str
    """What it rests on (decision_key)."""
    decision: Decision
    done: bool


def read_note(workspace: Workspace) -> Note | None:
    """The note of the last run; None when there is none that can be read."""
    try:
        raw = json.loads(workspace.retrain_note.read_text(encoding="utf-8"))
        raw["decision"] = raw.pop("verdict")
        return TypeAdapter(Note).validate_python(raw)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ValidationError):
        return None


def write_note(workspace: Workspace, note: Note) -> None:
    """Keep it for the next run."""
    content = asdict(note)
    write_json(workspace.retrain_note, {"verdict": content.pop("decision"), **content})
