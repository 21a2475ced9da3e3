"""Lessons: rows of like length, and steps that follow from the seed and their number."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from mgv.data.lessons import Lessons
from mgv.errors import DataError
from mgv.model.build import build_processor, build_video_llm
from mgv.records import Sample, Turn


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
    lessons = Lessons(samples(2, turns=5), processors["minigpt4_video"], 2)
    assert [[turn.answer for turn in lessons[i].turns] for i in range(len(lessons))] == [
        ["0-0", "0-1"], ["0-2", "0-3"], ["0-4"], ["1-0", "1-1"], ["1-2", "1-3"], ["1-4"]
    ]  # fmt: skip


def test_a_dialogue_is_one_row(processors: dict[str, Any]):
    assert len(Lessons(samples(3, turns=5, is_dialogue=True), processors["minigpt4_video"], 2)) == 3


def test_where_frames_cannot_be_shared_each_turn_is_a_row(processors: dict[str, Any]):
    assert len(Lessons(samples(3, turns=5), processors["llama_vid"], 16)) == 15


def test_an_epoch_shows_every_row_once(processors: dict[str, Any]):
    lessons = Lessons(samples(12), processors["minigpt4_video"], 16)
    for epoch in (0, 1):
        batches = lessons.micro_batches(7, epoch, 4)
        assert sorted(row for batch in batches for row in batch) == list(range(12))
    assert lessons.micro_batches(7, 0, 4) != lessons.micro_batches(7, 1, 4)
    assert lessons.micro_batches(7, 0, 4) == lessons.micro_batches(7, 0, 4)


def test_rows_of_a_micro_batch_are_of_like_length(processors: dict[str, Any]):
    lessons = Lessons(samples(12), processors["minigpt4_video"], 16)  # row i is longer than row i - 1
    assert all(max(batch) - min(batch) == 3 for batch in lessons.micro_batches(0, 0, 4))


def test_steps_from_the_middle_are_the_tail_of_all_steps(processors: dict[str, Any]):
    lessons = Lessons(samples(10), processors["minigpt4_video"], 16)
    every = list(islice(lessons.steps(3, 2, 3), 12))
    for first in (1, 4, 7):
        assert list(islice(lessons.steps(3, 2, 3, first), 12 - first)) == every[first:]


def test_the_number_of_steps(processors: dict[str, Any]):
    lessons = Lessons(samples(10), processors["minigpt4_video"], 16)
    assert lessons.num_steps(2, 1, 2.0) == 10  # five micro-batches an epoch
    assert lessons.num_steps(2, 2, 1.0) == 2
    assert lessons.num_steps(4, 1, 1.0) == 2  # the two rows beyond the last full one wait for the next epoch
    assert lessons.num_steps(64, 1, 1.0) == 1


def test_nothing_to_learn_is_said(processors: dict[str, Any]):
    with pytest.raises(DataError, match="no samples to learn from: run `mgv prepare`"):
        Lessons([], processors["minigpt4_video"], 16)
