"""Evaluate as a flow: python -m flows.evaluate [--library DIR]

What DVC runs for its stage `evaluate`. With `evaluate.shards` the questions are shared out over processes, on a GPU
each where there are any; a process that dies is started again and goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows import gpu_slot, run_flow
from mgv.errors import MgvError
from mgv.evaluate.run import asks_library, write_results
from mgv.evaluate.run import evaluate as run_evaluation
from mgv.workspace import find_workspace


@task(
    name="answer shard",
    task_run_name="answer {number} of {count}",
    retries=2,
    retry_delay_seconds=[2, 20],
    cache_policy=NO_CACHE,
)
def answer_shard(
    library: Path, number: int, count: int, model: str | None = None, output: Path | None = None
) -> None:
    """Answer one shard in a process of its own. Raises MgvError with its last line when it fails."""
    words = [
        sys.executable,
        "-m",
        "mgv.cli",
        "evaluate",
        "--library",
        str(library),
        "--shard",
        f"{number}/{count}",
        *(["--model", model] if model else []),
        *(["--output", str(output)] if output else []),
    ]
    with gpu_slot():
        done = subprocess.run(
            words, env=_own_gpu(number), capture_output=True, text=True, check=False
        )
    if done.returncode:
        errors = done.stderr.strip().splitlines() or ["no message"]
        raise MgvError(f"shard {number} of {count}: {errors[-1]}")


def _own_gpu(number: int) -> dict[str, str]:
    """The environment in which a process sees one GPU only, where there are several."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return (
        {**os.environ, "CUDA_VISIBLE_DEVICES": gpus[(number - 1) % len(gpus)]}
        if gpus
        else dict(os.environ)
    )


@flow(
    name="evaluate",
    flow_run_name="evaluate {library}",
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type]
)
def evaluate(
    library: Path = Path(),
    model: str | None = None,
    output: Path | None = None,
    live: bool = False,
) -> dict[str, float]:
    """Answer, judge and search as params.yaml says; writes results/ and gives back the metrics.

    model, output: instead of params.yaml's, and of results/. live: search the library that is live, not the newest.
    """
    log = get_run_logger()
    workspace = find_workspace(library)
    params = workspace.params.evaluate
    if model is not None:
        params = replace(params, model=model)
    if params.shards > 1 and (params.questions or params.library_questions):
        numbers = range(1, params.shards + 1)
        shards = [
            answer_shard.submit(workspace.root, number, params.shards, model, output)
            for number in numbers
        ]
        for future in shards:
            future.result()
    output = output or workspace.results_dir
    opened = None
    if live and asks_library(params):
        from mgv.ask.library import Library

        opened = Library.open(workspace.root)
    with gpu_slot():
        run = run_evaluation(workspace, params, output, library=opened)
    write_results(output, run, workspace.videos_dir)
    for name, value in run.metrics.items():
        log.info("%s %.4f", name, value)
    return run.metrics


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    given = parser.parse_args()
    run_flow(evaluate, library=given.library)
