"""The loop: one stage of training on accelerate, on one process or many, and the same again after a kill.

A step's gradient is that of the mean loss over all answer tokens of its batch, however that is cut into micro-batches
and shared among processes. Everything a step does follows from the seed and its number (mgv/train/training_rows.py).
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgv.config import StageParams, TrainParams
from mgv.errors import ConfigError, TrainingError
from mgv.model.processor import Batch
from mgv.model.sampling import even_subset
from mgv.model.video_llm import IGNORED, VideoLLM
from mgv.records import clock
from mgv.train.features import FeatureExtractor
from mgv.train.log import Log
from mgv.train.schedule import learning_rate
from mgv.train.state import load_state, save_state
from mgv.train.training_rows import TrainingRows, collate, num_micro_batches

logger = logging.getLogger(__name__)

BETAS = (0.9, 0.999)
NUM_SHOWN = 4
"""Sample answers at every validation."""
Progress = Callable[[str, int, int], None]
"""What is under way, how much is done, of how much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """How well a model answers, each question given what was said before it."""

    loss: float
    """Mean over the answers' tokens."""
    right: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Closed questions by kind: how many a greedy answer gets word for word, and of how many."""

    @property
    def accuracy(self) -> float | None:
        """Over all closed questions; None without any."""
        num_right, total = (
            (sum(counts) for counts in zip(*self.right.values(), strict=True))
            if self.right
            else (0, 0)
        )
        return num_right / total if total else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a stage came to."""

    num_steps: int
    seconds: float
    """Of this run, without what a run before it did."""
    first_step: int
    losses: list[float]
    """Of every step of this run that had answer tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """One optimizer step, over all processes."""

    loss: float
    """Mean over the answer tokens of the step's batch."""
    gradient_norm: float
    """Before clipping."""


def train(
    model: VideoLLM,
    lessons: TrainingRows,
    validation: TrainingRows | None,
    eye: FeatureExtractor,
    *,
    stage: StageParams,
    params: TrainParams,
    state_dir: Path,
    log: Log,
    fingerprint: str,
    accelerator: Any,
    progress: Progress | None = None,
) -> Outcome:
    """Train `model` in place.

    Raises TrainingError when a loss or gradient is NaN or infinite, MgvError when a state cannot be kept.
    """
    started = time.monotonic()
    num_micro = num_micro_batches(
        stage.batch_size, stage.micro_batch_size, accelerator.num_processes
    )
    num_steps = lessons.num_steps(stage.micro_batch_size, num_micro, stage.epochs)
    num_steps = min(num_steps, stage.max_steps or num_steps)
    if params.gradient_checkpointing:
        model.language_model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    optimizer = torch.optim.AdamW(parameter_groups(model, stage.weight_decay), lr=0.0, betas=BETAS)
    if plugin := getattr(accelerator.state, "fsdp_plugin", None):
        plugin.ignored_modules = [
            model.vision_encoder
        ]  # frozen, and each process looks at videos of its own
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    learning = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    first_step = load_state(state_dir, wrapped, _bare(optimizer), fingerprint)
    if first_step:
        logger.info("going on after step %d of %d", first_step, num_steps)
    log.begin(first_step)

    losses: list[float] = []
    rank, world = accelerator.process_index, accelerator.num_processes
    shows_answers = (
        rank == 0 and not accelerator.is_fsdp2
    )  # sharded, no process has the whole model
    plan = islice(
        lessons.steps(params.seed, stage.micro_batch_size, num_micro, first_step),
        num_steps - first_step,
    )
    mine = ((number, micro[rank::world]) for number, micro in enumerate(plan, first_step))
    wrapped.train()
    for step, numbers, batches in _prefetched(mine, lessons, eye):
        batches = [batch.to(accelerator.device) for batch in batches]
        rate = learning_rate(step, num_steps, stage)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(
            params.seed + step * world + rank
        )  # dropout: the same when this step is done again
        names = [lessons[number].sample.sample_id for micro in numbers for number in micro]
        result = train_step(
            wrapped, batches, optimizer, learning, accelerator,
            step=step, clip_norm=stage.clip_norm, sample_ids=names,
        )  # fmt: skip
        done = step + 1
        is_last = done == num_steps
        if result is None:
            logger.warning(
                "step %d of %d skipped: no answer tokens in its samples", done, num_steps
            )
        else:
            losses.append(result.loss)
        if result and (done % params.log_every == 0 or is_last):
            recent = losses[-params.log_every :]
            log.write(
                done,
                {
                    "train/loss": result.loss,
                    "train/learning_rate": rate,
                    "train/gradient_norm": result.gradient_norm,
                },
            )
            left_s = (time.monotonic() - started) / (done - first_step) * (num_steps - done)
            mean = sum(recent) / len(recent)
            logger.info("step %d of %d: loss %.4f, %s left", done, num_steps, mean, clock(left_s))
        if validation and (done % params.validate_every == 0 or is_last):
            scores = measure(
                wrapped,
                validation,
                eye,
                accelerator,
                params.validate_samples,
                stage.micro_batch_size,
            )
            log.write(done, {"validation/loss": scores.loss} | ({"validation/accuracy": scores.accuracy}
                                                                 if scores.accuracy is not None else {}))  # fmt: skip
            if shows_answers:
                log.write_answers(done, sample_answers(model, validation, eye, NUM_SHOWN))
        if done % params.save_every == 0 or is_last:
            save_state(state_dir, wrapped, _bare(optimizer), step=done, fingerprint=fingerprint,
                       keep=params.keep_checkpoints, is_main=accelerator.is_main_process)  # fmt: skip
        if progress:
            progress("steps", done, num_steps)
    seconds = time.monotonic() - started
    return Outcome(num_steps=num_steps, seconds=seconds, first_step=first_step, losses=losses)


