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
from mgv.errors import WorkspaceError
from mgv.files import holding

VIDEOS_POINTER = "data/videos.dvc"
"""The file by which DVC and git know data/videos."""
LIBRARY_POINTER = "data/library.json"
"""The manifest, as DVC and git know it."""

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
    def ingest_memory(self) -> Path:
        """What ingest remembers of files that are not in the library: rejected, or removed by a person."""
        return self.root / "data" / "ingest.json"

    @property
    def manifest(self) -> Path:
        """The finished library's table versions and keys."""
        return self.root / "data" / "library.json"

    @property
    def manifests_dir(self) -> Path:
        """The manifest of every finished library, by tag."""
        return self.root / "data" / "manifests"

    @property
    def samples_dir(self) -> Path:
        """Samples to train on, a folder a stage (mgv/data/prepare.py)."""
        return self.root / "data" / "prepare"

    @property
    def scenes_dir(self) -> Path:
        """Drawn videos to train on (mgv/data/scenes.py)."""
        return self.root / "data" / "scenes"

    @property
    def features_dir(self) -> Path:
        """Features of frames, kept between trainings."""
        return self.root / "data" / "features"

    @property
    def receipts_dir(self) -> Path:
        """A receipt of every answer."""
        return self.root / "data" / "receipts"

    @property
    def trained_dir(self) -> Path:
        """Trained models, a folder a stage."""
        return self.root / "models" / "train"

    @property
    def states_dir(self) -> Path:
        """States to resume a training from."""
        return self.root / "models" / "resume"

    @property
    def results_dir(self) -> Path:
        """The last evaluation, and the curves of training."""
        return self.root / "results"

    @property
    def answers_dir(self) -> Path:
        """Answers of evaluations that are kept, so that a run that was ended goes on."""
        return self.results_dir / "answers"

    @property
    def dvc_cache_dir(self) -> Path:
        """DVC's cache, where its settings do not place it elsewhere."""
        return self.root / ".dvc" / "cache"

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
        busy = (
            f"{self.root}: another mgv process is writing to this workspace; wait for it or stop it"
        )
        with holding(self.root / "data" / ".lock", busy):
            yield


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
        own = (
            "params.yaml",
            "dvc.yaml",
            ".gitignore",
            ".dvc/config",
            ".dvc/.gitignore",
            ".dvcignore",
        )
        versioning.commit(
            root, [name for name in own if (root / name).exists()], "Make an mgv workspace"
        )
    return find_workspace(root)


def _template(name: str) -> Path:
    """The default params.yaml or dvc.yaml: in the package when installed, else at the repository's root."""
    packaged = Path(str(files("mgv"))) / "template" / name
    return packaged if packaged.is_file() else Path(__file__).parents[1] / name
