"""Report: what prepare made of its sources, as numbers that DVC shows and compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mgv.data.rows import BadRow
from mgv.records import Sample

STAGES = ("pretrain_image", "pretrain_video", "instruct")
SPLITS = ("train", "validation", "test")
_NUM_BAD_ROWS = 100
"""So many are listed in report.json."""
_DURATIONS_S = (1, 5, 15, 30, 60, 180, 600, 3600)
_NUM_KINDS = 100


@dataclass
class Tally:
    """Sums over samples."""

    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    durations: Counter[str] = field(default_factory=Counter)

    def add(self, sample: Sample) -> None:
        """Count a prepared sample."""
        duration_s = 0.0 if sample.end_s is None else sample.end_s - sample.start_s
        self.counts.update(
            samples=1,
            turns=len(sample.turns),
            words=sum(len(turn.answer.split()) for turn in sample.turns),
            subtitle_words=sum(len(cue.text.split()) for cue in sample.cues),
            images=int(sample.is_image),
            dialogues=int(sample.is_dialogue),
            milliseconds=round(duration_s * 1000),
        )
        self.kinds.update(turn.kind or "open" for turn in sample.turns)
        self.durations[_duration_name(duration_s) if not sample.is_image else "image"] += 1

    def numbers(self) -> dict[str, int | float]:
        """The counts as a report shows them; hours are of video, each sample's stretch for itself."""
        names = ("samples", "turns", "words", "subtitle_words", "images", "dialogues")
        shown: dict[str, int | float] = {name: self.counts[name] for name in names}
        return shown | {"hours": round(self.counts["milliseconds"] / 3_600_000, 4)}


def _duration_name(duration_s: float) -> str:
    """The bar of the histogram: `5-15 s`."""
    low = 0
    for high in _DURATIONS_S:
        if duration_s < high:
            return f"{low}-{high} s"
        low = high
    return f"over {low} s"


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """What one source gave."""

    label: str
    num_rows: int
    """Rows read; where rows of one video become one sample, they count as one."""
    bad_rows: tuple[BadRow, ...]
    """Every row that gave no sample, those without fault too."""
    tallies: Mapping[tuple[str, str], Tally]
    """By stage and split."""

    @property
    def faults(self) -> tuple[BadRow, ...]:
        """The rows with something wrong."""
        return tuple(row for row in self.bad_rows if row.is_fault)


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """What a run of prepare made."""

    sources: tuple[SourceReport, ...]

    @property
    def bad_rows(self) -> tuple[BadRow, ...]:
        """All rows with something wrong, in the order of the sources."""
        return tuple(row for source in self.sources for row in source.faults)

    def tallies(self) -> Iterator[tuple[tuple[str, str], Tally]]:
        """The sums of each stage and split that has any samples, in order."""
        for stage in STAGES:
            for split in SPLITS:
                if (tally := self.tally(stage, split)).counts["samples"]:
                    yield (stage, split), tally

    def tally(self, stage: str | None = None, split: str | None = None) -> Tally:
        """The sums over all sources, of one stage or split if named."""
        return _sum(
            tally
            for source in self.sources
            for (of_stage, of_split), tally in source.tallies.items()
            if stage in (None, of_stage) and split in (None, of_split)
        )


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.counts += tally.counts
        total.kinds += tally.kinds
        total.durations += tally.durations
    return total


def report_json(report: PrepareReport) -> dict[str, Any]:
    """The report as data/prepare/report.json holds it: numbers under short names, then the first bad rows."""
    total = report.tally()
    bars = [_duration_name(low) for low in (0, *_DURATIONS_S)]
    return {
        **total.numbers(),
        "bad_rows": len(report.bad_rows),
        "stages": {
            stage: {split: report.tally(stage, split).numbers() for split in SPLITS}
            for stage in STAGES
        },
        "sources": {source.label: _source_json(source) for source in report.sources},
        "kinds": dict(sorted(total.kinds.most_common(_NUM_KINDS))),
        "durations": {bar: total.durations[bar] for bar in ("image", *bars)},
        "first_bad_rows": [str(row) for row in report.bad_rows[:_NUM_BAD_ROWS]],
    }


def _source_json(source: SourceReport) -> dict[str, Any]:
    return {
        "rows": source.num_rows,
        "bad_rows": len(source.faults),
        "left_out": len(source.bad_rows) - len(source.faults),
        **_sum(source.tallies.values()).numbers(),
    }
