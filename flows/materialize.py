"""Materialise as a flow, one task a video: python -m flows.materialize [--library DIR] [--rebuild] [--ray ADDRESS]

What DVC runs for its stage `materialize`. A video that keeps failing is recorded and stops no other. The videos are
computed by threads here or by Ray workers (`materialize.engine`); this process alone writes.
"""

from __future__ import annotations

import argparse
import threading
from dataclasses import replace
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import may_pass, run_flow
from mgv.errors import MediaError, MgvError
from mgv.library.compute import failed_rows
from mgv.library.materialize import computing, materializing
from mgv.library.plan import up_to_date, want
from mgv.workspace import find_workspace


@flow(
    name="materialize",
    flow_run_name="materialize {library}",
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type]  # how many compute: slots
)
def materialize(
    library: Path = Path(), rebuild: bool = False, ray: str | None = None
) -> dict[str, int]:
    """Bring the library up to date with data/videos and params.yaml; ray: the address of a cluster to compute on."""
    log = get_run_logger()
    workspace = find_workspace(library)
    wanted = want(workspace)
    if not rebuild and (manifest := up_to_date(workspace, wanted)):
        log.info("nothing to compute: %d videos", len(manifest.items))
        return {"computed": 0, "videos": len(manifest.items)}
    params = workspace.params.materialize
    if ray is not None:
        params = replace(params, engine="ray", ray_address=ray)
    with materializing(workspace, wanted, rebuild=rebuild) as run:
        plan = {work.wanted.path.name: work for work in run.plan()}
        one_writer = threading.Lock()
        with computing(run, params, len(plan)) as (compute_rows, num_at_once):
            slots = threading.Semaphore(max(num_at_once, 2 if params.num_workers is None else 1))

            @task(
                name="compute video",
                task_run_name="compute {name}",
                retries=2,
                retry_delay_seconds=[1, 5],
                retry_condition_fn=may_pass,
                cache_policy=NO_CACHE,
            )
            def compute(name: str) -> str:
                with slots:
                    rows = compute_rows(plan[name], lambda *_: None)
                with one_writer:
                    run.write(rows)
                return f"{rows.row['state']} {name} {rows.row['reason']}"

            named = {
                future.task_run_id: (name, future)
                for name in plan
                if (future := compute.submit(name))
            }
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
    for name, reason in (*report.manifest.failed.items(), *report.kept.items()):
        log.warning("%s: %s", name, reason)
    if report.is_worse:
        raise MediaError(
            f"{len(report.kept) + len(report.lost) or 'all'} videos failed that should not: see the warnings above; "
            "the others are in the library, and the next run tries these again"
        )
    return {"computed": len(report.computed), "videos": len(report.manifest.items)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--rebuild", action="store_true", help="compute everything anew")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="compute on this Ray cluster: auto, HOST:PORT, or local"
    )
    given = parser.parse_args()
    run_flow(materialize, library=given.library, rebuild=given.rebuild, ray=given.ray)
