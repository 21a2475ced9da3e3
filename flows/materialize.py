"""Materialise as a flow, one task a video: python -m flows.materialize [--library DIR] [--rebuild] [--ray ADDRESS]

What DVC runs for its stage `materialize`. A video that keeps failing is recorded and stops no other. The videos are
computed by threads here or by Ray workers (`materialize.engine`); this process alone writes.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import may_pass, run_flow
from mgv.config import MaterializeParams
from mgv.errors import MgvError
from mgv.library.compute import VideoRows, failed_rows
from mgv.library.materialize import Materialization, materializing
from mgv.library.plan import Work, up_to_date
from mgv.workspace import find_workspace


@flow(
    name="materialize",
    flow_run_name="materialize {library}",
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type]  # how many compute: _computing
)
def materialize(library: Path = Path(), rebuild: bool = False, ray: str | None = None) -> dict[str, int]:
    """Bring the library up to date with data/videos and params.yaml; ray: the address of a cluster to compute on."""
    log = get_run_logger()
    workspace = find_workspace(library)
    if not rebuild and (manifest := up_to_date(workspace)):
        log.info("nothing to compute: %d videos", len(manifest.items))
        return {"computed": 0, "videos": len(manifest.items)}
    params = workspace.params.materialize
    if ray is not None:
        params = replace(params, engine="ray", ray_address=ray)
    with materializing(workspace, rebuild=rebuild) as run:
        plan = {work.wanted.path.name: work for work in run.plan()}
        one_writer = threading.Lock()
        with _computing(run, params, len(plan)) as compute_rows:

            @task(
                name="compute video",
                task_run_name="compute {name}",
                retries=2,
                retry_delay_seconds=[1, 5],
                retry_condition_fn=may_pass,
                cache_policy=NO_CACHE,
            )
            def compute(name: str) -> str:
                rows = compute_rows(plan[name])
                with one_writer:
                    run.write(rows)
                return f"{rows.row['state']} {name} {rows.row['reason']}"

            named = {future.task_run_id: (name, future) for name in plan if (future := compute.submit(name))}
            for done in as_completed([future for _, future in named.values()]):
                name, _ = named[done.task_run_id]
                outcome = done.result(raise_on_failure=False)
                if isinstance(outcome, MgvError):
                    raise outcome
                if isinstance(outcome, BaseException):
                    reason = f"{type(outcome).__name__}: {outcome}"
                    with one_writer:
                        run.write(failed_rows(plan[name], reason, try_again=True))
                    outcome = f"failed {name} {reason}"
                log.info("%s", outcome)
        report = run.finish()
    for name, reason in report.manifest.failed.items():
        log.warning("%s: %s", name, reason)
    return {"computed": len(report.computed), "videos": len(report.manifest.items)}


@contextmanager
def _computing(
    run: Materialization, params: MaterializeParams, num_videos: int
) -> Iterator[Callable[[Work], VideoRows]]:
    """What computes a video's rows, as many at once as params say."""
    if params.engine == "ray" and num_videos:
        from mgv.library.cluster import workers

        with workers(params, num_videos) as pool:
            yield pool.compute
        return
    slots = threading.Semaphore(params.num_workers or 2)

    def compute(work: Work) -> VideoRows:
        with slots:
            return run.compute(work)

    yield compute


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--rebuild", action="store_true", help="compute everything anew")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="compute on this Ray cluster: auto, HOST:PORT, or local"
    )
    given = parser.parse_args()
    run_flow(materialize, library=given.library, rebuild=given.rebuild, ray=given.ray)
