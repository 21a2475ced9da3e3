"""Doctor: whatever of a workspace is damaged is seen, and what it advises, or `--fix` runs, mends it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mgv.ask.library import Library
from mgv.library.ingest import ingest
from mgv.library.manifest import read_manifest
from mgv.library.materialize import materialize
from mgv.operations.doctor import examine, fix
from mgv.operations.kept import kept_checks
from mgv.workspace import Workspace, find_workspace, init_workspace
from tests.conftest import RANDOM_PARTS, set_params
from tests.media.make_video import make_video

WORDS = "1\n00:00:00,000 --> 00:00:01,000\nA parrot sings.\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of one video with subtitles."""
    folder = tmp_path_factory.mktemp("doctor")
    root = init_workspace(folder / "workspace").root
    workspace = set_params(root, materialize=RANDOM_PARTS)
    talk = make_video(folder / "talk.mp4", num_frames=50)
    talk.with_suffix(".srt").write_text(WORDS)
    ingest(workspace, [talk])
    materialize(workspace)
    return root


@pytest.fixture
def library(made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(made, tmp_path / "workspace", symlinks=True)
    return find_workspace(tmp_path / "workspace")


def faults(workspace: Workspace) -> dict[str, str]:
    """What is not ok, with the advice."""
    return {check.name: check.advice for check in kept_checks(workspace) if not check.ok}


def cut_a_table(workspace: Workspace) -> None:
    file = next(Path(workspace.store_uri, "frames.lance", "data").glob("*.lance"))
    file.write_bytes(file.read_bytes()[:-100])


def spoil_the_indices(workspace: Workspace) -> None:
    for file in Path(workspace.store_uri, "segments.lance", "_indices").rglob("*.lance"):
        file.write_bytes(b"[" * 5000)


def delete_a_table(workspace: Workspace) -> None:
    shutil.rmtree(Path(workspace.store_uri, "segments.lance"))


def delete_the_tables(workspace: Workspace) -> None:
    shutil.rmtree(workspace.store_uri)


def spoil(path: Path) -> None:
    path.write_text("[" * 100_000)


def put_a_folder_in_place_of_the_manifest(workspace: Workspace) -> None:
    workspace.manifest.unlink()
    workspace.manifest.mkdir()


def delete_dvcs_cache(workspace: Workspace) -> None:
    shutil.rmtree(workspace.dvc_cache_dir)


DAMAGE: list[tuple[str, Callable[[Workspace], None]]] = [
    ("library", cut_a_table),
    ("library", spoil_the_indices),
    ("library", delete_a_table),
    ("library", delete_the_tables),
    ("library.json", lambda workspace: spoil(workspace.manifest)),
    ("library.json", put_a_folder_in_place_of_the_manifest),
    ("libraries", lambda workspace: spoil(next(workspace.manifests_dir.glob("*.json")))),
    ("ingest memory", lambda workspace: spoil(workspace.ingest_memory)),
    ("videos", lambda workspace: (workspace.root / "data" / "videos.dvc").write_text("{")),
    ("videos", delete_dvcs_cache),
]


@pytest.mark.parametrize(
    ("name", "damage"), DAMAGE, ids=[f"{n}-{name}" for n, (name, _) in enumerate(DAMAGE)]
)
def test_damage_is_seen_and_made_again(
    library: Workspace, name: str, damage: Callable[[Workspace], object]
):
    assert faults(library) == {}
    digest = read_manifest(library.manifest).digest  # type: ignore[union-attr]
    damage(library)
    assert name in faults(library)
    fix(library.root)
    assert faults(library) == {}
    assert read_manifest(library.manifest).digest == digest  # type: ignore[union-attr]
    assert Library.open(library.root).search("parrot")[0].text == "A parrot sings."


def test_a_video_that_was_deleted_by_hand_comes_back_by_the_advice(library: Workspace):
    (library.videos_dir / "talk.mp4").unlink()
    advice = faults(library)["videos"]
    words = shlex.split(advice.partition(" (")[0])
    assert words[0] == "dvc"
    subprocess.run(
        [sys.executable, "-m", *words], cwd=library.root, check=True, capture_output=True
    )
    assert faults(library) == {}


def test_an_old_lock_of_gits_is_named_and_left_to_the_person(library: Workspace):
    lock = library.root / ".git" / "index.lock"
    lock.touch()
    assert faults(library) == {}
    os.utime(lock, (0, 0))
    assert faults(library)["git repository"].endswith(f"rm {lock}")
    fix(library.root)
    assert lock.exists()


def test_a_damaged_list_of_stages_comes_back_by_the_advice(library: Workspace):
    (library.root / "dvc.yaml").write_text("]")
    subprocess.run(shlex.split(faults(library)["stages"]), cwd=library.root, check=True)
    assert faults(library) == {}


def test_a_strangers_folder_beside_the_tables_survives_a_rebuild(library: Workspace):
    stranger = library.root / "data" / "library.broken" / "thesis.txt"
    stranger.parent.mkdir()
    stranger.write_text("mine")
    cut_a_table(library)
    materialize(library, rebuild=True)
    assert stranger.read_text() == "mine"
    assert (library.root / "data" / "library.broken-2").is_dir()


def test_what_is_fine_is_left_alone(library: Workspace):
    before = {path: path.stat().st_mtime_ns for path in library.root.rglob("*") if path.is_file()}
    fix(library.root)
    after = {path: path.stat().st_mtime_ns for path in library.root.rglob("*") if path.is_file()}
    assert after == before
    assert all(check.advice == "" for check in examine(library.root) if check.ok)
