"""The registry, in a real workspace with real LanceDB, DVC and git; models and parts are tiny and random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mgv.api import Library
from mgv.library.ingest import ingest
from mgv.library.materialize import materialize
from mgv.registry import champion, live, live_at, promote, publish, published, rollback
from mgv.workspace import Workspace, find_workspace
from tests.media.make_video import make_video


@pytest.fixture(scope="session")
def _library(_made_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of one video, a.mp4."""
    from tests.conftest import RANDOM_PARTS, set_params

    place = tmp_path_factory.mktemp("library")
    root = place / "workspace"
    shutil.copytree(_made_workspace, root, symlinks=True)
    workspace = set_params(root, materialize=RANDOM_PARTS)
    ingest(workspace, [make_video(place / "a.mp4", num_frames=25)])
    materialize(workspace)
    return root


@pytest.fixture
def workspace(_library: Path, tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    shutil.copytree(_library, root, symlinks=True)
    return find_workspace(root)


def more(workspace: Workspace, name: str, num_frames: int) -> str:
    """Take another video in and materialise; the new library's tag."""
    ingest(workspace, [make_video(workspace.root.parent / name, num_frames=num_frames)])
    return materialize(workspace).manifest.tag


def test_a_promoted_pair_answers_until_another_one_is_promoted(workspace: Workspace, model_folder: Path):
    first = live(workspace).manifest.tag
    assert publish(workspace, model_folder).version == "v1"
    promote(workspace)
    second = more(workspace, "b.mp4", 50)
    assert live(workspace).manifest.tag == first
    assert [video.name for video in Library.open(workspace.root).videos()] == ["a.mp4"]
    newest = Library.open(workspace.root, as_of="newest")
    assert [video.name for video in newest.videos()] == ["a.mp4", "b.mp4"]
    assert promote(workspace, library_tag="newest").library_tag == second
    assert live(workspace).manifest.tag == second
    assert rollback(workspace).library_tag == first
    assert live_at(workspace, second).manifest.tag == second
    current = champion(workspace)
    assert current is not None
    assert (current.version, current.action) == ("v1", "rollback")
    assert [(each.version, each.is_champion) for each in published(workspace)] == [("v1", True)]
    lineage = json.loads((published(workspace)[0].folder / "lineage.json").read_text())
    assert lineage["library"]["tag"] == first
    assert (workspace.published_dir / "v1.dvc").is_file()
