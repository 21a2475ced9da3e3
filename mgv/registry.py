"""Registry: published models that never change, and which of them is live with which library.

models/published/v1, v2, …        the model folder, metrics.json, run.json, curves/, lineage.json; made beside, renamed
models/published/champion.json    every promotion and rollback; the last one is live

One lock serves all who write. Readers take none: both a version and the pointer appear whole, in one step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from mgv import versioning
from mgv.errors import BusyError, GateError, UsageError, WeightsError, WorkspaceError
from mgv.library.manifest import (
    Manifest,
    is_tag,
    keep_version,
    parse_manifest,
    read_manifest,
    read_version,
    versions,
)
from mgv.workspace import Workspace, write_json

logger = logging.getLogger(__name__)

FORMAT = 1
CHAMPION = "champion"
NEWEST = "newest"
DEFAULT_MODEL = "models/train/instruct"
EMBEDDERS = ("frame_embedder", "text_embedder")
"""The parts whose revisions have to be those that a version was evaluated with."""
LOCK_TIMEOUT_S = 120.0
"""How long one waits for another's publishing or promotion."""
_VERSION = re.compile(r"v([1-9][0-9]*)")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A version of the model."""

    version: str
    folder: Path
    published_at: str
    """ISO-8601, UTC."""
    library_tag: str
    """The library that it was evaluated with."""
    parts: dict[str, str]
    """That library's part revisions."""
    metrics: dict[str, float]
    """Of its evaluation; empty when it was published without one."""
    is_champion: bool


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A line of the champion's history."""

    version: str
    library_tag: str
    at: str
    """ISO-8601, UTC."""
    action: str
    """`promote` or `rollback`."""
    reason: str
    flow_run: str | None


@dataclass(frozen=True, kw_only=True)
class Live:
    """What answers: a library, and the champion's folder and version where there is one."""

    manifest: Manifest
    model: Path | None
    version: str | None


# what is published


def published(workspace: Workspace) -> list[Published]:
    """Every version, the newest last."""
    current = champion(workspace)
    return [
        _published(workspace, version, current is not None and current.version == version)
        for version in _version_names(workspace)
    ]


def _published(workspace: Workspace, version: str, is_champion: bool) -> Published:
    folder = workspace.published_dir / version
    lineage = read_lineage(folder)
    return Published(
        version=version,
        folder=folder,
        published_at=lineage["published_at"],
        library_tag=lineage["library"]["tag"],
        parts=lineage["library"]["parts"],
        metrics=lineage["metrics"],
        is_champion=is_champion,
    )


def read_lineage(folder: Path) -> dict[str, Any]:
    """What made a published version. Raises WeightsError when it cannot be read."""
    try:
        lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
        if lineage["format"] != FORMAT:
            raise ValueError(f"its format is {lineage['format']}, expected {FORMAT}")
        return dict(lineage)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder}/lineage.json: cannot be read ({error}); {_RESTORE.format(folder.name)}"
        ) from error


_RESTORE = "bring the version back by `dvc checkout models/published/{0}.dvc`, or `mgv rollback`"


def verify(folder: Path) -> None:
    """Hold a version's files against their digests. Raises WeightsError that names what is damaged."""
    expected = read_lineage(folder)["files"]
    found = {name: digest for name, digest in file_digests(folder).items() if name != "lineage.json"}
    faults = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    faults += [f"{name} was added" for name in sorted(found.keys() - expected.keys())]
    faults += [
        f"{name} has changed"
        for name in sorted(expected)
        if found.get(name, expected[name]) != expected[name]
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{folder.name} is damaged: {', '.join(faults[:3])}{more}; {_RESTORE.format(folder.name)}"
        )


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder, by its path in it."""
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as source:
            digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(source, "sha256").hexdigest()
    return digests


def folder_digest(folder: Path) -> str:
    """SHA-256 of a folder's files and their names. Raises WeightsError when there is none."""
    if not folder.is_dir():
        raise WeightsError(
            f"{folder}: no such folder; train a model (`mgv train`), or name one by evaluate.model"
        )
    return _digest_of(file_digests(folder))


