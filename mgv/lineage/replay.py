"""Replay: a receipt's question, asked again of exactly what answered it then."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from mgv import versioning
from mgv.ask.answerers import answerer_weights
from mgv.ask.receipts import Receipt, software
from mgv.config import AnswererParams
from mgv.errors import MgvError, WorkspaceError
from mgv.library.manifest import Manifest, read_version, versions
from mgv.records import Answer, Citation, Moment, clock
from mgv.registry import Live, published
from mgv.workspace import Workspace

if TYPE_CHECKING:
    from mgv.ask.library import Library


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What became of a question that was asked again."""

    receipt_id: str
    identical: bool
    """Text, citations, moments with scores and words, and the frames looked at: all as they were."""
    differences: tuple[str, ...]
    remarks: tuple[str, ...]
    """What answered this time that is not as it was: software, an endpoint. Mostly it makes no difference."""
    answer: Answer


def replay(workspace: Workspace, receipt: Receipt) -> Replay:
    """Ask again: the library's versions, the model and the parameters of the receipt, whatever there is by now.

    Raises WorkspaceError or MediaError that names what is gone (retention, `dvc gc`) and cannot be asked any more.
    """
    return Replayer(workspace).replay(receipt)


class Replayer:
    """Replays receipts; what several of them were answered by is opened once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._opened: dict[str, Library] = {}
        self._restored: dict[str, Path] = {}
        """Models from DVC's cache, by their weights; gone with this object."""

    def replay(self, receipt: Receipt) -> Replay:
        """See replay()."""
        manifest = _manifest(self._workspace, receipt)
        answerer, remarks = self._answerer(receipt)
        library = self._library(receipt, manifest, answerer)
        again = library.ask(receipt.question, videos=receipt.videos, keep_receipt=False)
        for name, then, now in (
            *((name, then, software().get(name, then)) for name, then in receipt.software.items()),
            *(
                (part, then, library.parts.get(part))
                for part, then in receipt.library.parts.items()
            ),
        ):
            if then != now:
                remarks.append(f"{name} was {then}, is {now}")
        differences = _differences(receipt, again)
        return Replay(
            receipt_id=receipt.receipt_id,
            identical=not differences,
            differences=tuple(differences),
            remarks=tuple(remarks),
            answer=again,
        )

    def _answerer(self, receipt: Receipt) -> tuple[AnswererParams, list[str]]:
        """Who answered, its weights found by their digest wherever they are now; and what is not as it was."""
        params, wanted = receipt.ask.answerer, receipt.model.weights
        if params.name != "video_llm":
            now = answerer_weights(params)
            remarks = (
                [] if now == wanted else [f"the weights of {params.name} were {wanted}, are {now}"]
            )
            if params.name == "openai":
                remarks.append(
                    "an endpoint answered: what is behind its model's name may have changed"
                )
            return params, remarks
        for folder in _model_folders(self._workspace, receipt):
            if (chosen := _with_weights(params, folder, wanted)) is not None:
                return chosen, []
        restored = self._from_cache(receipt)
        if restored is not None and (chosen := _with_weights(params, restored, wanted)) is not None:
            return chosen, []
        name = receipt.model.version or params.pretrained
        raise _gone(
            receipt,
            f"the model {name} with weights {wanted[:16]}… (`mgv publish` keeps a model for good)",
        )

    def _from_cache(self, receipt: Receipt) -> str | None:
        """The folder of a model that was a stage's output, as DVC's cache keeps it."""
        md5, weights = receipt.model.listing, receipt.model.weights
        if md5 is None:
            return None
        if weights not in self._restored:
            self._restored[weights] = Path(mkdtemp(prefix="mgv-replay-"))
            weakref.finalize(self, shutil.rmtree, self._restored[weights], ignore_errors=True)
        folder = self._restored[weights] / "model"
        is_there = folder.is_dir() or versioning.restore(self._workspace.root, md5, folder)
        return str(folder) if is_there else None

    def _library(self, receipt: Receipt, manifest: Manifest, answerer: AnswererParams) -> Library:
        """The library as the receipt's parameters ask it."""
        from mgv.ask.library import Library

        ask = replace(receipt.ask, answerer=answerer)
        params = replace(
            self._workspace.params, materialize=manifest.params, search=receipt.search, ask=ask
        )
        model = Path(answerer.pretrained) if receipt.model.version else None
        live = Live(manifest=manifest, model=model, version=receipt.model.version)
        listings = list(
            dict.fromkeys(source.listing for source in receipt.sources if source.listing)
        )
        key = str((manifest.tag, receipt.search, ask, listings))
        if key not in self._opened:
            try:
                self._opened[key] = Library.of(
                    replace(self._workspace, params=params), live, listings=listings
                )
            except WorkspaceError as error:
                raise _gone(receipt, f"the tables of library {manifest.tag}: {error}") from error
        return self._opened[key]


