"""Lessons: rows of like length, and steps that follow from the seed and their number."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from mgv.errors import DataError
from mgv.model.build import build_processor, build_video_llm
from mgv.records import Sample, Turn
from mgv.train.training_rows import TrainingRows


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    made = {}
    for connector in ("minigpt4_video", "llama_vid"):
        model, tokenizer = build_video_llm(connector, device="cpu")
        made[connector] = build_processor(model, tokenizer, num_frames=2)
    return made


def samples(number: int, turns: int = 1, is_dialogue: bool = False) -> list[Sample]:
    return [
        Sample(
            sample_id=str(i),
            media=f"{i}.mp4",
            media_id="",
            turns=tuple(Turn(question="why? " * (i + 1), answer=f"{i}-{k}") for k in range(turns)),
            is_dialogue=is_dialogue,
        )
        for i in range(number)
    ]


def test_turns_that_stand_alone_share_a_row_up_to_a_number(processors: dict[str, Any]):
    lessons = TrainingRows(samples(2, turns=5), processors["minigpt4_video"], 2)
    assert [[turn.answer for turn in lessons[i].turns] for i in range(len(lessons))] == [
        ["0-0", "0-1"], ["0-2", "0-3"], ["0-4"], ["1-0", "1-1"], ["1-2", "1-3"], ["1-4"]
    ]  # fmt: skip


def test_a_dialogue_is_one_row(processors: dict[str, Any]):
    assert (
        len(TrainingRows(samples(3, turns=5, is_dialogue=True), processors["minigpt4_video"], 2))
        == 3
    )


def test_where_frames_cannot_be_shared_each_turn_is_a_row(processors: dict[str, Any]):
    assert len(TrainingRows(samples(3, turns=5), processors["llama_vid"], 16)) == 15


def test_an_epoch_shows_every_row_once(processors: dict[str, Any]):
    lessons = TrainingRows(samples(12), processors["minigpt4_video"], 16)
    for epoch in (0, 1):
        batches = lessons.micro_batches(7, epoch, 4)
        assert sorted(row for batch in batches for row in batch) == list(range(12))
    assert lessons.micro_batches(7, 0, 4) != lessons.micro_batches(7, 1, 4)
    assert lessons.micro_batches(7, 0, 4) == lessons.micro_batches(7, 0, 4)


def test_rows_of_a_micro_batch_are_of_like_length(processors: dict[str, Any]):
    lessons = TrainingRows(
        samples(12), processors["minigpt4_video"], 16
    )  # row i is longer than row i - 1
    assert all(max(batch) - min(batch) == 3 for batch in lessons.micro_batches(0, 0, 4))


def test_steps_from_the_middle_are_the_tail_of_all_steps(processors: dict[str, Any]):
    lessons = TrainingRows(samples(10), processors["minigpt4_video"], 16)
    every = list(islice(lessons.steps(3, 2, 3), 12))
    for first in (1, 4, 7):
        assert list(islice(lessons.steps(3, 2, 3, first), 12 - first)) == every[first:]


def test_the_number_of_steps(processors: dict[str, Any]):
    lessons = TrainingRows(samples(10), processors["minigpt4_video"], 16)
    assert lessons.num_steps(2, 1, 2.0) == 10  # five micro-batches an epoch
    assert lessons.num_steps(2, 2, 1.0) == 2
    assert (
        lessons.num_steps(4, 1, 1.0) == 2
    )  # the two rows beyond the last full one wait for the next epoch
    assert lessons.num_steps(64, 1, 1.0) == 1


def test_an_epoch_shows_each_source_by_its_weight_and_over_the_epochs_all_of_its_rows_alike(
    processors: dict[str, Any],
):
    few, many = samples(4), samples(8)
    mixed = [replace(s, sample_id=f"few/{i}") for i, s in enumerate(few)]
    mixed += [replace(s, sample_id=f"many/{i}") for i, s in enumerate(many)]
    lessons = TrainingRows(mixed, processors["minigpt4_video"], 16, {"few": 3.0, "many": 1.0})
    shown: Counter[int] = Counter()
    for epoch in range(8):
        rows = [row for batch in lessons.micro_batches(7, epoch, 4) for row in batch]
        assert Counter(row < 4 for row in rows) == {
            True: 9,
            False: 3,
        }  # of 12 rows three quarters and one
        shown.update(rows)
        if epoch == 3:
            assert [shown[row] for row in range(4)] == [9] * 4  # 4 epochs of 9 are 9 rounds of 4
    assert [shown[row] for row in range(4, 12)] == [3] * 8  # 8 epochs of 3 are 3 rounds of 8
    every = list(islice(lessons.steps(3, 2, 3), 12))
    assert list(islice(lessons.steps(3, 2, 3, 5), 7)) == every[5:]


def test_weights_of_other_sources_than_the_samples_are_refused(processors: dict[str, Any]):
    with pytest.raises(DataError, match="samples of 0, 1, and weights of cmd: run `mgv prepare`"):
        TrainingRows(samples(2), processors["minigpt4_video"], 16, {"cmd": 1.0})


def test_nothing_to_learn_is_said(processors: dict[str, Any]):
    with pytest.raises(DataError, match="no samples to learn from: run `mgv prepare`"):
        TrainingRows([], processors["minigpt4_video"], 16)
