"""Prepare: annotations and media → samples by stage and split, in data/prepare/<stage>/<split>.jsonl.

read    each source's rows as samples (sources.py)
join    what the media are: content id, start and end, subtitles, from the library where it has them (media.py)
split   by content: a video is in one split, whatever its name and however many sources speak of it
write   the samples of all sources, in order, weights.json where sources have a weight, and data/prepare/report.json

The same annotations, media and params give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from mgv.config import SourceParams
from mgv.data.media import MediaReader
from mgv.data.report import SPLITS, STAGES, PrepareReport, SourceReport, Tally, report_json
from mgv.data.rows import BadRow, SampleRow
from mgv.data.samples import RowError, sample_to_json, write_weights
from mgv.data.sources import MediaFolder, source_named
from mgv.errors import ConfigError, DataError, MediaError
from mgv.files import replacing, write_json
from mgv.records import Cue, Sample
from mgv.workspace import Workspace

OnRows = Callable[[str, int, int], None]
"""Told a source's label, how many of its samples (of `scenes`: videos) are ready, and how many there will be, 0 as
long as that is not known."""
_MIN_ROWS = 100
"""Rows to have seen before their share of bad ones says anything."""


def prepare(workspace: Workspace, progress: OnRows = lambda *_: None) -> PrepareReport:
    """Write data/prepare anew. Raises DataError for a source with too many bad rows, or a video in two splits."""
    with preparing(workspace) as run:
        for label in run.labels():
            run.prepare_source(label, progress)
        return run.finish()


@contextmanager
def preparing(workspace: Workspace) -> Iterator[Preparation]:
    """A run of prepare, holding the workspace for writing. What it has not finished leaves no trace."""
    with workspace.writing():
        run = Preparation(workspace)
        try:
            yield run
        finally:
            run.media.close()
            shutil.rmtree(run.parts_dir, ignore_errors=True)


class Preparation:
    """A run: its sources, one after the other, then the files of all. Made by `preparing`."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._params = workspace, workspace.params.prepare
        self._sources = _labelled(self._params.sources)
        for source in self._sources.values():
            if source.name != "scenes":
                source_named(source.name)
        for stage in STAGES:
            _check_weights(stage, self._of_stage(stage))
        self.media = MediaReader(workspace)
        self._declared: dict[str, tuple[str, str]] = {}
        self._reports: dict[str, SourceReport] = {}
        self.parts_dir = workspace.root / "data" / ".prepare"

    def labels(self) -> list[str]:
        """The sources in the order to prepare them: first those that declare a split, which `auto` then follows."""
        return sorted(self._sources, key=lambda label: not _declares(self._sources[label]))

    def prepare_source(self, label: str, progress: OnRows = lambda *_: None) -> SourceReport:
        """Read, join and split one source. Doing it again, after a failure, does all of it again."""
        source = self._sources[label]
        with _Parts(self.parts_dir / label) as out:
            if source.name == "scenes":
                num_rows, bad_rows = self._make_scenes(source, label, out, partial(progress, label))
            else:
                num_rows, bad_rows = self._read(source, label, out, partial(progress, label))
        report = SourceReport(
            label=label, num_rows=num_rows, bad_rows=tuple(bad_rows), tallies=out.tallies
        )
        self._reports[label] = report
        return report

    def finish(self) -> PrepareReport:
        """Put the parts of all sources together, in the order of params.yaml, and write the report."""
        folder = self._workspace.root / "data" / "prepare"
        for stage in STAGES:
            for split in SPLITS:
                parts = [
                    self.parts_dir / label / _part_name(stage, split) for label in self._sources
                ]
                _concatenate(
                    [part for part in parts if part.exists()], folder / stage / f"{split}.jsonl"
                )
            write_weights(folder / stage, self._weights(stage))
        self._scenes_dir.mkdir(
            parents=True, exist_ok=True
        )  # an output of the DVC stage, even if empty
        report = PrepareReport(sources=tuple(self._reports[label] for label in self._sources))
        write_json(folder / "report.json", report_json(report))
        return report

    def _read(
        self, source: SourceParams, label: str, out: _Parts, progress: Callable[[int, int], None]
    ) -> tuple[int, list[BadRow]]:
        """Write the samples of an annotation file; how many rows it had, and which gave none."""
        assert source.annotations is not None, "params.yaml has been checked"
        root = self._workspace.root
        format_ = source_named(source.name)
        rows = format_.read(root / source.annotations, MediaFolder(root / source.media), label)
        stage = source.stage or format_.stage
        num_rows, ids = 0, set[str]()
        bad_rows: list[BadRow] = []
        faults = _Faults(label, self._params.max_bad_share)
        for num_rows, row in enumerate(rows, start=1):
            outcome = self._sample_or_bad(row, source, ids)
            if isinstance(outcome, Sample):
                out.write(stage, self._split(outcome, source), outcome)
                progress(out.num_samples, source.limit or 0)
                if out.num_samples == source.limit:
                    break
            else:
                bad_rows.append(outcome)
                faults.add(outcome)
                if num_rows >= _MIN_ROWS:
                    faults.check(num_rows)
        faults.check(num_rows)
        if out.num_samples != source.limit:
            progress(out.num_samples, out.num_samples)
        return num_rows, bad_rows

    def _make_scenes(
        self, source: SourceParams, label: str, out: _Parts, progress: Callable[[int, int], None]
    ) -> tuple[int, list[BadRow]]:
        """Make the starter data set and write its samples; how many it has, and no bad rows."""
        from mgv.data.scenes import make_scenes

        scenes = make_scenes(
            self._scenes_dir, num_videos=source.num_videos, seed=source.seed, progress=progress
        )
        for stage, split, sample in scenes:
            if source.stage in (None, stage) and out.num_samples != source.limit:
                own_id = f"{label}/{sample.sample_id.partition('/')[2]}"
                sample = replace(sample, sample_id=own_id, media=self._shown(sample.media))
                self._declare(sample, split)
                out.write(stage, split, sample)
        return out.num_samples, []

    def _sample_or_bad(
        self, row: SampleRow | BadRow, source: SourceParams, ids: set[str]
    ) -> Sample | BadRow:
        if isinstance(row, SampleRow):
            try:
                if row.sample.sample_id in ids:
                    raise RowError(
                        f"the sample_id {row.sample.sample_id!r} is taken by a row before it"
                    )
                sample = self._joined(row.sample, source)
                ids.add(sample.sample_id)
                return sample
            except (RowError, MediaError) as error:
                row = BadRow(row.path, row.place, str(error))
        reason = row.reason.replace(f"{self._workspace.root}{os.sep}", "")
        return replace(row, path=Path(self._shown(row.path)), reason=reason)

    def _joined(self, sample: Sample, source: SourceParams) -> Sample:
        """The sample with what its media is. Raises MediaError, or RowError for a stretch outside of the video."""
        shown = self._shown(sample.media)
        if sample.is_image:
            return replace(sample, media=shown, media_id=self.media.image(sample.media).media_id)
        path = Path(sample.media)
        facts = self.media.video(path)
        assert facts.end_s is not None, "a video has an end"
        start_s = max(sample.start_s, facts.start_s)
        end_s = facts.end_s if sample.end_s is None else min(sample.end_s, facts.end_s)
        if end_s <= start_s:
            raise RowError(
                f"it begins at {sample.start_s:g} s, expected a time within {shown}, "
                f"which has {facts.start_s:g} to {facts.end_s:g} s"
            )
        cues: Iterable[Cue] = sample.cues
        if not cues:
            root = self._workspace.root
            inside = path.relative_to(root / source.media)
            own = root / source.subtitles / inside if source.subtitles else None
            cues = self.media.cues(path, facts.media_id, own)
        return replace(
            sample,
            media=shown,
            media_id=facts.media_id,
            start_s=start_s,
            end_s=end_s,
            cues=tuple(cue for cue in cues if cue.end_s > start_s and cue.start_s < end_s),
        )

    def _split(self, sample: Sample, source: SourceParams) -> str:
        """The split that a sample's source declares, or its content has elsewhere, or its content draws."""
        if source.split != "auto":
            self._declare(sample, source.split)
            return source.split
        if sample.media_id in self._declared:
            return self._declared[sample.media_id][0]
        return split_of(
            sample.media_id,
            seed=self._params.seed,
            validation_share=self._params.validation_share,
            test_share=self._params.test_share,
        )

    def _declare(self, sample: Sample, split: str) -> None:
        """Note a sample's split. Raises DataError when its content was declared to be in another."""
        before, media = self._declared.setdefault(sample.media_id, (split, sample.media))
        if before != split:
            raise DataError(
                f"one video or image is in two splits: {media} in {before}, {sample.media} in {split}; "
                "take it out of one, or set the sources' split to auto"
            )

    def _shown(self, path: str | Path) -> str:
        """A path as samples and reports hold it: relative to the workspace when inside, with `/`."""
        path = Path(path)
        root = self._workspace.root
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def _of_stage(self, stage: str) -> dict[str, SourceParams]:
        """The sources that a stage trains on, by label."""
        return {
            label: source
            for label, source in self._sources.items()
            if stage
            == (
                source.stage
                or (stage if source.name == "scenes" else source_named(source.name).stage)
            )
        }

    def _weights(self, stage: str) -> dict[str, float]:
        """The weights of a stage's sources. Raises DataError for one that gave nothing to train on."""
        weights = {
            label: source.weight for label, source in self._of_stage(stage).items() if source.weight
        }
        for label in weights:
            if (stage, "train") not in self._reports[label].tallies:
                raise DataError(
                    f"{label}: has a weight in {stage}, but no sample to train on; take it out"
                )
        return weights

    @property
    def _scenes_dir(self) -> Path:
        return self._workspace.root / "data" / "scenes"


