"""Lineage: why two states of a library answer differently, found by changing one thing at a time.

A state is a library with the model and the parameters that answered from it. Between two states four things may differ:

data        videos came, went, were renamed or replaced, or got other subtitles
index       the same videos through other parts or parameters, or tables that were made anew
model       the answerer, its weights or its settings
parameters  how it is searched and asked

Each that differs is given to the one state from the other, and taken from the other, and the question is asked again.
Where data and index both differ, both libraries are also asked as if they held only the videos they have in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mgv.ask.answerers import answerer_weights
from mgv.ask.library import Library, parameters_of
from mgv.ask.opened import Answerers
from mgv.config import AnswererParams, AskParams, SearchParams
from mgv.errors import UsageError
from mgv.library.manifest import Manifest
from mgv.records import Answer
from mgv.registry import Live, live_at
from mgv.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One of the things that may differ between two states."""

    factor: str
    """`data`, `index`, `model` or `parameters`."""
    changes: tuple[str, ...]
    """What differs in it; empty: nothing."""
    moments: bool
    """Changing it alone changes the moments that are found."""
    answer: bool
    """Changing it alone changes what is answered: words or citations."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """A state, and what it answers."""

    name: str
    """As it was asked for."""
    library_tag: str
    version: str | None
    """Of the published model."""
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class Diff:
    """Two states' answers to one question, and why they differ."""

    a: Side
    b: Side
    moments_changed: bool
    answer_changed: bool
    causes: tuple[Cause, ...]
    """All four; those without effect too."""


@dataclass(frozen=True, kw_only=True)
class _State:
    name: str
    live: Live
    search: SearchParams
    ask: AskParams
    """Its answerer is the one that answers: `champion` as the folder it stands for."""

    @property
    def manifest(self) -> Manifest:
        return self.live.manifest


def diff(
    workspace: Workspace,
    a: str,
    b: str,
    question: str,
    videos: Sequence[str] | None = None,
    answerer: str | None = None,
) -> Diff:
    """Ask two states (registry.live_at) the same, and find what makes the difference.

    answerer: a name, instead of params.yaml's. Raises what live_at raises, and UsageError when neither library has
    one of the videos.
    """
    asker = _Asker(workspace, question, videos, answerer)
    one, other = asker.state(a), asker.state(b)
    first, second = asker.ask(one, one, one), asker.ask(other, other, other)
    causes = (
        *_library_causes(asker, one, other),
        _cause(
            "model", _model_changes(one, other),
            (first, asker.ask(one, other, one)), (second, asker.ask(other, one, other)),
        ),
        _cause(
            "parameters", _parameter_changes(one, other),
            (first, asker.ask(one, one, other)), (second, asker.ask(other, other, one)),
        ),
    )  # fmt: skip
    return Diff(
        a=_side(one, first),
        b=_side(other, second),
        moments_changed=_moments(first) != _moments(second),
        answer_changed=_says(first) != _says(second),
        causes=causes,
    )


def _side(state: _State, answer: Answer) -> Side:
    return Side(
        name=state.name, library_tag=state.manifest.tag, version=state.live.version, answer=answer
    )  # fmt: skip


def _cause(factor: str, changes: Sequence[str], *pairs: tuple[Answer, Answer]) -> Cause:
    """A cause from pairs of answers between which only this factor differs."""
    return Cause(
        factor=factor,
        changes=tuple(changes),
        moments=bool(changes) and any(_moments(one) != _moments(other) for one, other in pairs),
        answer=bool(changes) and any(_says(one) != _says(other) for one, other in pairs),
    )


def _library_causes(asker: _Asker, a: _State, b: _State) -> Iterator[Cause]:
    data, common = _data_changes(asker.library(a), asker.library(b))
    index = _index_changes(a.manifest, b.manifest, same_data=not data)
    here = (asker.ask(a, a, a), asker.ask(b, a, a))
    there = (asker.ask(a, b, b), asker.ask(b, b, b))
    if not (data and index):
        yield _cause("data", data, here, there)
        yield _cause("index", index, here, there)
        return
    only_a, only_b = asker.ask(a, a, a, common), asker.ask(b, a, a, common)
    yield _cause("data", data, (here[0], only_a), (here[1], only_b))
    yield _cause("index", index, (only_a, only_b))


def _data_changes(a: Library, b: Library) -> tuple[list[str], frozenset[str]]:
    """What of the videos differs, and the ids of those that are the same in both."""
    old, new = a.contents(), b.contents()
    names_old, names_new = ({each.name: key for key, each in side.items()} for side in (old, new))
    lines = []
    for video_id, each in new.items():
        if video_id not in old:
            replaced = each.name in names_old and names_old[each.name] not in new
            lines.append(f"{each.name} {'has other content' if replaced else 'was added'}")
        elif old[video_id].name != each.name:
            lines.append(f"{old[video_id].name} is called {each.name}")
    for video_id, each in old.items():
        if video_id not in new and not (each.name in names_new and names_new[each.name] not in old):
            lines.append(f"{each.name} was removed")
    both = [video_id for video_id in new if video_id in old]
    resaid = [video_id for video_id in both if old[video_id].subtitles != new[video_id].subtitles]
    lines += [f"{new[video_id].name} has other subtitles" for video_id in resaid]
    return sorted(lines), frozenset(both) - frozenset(resaid)


