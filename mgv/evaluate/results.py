"""Results: what a run leaves behind, and reads again.

metrics.json   every metric, flat, for DVC
run.json       what was run, on what, judged by whom; intervals and counts
items.jsonl    every item and query with its scores
plots/*.csv    for `dvc plots`
report.html    one page for people
answers/       answers and verdicts by item, so that a stopped run goes on
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mgv.errors import WorkspaceError
from mgv.evaluate.metrics import accuracy_at_coverage, calibration_bins
from mgv.evaluate.retrieval import RANKS
from mgv.evaluate.scores import Figure, Scored, confidences
from mgv.evaluate.spans import Span
from mgv.files import replacing, write_json
from mgv.registry.evaluation import FORMAT, Facts, read_evaluation

SETS = ("questions", "library_questions", "queries", "transcripts")
"""What can be asked: keys of params.yaml and of a run's facts, in the order of TASKS."""
COVERAGE_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished evaluation."""

    facts: Facts
    figures: dict[str, Figure]
    """Means with their intervals."""
    metrics: dict[str, float]
    """All metrics: the means, and those that are none (counts, calibration)."""
    rows: tuple[Scored, ...]

    def of(self, task: str) -> list[Scored]:
        """The rows of one of TASKS, or of `query.CONTROL`."""
        return [row for row in self.rows if row.task == task]


def write_run(folder: Path, run: Run) -> None:
    """Write everything but the page; metrics.json last."""
    write_text(folder / "items.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in run.rows))
    for name, table in plots(run).items():
        write_text(folder / "plots" / f"{name}.csv", table)
    intervals = {name: asdict(figure) for name, figure in run.figures.items()}
    write_json(
        folder / "run.json", {"format": FORMAT, "facts": run.facts.as_json(), "figures": intervals}
    )
    write_json(folder / "metrics.json", dict(sorted(run.metrics.items())))


def read_run(folder: Path) -> Run:
    """A run's folder. Raises WorkspaceError when there is none in it."""
    try:
        evaluation = read_evaluation(folder)
        kept = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
        figures = {name: Figure(**values) for name, values in kept["figures"].items()}
        rows = tuple(_row(json.loads(line)) for line in lines)
    except FileNotFoundError as error:
        raise WorkspaceError(f"{folder}: no evaluation in it ({Path(str(error.filename)).name} is missing); "
                             "name a folder that `mgv evaluate` wrote") from error  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkspaceError(f"{folder}: not the results of an evaluation: {error}") from error
    return Run(facts=evaluation.facts, figures=figures, metrics=evaluation.metrics, rows=rows)


def _row(values: dict[str, Any]) -> Scored:
    spans = {name: tuple(Span(**span) for span in values[name]) for name in ("gold", "found")}
    place = values["place"] and Span(**values["place"])
    return Scored(**values | spans | {"place": place})


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as out:
        out.write(text)


def plots(run: Run) -> dict[str, str]:
    """Tables for DVC: always all of them, with no rows where there is nothing to plot."""
    sure, right = confidences(run.of("question") or run.of("ask"), "accuracy")
    bins = calibration_bins(sure, right) if sure else []
    steps = [step / COVERAGE_STEPS for step in range(1, COVERAGE_STEPS + 1)]
    covered = [(share, accuracy_at_coverage(sure, right, share)) for share in steps] if sure else []
    return {
        "scores": _csv(
            ("metric", "value", "low", "high", "count"),
            ((name, f.value, f.low, f.high, f.count) for name, f in sorted(run.figures.items())),
        ),
        "recall": _csv(("k", "recall", "setup"), _recalls(run.figures)),
        "coverage": _csv(("coverage", "accuracy"), covered),
        "calibration": _csv(("confidence", "accuracy", "share"), bins),
        "transcripts": _csv(
            ("video", "word_error_rate", "words"),
            ((row.key, row.scores["word_error_rate"], row.weight) for row in run.of("transcript")),
        ),
    }


def _recalls(figures: Mapping[str, Figure]) -> Iterable[Sequence[Any]]:
    """Recall at each rank, for the library and every control."""
    for name, figure in sorted(figures.items()):
        for k in RANKS:
            head = name.removesuffix(f".recall_at_{k}")
            if head != name and ".kind." not in head:
                yield k, figure.value, head.removeprefix("retrieval").removeprefix(".") or "all"


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(
        [f"{value:.6f}" if isinstance(value, float) else value for value in row] for row in rows
    )
    return out.getvalue()
