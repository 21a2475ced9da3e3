"""The learning rate over the steps of a stage."""

from __future__ import annotations

from math import cos, pi

from mgv.config import StageParams


def learning_rate(step: int, num_steps: int, stage: StageParams) -> float:
    """Linear warm-up, then cosine; the cosine counts from step 0, not from the end of the warm-up.

    As LinearWarmupCosineLRScheduler in minigpt4/common/optims.py of MiniGPT4-Video.
    """
    if step < stage.warmup_steps:
        share = step / stage.warmup_steps
        return stage.warmup_learning_rate + share * (
            stage.learning_rate - stage.warmup_learning_rate
        )
    share = 0.5 * (1 + cos(pi * step / num_steps))
    return stage.min_learning_rate + share * (stage.learning_rate - stage.min_learning_rate)