def _index_changes(a: Manifest, b: Manifest, *, same_data: bool) -> list[str]:
    lines = [
        f"{part}: {a.parts.get(part)} → {b.parts.get(part)}"
        for part in sorted({*a.parts, *b.parts})
        if a.parts.get(part) != b.parts.get(part)
    ]
    lines += _changes(asdict(a.params), asdict(b.params), "materialize")
    if not lines and same_data and a.digest != b.digest:
        lines.append("rows differ though videos, parts and parameters are the same")
    if not lines and same_data and a.versions != b.versions:
        lines.append("the tables were written anew, with the same content")
    return lines


def _model_changes(a: _State, b: _State) -> list[str]:
    one, other = a.ask.answerer, b.ask.answerer
    lines = []
    weights = answerer_weights(one), answerer_weights(other)
    if weights[0] != weights[1]:
        names = (a.live.version or one.pretrained, b.live.version or other.pretrained)
        lines.append(f"weights: {names[0]} ({weights[0][:12]}) → {names[1]} ({weights[1][:12]})")
    return lines + _changes(_settings(one), _settings(other), "ask.answerer")


def _settings(params: AnswererParams) -> dict[str, Any]:
    return {name: value for name, value in asdict(params).items() if name != "pretrained"}


def _parameter_changes(a: _State, b: _State) -> list[str]:
    return _changes(asdict(a.search), asdict(b.search), "search") + _changes(
        _asking(a.ask), _asking(b.ask), "ask"
    )


def _asking(params: AskParams) -> dict[str, Any]:
    return {name: value for name, value in asdict(params).items() if name != "answerer"}


def _changes(a: dict[str, Any], b: dict[str, Any], under: str) -> list[str]:
    """Keys with other values, a line each."""
    lines = []
    for name in sorted({*a, *b}):
        one, other = a.get(name), b.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            lines += _changes(one, other, f"{under}.{name}")
        elif one != other:
            lines.append(f"{under}.{name}: {one} → {other}")
    return lines


def _moments(answer: Answer) -> tuple[Any, ...]:
    """What was found: by content, so that a new name alone is no other moment."""
    return tuple(
        (each.video_id, each.start_s, each.end_s, each.score, each.text) for each in answer.moments
    )


def _says(answer: Answer) -> tuple[Any, ...]:
    return answer.text, tuple(
        (each.number, each.video_id, each.start_s, each.end_s) for each in answer.citations
    )


@dataclass
class _Asker:
    """Asks one question of any library with any model and parameters; what was loaded or answered is kept."""

    workspace: Workspace
    question: str
    videos: Sequence[str] | None
    answerer: str | None
    _libraries: dict[str, Library] = field(default_factory=dict)
    _answerers: Answerers = field(default_factory=Answerers)
    _answers: dict[Any, Answer] = field(default_factory=dict)

    def state(self, name: str) -> _State:
        """What this name stands for. Its library has to be there, and the videos in one of the libraries."""
        live = live_at(self.workspace, name)
        params = parameters_of(self.workspace, live)
        library = self._libraries.setdefault(
            live.manifest.tag,
            Library.of(replace(self.workspace, params=params), live, answerers=self._answerers),
        )
        opened = library.with_params(params.search, params.ask, live)
        if self.answerer:
            opened = opened.with_answerer(self.answerer)
        ask = replace(opened.workspace.params.ask, answerer=opened.answerer_params)
        return _State(name=name, live=live, search=params.search, ask=ask)

    def library(self, state: _State) -> Library:
        return self._libraries[state.manifest.tag]

    def ask(
        self,
        library: _State,
        model: _State,
        parameters: _State,
        among: frozenset[str] | None = None,
    ) -> Answer:
        """The question to the library of one state, the model of another and the parameters of a third."""
        ask = replace(parameters.ask, answerer=model.ask.answerer)
        key = (library.manifest.tag, str((parameters.search, ask)), among)
        if key not in self._answers:
            opened = self.library(library).with_params(parameters.search, ask, model.live)
            if among is not None:
                opened = opened.among(among)
            self._answers[key] = self._asked(opened)
        return self._answers[key]

    def _asked(self, library: Library) -> Answer:
        try:
            return library.ask(
                self.question,
                videos=self.videos,
                keep_receipt=False,
            )
        except UsageError:
            known = [each for each in self._libraries.values() if self._has_videos(each)]
            if known:  # the other library has them
                return Answer(question=self.question, text=None, citations=(), moments=())
            raise

    def _has_videos(self, library: Library) -> bool:
        try:
            library.video_ids(self.videos or ())
        except UsageError:
            return False
        return True
