"""Samples on disk: JSON Lines, one `Sample` a line, in UTF-8.

{"media": "talk.mp4", "start_s": 10, "end_s": 14.5, "turns": [{"question": "What is shown?", "answer": "A rocket."}]}

Only `media` and `turns` are required, and in a turn `question` and `answer`; docs/data.md has the other keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mgv.errors import DataError
from mgv.files import replacing, write_json
from mgv.records import Cue, Sample, Turn

MAX_ROW_BYTES = 16 * 2**20
"""Nobody writes a longer line; a file that does is damaged."""
WEIGHTS = "weights.json"
"""Beside a stage's samples."""
_SAMPLE_KEYS = (
    "sample_id", "media", "media_id", "start_s", "end_s", "cues", "turns", "is_dialogue", "is_image",
)  # fmt: skip
_TURN_KEYS = ("question", "answer", "kind", "choices")
_CUE_KEYS = ("start_s", "end_s", "text")
_MAX_S = 1e9
_MEDIA_ID = re.compile(r"[0-9a-f]{64}|")


class RowError(DataError):
    """A row is not what its format says; the message leaves out where it is, which its reader adds."""


def sample_to_json(sample: Sample) -> str:
    """A sample as one line of JSON without its line end; keys at their defaults are left out."""
    row: dict[str, Any] = {
        name: value
        for name, value in asdict(sample).items()
        if name == "start_s" or value not in ("", (), None)
    }
    row["turns"] = [
        {k: v for k, v in asdict(turn).items() if v != "" and v != ()} for turn in sample.turns
    ]
    for name in ("is_dialogue", "is_image"):
        if not row[name]:
            del row[name]
    return json.dumps({name: row[name] for name in _SAMPLE_KEYS if name in row}, ensure_ascii=False)


def sample_from_json(text: str | bytes) -> Sample:
    """The sample of one line. Raises RowError naming the key, what was found and what was expected."""
    return sample_from_row(parse_row(text))


def parse_row(text: str | bytes) -> Any:
    """The JSON value of one line. Raises RowError when it is none."""
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON: {error.msg} (at character {error.pos + 1})") from error
    except ValueError as error:  # a number of thousands of digits
        raise RowError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise RowError("not JSON that anyone wrote: nested too deeply") from error


def sample_from_row(row: Any) -> Sample:
    """The sample of a parsed line. Raises RowError."""
    _check_keys(row, _SAMPLE_KEYS, required=("media", "turns"), where="")
    start_s = _number(row, "start_s", where="", default=0.0)
    end_s = None if row.get("end_s") is None else _number(row, "end_s", where="")
    if end_s is not None and end_s <= start_s:
        raise RowError(f"end_s is {end_s:g}, expected more than start_s, which is {start_s:g}")
    media_id = text_of(row, "media_id", default="", may_be_empty=True)
    if not _MEDIA_ID.fullmatch(media_id):
        raise RowError(
            f"media_id is {media_id[:80]!r}, expected a SHA-256 in 64 hex digits, or none"
        )
    turns = tuple(
        _turn(turn, f"turn {number}: ") for number, turn in enumerate(_list(row, "turns", ""), 1)
    )
    if not turns:
        raise RowError("turns is empty, expected at least one")
    cues = _list(row, "cues", "") if "cues" in row else []
    return Sample(
        sample_id=text_of(row, "sample_id", default="", may_be_empty=True),
        media=text_of(row, "media"),
        media_id=media_id,
        turns=turns,
        start_s=start_s,
        end_s=end_s,
        cues=tuple(_cue(cue, f"cue {number}: ") for number, cue in enumerate(cues, 1)),
        is_dialogue=_flag(row, "is_dialogue"),
        is_image=_flag(row, "is_image"),
    )


