"""The curves of a run: DVCLive for DVC's metrics and plots, TensorBoard where it is installed.

After a kill the rows beyond the step that the run goes on from are taken out, so that the curves are those of a run
that was not stopped.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Log:
    """Numbers by step. Every process makes one, the main one writes."""

    def __init__(self, folder: Path, tensorboard: Path | None = None, is_main: bool = True) -> None:
        self.folder, self._tensorboard_dir, self._is_main = folder, tensorboard, is_main
        self._live: Any = None
        self._tensorboard: Any = None

    def begin(self, step: int) -> None:
        """Open the curves, cut back to the steps done."""
        if not self._is_main:
            return
        os.environ.setdefault("DVC_STUDIO_OFFLINE", "true")
        os.environ.setdefault("DVC_NO_ANALYTICS", "true")
        from dvclive import Live

        for file in (self.folder / "plots").rglob("*.tsv"):
            _cut_curve(file, step)
        self._live = Live(
            str(self.folder), resume=True, report=None, save_dvc_exp=False, dvcyaml=None
        )
        if self._tensorboard_dir and find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(self._tensorboard_dir), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        if not self._is_main:
            return
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, value)
            if self._tensorboard:
                self._tensorboard.add_scalar(name, value, step)
        self._live.make_summary()

    def recent(self, name: str, count: int) -> list[float]:
        """The last numbers written under a name, also by a run that this one went on from."""
        file = self.folder / f"plots/metrics/{name}.tsv"
        return (
            [float(row[Path(name).name]) for row in _rows(file)[-count:]] if file.is_file() else []
        )

    def write_answers(self, step: int, answers: Sequence[Mapping[str, str]]) -> None:
        """What the model answers after a step, each with its sample, question and what was expected."""
        lines = [
            "{question!r} {answer!r} (expected: {expected!r}; {sample})".format(**answer)
            for answer in answers
        ]
        for line in lines:
            logger.info("step %d: %s", step, line)
        if self._tensorboard:
            self._tensorboard.add_text("validation/answers", "\n\n".join(lines), step)

    def end(self) -> None:
        """Close the curves."""
        if self._live:
            self._live.end()
        if self._tensorboard:
            self._tensorboard.close()


def _cut_curve(file: Path, step: int) -> None:
    """Keep the rows of steps that are done."""
    rows = _rows(file)
    kept = [row for row in rows if int(row["step"]) <= step]
    if len(kept) == len(rows):
        return
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    partial = file.with_suffix(".partial")
    partial.write_text(out.getvalue(), encoding="utf-8")
    partial.replace(file)


def _rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")), delimiter="\t"))