def _digest_of(digests: dict[str, str]) -> str:
    lines = "".join(f"{name} {digest}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _version_names(workspace: Workspace) -> list[str]:
    folder = workspace.published_dir
    numbers = [
        int(match[1])
        for path in folder.glob("v*")
        if path.is_dir() and (match := _VERSION.fullmatch(path.name))
    ]
    return [f"v{number}" for number in sorted(numbers)]


@contextmanager
def _writing(workspace: Workspace) -> Iterator[None]:
    """Hold the registry. Raises BusyError when another process holds it for too long."""
    from filelock import FileLock, Timeout

    folder = workspace.published_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise BusyError(
            f"{folder}: another process has been publishing for {LOCK_TIMEOUT_S:.0f} s; try again"
        ) from error
    except PermissionError as error:
        raise WorkspaceError(f"{folder}: no permission to write here") from error


# publishing


def publish(
    workspace: Workspace,
    model: Path | None = None,
    *,
    results: Path | None = None,
    flow_run: str | None = None,
) -> Published:
    """Make the next version of a model's folder (default: models/train/instruct) and its evaluation (results/).

    Raises WorkspaceError without a model or library, WeightsError when a file is pickled or cut short, GateError
    when the evaluation is of another model.
    """
    source = (model or workspace.root / DEFAULT_MODEL).absolute()
    if not (source / "config.json").is_file():
        raise WorkspaceError(f"{source}: no model there (config.json is missing); train one: `mgv train`")
    with _writing(workspace):
        folder = workspace.published_dir
        version = f"v{max((int(name[1:]) for name in _version_names(workspace)), default=0) + 1}"
        partial = folder / ".partial"
        _remove(partial)  # of a run that was killed
        try:
            shutil.copytree(source, partial, copy_function=shutil.copyfile)
            _finish_version(workspace, version, source, partial, results, flow_run)
            partial.rename(folder / version)
        finally:
            _remove(partial)
        _sync(folder)
        _track(workspace, version)
    return _published(workspace, version, is_champion=False)


def _finish_version(
    workspace: Workspace,
    version: str,
    source: Path,
    partial: Path,
    results: Path | None,
    flow_run: str | None,
) -> None:
    """Put what made it beside a copied model, and write lineage.json last."""
    check_files(partial)
    digest = folder_digest(partial)
    evaluation = _evaluation(workspace, results, digest)
    facts: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    if evaluation is not None:
        metrics = _read_json(evaluation / "metrics.json")
        facts = _read_json(evaluation / "run.json")["facts"]
        for name in ("metrics.json", "run.json"):
            shutil.copyfile(evaluation / name, partial / name)
    curves = workspace.root / "results/train" / source.name / "curves"
    if curves.is_dir() and source.parent == workspace.root / "models/train":
        shutil.copytree(curves, partial / "curves", copy_function=shutil.copyfile)
    library = _evaluated_library(workspace, facts)
    keep_version(workspace, library)
    at_commit = versioning.head(workspace.root)
    params = asdict(workspace.params)
    lineage = {
        "format": FORMAT,
        "version": version,
        "published_at": _now(),
        "mgv": package_version("mgv"),
        "flow_run": flow_run,
        "git": at_commit and {"commit": at_commit[0], "dirty": at_commit[1]},
        "dvc": versioning.lock_digests(workspace.root),
        "library": {
            "tag": library.tag,
            "digest": library.digest,
            "versions": library.versions,
            "parts": library.parts,
        },
        "data": _data_digests(workspace),
        "model": _model_facts(workspace, source, partial) | {"digest": digest},
        "metrics": metrics,
        "evaluation": facts,
        "params": params,
        "params_digest": hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest(),
        "machine": _machine(),
    }
    card = partial / "README.md"
    card.write_text(
        (card.read_text(encoding="utf-8") if card.is_file() else "") + _card(lineage), encoding="utf-8"
    )
    write_json(partial / "lineage.json", lineage | {"files": file_digests(partial)})
    for path in sorted(partial.rglob("*")):
        if path.is_file():
            path.chmod(0o444)
        _sync(path)


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


def _evaluation(workspace: Workspace, results: Path | None, digest: str) -> Path | None:
    """The folder of this model's evaluation; None when none is named and results/ has none of it."""
    folder = results or workspace.root / "results"
    if not (folder / "run.json").is_file() or not (folder / "metrics.json").is_file():
        if results is not None:
            raise WorkspaceError(f"{results}: no evaluation in it; name a folder that `mgv evaluate` wrote")
        return None
    system = _read_json(folder / "run.json")["facts"].get("system") or {}
    seen = system.get("model") if system.get("system") == "model" else system.get("answerer")
    if seen is None or not re.fullmatch(r"[0-9a-f]{64}", seen) or seen == digest:
        return folder  # of this model, or of the library alone
    if results is not None:
        raise GateError(f"{results}: evaluates another model; run `mgv evaluate --model` with this one")
    logger.warning("results/ evaluates another model and is left out; run `mgv evaluate`, then publish")
    return None


def _evaluated_library(workspace: Workspace, facts: dict[str, Any]) -> Manifest:
    """The library that an evaluation was made with, else the newest."""
    newest = newest_library(workspace)
    seen = facts.get("library") or (facts.get("system") or {}).get("library")
    if seen is None or seen == newest.digest:
        return newest
    for manifest in reversed(versions(workspace)):
        if manifest.digest == seen:
            return manifest
    raise WorkspaceError(
        f"the evaluation was made with library {seen[:12]}, which is not kept here; run `mgv evaluate` again"
    )


def newest_library(workspace: Workspace) -> Manifest:
    """data/library.json. Raises WorkspaceError where there is none yet."""
    manifest = read_manifest(workspace.manifest)
    if manifest is None:
        raise WorkspaceError(
            f"{workspace.root}: nothing materialised yet; run `mgv ingest FILES` and `mgv materialize`"
        )
    return manifest


def _data_digests(workspace: Workspace) -> dict[str, str]:
    """Of what `mgv prepare` made: SHA-256 by stage and split."""
    folder = workspace.root / "data" / "prepare"
    found = {}
    for path in sorted(folder.glob("*/*.jsonl")):
        with path.open("rb") as source:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(source, "sha256").hexdigest()
    return found


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
    commit = f"{git['commit']}{' and changes not committed' if git['dirty'] else ''}" if git else "none"
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


def _track(workspace: Workspace, version: str) -> None:
    """Have DVC keep a version too; the version stands whether or not that works."""
    folder = workspace.published_dir / version
    if folder.with_name(f"{version}.dvc").is_file():
        return
    try:
        versioning.track(workspace.root, folder, relink=False)
    except WorkspaceError as error:
        logger.warning("%s is published, but DVC does not keep it yet: %s", version, error)


# the champion


def history(workspace: Workspace) -> list[Promotion]:
    """Every promotion and rollback, the newest last. Raises WorkspaceError when champion.json cannot be read."""
    path = workspace.published_dir / "champion.json"
    try:
        return parse_history(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"{path}: cannot be read: {error}") from error


def parse_history(text: str, name: str) -> list[Promotion]:
    """champion.json's text; `name` says in errors where it is from. Raises WorkspaceError."""
    try:
        kept = json.loads(text)
        if kept["format"] != FORMAT:
            raise ValueError(f"its format is {kept['format']}, expected {FORMAT}")
        return [Promotion(**entry) for entry in kept["history"]]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{name}: not a champion's history: {error}; `git checkout` brings it back"
        ) from error


