"""Lessons: samples cut into rows, rows into batches of like length, batches into optimizer steps.

A lesson is some turns of one sample that are learnt in one row. Which lessons a step learns is a pure function of the
seed and the step's number: a run can be resumed at any step, and shared among any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mgv.data.features import Eye
from mgv.errors import ConfigError, DataError
from mgv.model.processor import Batch, Processor
from mgv.records import Sample, Turn

CHARACTERS_PER_TOKEN = 3.5
"""Good enough to put rows of like length together."""
WINDOW = 16
"""Rows are sorted by length within so many micro-batches of the shuffled order."""


class Samples(Protocol):
    """A list of samples, or a file of them (mgv.data.samples.SampleFile)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Lesson:
    """Turns [first, last) of a sample."""

    sample: Sample
    first: int
    last: int

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What is learnt."""
        return self.sample.turns[self.first : self.last]

    @property
    def history(self) -> tuple[tuple[str, str], ...]:
        """What a dialogue said before; a turn that stands alone has none."""
        before = self.sample.turns[: self.first] if self.sample.is_dialogue else ()
        return tuple((turn.question, turn.answer) for turn in before)


class Lessons:
    """The lessons of a set of samples, of which only a few numbers are held."""

    def __init__(self, samples: Samples, processor: Processor, turns_per_row: int) -> None:
        self.samples, self.processor = samples, processor
        self._rows = _cut(samples, processor, turns_per_row)  # [number, (sample, first, last, length)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Lesson:
        sample, first, last, _ = (int(value) for value in self._rows[number])
        return Lesson(self.samples[sample], first, last)

    def micro_batches(self, seed: int, epoch: int, size: int) -> list[list[int]]:
        """An epoch's micro-batches: shuffled, of like length, each full (a set smaller than one is one)."""
        dice = np.random.default_rng([seed, epoch])
        order = dice.permutation(len(self))
        window, lengths = WINDOW * size, self._rows[:, 3]
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            rows = sorted(order[start : start + window].tolist(), key=lambda row: int(lengths[row]))
            batches += [rows[i : i + size] for i in range(0, len(rows), size)]
        full = [batch for batch in batches if len(batch) == size] or batches
        return [full[i] for i in dice.permutation(len(full))]

    def steps(
        self, seed: int, micro_size: int, num_micro: int, first_step: int = 0
    ) -> Iterator[list[list[int]]]:
        """For each optimizer step from first_step on, its num_micro micro-batches, without end."""
        position, wanted = 0, first_step * num_micro
        epoch = 0
        taken: list[list[int]] = []
        while True:
            batches = self.micro_batches(seed, epoch, micro_size)
            if position + len(batches) > wanted:
                for batch in batches[max(0, wanted - position) :]:
                    taken.append(batch)
                    if len(taken) == num_micro:
                        yield taken
                        taken = []
            position += len(batches)
            epoch += 1

    def num_steps(self, micro_size: int, num_micro: int, epochs: float) -> int:
        """Optimizer steps in so many epochs, at least one."""
        per_epoch = len(self.micro_batches(0, 0, micro_size))
        return max(1, int(per_epoch * epochs / num_micro))

    def collate(self, numbers: Sequence[int], eye: Eye) -> Batch:
        """A batch to learn."""
        return collate([self[number] for number in numbers], self.processor, eye)


def collate(lessons: Sequence[Lesson], processor: Processor, eye: Eye, subtitles: bool = True) -> Batch:
    """Lessons -> a right-padded batch with labels, one row a lesson."""
    looks = eye.look_all([lesson.sample for lesson in lessons])
    clips = [look.clip(lesson.sample, subtitles) for lesson, look in zip(lessons, looks, strict=True)]
    if processor.packs:
        return processor.pack(clips, [_dialogues(lesson) for lesson in lessons])
    rows = []
    for lesson, clip in zip(lessons, clips, strict=True):
        turn = lesson.turns[0]
        rows.append(replace(clip, question=turn.question, answer=turn.answer, history=lesson.history))
    return processor(rows)


def _dialogues(lesson: Lesson) -> list[list[tuple[str, str]]]:
    """A dialogue as one, turns that stand alone as one each."""
    pairs = [(turn.question, turn.answer) for turn in lesson.turns]
    return [pairs] if lesson.sample.is_dialogue else [[pair] for pair in pairs]


def _cut(samples: Samples, processor: Processor, turns_per_row: int) -> NDArray[np.int64]:
    most, per_frame = processor.config.limits.num_frames, processor.config.tokens_per_frame
    rows: list[tuple[int, int, int, int]] = []
    for number in range(len(samples)):
        sample = samples[number]
        shown = per_frame * (1 if sample.is_image else most)
        heard = sum(len(cue.text) for cue in sample.cues) / CHARACTERS_PER_TOKEN
        count = len(sample.turns)
        step = 1 if not processor.packs else count if sample.is_dialogue else turns_per_row
        for first in range(0, count, step):
            last = min(first + step, count)
            said = sum(len(turn.question) + len(turn.answer) for turn in sample.turns[first:last])
            rows.append((number, first, last, int(shown + heard + said / CHARACTERS_PER_TOKEN)))
    if not rows:
        raise DataError("there are no samples to learn from: run `mgv prepare` (params: prepare.sources)")
    return np.array(rows, dtype=np.int64)


def num_micro_batches(batch_size: int, micro_size: int, num_processes: int) -> int:
    """Micro-batches of a step, each process the same number. Raises ConfigError where that does not come out even."""
    if batch_size % (micro_size * num_processes):
        raise ConfigError(
            f"train: batch_size {batch_size} is not a multiple of micro_batch_size {micro_size} times "
            f"{num_processes} processes"
        )
    return batch_size // micro_size
