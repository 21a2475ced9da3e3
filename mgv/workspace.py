"""Workspace: the folder that holds one library. It is a git and DVC repository with a params.yaml.

params.yaml  dvc.yaml  .dvc/     what is done, with what
data/videos/  data/videos.dvc    raw videos, versioned by DVC
data/library/                    LanceDB tables (or an object store, `materialize.store`)
data/library.json                the manifest: which table versions are the finished library
data/manifests/<tag>.json        the same of every finished library
models/published/                published models and which of them is live (mgv/registry.py)
data/prepare/<stage>/*.jsonl     samples to train on, by split, and report.json
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mgv import versioning
from mgv.config import Params, load_params
from mgv.errors import BusyError, WorkspaceError

_GITIGNORE = """\
/data/?*
!/data/*.dvc
!/data/.gitignore
!/data/prepare/
/data/prepare/?*
!/data/prepare/report.json
/models/?*
!/models/published/
/models/published/?*
!/models/published/*.dvc
!/models/published/.gitignore
!/models/published/champion.json
/results/
"""
# `?*`, not `*`: DVC (through dulwich) takes `/data/*` to ignore `data/` itself, and would miss the .dvc files in it


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A workspace's places and its parameters."""

    root: Path
    params: Params

    @property
    def videos_dir(self) -> Path:
        """The raw videos and their subtitle files, flat."""
        return self.root / "data" / "videos"

    @property
    def videos_index(self) -> Path:
        """What ingest knows of each stored file: a cache, made again when it is missing."""
        return self.root / "data" / "videos.json"

    @property
    def manifest(self) -> Path:
        """The finished library's table versions and keys."""
        return self.root / "data" / "library.json"

    @property
    def manifests_dir(self) -> Path:
        """The manifest of every finished library, by tag."""
        return self.root / "data" / "manifests"

    @property
    def published_dir(self) -> Path:
        """The published models and the champion's pointer (mgv/registry.py)."""
        return self.root / "models" / "published"

    @property
    def retrain_note(self) -> Path:
        """What the last retrain decided (mgv/retrain.py)."""
        return self.root / "data" / "retrain.json"

    @property
    def store_uri(self) -> str:
        """Where LanceDB keeps the tables: an absolute folder, or an object-store URI as it stands."""
        store = self.params.materialize.store
        return store if "://" in store else str((self.root / store).resolve())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the workspace for writing. Raises BusyError at once when another process holds it."""
        from filelock import FileLock, Timeout

        path = self.root / "data" / ".lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=0):
                yield
        except Timeout as error:
            raise BusyError(
                f"{self.root}: another mgv process is writing to this workspace; wait for it or stop it"
            ) from error
        except PermissionError as error:
            raise WorkspaceError(f"{self.root}: no permission to write here") from error


def find_workspace(start: Path) -> Workspace:
    """The workspace at start or at the nearest folder above it. Raises WorkspaceError when there is none."""
    start = start.expanduser().absolute()
    if start.exists() and not start.is_dir():
        raise WorkspaceError(f"{start}: is a file; name the workspace's folder")
    if not start.is_dir():
        raise WorkspaceError(f"{start}: no such folder; make a workspace with `mgv init {start}`")
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file() and (folder / ".dvc").is_dir():
            return Workspace(root=folder, params=load_params(folder / "params.yaml"))
    raise WorkspaceError(
        f"{start}: no workspace here (params.yaml and .dvc/); make one by `mgv init DIR`, or name one by --library"
    )


def init_workspace(root: Path) -> Workspace:
    """Make a folder a workspace: git, DVC, params.yaml, dvc.yaml. Running it again changes nothing."""
    root = root.expanduser().absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"{root}: cannot be made a folder: {error.strerror}") from error
    fresh = not (root / ".dvc").exists()
    versioning.init_repository(root)
    for name in ("params.yaml", "dvc.yaml"):
        if not (root / name).exists():
            shutil.copyfile(_template(name), root / name)
    if not (root / ".gitignore").exists():
        (root / ".gitignore").write_text(_GITIGNORE, encoding="utf-8")
    (root / "data" / "videos").mkdir(parents=True, exist_ok=True)
    if fresh:
        own = ("params.yaml", "dvc.yaml", ".gitignore", ".dvc/config", ".dvc/.gitignore", ".dvcignore")
        versioning.commit(root, [name for name in own if (root / name).exists()], "Make an mgv workspace")
    return find_workspace(root)


def _template(name: str) -> Path:
    """The default params.yaml or dvc.yaml: in the package when installed, else at the repository's root."""
    packaged = Path(str(files("mgv"))) / "template" / name
    return packaged if packaged.is_file() else Path(__file__).parents[1] / name