def text_of(
    row: dict[str, Any],
    key: str,
    where: str = "",
    *,
    default: str | None = None,
    may_be_empty: bool = False,
) -> str:
    """The text under a key, without white space around it. Raises RowError when there is none to use."""
    value = row.get(key, default)
    if value is None:
        raise RowError(f"{where}no {key!r}, expected text")
    if not isinstance(value, str):
        raise RowError(f"{where}{key} is {_shown(value)}, expected text")
    if not value.strip() and not may_be_empty:
        raise RowError(f"{where}{key} is empty, expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            f"{where}{key} holds half a character (a lone surrogate), expected text"
        ) from error
    return value.strip()


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples one after the other; the file appears whole or not at all. How many they were."""
    count = 0
    with replacing(path, DataError) as out:
        for sample in samples:
            out.write(sample_to_json(sample) + "\n")
            count += 1
    return count


def write_weights(folder: Path, weights: Mapping[str, float]) -> None:
    """Write what part of a stage's training each source is, by the label that its sample ids begin with; none: by
    their sizes, and there is no file."""
    if weights:
        write_json(folder / WEIGHTS, dict(weights))
    else:
        (folder / WEIGHTS).unlink(missing_ok=True)


def read_weights(folder: Path) -> dict[str, float]:
    """What write_weights wrote."""
    try:
        weights: dict[str, float] = json.loads((folder / WEIGHTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / WEIGHTS}: cannot be read ({error}); run `mgv prepare`"
        ) from error
    return weights


class SampleFile:
    """A file of samples, any of which is read when it is asked for: only their byte offsets are held."""

    def __init__(self, path: Path) -> None:
        """One pass over the file finds where its rows begin. Raises DataError when it cannot be read."""
        import numpy as np

        self.path = path
        try:
            with path.open("rb") as file:
                self._offsets = np.fromiter(_row_offsets(file), dtype=np.int64)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); run `mgv prepare`"
            ) from error

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Sample:
        """Raises DataError naming file and line when the row is no sample, IndexError past the end."""
        offset = int(self._offsets[index])
        with self.path.open("rb") as file:
            file.seek(offset)
            line = file.readline(MAX_ROW_BYTES + 1)
            try:
                return sample_from_json(line)
            except RowError as error:
                file.seek(0)
                line_number = 1 + sum(1 for _ in iter(file.readline, b"") if file.tell() <= offset)
                raise DataError(f"{self.path}, line {line_number}: {error}") from error

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _row_offsets(file: Iterable[bytes]) -> Iterator[int]:
    offset = 0
    for line in file:
        if not line.isspace():
            yield offset
        offset += len(line)


def _turn(row: Any, where: str) -> Turn:
    _check_keys(row, _TURN_KEYS, required=("question", "answer"), where=where)
    choices = _list(row, "choices", where) if "choices" in row else []
    turn = Turn(
        question=text_of(row, "question", where),
        answer=text_of(row, "answer", where),
        kind=text_of(row, "kind", where, default="", may_be_empty=True),
        choices=tuple(text_of({"choice": choice}, "choice", where) for choice in choices),
    )
    if turn.choices and turn.answer not in turn.choices:
        raise RowError(
            f"{where}answer is {turn.answer[:80]!r}, expected one of its choices {turn.choices}"
        )
    return turn


def _cue(row: Any, where: str) -> Cue:
    _check_keys(row, _CUE_KEYS, required=_CUE_KEYS, where=where)
    start_s, end_s = (_number(row, key, where) for key in ("start_s", "end_s"))
    if end_s < start_s:
        raise RowError(
            f"{where}end_s is {end_s:g}, expected at least start_s, which is {start_s:g}"
        )
    return Cue(start_s=start_s, end_s=end_s, text=text_of(row, "text", where, may_be_empty=True))


def _check_keys(row: Any, known: tuple[str, ...], *, required: tuple[str, ...], where: str) -> None:
    if not isinstance(row, dict):
        raise RowError(
            f"{where}{_shown(row)}, expected an object with {' and '.join(map(repr, required))}"
        )
    for key in row:
        if key not in known:
            raise RowError(f"{where}unknown key {key[:80]!r}, expected some of {', '.join(known)}")
    for key in required:
        if key not in row:
            raise RowError(f"{where}no {key!r}, expected {' and '.join(map(repr, required))}")


def _number(row: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = row.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_S:
        raise RowError(f"{where}{key} is {_shown(value)}, expected a number of seconds")
    return float(value)


def _flag(row: dict[str, Any], key: str) -> bool:
    value = row.get(key, False)
    if not isinstance(value, bool):
        raise RowError(f"{key} is {_shown(value)}, expected true or false")
    return value


def _list(row: dict[str, Any], key: str, where: str) -> list[Any]:
    value = row[key]
    if not isinstance(value, list):
        raise RowError(f"{where}{key} is {_shown(value)}, expected a list")
    return value


def _shown(value: Any) -> str:
    """A value as an error shows it: short, on one line."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
