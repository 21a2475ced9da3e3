"""Check: what is wrong with an annotation file, row by row, ahead of preparing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mgv.data.rows import BadRow
from mgv.data.sources import MediaFolder, source_named
from mgv.errors import DataError


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What an annotation file holds."""

    num_samples: int
    num_turns: int
    bad_rows: tuple[BadRow, ...]
    """Every row that gives no sample, those without fault too."""

    @property
    def faults(self) -> tuple[BadRow, ...]:
        """The rows with something wrong."""
        return tuple(row for row in self.bad_rows if row.is_fault)


def check_annotations(
    path: Path,
    source: str = "samples",
    media: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> CheckReport:
    """Read a whole annotation file as `prepare` would; with a media folder, look each file up (none is decoded).

    progress is told the number of rows so far. Raises ConfigError for an unknown source, DataError when the
    file is not there.
    """
    num_samples = num_turns = 0
    bad_rows: list[BadRow] = []
    rows = source_named(source).read(path, MediaFolder(media), source)
    try:
        for row in rows:
            if isinstance(row, BadRow):
                bad_rows.append(row)
            else:
                num_samples += 1
                num_turns += len(row.sample.turns)
            progress(num_samples + len(bad_rows))
    except DataError as error:
        if not (num_samples or bad_rows):
            raise
        bad_rows.append(BadRow(path, "the rest", str(error).removeprefix(f"{path}, ")))
    return CheckReport(num_samples=num_samples, num_turns=num_turns, bad_rows=tuple(bad_rows))