def champion(workspace: Workspace) -> Promotion | None:
    """What is live; None before the first promotion."""
    entries = history(workspace)
    return entries[-1] if entries else None


def promote(
    workspace: Workspace,
    version: str | None = None,
    *,
    library_tag: str | None = None,
    reason: str = "",
    flow_run: str | None = None,
) -> Promotion:
    """Make a version live together with a library. What is live already stays as it is.

    version: the newest; where only a library is named, the one that is live. library_tag: a tag, or `newest`, as
    when left out. Raises GateError when the library's embedders are not those that the version was evaluated with,
    WeightsError when its files are damaged, UsageError for what does not exist.
    """
    with _writing(workspace):
        entries = history(workspace)
        names = _version_names(workspace)
        if not names:
            raise WorkspaceError("nothing is published yet; run `mgv publish`")
        if version is None:
            version = entries[-1].version if library_tag and entries else names[-1]
        if version not in names:
            raise UsageError(f"{version!r} is not published; `mgv models` lists {', '.join(names)}")
        manifest = _library(workspace, library_tag)
        if entries and (entries[-1].version, entries[-1].library_tag) == (version, manifest.tag):
            return entries[-1]
        verify(workspace.published_dir / version)
        _check_embedders(version, _published(workspace, version, is_champion=False), manifest)
        keep_version(workspace, manifest)
        _track(workspace, version)
        return _append(workspace, entries, "promote", version, manifest.tag, reason, flow_run)


