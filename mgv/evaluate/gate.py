"""Gate: whether a run may stand in for its baseline: the same frozen set, and no metric worse than allowed.

A baseline is a file with the sets' names and digests, the judge, and the metrics (`mgv evaluate --freeze FILE`). It
belongs in git. `check_gate` is what CI and promotion ask.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgv.errors import ConfigError, GateError
from mgv.evaluate.results import Run
from mgv.files import write_json

FORMAT = 1
SMALLER_IS_BETTER = frozenset(
    {"failed", "judge_failed", "missing_videos", "calibration_error", "word_error_rate", "unscored"}
)
"""By a metric's last name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateCheck:
    """One metric at the gate."""

    metric: str
    baseline: float
    value: float
    tolerance: float
    passed: bool


def write_baseline(path: Path, run: Run) -> None:
    """Freeze a run: what it was asked, by whom it was judged, and what it came to."""
    write_json(path, {"format": FORMAT, "asked": _asked(run), "metrics": run.metrics})


def _asked(run: Run) -> dict[str, Any]:
    """The frozen set: names and digests, and the judge of open answers."""
    sets = {
        key: {
            "name": asked.name,
            "format": asked.format,
            "digest": asked.digest,
            "count": asked.count,
        }
        for key, asked in run.facts.sets().items()
    }
    return sets | ({"judge": run.facts.judge} if run.facts.judge else {})


def check_gate(run: Run, baseline: Path, tolerances: Mapping[str, float]) -> list[GateCheck]:
    """Every metric of `tolerances`, all passed.

    Raises GateError that names each metric that is worse than allowed, or says that another set was asked or another
    judge judged; ConfigError when there is no baseline, or nothing to check.
    """
    checks = checks_at_gate(run, baseline, tolerances)
    if faults := worse_than_allowed(checks):
        raise GateError("; ".join(faults))
    return checks


def checks_at_gate(
    run: Run, baseline: Path, tolerances: Mapping[str, float], key: str = "evaluate.gate"
) -> list[GateCheck]:
    """Every metric of `tolerances`, passed or not. key: where params.yaml names the tolerances.

    Raises GateError when another set was asked or another judge judged; ConfigError as check_gate.
    """
    if not tolerances:
        raise ConfigError(f"{key}: names no metric; for example {{retrieval.recall_at_1: 0.01}}")
    try:
        frozen = json.loads(baseline.read_text(encoding="utf-8"))
        asked = dict(frozen["asked"])
        metrics = {name: float(value) for name, value in frozen["metrics"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"evaluate.baseline: {baseline} cannot be read ({error}); make it by `mgv evaluate --freeze {baseline}`"
        ) from error
    if asked != _asked(run):
        changed = [
            each for each in {**asked, **_asked(run)} if asked.get(each) != _asked(run).get(each)
        ]
        raise GateError(
            f"{' and '.join(changed)} are not those of {baseline.name}: the gate compares like with like only"
        )
    checks = []
    for name, tolerance in sorted(tolerances.items()):
        if name not in metrics or name not in run.metrics:
            where = baseline.name if name not in metrics else "this run"
            raise ConfigError(f"{key}: {name!r} is no metric of {where}")
        checks.append(_check(name, metrics[name], run.metrics[name], tolerance))
    return checks


def worse_than_allowed(checks: Iterable[GateCheck]) -> list[str]:
    """What is wrong with those that did not pass."""
    return [
        f"{check.metric} is {check.value:.4f}, was {check.baseline:.4f}, may differ by {check.tolerance:g}"
        for check in checks
        if not check.passed
    ]


def _check(name: str, baseline: float, value: float, tolerance: float) -> GateCheck:
    worse = value - baseline if name.rpartition(".")[2] in SMALLER_IS_BETTER else baseline - value
    return GateCheck(
        metric=name,
        baseline=baseline,
        value=value,
        tolerance=tolerance,
        passed=worse <= tolerance + 1e-9,
    )