def train_step(
    model: nn.Module,
    batches: list[Batch],
    optimizer: Any,
    parameters: list[nn.Parameter],
    accelerator: Any,
    *,
    step: int,
    clip_norm: float | None,
    sample_ids: list[str],
) -> StepResult | None:
    """One optimizer step over this process's micro-batches.

    Returns None, with the weights as they were, when no process has an answer token (every answer was cut off by the
    token limit). Raises TrainingError before the weights change when the loss or the gradient is NaN or infinite.
    """
    num_answer = torch.tensor(
        sum(_num_labels(batch) for batch in batches), device=accelerator.device
    )
    total = int(accelerator.reduce(num_answer, "sum"))
    if total == 0:
        return None
    loss = torch.zeros((), device=accelerator.device)
    for index, batch in enumerate(batches):
        with nullcontext() if index == len(batches) - 1 else accelerator.no_sync(model):
            share = model(**batch.inputs()).loss * (_num_labels(batch) / total)
            # DDP takes the mean over processes
            accelerator.backward(share * accelerator.num_processes)
            loss += share.detach()
    loss_value = float(accelerator.reduce(loss, "sum"))
    _check_finite("loss", loss_value, step, sample_ids)
    clipped = accelerator.clip_grad_norm_(parameters, clip_norm or float("inf"))
    norm = float(clipped.full_tensor() if hasattr(clipped, "full_tensor") else clipped)
    if accelerator.scaler is None:  # fp16's skips a step that overflows
        _check_finite("gradient norm", norm, step, sample_ids)
    optimizer.step()
    optimizer.zero_grad()
    return StepResult(loss=loss_value, gradient_norm=norm)


def _check_finite(name: str, value: float, step: int, sample_ids: list[str]) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"step {step}: the {name} is {value}, expected a finite number; lower learning_rate or train in "
            f"fp32 (train.precision). The step read: {', '.join(sample_ids)[:500]}"
        )


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What learns; biases and norms do not decay (runner_base.py of MiniGPT4-Video: one-dimensional ones)."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learning:
        raise ConfigError(
            "train: nothing learns in this stage; set its connector or language_model"
        )
    return [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]