def rollback(workspace: Workspace, *, reason: str = "") -> Promotion:
    """Make live what was before the last promotion; once more, what was before that.

    Raises WorkspaceError when there is nothing before, WeightsError when that version's files are damaged.
    """
    with _writing(workspace):
        entries = history(workspace)
        before = standing(entries)[:-1]
        if not before:
            raise WorkspaceError("there is nothing to roll back to: `mgv models` shows what was live")
        wanted = before[-1]
        verify(workspace.published_dir / wanted.version)
        _kept_library(workspace, wanted.library_tag)
        return _append(workspace, entries, "rollback", wanted.version, wanted.library_tag, reason, None)


def standing(entries: list[Promotion]) -> list[Promotion]:
    """The promotions that no rollback took back; the last one is live."""
    stack: list[Promotion] = []
    for entry in entries:
        if entry.action == "rollback":
            stack.pop()
        else:
            stack.append(entry)
    return stack


def _append(
    workspace: Workspace,
    entries: list[Promotion],
    action: str,
    version: str,
    library_tag: str,
    reason: str,
    flow_run: str | None,
) -> Promotion:
    entry = Promotion(
        version=version, library_tag=library_tag, at=_now(), action=action, reason=reason, flow_run=flow_run
    )
    kept = {"format": FORMAT, "history": [asdict(each) for each in [*entries, entry]]}
    write_json(workspace.published_dir / "champion.json", kept)
    _sync(workspace.published_dir)
    return entry


def _check_embedders(version: str, about: Published, manifest: Manifest) -> None:
    changed = [
        f"{part} is {manifest.parts.get(part)}, was {about.parts.get(part)}"
        for part in EMBEDDERS
        if manifest.parts.get(part) != about.parts.get(part)
    ]
    if changed:
        raise GateError(
            f"{version} was evaluated with other embedders than library {manifest.tag} has: {'; '.join(changed)}. "
            "Evaluate and publish anew, or promote it with its own library: "
            f"`mgv promote {version} --library {about.library_tag}`"
        )


# what is live


def live(workspace: Workspace) -> Live:
    """The champion's library and model; without a champion the newest library and no model."""
    current = champion(workspace)
    if current is None:
        return Live(manifest=newest_library(workspace), model=None, version=None)
    return _live_with(workspace, current)