def split_of(media_id: str, *, seed: int, validation_share: float, test_share: float) -> str:
    """The split that content draws: uniform in [0, 1) by SHA-256 of `SEED:MEDIA_ID`, whatever else is prepared."""
    digest = hashlib.sha256(f"{seed}:{media_id}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    if drawn < validation_share:
        return "validation"
    return "test" if drawn < validation_share + test_share else "train"


class _Faults:
    """How many rows of a source are bad, and whether it may go on."""

    def __init__(self, label: str, max_share: float) -> None:
        self._label, self._max_share = label, max_share
        self._count = 0
        self._first: BadRow | None = None

    def add(self, row: BadRow) -> None:
        if row.is_fault:
            self._count += 1
            self._first = self._first or row

    def check(self, num_rows: int) -> None:
        """Raises DataError when too many of the rows so far are bad."""
        if self._count > self._max_share * num_rows:
            raise DataError(
                f"{self._label}: {self._count} of {num_rows} rows are bad, more than prepare.max_bad_share "
                f"({self._max_share:g}) allows; the first is {self._first}"
            )


class _Parts:
    """One source's samples, in a file for each stage and split, and their sums."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._files: dict[str, IO[str]] = {}
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.num_samples = 0

    def write(self, stage: str, split: str, sample: Sample) -> None:
        name = _part_name(stage, split)
        try:
            if name not in self._files:
                self._files[name] = (self._folder / name).open("w", encoding="utf-8", newline="\n")
            self._files[name].write(sample_to_json(sample) + "\n")
        except OSError as error:
            raise DataError(
                f"{self._folder / name}: cannot be written: {error.strerror}"
            ) from error
        self.tallies.setdefault((stage, split), Tally()).add(sample)
        self.num_samples += 1

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()


def _check_weights(stage: str, sources: dict[str, SourceParams]) -> None:
    """Raises ConfigError when some of a stage's sources have a weight and others none."""
    without = [label for label, source in sources.items() if source.weight is None]
    if without and len(without) < len(sources):
        raise ConfigError(
            f"prepare.sources: {', '.join(without)} of {stage} without a weight beside others that have one; "
            "give all of a stage's sources a weight, or none"
        )


def _part_name(stage: str, split: str) -> str:
    return f"{stage}.{split}.jsonl"


def _concatenate(parts: Iterable[Path], target: Path) -> None:
    """The parts one after the other in one file."""
    with replacing(target, DataError) as out:
        for part in parts:
            with part.open(encoding="utf-8", newline="") as file:
                shutil.copyfileobj(file, out, 2**20)


def _labelled(sources: Iterable[SourceParams]) -> dict[str, SourceParams]:
    """The sources by label, which begins their sample ids: the name, with a number from the second of a name on."""
    labelled: dict[str, SourceParams] = {}
    seen: Counter[str] = Counter()
    for source in sources:
        seen[source.name] += 1
        labelled[
            source.name if seen[source.name] == 1 else f"{source.name}-{seen[source.name]}"
        ] = source
    return labelled


def _declares(source: SourceParams) -> bool:
    return source.name == "scenes" or source.split != "auto"