@torch.no_grad()
def measure(
    model: nn.Module,
    lessons: TrainingRows,
    eye: FeatureExtractor,
    accelerator: Any,
    most: int | None = None,
    batch_size: int = 4,
    subtitles: bool = True,
) -> Scores:
    """Loss and accuracy over `most` lessons, evenly spread, shared among the processes.

    Greedy decoding writes an answer word for word exactly when, given the answer so far, each of its tokens and the
    end are the likeliest: so one pass tells, and nothing is generated.
    """
    was_training = model.training
    model.eval()
    places = spread(lessons, most or len(lessons))
    count = len(places)
    rank, world = accelerator.process_index, accelerator.num_processes
    loss, num_labels = 0.0, 0
    right: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for first in range(0, count, world * batch_size):
        start = first + rank * batch_size
        is_own = start < count
        if not is_own:
            start = 0  # it reads the first rows and counts none: in a forward pass all processes wait for each other
        chosen = [lessons[number] for number in places[start : start + batch_size]]
        batch = collate(chosen, lessons.processor, eye, subtitles).to(accelerator.device)
        output = model(**batch.inputs())
        if not is_own:
            continue
        loss += float(output.loss) * _num_labels(batch)
        num_labels += _num_labels(batch)
        for lesson, hits in zip(chosen, right_turns(batch, output.logits), strict=True):
            if lesson.sample.is_dialogue:
                continue  # an answer of a dialogue is not judged by itself
            for turn, hit in zip(lesson.turns, hits, strict=True):
                if turn.choices:
                    right[turn.kind][0] += hit
                    right[turn.kind][1] += 1
    if world > 1:
        from accelerate.utils import gather_object

        parts = gather_object([(loss, num_labels, dict(right))])
        loss, num_labels = (sum(part[i] for part in parts) for i in range(2))
        kinds = {kind for part in parts for kind in part[2]}
        right = {
            k: [sum(part[2].get(k, (0, 0))[i] for part in parts) for i in (0, 1)] for k in kinds
        }
    model.train(was_training)
    return Scores(
        loss=loss / max(1, num_labels),
        right={kind: (hits, total) for kind, (hits, total) in sorted(right.items())},
    )


def right_turns(batch: Batch, logits: Tensor) -> list[list[bool]]:
    """For each row and each of its questions, whether every answer token is the likeliest."""
    assert batch.labels is not None
    asked = batch.labels[:, 1:]
    kept = (asked != IGNORED).any(0)
    asked = asked[:, kept]
    hits = (logits.argmax(-1) == asked) | (asked == IGNORED)  # [B, K]
    if batch.branches is None:
        return [[bool(row.all())] for row in hits]
    branches = batch.branches[:, 1:][:, kept]
    return [
        [
            bool(row[own == branch].all())
            for branch in range(1, int(batch.branches[place].max()) + 1)
        ]
        for place, (row, own) in enumerate(zip(hits, branches, strict=True))
    ]


def _prefetched(
    plan: Iterator[tuple[int, list[list[int]]]], lessons: TrainingRows, eye: FeatureExtractor
) -> Iterator[tuple[int, list[list[int]], list[Batch]]]:
    """Each step's batches; the next ones are read while one is learnt."""

    def make(numbers: list[list[int]]) -> list[Batch]:
        return [lessons.collate(micro, eye) for micro in numbers]

    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting: tuple[int, list[list[int]], Future[list[Batch]]] | None = None
        for step, numbers in plan:
            coming = (step, numbers, reader.submit(make, numbers))
            if waiting:
                yield waiting[0], waiting[1], waiting[2].result()
            waiting = coming
        if waiting:
            yield waiting[0], waiting[1], waiting[2].result()


def _num_labels(batch: Batch) -> int:
    assert batch.labels is not None
    return int((batch.labels[:, 1:] != IGNORED).sum())


def _bare(optimizer: Any) -> torch.optim.Optimizer:
    """torch's own optimizer below accelerate's."""
    bare: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return bare


def sample_answers(
    model: VideoLLM,
    lessons: TrainingRows,
    eye: FeatureExtractor,
    count: int,
    max_new_tokens: int = 32,
) -> list[dict[str, str]]:
    """What the model writes to a few questions, greedily, beside what was expected."""
    from mgv.model.session import VideoSession

    was_training = model.training
    model.eval()
    shown = []
    for lesson in (lessons[number] for number in spread(lessons, count)):
        sample, turn = lesson.sample, lesson.turns[0]
        session = VideoSession(model, eye.processor, eye.look(sample).clip(sample))
        text = session.ask(
            turn.question, lesson.history, max_new_tokens=max_new_tokens, do_sample=False
        )
        shown.append(
            {
                "sample": sample.sample_id,
                "question": turn.question,
                "expected": turn.answer,
                "answer": text,
            }
        )
    model.train(was_training)
    return shown


def spread(lessons: TrainingRows, most: int) -> list[int]:
    """The numbers of up to `most` lessons, evenly spread: of a file that holds one source after another, of each."""
    return even_subset(len(lessons), min(most, len(lessons)))