def live_at(workspace: Workspace, as_of: str) -> Live:
    """What answered, or would have answered, at another point.

    as_of: `newest` (the newest library), a library's tag, a model version (with the library that it was last live
    with), a date or time (what was live then; a date means its end; UTC unless it says otherwise), or a git commit,
    branch or tag. Raises UsageError when it is none of these, WorkspaceError when what it names is not kept.
    """
    if as_of == NEWEST or is_tag(as_of):
        current = champion(workspace)
        version = current.version if current else None
        return _live(workspace, _library(workspace, as_of), version)
    if _VERSION.fullmatch(as_of) and as_of in _version_names(workspace):
        for entry in reversed(history(workspace)):
            if entry.version == as_of:
                return _live_with(workspace, entry)
        tag = _published(workspace, as_of, is_champion=False).library_tag
        return _live(workspace, _kept_library(workspace, tag), as_of)
    if (moment := _moment(as_of)) is not None:
        return _live_when(workspace, moment)
    if (commit := versioning.find_commit(workspace.root, as_of)) is not None:
        return _live_in(workspace, commit)
    raise UsageError(
        f"{as_of!r}: expected `newest`, a library's tag, a published version, a date or time, or a git commit"
    )


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        moment = datetime.combine(moment, time.max)
    elif not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _live_when(workspace: Workspace, moment: datetime) -> Live:
    for entry in reversed(history(workspace)):
        if datetime.fromisoformat(entry.at) <= moment:
            return _live_with(workspace, entry)
    for manifest in reversed(versions(workspace)):
        if manifest.finished_at and datetime.fromisoformat(manifest.finished_at) <= moment:
            return Live(manifest=manifest, model=None, version=None)
    raise WorkspaceError(f"nothing that was live at {moment.isoformat(timespec='seconds')} is kept here")


def _live_in(workspace: Workspace, commit: str) -> Live:
    """What was live when a commit was made: its champion.json, else its data/library.json."""
    root = workspace.root
    kept = versioning.read_at(root, commit, "models/published/champion.json")
    if kept is not None and (entries := parse_history(kept, f"champion.json of {commit[:12]}")):
        return _live_with(workspace, entries[-1])
    text = versioning.read_at(root, commit, "data/library.json")
    if text is None:
        raise WorkspaceError(f"commit {commit[:12]} holds no library (data/library.json)")
    return Live(manifest=parse_manifest(text, f"library.json of {commit[:12]}"), model=None, version=None)


def _live_with(workspace: Workspace, entry: Promotion) -> Live:
    return _live(workspace, _kept_library(workspace, entry.library_tag), entry.version)


def _live(workspace: Workspace, manifest: Manifest, version: str | None) -> Live:
    model = workspace.published_dir / version if version else None
    return Live(manifest=manifest, model=model, version=version)


def _library(workspace: Workspace, tag: str | None) -> Manifest:
    return newest_library(workspace) if tag in (None, NEWEST) else _kept_library(workspace, tag)


def _kept_library(workspace: Workspace, tag: str) -> Manifest:
    """The library of a tag, or one of the same content (a tag begins with the content's digest)."""
    if (manifest := read_version(workspace, tag)) is not None:
        return manifest
    digest = tag.partition("-")[0]
    for manifest in reversed(versions(workspace)):
        if manifest.tag.partition("-")[0] == digest:
            return manifest
    raise WorkspaceError(
        f"library {tag} is not kept here; `mgv materialize` makes it again from the same videos and parameters, "
        "`mgv promote --library newest` goes on with the newest one"
    )


def find_model(workspace: Workspace, name: str) -> Path:
    """The folder of a video language model: `champion`, a published version, `starter`, or a folder.

    A published one is checked first. Raises WeightsError when it is damaged, WorkspaceError without a champion.
    """
    if name == CHAMPION:
        current = champion(workspace)
        if current is None:
            raise WorkspaceError("there is no champion yet; run `mgv publish` and `mgv promote`")
        name = current.version
    if name in _version_names(workspace):
        folder = workspace.published_dir / name
        verify(folder)
        return folder
    from mgv.model.checkpoint import model_folder

    return model_folder(name, workspace.root)


# files


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"{path}: cannot be read: {error}") from error


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _sync(path: Path) -> None:
    """Have the disk hold a file or folder before what rests on it is written."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
