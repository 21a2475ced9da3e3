"""Training with kept features and shared frames, beside a plain loop that does what upstream does.

All loops learn the same questions of the starter data set with the starter's parts in one process, in turn. `plain` is
upstream's: a row a question, its video decoded and encoded each time, batches of four padded to the longest prompt
that there may be (the published code pads every row to its limit).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mgv.config import ModelParams
from mgv.data.features import Eye, FeatureCache, read_sample
from mgv.data.lessons import Lessons
from mgv.data.scenes import make_scenes
from mgv.model.adapt import Lora, adapt
from mgv.model.processor import Batch
from mgv.records import Sample
from mgv.train.stages import new_model
from tests.bench.measure import Figure, Result

PLAIN_GOAL = 0.25
"""Issue 4: at least four times the samples a second of a plain loop."""
CACHE_GOAL = 0.2
"""Issue 4: at least five times those of looking each time."""
BATCH = 4
LONGEST_WORDS = 160
"""Prompt and answer beside the frames: the longest of the data set has about so many tokens."""


def run(quick: bool) -> Result:
    """All loops over the same questions, in turn."""
    num_videos, num_frames = (8, 4) if quick else (25, 4)
    with tempfile.TemporaryDirectory() as folder:
        seconds, questions, equal = time_loops(Path(folder), num_videos, num_frames)
    rates = {name: questions / each for name, each in seconds.items()}
    beside = "; ".join(f"{name} {rate:.2f} questions/s" for name, rate in rates.items())
    figures = [
        Figure(what="training, time of a plain loop's", value=seconds["mgv train"] / seconds["plain"], unit="x",
               goal=PLAIN_GOAL, beside=beside),
        Figure(what="training, rows by themselves: features kept, of looking each time",
               value=seconds["kept features, a row each"] / seconds["looking each time, a row each"], unit="x",
               goal=CACHE_GOAL, beside=f"losses of kept features {'equal' if equal else 'NOT equal'}"),
    ]  # fmt: skip
    sizes = {"num_videos": num_videos, "num_questions": questions, "num_frames": num_frames}
    return Result(figures=figures, sizes=sizes, details={"seconds": seconds})


def time_loops(folder: Path, num_videos: int, num_frames: int) -> tuple[dict[str, float], int, bool]:
    """Seconds by loop, how many questions each learnt, and whether kept features gave the same losses."""
    model, processor = new_model(ModelParams(num_frames=num_frames), "cpu")
    adapt(model, lora=Lora(rank=16, alpha=32, dropout=0.0))
    model.train()
    samples = [
        sample
        for stage, split, sample in make_scenes(folder / "scenes", num_videos=num_videos, seed=7)
        if stage == "instruct" and split == "train"
    ]
    kept, looking = Eye(model, processor, FeatureCache(folder / "features", 10.0)), Eye(model, processor)
    kept.keep(samples)
    lessons = Lessons(samples, processor, 16)
    groups = [list(range(i, min(i + BATCH, len(lessons)))) for i in range(0, len(lessons), BATCH)]
    pairs = [(sample, turn) for sample in samples for turn in range(len(sample.turns))]
    fours = [pairs[i : i + BATCH] for i in range(0, len(pairs), BATCH)]
    longest = processor.config.tokens_per_frame * num_frames + LONGEST_WORDS

    def step(batch: Batch) -> float:
        loss = model(**batch.inputs()).loss
        loss.backward()
        model.zero_grad()
        return float(loss)

    loops: dict[str, Callable[[], list[float]]] = {
        "plain": lambda: [step(_plain(four, processor, longest)) for four in fours],
        "looking each time, a row each": lambda: [step(_rows(four, processor, looking)) for four in fours],
        "kept features, a row each": lambda: [step(_rows(four, processor, kept)) for four in fours],
        "looking each time, shared frames": lambda: [step(lessons.collate(g, looking)) for g in groups],
        "mgv train": lambda: [step(lessons.collate(g, kept)) for g in groups],
    }
    step(lessons.collate(groups[0], kept))  # warm
    seconds: dict[str, float] = {}
    losses: dict[str, list[float]] = {}
    for name, loop in loops.items():
        start = time.perf_counter()
        losses[name] = loop()
        seconds[name] = time.perf_counter() - start
    equal = (
        losses["mgv train"] == losses["looking each time, shared frames"]
        and losses["kept features, a row each"] == losses["looking each time, a row each"]
    )
    return seconds, len(pairs), equal


def _plain(pairs: list[tuple[Sample, int]], processor: Any, longest: int) -> Batch:
    clips = []
    for sample, turn in pairs:
        asked = sample.turns[turn]
        clip = read_sample(sample, processor)
        clips.append(replace(clip, question=asked.question, answer=asked.answer, cues=sample.cues))
    batch: Batch = processor(clips)
    for name, value in (("input_ids", 0), ("attention_mask", 0), ("labels", -100)):
        tensor = getattr(batch, name)
        padded = torch.nn.functional.pad(tensor, (0, max(0, longest - tensor.shape[1])), value=value)
        setattr(batch, name, padded)
    return batch


def _rows(pairs: list[tuple[Sample, int]], processor: Any, eye: Eye) -> Batch:
    clips = []
    for sample, turn in pairs:
        asked = sample.turns[turn]
        clips.append(replace(eye.look(sample).clip(sample), question=asked.question, answer=asked.answer))
    batch: Batch = processor(clips)
    return batch
