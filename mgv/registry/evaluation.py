"""Evaluation: what a run of `mgv evaluate` was asked, of whom, and what it came to, as run.json holds it.

Publishing, lineage and the report read it here and nowhere else, so that no two of them can disagree about a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mgv.errors import WorkspaceError

FORMAT = 1
_OPEN = ConfigDict(extra="ignore")
"""A run of a later version may hold more."""
SetKey = Literal["questions", "library_questions", "queries", "transcripts"]


@dataclass(frozen=True, kw_only=True, config=_OPEN)
class SetFacts:
    """A set of questions, queries or references."""

    name: str
    """Of its file or folder."""
    format: str
    digest: str
    """SHA-256 of what was asked."""
    count: int
    missing: dict[str, int] = field(default_factory=dict)
    """Videos that are not here → how many entries are about each."""
    unscored: dict[str, str] = field(default_factory=dict)
    """Transcripts: videos that could not be scored, and why."""
    transcriber: str = ""
    """Transcripts: the revision of the recogniser."""
    normalised: str = ""
    """Transcripts: how words are made alike before they are compared."""


@dataclass(frozen=True, kw_only=True, config=_OPEN)
class ModelFacts:
    """A video language model that was asked, and how."""

    system: Literal["model"] = "model"
    version: int = 1
    """Of the code that asks."""
    model: str
    """SHA-256 of its folder."""
    quantization: str = "none"
    use_subtitles: bool = True
    max_new_tokens: int = 0
    repetition_penalty: float = 1.0
    choices: str = ""


@dataclass(frozen=True, kw_only=True, config=_OPEN)
class LibraryFacts:
    """A library that was asked, and the answerer that answered from it."""

    system: Literal["library"] = "library"
    version: int = 1
    library: str
    """Its content digest."""
    parts: dict[str, str] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    ask: dict[str, Any] = field(default_factory=dict)
    answerer: str = ""
    """SHA-256 of our model's folder; of another answerer the name of its weights."""
    within_video: bool = False


@dataclass(frozen=True, kw_only=True, config=_OPEN)
class Facts:
    """What was run. A set that was not asked is None, and so is whoever was not asked."""

    mgv: str
    made: str
    """When, ISO-8601."""
    seed: int = 0
    limit: int | None = None
    num_bootstrap: int = 0
    time_s: float = 0.0
    library: str | None = None
    """Content digest of the library that was asked, searched or compared."""
    model: ModelFacts | None = None
    """Who answered `questions`."""
    ask: LibraryFacts | None = None
    """Who answered `library_questions`."""
    judge: dict[str, Any] | None = None
    """Who judged open answers: `judge`, `version`, and of a model `model` and `prompt_hash`."""
    judging: dict[str, Any] | None = None
    """What judging cost."""
    questions: SetFacts | None = None
    library_questions: SetFacts | None = None
    queries: SetFacts | None = None
    transcripts: SetFacts | None = None

    def sets(self) -> dict[str, SetFacts]:
        """The sets that were asked, by their key in params.yaml."""
        keys = ("questions", "library_questions", "queries", "transcripts")
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    def models(self) -> set[str]:
        """Digests of the video language models that answered."""
        answerers = [self.ask.answerer] if self.ask and _is_digest(self.ask.answerer) else []
        return {*([self.model.model] if self.model else []), *answerers}

    def library_digest(self) -> str | None:
        """Of the library that was asked or searched."""
        return self.library or (self.ask.library if self.ask else None)

    def as_json(self) -> dict[str, Any]:
        """As run.json has it: without what was not asked."""
        content = {
            name: value
            for name, value in asdict(self).items()
            if value is not None or name == "limit"
        }
        for key in self.sets():
            content[key] = {
                name: value for name, value in content[key].items() if value or name == "missing"
            }
        return content


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The folder of a run, with what it says."""

    folder: Path
    facts: Facts
    metrics: dict[str, float]


def parse_facts(content: Mapping[str, Any]) -> Facts:
    """Facts from run.json. Raises ValueError when they are none."""
    known = dict(content)
    if (system := known.pop("system", None)) is not None:  # as runs before 24 November 2026 had it
        known["model" if system.get("system") == "model" else "ask"] = system
    try:
        return _FACTS.validate_python(known)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"facts.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def read_evaluation(folder: Path) -> Evaluation:
    """What a folder of results says. Raises WorkspaceError when there is none in it, or it is damaged."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        if run["format"] != FORMAT:
            raise ValueError(f"its format is {run['format']}, expected {FORMAT}")
        return Evaluation(folder=folder, facts=parse_facts(run["facts"]), metrics=metrics)
    except FileNotFoundError as error:
        raise WorkspaceError(f"{folder}: no evaluation in it ({Path(str(error.filename)).name} is missing); "
                             "name a folder that `mgv evaluate` wrote") from error  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WorkspaceError(f"{folder}: not the results of an evaluation: {error}") from error


def datasets(facts: Facts) -> Iterator[tuple[str, str]]:
    """(name, version) of everything that a run read."""
    if facts.model:
        yield "evaluated model", facts.model.model
    if facts.ask and _is_digest(facts.ask.answerer):
        yield "answering model", facts.ask.answerer
    if library := facts.library_digest():
        yield "data/library.json", library
    for key, asked in facts.sets().items():
        yield f"{key} {asked.name}", asked.digest


def _is_digest(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


_FACTS = TypeAdapter(Facts)
