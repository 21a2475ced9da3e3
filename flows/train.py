"""Train as a flow, one task a stage: python -m flows.train [STAGE...] [--library DIR]

What DVC runs for its stages `pretrain_image`, `pretrain_video` and `instruct`. A stage that was killed goes on where it
was. On several GPUs: accelerate launch -m flows.train STAGE; the first process runs the flow, the others their share.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import gpu_slot, may_pass, run_flow
from mgv.train.stages import STAGES, train_stage
from mgv.workspace import find_workspace


@task(
    name="train stage",
    task_run_name="train {stage}",
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def _train(library: Path, stage: str) -> dict[str, float]:
    log = get_run_logger()
    logging.getLogger("mgv.train").setLevel(logging.INFO)  # how far it is, and sample answers
    with gpu_slot():
        report = train_stage(find_workspace(library), stage)
    scores = {} if report.scores is None else {"validation_loss": report.scores.loss}
    log.info(
        "%s: %d steps in %.0f s, %s",
        stage,
        report.outcome.num_steps,
        report.outcome.seconds,
        scores,
    )
    return scores


@flow(name="train", flow_run_name="train {stages}")
def train(stages: list[str], library: Path = Path()) -> dict[str, dict[str, float]]:
    """Train the stages in turn; what each scored."""
    return {stage: _train(library, stage) for stage in stages}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all when left out"
    )
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    given = parser.parse_args()
    chosen = given.stages or list(STAGES)
    if int(os.environ.get("RANK", "0")) == 0:
        run_flow(train, stages=chosen, library=given.library)
    else:
        for name in chosen:
            train_stage(find_workspace(given.library), name)
