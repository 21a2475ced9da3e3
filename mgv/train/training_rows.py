"""Lessons: samples cut into rows, rows into batches of like length, batches into optimizer steps.

A lesson is some turns of one sample that are learnt in one row. Which lessons a step learns is a pure function of the
seed and the step's number: a run can be resumed at any step, and shared among any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mgv.errors import ConfigError, DataError
from mgv.model.processor import Batch, Processor
from mgv.records import Sample, Turn
from mgv.train.features import FeatureExtractor

CHARACTERS_PER_TOKEN = 3.5
"""Good enough to put rows of like length together."""
WINDOW = 16
"""Rows are sorted by length within so many micro-batches of the shuffled order."""


class Samples(Protocol):
    """A list of samples, or a file of them (mgv.data.samples.SampleFile)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, slots=True)
class TrainingRow:
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


class TrainingRows:
    """The lessons of a set of samples, of which only a few numbers are held.

    With `weights` (by the source that a sample's id begins with) an epoch has as many rows as there are, but of each
    source its weight's share: of a small one every row more than once, of a large one the next epoch takes the rest.
    """

    def __init__(
        self,
        samples: Samples,
        processor: Processor,
        turns_per_row: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.samples, self.processor = samples, processor
        self._rows, sources = _cut(samples, processor, turns_per_row)
        self._pools = self._by_source(sources, weights) if weights else []

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> TrainingRow:
        sample, first, last = (int(value) for value in self._rows[number, :3])
        return TrainingRow(self.samples[sample], first, last)

    def micro_batches(self, seed: int, epoch: int, size: int) -> list[list[int]]:
        """An epoch's micro-batches: shuffled, of like length, each full (a set smaller than one is one)."""
        rng = np.random.default_rng([seed, epoch])
        pools = [
            _stretch(rows, count * epoch, count, [seed, 1 + source])
            for source, (rows, count) in enumerate(self._pools)
        ]
        order = rng.permutation(np.concatenate(pools) if pools else len(self))
        window, lengths = WINDOW * size, self._rows[:, 3]
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            rows = sorted(order[start : start + window].tolist(), key=lambda row: int(lengths[row]))
            batches += [rows[i : i + size] for i in range(0, len(rows), size)]
        full = [batch for batch in batches if len(batch) == size] or batches
        return [full[i] for i in rng.permutation(len(full))]

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

    def _by_source(
        self, sources: Sequence[str], weights: Mapping[str, float]
    ) -> list[tuple[NDArray[np.int64], int]]:
        """Each source's rows, and how many of them an epoch shows."""
        if set(sources) != set(weights):
            raise DataError(
                f"there are samples of {', '.join(sources)}, and weights of {', '.join(weights)}: run `mgv prepare`"
            )
        total = sum(weights.values())
        return [
            (
                np.flatnonzero(self._rows[:, 4] == place),
                max(1, round(len(self) * weights[source] / total)),
            )
            for place, source in enumerate(sources)
        ]

    def num_steps(self, micro_size: int, num_micro: int, epochs: float) -> int:
        """Optimizer steps in so many epochs, at least one."""
        per_epoch = len(self.micro_batches(0, 0, micro_size))
        return max(1, int(per_epoch * epochs / num_micro))

    def collate(self, numbers: Sequence[int], eye: FeatureExtractor) -> Batch:
        """A batch to learn."""
        return collate([self[number] for number in numbers], self.processor, eye)


def collate(
    lessons: Sequence[TrainingRow],
    processor: Processor,
    eye: FeatureExtractor,
    subtitles: bool = True,
) -> Batch:
    """Lessons -> a right-padded batch with labels, one row a lesson."""
    looks = eye.look_all([lesson.sample for lesson in lessons])
    clips = [
        look.clip(lesson.sample, subtitles) for lesson, look in zip(lessons, looks, strict=True)
    ]
    if processor.packs:
        return processor.pack(clips, [_dialogues(lesson) for lesson in lessons])
    rows = []
    for lesson, clip in zip(lessons, clips, strict=True):
        turn = lesson.turns[0]
        rows.append(
            replace(clip, question=turn.question, answer=turn.answer, history=lesson.history)
        )
    return processor(rows)


def _dialogues(lesson: TrainingRow) -> list[list[tuple[str, str]]]:
    """A dialogue as one, turns that stand alone as one each."""
    pairs = [(turn.question, turn.answer) for turn in lesson.turns]
    return [pairs] if lesson.sample.is_dialogue else [[pair] for pair in pairs]


def _stretch(rows: NDArray[np.int64], first: int, count: int, seed: list[int]) -> NDArray[np.int64]:
    """`count` from `first` on of an endless sequence in which each round is all rows in another order."""
    rounds = range(first // len(rows), -(-(first + count) // len(rows)))
    drawn = [np.random.default_rng([*seed, number]).permutation(rows) for number in rounds]
    return np.concatenate(drawn)[first - rounds.start * len(rows) :][:count]


def _cut(
    samples: Samples, processor: Processor, turns_per_row: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Rows [number, (sample, first, last, length, source)], and the sources: what sample ids begin with."""
    most, per_frame = processor.config.limits.num_frames, processor.config.tokens_per_frame
    rows: list[tuple[int, int, int, int, int]] = []
    sources: dict[str, int] = {}
    for number in range(len(samples)):
        sample = samples[number]
        source = sources.setdefault(sample.sample_id.partition("/")[0], len(sources))
        shown = per_frame * (1 if sample.is_image else most)
        heard = sum(len(cue.text) for cue in sample.cues) / CHARACTERS_PER_TOKEN
        count = len(sample.turns)
        step = 1 if not processor.packs else count if sample.is_dialogue else turns_per_row
        for first in range(0, count, step):
            last = min(first + step, count)
            num_characters = sum(
                len(turn.question) + len(turn.answer) for turn in sample.turns[first:last]
            )
            rows.append(
                (
                    number,
                    first,
                    last,
                    int(shown + heard + num_characters / CHARACTERS_PER_TOKEN),
                    source,
                )
            )
    if not rows:
        raise DataError(
            "there are no samples to learn from: run `mgv prepare` (params: prepare.sources)"
        )
    return np.array(rows, dtype=np.int64), list(sources)


def num_micro_batches(batch_size: int, micro_size: int, num_processes: int) -> int:
    """Micro-batches of a step, each process the same number. Raises ConfigError where that does not come out even."""
    if batch_size % (micro_size * num_processes):
        raise ConfigError(
            f"train: batch_size {batch_size} is not a multiple of micro_batch_size {micro_size} times "
            f"{num_processes} processes"
        )
    return batch_size // micro_size
