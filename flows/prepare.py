"""Prepare as a flow, one task a source: python -m flows.prepare [--library DIR]

What DVC runs for its stage `prepare`. A source that fails stops the run (`dvc checkout` brings the last result back).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import may_pass, run_flow
from mgv.data.prepare import preparing
from mgv.data.report import SourceReport
from mgv.workspace import find_workspace

_LOG_EVERY = 1000
"""Samples."""


@flow(name="prepare", flow_run_name="prepare {library}")
def prepare(library: Path = Path()) -> dict[str, int]:
    """Write data/prepare from the sources of params.yaml. How many samples and bad rows there are."""
    log = get_run_logger()
    with preparing(find_workspace(library)) as run:

        def progress(label: str, done: int, total: int) -> None:
            if done % _LOG_EVERY == 0 or done == total:
                log.info("%s: %d samples", label, done)

        @task(
            name="prepare source",
            task_run_name="prepare {label}",
            retries=2,
            retry_delay_seconds=[1, 5],
            retry_condition_fn=may_pass,
            cache_policy=NO_CACHE,
        )
        def prepare_source(label: str) -> SourceReport:
            return run.prepare_source(label, progress)

        for label in run.labels():
            for row in prepare_source(label).faults:
                log.warning("%s", row)
        report = run.finish()
    return {"samples": report.tally().counts["samples"], "bad_rows": len(report.bad_rows)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    given = parser.parse_args()
    run_flow(prepare, library=given.library)
