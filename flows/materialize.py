"""Materialise as a flow, one task a video: python -m flows.materialize [--library DIR] [--rebuild]

What DVC runs for its stage `materialize`. A video that keeps failing is recorded and stops no other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import run_flow
from mgv.errors import MgvError
from mgv.library.compute import VideoRows, failed_rows
from mgv.library.materialize import materializing
from mgv.library.plan import up_to_date
from mgv.workspace import find_workspace


@flow(
    name="materialize",
    flow_run_name="materialize {library}",
    task_runner=ThreadPoolTaskRunner(max_workers=2),  # type: ignore[arg-type]
)
def materialize(library: Path = Path(), rebuild: bool = False) -> dict[str, int]:
    """Bring the library up to date with data/videos and params.yaml."""
    log = get_run_logger()
    workspace = find_workspace(library)
    if not rebuild and (manifest := up_to_date(workspace)):
        log.info("nothing to compute: %d videos", len(manifest.items))
        return {"computed": 0, "videos": len(manifest.items)}
    with materializing(workspace, rebuild=rebuild) as run:
        plan = {work.wanted.path.name: work for work in run.plan()}

        @task(
            name="compute video",
            task_run_name="compute {name}",
            retries=2,
            retry_delay_seconds=[1, 5],
            cache_policy=NO_CACHE,
        )
        def compute(name: str) -> VideoRows:
            return run.compute(plan[name])

        named = {future.task_run_id: (name, future) for name in plan if (future := compute.submit(name))}
        for done in as_completed([future for _, future in named.values()]):
            name, _ = named[done.task_run_id]
            rows = done.result(raise_on_failure=False)
            if isinstance(rows, MgvError):
                raise rows
            if isinstance(rows, BaseException):
                rows = failed_rows(plan[name], f"{type(rows).__name__}: {rows}", try_again=True)
            run.write(rows)
            log.info("%s %s %s", rows.row["state"], name, rows.row["reason"])
        report = run.finish()
    for name, reason in report.manifest.failed.items():
        log.warning("%s: %s", name, reason)
    return {"computed": len(report.computed), "videos": len(report.manifest.items)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--rebuild", action="store_true", help="compute everything anew")
    given = parser.parse_args()
    run_flow(materialize, library=given.library, rebuild=given.rebuild)
