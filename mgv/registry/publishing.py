"""Publish: a model's folder and its evaluation become the next version, which never changes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from mgv import __version__, versioning
from mgv.errors import GateError, WeightsError, WorkspaceError
from mgv.files import file_digest, file_digests, folder_digest, now, sync, write_json
from mgv.library.manifest import Manifest, keep_version, newest_library, versions
from mgv.registry.evaluation import Evaluation, read_evaluation
from mgv.registry.promotion import PublishedVersion, find_published
from mgv.registry.versions import FORMAT, read_lineage, track, version_names, writing
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "models/train/instruct"


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A model's copy, and what it is published with."""

    source: Path
    folder: Path
    digest: str
    evaluation: Evaluation | None
    library: Manifest

    @property
    def metrics(self) -> dict[str, float]:
        """What the evaluation came to; empty without one."""
        return self.evaluation.metrics if self.evaluation else {}


def publish(
    workspace: Workspace,
    model: Path | None = None,
    *,
    results: Path | None = None,
    flow_run: str | None = None,
) -> PublishedVersion:
    """Make the next version of a model's folder (default: models/train/instruct) and its evaluation (results/).

    What the newest version already is, with the same scores and library, gives that version.
    Raises WorkspaceError without a model or library, WeightsError when a file is pickled or cut short, GateError
    when the evaluation is of another model.
    """
    source = (model or workspace.root / DEFAULT_MODEL).absolute()
    if not (source / "config.json").is_file():
        raise WorkspaceError(
            f"{source}: no model there (config.json is missing); train one: `mgv train`"
        )
    with writing(workspace):
        folder = workspace.published_dir
        partial = folder / ".partial"
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        names = version_names(workspace)
        try:
            shutil.copytree(source, partial, copy_function=shutil.copyfile)
            candidate = _examine(workspace, source, partial, results)
            if names and _is_same(candidate, folder / names[-1]):
                version = names[-1]
            else:
                version = f"v{int(names[-1][1:]) + 1 if names else 1}"
                _write_lineage(workspace, version, candidate, flow_run)
                partial.rename(folder / version)
                sync(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        track(workspace, version)
        return find_published(workspace, version)


def _examine(workspace: Workspace, source: Path, copy: Path, results: Path | None) -> _Candidate:
    """Check a model's copy and look up what it is published with."""
    check_files(copy)
    digest = folder_digest(copy)
    evaluation = _evaluation(workspace, results, digest)
    return _Candidate(
        source=source,
        folder=copy,
        digest=digest,
        evaluation=evaluation,
        library=_evaluated_library(workspace, evaluation),
    )


def _is_same(candidate: _Candidate, published: Path) -> bool:
    """So that a run that was killed after publishing, and is run again, makes no second version."""
    lineage = read_lineage(published)
    return (lineage["model"]["digest"], lineage["library"]["tag"], lineage["metrics"]) == (
        candidate.digest,
        candidate.library.tag,
        candidate.metrics,
    )


def _write_lineage(
    workspace: Workspace, version: str, candidate: _Candidate, flow_run: str | None
) -> None:
    """Put what made it beside a copied model, lineage.json last, and close the files against writing."""
    folder, source, library = candidate.folder, candidate.source, candidate.library
    if candidate.evaluation is not None:
        for name in ("metrics.json", "run.json"):
            shutil.copyfile(candidate.evaluation.folder / name, folder / name)
    curves = workspace.results_dir / "train" / source.name / "curves"
    if curves.is_dir() and source.parent == workspace.trained_dir:
        shutil.copytree(curves, folder / "curves", copy_function=shutil.copyfile)
    keep_version(workspace, library)
    commit = versioning.head(workspace.root)
    params = asdict(workspace.params)
    lineage = {
        "format": FORMAT,
        "version": version,
        "published_at": now(),
        "mgv": __version__,
        "flow_run": flow_run,
        "git": commit and {"commit": commit[0], "dirty": commit[1]},
        "dvc": versioning.lock_digests(workspace.root),
        "library": {
            "tag": library.tag,
            "digest": library.digest,
            "versions": library.versions,
            "parts": library.parts,
        },
        "data": _data_digests(workspace),
        "model": _model_facts(workspace, source, folder) | {"digest": candidate.digest},
        "metrics": candidate.metrics,
        "evaluation": candidate.evaluation.facts.as_json() if candidate.evaluation else {},
        "params": params,
        "params_digest": hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest(),
        "machine": _machine(),
    }
    card = folder / "README.md"
    before = card.read_text(encoding="utf-8") if card.is_file() else ""
    card.write_text(before + _card(lineage), encoding="utf-8")
    write_json(folder / "lineage.json", lineage | {"files": file_digests(folder)})
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        path.chmod(0o444)
        sync(path)


_KEPT_SUFFIXES = frozenset(
    {".safetensors", ".json", ".jsonl", ".md", ".txt", ".jinja", ".model", ".yaml", ".tsv", ".csv"}
)
_PICKLED = (b"\x80", b"PK\x03\x04")
"""How a pickle of protocol 2 and later begins, and the archive that torch.save makes of one."""


def check_files(folder: Path) -> None:
    """Raises WeightsError for a file that could run code, is of an unknown kind, or is cut short."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as source:
            start = source.read(4)
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="np"):
                    pass
            except (SafetensorError, OSError) as error:
                raise WeightsError(f"{name}: not a whole safetensors file: {error}") from error
        elif path.suffix not in _KEPT_SUFFIXES or start.startswith(_PICKLED):
            raise WeightsError(
                f"{name}: neither safetensors nor text; a published model holds nothing that could run code. "
                "Take the file out, or make a folder of ours by `mgv import-checkpoint`"
            )


def _evaluation(workspace: Workspace, results: Path | None, digest: str) -> Evaluation | None:
    """This model's evaluation; None when none is named and results/ has none of it.

    Results that no video language model answered, of the library alone, go with any model.
    """
    folder = results or workspace.results_dir
    if results is None and not all(
        (folder / name).is_file() for name in ("run.json", "metrics.json")
    ):
        return None
    evaluation = read_evaluation(folder)
    if evaluation.facts.models() <= {digest}:
        return evaluation
    if results is not None:
        raise GateError(
            f"{results}: evaluates another model; run `mgv evaluate --model` with this one"
        )
    logger.warning(
        "results/ evaluates another model and is left out; run `mgv evaluate`, then publish"
    )
    return None


def _evaluated_library(workspace: Workspace, evaluation: Evaluation | None) -> Manifest:
    """The library that an evaluation was made with, else the newest."""
    newest = newest_library(workspace)
    digest = evaluation.facts.library_digest() if evaluation else None
    if digest is None or digest == newest.digest:
        return newest
    for manifest in reversed(versions(workspace)):
        if manifest.digest == digest:
            return manifest
    raise WorkspaceError(
        f"the evaluation was made with library {digest[:12]}, which is not kept here; run `mgv evaluate` again"
    )


def _data_digests(workspace: Workspace) -> dict[str, str]:
    """Of what `mgv prepare` made: SHA-256 by stage and split."""
    folder = workspace.root / "data" / "prepare"
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.glob("*/*.jsonl"))
    }


def _model_facts(workspace: Workspace, source: Path, folder: Path) -> dict[str, Any]:
    """Where a model is from (in the workspace), its parts, and what its training noted."""
    config = _read_json(folder / "config.json")
    trained = _read_json(folder / "train.json") if (folder / "train.json").is_file() else {}
    inside = source.is_relative_to(workspace.root)
    return {
        "from": source.relative_to(workspace.root).as_posix() if inside else source.name,
        "connector": config["connector"]["name"],
        "vision_encoder": config["vision_encoder"]["name"],
        "language_model": config["language_model"]["pretrained"],
        "base_weights": trained.get("weights"),
        "data": trained.get("data", {}),
        "training": trained.get("metrics", {}),
    }


def _machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        **{name: package_version(name) for name in ("torch", "transformers", "lancedb")},
    }


def _card(lineage: dict[str, Any]) -> str:
    """What a version adds to its model's card."""
    git, library, model = lineage["git"], lineage["library"], lineage["model"]
    commit = (
        f"{git['commit']}{' and changes not committed' if git['dirty'] else ''}" if git else "none"
    )
    figures = [f"| {name} | {value:.4f} |" for name, value in sorted(lineage["metrics"].items())]
    lines = [
        f"\n## Version {lineage['version']}\n",
        f"* published: {lineage['published_at']}, with mgv {lineage['mgv']}",
        f"* of: {model['from']}, at git commit {commit}",
        f"* library: {library['tag']}",
        *(f"* {name}: {revision}" for name, revision in library["parts"].items()),
        *(f"* {name}: SHA-256 {digest}" for name, digest in lineage["data"].items()),
        f"* params: SHA-256 {lineage['params_digest']}, in lineage.json",
    ]
    if figures:
        lines += ["\n| metric | value |", "|---|---:|", *figures]
    return "\n".join(lines) + "\n"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"{path}: cannot be read: {error}") from error
