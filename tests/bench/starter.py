"""The starter model on the starter data set's test split: combinations that no training scene shows.

An answer is right when greedy decoding writes it word for word. Intervals resample whole videos.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import torch

from mgv.config import SourceParams
from mgv.data.scenes import make_scenes
from mgv.evaluate.metrics import bootstrap_interval
from mgv.model.checkpoint import STARTER_MODEL, load_checkpoint
from mgv.train.features import FeatureCache, FeatureExtractor
from mgv.train.loop import right_turns
from mgv.train.training_rows import TrainingRow, TrainingRows, collate
from tests.bench.measure import Figure, Result

WRONG_GOAL = 0.15
"""Issue 4: at least 85 % right."""
Hits = dict[str, list[tuple[str, bool]]]
"""By kind of question: the video, and whether the answer is right."""


def run(quick: bool) -> Result:
    """With subtitles and without."""
    made = SourceParams(name="scenes")
    model, processor = load_checkpoint(STARTER_MODEL, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        scenes = make_scenes(
            Path(folder) / "scenes", num_videos=made.num_videos, seed=made.seed, splits=("test",)
        )
        samples = [sample for stage, _, sample in scenes if stage == "instruct"]
        lessons = TrainingRows(samples[:24] if quick else samples, processor, 16)
        eye = FeatureExtractor(model, processor, FeatureCache(Path(folder) / "features", 5.0))
        heard, deaf = (answered(model, lessons, eye, subtitles) for subtitles in (True, False))
    chance = sum(
        1 / len(turn.choices)
        for sample in samples
        for turn in sample.turns
        if turn.kind == "narration"
    )
    chance /= sum(turn.kind == "narration" for sample in samples for turn in sample.turns)
    everything = [hit for hits in heard.values() for hit in hits]
    figures = [
        _wrong("closed questions wrong, with subtitles", everything, WRONG_GOAL),
        _wrong(
            "questions that only the narrator answers wrong, with subtitles",
            heard["narration"],
            WRONG_GOAL,
        ),
        _wrong("the same without subtitles", deaf["narration"], None, f"; chance {1 - chance:.2f}"),
        *(
            _wrong(f"{kind} wrong", hits, None)
            for kind, hits in sorted(heard.items())
            if kind != "narration"
        ),
    ]
    return Result(
        figures=figures, sizes={"num_videos": len(samples), "num_questions": len(everything)}
    )


@torch.no_grad()
def answered(
    model: torch.nn.Module, lessons: TrainingRows, eye: FeatureExtractor, subtitles: bool
) -> Hits:
    """Every closed question of the lessons."""
    hits: Hits = defaultdict(list)
    for start in range(0, len(lessons), 4):
        chosen: list[TrainingRow] = [lessons[i] for i in range(start, min(start + 4, len(lessons)))]
        batch = collate(chosen, lessons.processor, eye, subtitles)
        output = model(**batch.inputs())
        for lesson, right in zip(chosen, right_turns(batch, output.logits), strict=True):
            for turn, hit in zip(lesson.turns, right, strict=True):
                if turn.choices:
                    hits[turn.kind].append((lesson.sample.media_id, hit))
    return hits


def _wrong(what: str, hits: list[tuple[str, bool]], goal: float | None, more: str = "") -> Figure:
    wrong = [not hit for _, hit in hits]
    low, high = bootstrap_interval(
        wrong, num_resamples=2000, seed=0, groups=[video for video, _ in hits]
    )
    beside = f"{len(wrong)} questions, 95 % interval {low:.3f} to {high:.3f}{more}"
    return Figure(what=what, value=sum(wrong) / len(wrong), unit="", goal=goal, beside=beside)