def _manifest(workspace: Workspace, receipt: Receipt) -> Manifest:
    """The library of the receipt's tag, or one with the same content."""
    wanted = receipt.library
    exact = read_version(workspace, wanted.tag)
    for manifest in [*([exact] if exact else []), *reversed(versions(workspace))]:
        if manifest.digest == wanted.digest:
            return manifest
    raise _gone(receipt, f"library {wanted.tag} (data/manifests/{wanted.tag}.json)")


def _with_weights(params: AnswererParams, folder: str, weights: str) -> AnswererParams | None:
    """The answerer from a folder, if that holds these weights."""
    chosen = replace(params, pretrained=folder)
    try:
        return chosen if answerer_weights(chosen) == weights else None
    except MgvError:
        return None


def _model_folders(workspace: Workspace, receipt: Receipt) -> list[str]:
    """Where the weights may be: the version that answered, the folder they were read from, the other versions."""
    folders = (
        [str(workspace.published_dir / receipt.model.version)] if receipt.model.version else []
    )
    inside = workspace.root / receipt.model.pretrained
    folders.append(str(inside) if inside.is_dir() else receipt.model.pretrained)
    folders += [str(each.folder) for each in reversed(published(workspace))]
    return list(dict.fromkeys(folders))


def _gone(receipt: Receipt, what: str) -> WorkspaceError:
    return WorkspaceError(
        f"receipt {receipt.receipt_id} cannot be replayed any more, gone is {what}"
    )


def _differences(receipt: Receipt, again: Answer) -> list[str]:
    """What is not as it was, a line each."""
    lines = []
    if again.text != receipt.answer:
        lines.append(f"answer: was {_said(receipt.answer)}, is {_said(again.text)}")
    if again.citations != receipt.citations:
        lines.append(f"citations: were {_cited(receipt.citations)}, are {_cited(again.citations)}")
    then, now = list(receipt.moments), list(again.moments)
    if len(then) != len(now):
        lines.append(f"moments: were {len(then)}, are {len(now)}")
    for number, (one, other) in enumerate(zip(then, now, strict=False), start=1):
        if one != other:
            lines.append(f"moment {number}: {_moment_difference(one, other)}")
    if receipt.kind and (again.kind, again.reason) != (receipt.kind, receipt.reason):
        lines.append(f"question: was {_taken(receipt)}, is {_taken(again)}")
    if receipt.kind and again.nearest != receipt.nearest:
        lines.append("the nearest moments are others")
    if again.looks != receipt.looks:
        lines.append("frames: others were looked at")
    return lines


def _taken(asked: Receipt | Answer) -> str:
    return f"{asked.kind} ({asked.reason or 'answered'})"


def _said(text: str | None) -> str:
    return "no answer" if text is None else f"{text!r}"


def _cited(citations: tuple[Citation, ...]) -> str:
    return (
        ", ".join(f"[{each.number}] {each.video} {clock(each.start_s)}" for each in citations)
        or "none"
    )


def _moment_difference(one: Moment, other: Moment) -> str:
    """The first field that differs."""
    name = next(
        name for name in Moment.__dataclass_fields__ if getattr(one, name) != getattr(other, name)
    )
    return f"{name} was {str(getattr(one, name))[:80]!r}, is {str(getattr(other, name))[:80]!r}"
