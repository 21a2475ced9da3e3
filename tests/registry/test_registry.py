"""The registry, in real workspaces with real LanceDB, DVC and git; models and parts are tiny and random."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mgv import registry, versioning
from mgv.ask.library import Library
from mgv.cli import app
from mgv.errors import ConfigError, GateError, MgvError, UsageError, WeightsError, WorkspaceError
from mgv.files import folder_digest
from mgv.library.ingest import ingest, remove
from mgv.library.manifest import versions
from mgv.library.materialize import materialize
from mgv.operations.doctor import examine
from mgv.registry import find_model, history, live, live_at, promote, publish, published, rollback
from mgv.registry.evaluation import read_evaluation
from mgv.workspace import Workspace, find_workspace
from tests.conftest import RANDOM_PARTS, evaluated, set_params
from tests.media.make_video import make_video


@pytest.fixture(scope="session")
def _promoted(
    _made_workspace: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A library of one video, a.mp4, and v1 promoted with it."""
    place = tmp_path_factory.mktemp("promoted")
    root = place / "workspace"
    shutil.copytree(_made_workspace, root, symlinks=True)
    workspace = set_params(root, materialize=RANDOM_PARTS)
    ingest(workspace, [make_video(place / "a.mp4", num_frames=25)])
    materialize(workspace)
    publish(workspace, model_folder)
    promote(workspace)
    return root


@pytest.fixture
def workspace(_promoted: Path, tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    shutil.copytree(_promoted, root, symlinks=True)
    return find_workspace(root)


def add_video(workspace: Workspace, name: str, num_frames: int) -> str:
    """Take a video in and materialise; the new library's tag."""
    ingest(workspace, [make_video(workspace.root.parent / name, num_frames=num_frames)])
    return materialize(workspace).manifest.tag


def another(model: Path, folder: Path, note: str = "another") -> Path:
    """The same model, with a note that makes it another."""
    shutil.copytree(model, folder)
    (folder / "note.txt").write_text(note)
    return folder


def commit_all(workspace: Workspace, message: str) -> str:
    subprocess.run(["git", "add", "--all"], cwd=workspace.root, check=True)
    versioning.commit(workspace.root, ["."], message)
    commit = versioning.find_commit(workspace.root, "HEAD")
    assert commit is not None
    return commit


def pairs(workspace: Workspace) -> list[tuple[str, str, str]]:
    return [(entry.action, entry.version, entry.library_tag) for entry in history(workspace)]


# what answers


def test_the_promoted_pair_answers_until_another_is_promoted(workspace: Workspace):
    first = live(workspace).manifest.tag
    second = add_video(workspace, "b.mp4", 50)
    assert [video.name for video in Library.open(workspace.root).videos()] == ["a.mp4"]
    newest = Library.open(workspace.root, as_of="newest")
    assert [video.name for video in newest.videos()] == ["a.mp4", "b.mp4"]
    promote(workspace, library_tag="newest", reason="b.mp4")
    assert [video.name for video in Library.open(workspace.root).videos()] == ["a.mp4", "b.mp4"]
    rollback(workspace)
    assert pairs(workspace) == [
        ("promote", "v1", first),
        ("promote", "v1", second),
        ("rollback", "v1", first),
    ]
    assert Library.open(workspace.root).manifest.tag == first


def test_without_a_champion_the_newest_library_answers(workspace: Workspace):
    (workspace.published_dir / "champion.json").unlink()
    newest = add_video(workspace, "b.mp4", 50)
    answering = live(workspace)
    assert (answering.manifest.tag, answering.model, answering.version) == (newest, None, None)


def test_rolling_back_twice_goes_back_twice_and_then_there_is_nothing_left(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    for number in (2, 3):
        publish(workspace, another(model_folder, tmp_path / f"m{number}", str(number)))
        promote(workspace)
    assert [rollback(workspace).version, rollback(workspace).version] == ["v2", "v1"]
    with pytest.raises(WorkspaceError, match="nothing to roll back to"):
        rollback(workspace)
    assert (
        promote(workspace, library_tag="newest").version == "v1"
    )  # only the library was named: v1 stays
    assert promote(workspace).version == "v3"
    assert rollback(workspace).version == "v1"


def test_promoting_what_is_live_changes_nothing(workspace: Workspace):
    before = pairs(workspace)
    assert promote(workspace, "v1") == history(workspace)[-1]
    assert pairs(workspace) == before


def test_the_past_is_named_by_tag_version_time_and_commit(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    first = live(workspace).manifest.tag
    commit = commit_all(workspace, "v1 is live")
    second = add_video(workspace, "b.mp4", 50)
    publish(workspace, another(model_folder, tmp_path / "m2"))
    promoted = promote(workspace)
    at = datetime.fromisoformat(promoted.at)
    expected = {
        first: (first, "v1"),
        second: (second, "v2"),
        "v1": (first, "v1"),
        "v2": (second, "v2"),
        commit: (first, "v1"),
        commit[:10]: (first, "v1"),
        "HEAD": (first, "v1"),
        promoted.at: (second, "v2"),
        str(at.date()): (second, "v2"),
        (at + timedelta(days=1)).isoformat(): (second, "v2"),
    }
    never_live = add_video(workspace, "c.mp4", 75)
    expected |= dict.fromkeys((never_live, "newest"), (never_live, "v2"))
    found = {name: live_at(workspace, name) for name in expected}
    assert {name: (each.manifest.tag, each.version) for name, each in found.items()} == expected
    with pytest.raises(WorkspaceError, match="nothing that was live"):
        live_at(workspace, "2001-01-01")
    for name in ("nonsense", "--help", "v9", "../../x"):
        with pytest.raises(UsageError, match="expected `newest`"):
            live_at(workspace, name)


def test_a_time_before_the_first_promotion_means_the_newest_library_of_then(workspace: Workspace):
    first = live(workspace).manifest
    add_video(workspace, "b.mp4", 50)
    (workspace.published_dir / "champion.json").unlink()
    then = live_at(workspace, first.finished_at)
    assert (then.manifest.tag, then.version) == (first.tag, None)


def test_a_commit_from_before_the_registry_is_read_from_dvc(workspace: Workspace):
    first = live(workspace).manifest.tag
    (workspace.published_dir / "champion.json").unlink()
    versioning._dvc(["commit", "--force", "materialize"], workspace.root)
    commit = commit_all(workspace, "a library")
    add_video(workspace, "b.mp4", 50)
    assert live_at(workspace, commit).manifest.tag == first


def test_a_library_that_was_lost_and_made_again_answers_for_the_champion(
    workspace: Workspace, tmp_path: Path
):
    first = live(workspace).manifest
    Path(workspace.store_uri).rename(tmp_path / "gone")
    with pytest.raises(WorkspaceError, match="rebuild"):
        Library.open(workspace.root)
    add_video(workspace, "b.mp4", 50)
    remove(workspace, ["b.mp4"])
    materialize(workspace)
    again = Library.open(workspace.root)
    assert again.manifest.digest == first.digest
    assert again.manifest.tag != first.tag
    assert [each.tag for each in versions(workspace)][-1] == again.manifest.tag


def test_the_champion_answers_and_is_evaluated_by_name(workspace: Workspace):
    params = replace(
        workspace.params.ask.answerer, name="video_llm", pretrained="champion", device="cpu"
    )
    set_params(
        workspace.root,
        ask={"answerer": {"name": params.name, "pretrained": "champion", "device": "cpu"}},
    )
    library = Library.open(workspace.root)
    folder = workspace.published_dir / "v1"
    assert library.answerer_params == replace(params, pretrained=str(folder))
    assert library.ask("what is seen?", videos=["a.mp4"]).question == "what is seen?"
    assert find_model(workspace, "champion") == find_model(workspace, "v1") == folder


def test_video_llm_without_weights_is_the_champion(workspace: Workspace):
    library = Library.open(workspace.root)
    library = library.with_answerer("video_llm")
    assert library.answerer_params.pretrained == str(workspace.published_dir / "v1")


# what is published


def test_a_version_knows_what_made_it_and_cannot_be_written(
    workspace: Workspace, model_folder: Path
):
    (version,) = published(workspace)
    lineage = registry.read_lineage(version.folder)
    manifest = live(workspace).manifest
    assert (version.version, version.library_tag, version.is_champion) == ("v1", manifest.tag, True)
    assert lineage["git"]["commit"] == versioning.find_commit(workspace.root, "HEAD")
    assert lineage["model"]["digest"] == folder_digest(model_folder)
    assert lineage["params"]["materialize"]["frame_embedder"]["pretrained"] == "random"
    assert str(workspace.root) not in json.dumps(lineage)
    assert f"library: {manifest.tag}" in (version.folder / "README.md").read_text()
    files = [path for path in version.folder.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o222 for path in files} == {0}
    assert (workspace.published_dir / "v1.dvc").is_file()
    ignored = subprocess.run(
        ["git", "check-ignore", "v1/config.json", "v1.dvc", "champion.json"],
        cwd=workspace.published_dir, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ignored.stdout.split() == ["v1/config.json"]


def test_the_command_that_an_error_names_brings_a_version_back(workspace: Workspace):
    folder = workspace.published_dir / "v1"
    (folder / "config.json").unlink()
    (folder / "config.json").write_text("changed")
    with pytest.raises(WeightsError) as error:
        registry.verify(folder)
    named = str(error.value).split("`dvc ")[1].split("`")[0]
    versioning._dvc(named.split(), workspace.root)
    registry.verify(workspace.published_dir / "v1")


def test_a_clone_that_pulls_and_materialises_answers_as_the_original(
    workspace: Workspace, tmp_path: Path
):
    """Raw videos and versions go through DVC, the champion through git; the library is made again, equal."""
    versioning._dvc(
        ["remote", "add", "--default", "shelf", str(tmp_path / "shelf")], workspace.root
    )
    commit_all(workspace, "v1 is live")
    versioning._dvc(["push"], workspace.root)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(workspace.root), str(clone)], check=True)
    versioning._dvc(["pull", "data/videos.dvc", "models/published/v1.dvc"], clone)
    theirs = find_workspace(clone)
    with pytest.raises(WorkspaceError, match="mgv materialize"):
        live(theirs)
    add_video(theirs, "b.mp4", 50)
    remove(theirs, ["b.mp4"])
    materialize(theirs)
    assert live(theirs).manifest.tag != live(workspace).manifest.tag
    assert live(theirs).manifest.digest == live(workspace).manifest.digest
    assert find_model(theirs, "champion") == clone / "models/published/v1"


def test_publishing_the_same_again_gives_the_same_version(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    assert publish(workspace, model_folder).version == "v1"
    assert publish(workspace, another(model_folder, tmp_path / "m2")).version == "v2"
    assert (
        publish(workspace, model_folder).version == "v3"
    )  # the newest is compared, so that it is what was asked


def test_nothing_that_could_run_code_is_published(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    faults = {
        "pytorch_model.bin": b"any",
        "notes.txt": pickle.dumps([1, 2]),
        "table.json": b"PK\x03\x04 as torch.save begins",
        "more.safetensors": (model_folder / "connector.safetensors").read_bytes()[:-1],
        "run.py": b"print()",
    }
    for name, content in faults.items():
        folder = another(model_folder, tmp_path / name)
        (folder / name).write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            publish(workspace, folder)
    assert [each.version for each in published(workspace)] == ["v1"]
    assert {path.name for path in workspace.published_dir.iterdir()} <= {
        "v1",
        "v1.dvc",
        "champion.json",
        ".lock",
    }


def test_no_model_and_no_library_are_said(workspace: Workspace, model_folder: Path):
    with pytest.raises(WorkspaceError, match="no model there"):
        publish(workspace)
    workspace.manifest.unlink()
    with pytest.raises(WorkspaceError, match="nothing materialised"):
        publish(workspace, model_folder)


def test_a_version_carries_its_own_evaluation_and_no_other(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    model = another(model_folder, tmp_path / "m2")
    evaluated(workspace, model_folder, workspace.root / "results")
    assert publish(workspace, model).metrics == {}
    with pytest.raises(GateError, match="evaluates another model"):
        publish(workspace, model, results=workspace.root / "results")
    with pytest.raises(WorkspaceError, match="no evaluation in it"):
        publish(workspace, model, results=tmp_path)
    run = evaluated(workspace, model, tmp_path / "own")
    scored = publish(workspace, model, results=tmp_path / "own")
    assert (scored.version, scored.metrics) == ("v3", run.metrics)
    assert (
        f"| qa.accuracy | {run.metrics['qa.accuracy']:.4f} |"
        in (scored.folder / "README.md").read_text()
    )
    assert read_evaluation(scored.folder).facts.models() == {folder_digest(model)}


def test_results_of_before_are_read_too(workspace: Workspace, model_folder: Path, tmp_path: Path):
    evaluated(workspace, model_folder, tmp_path / "results")
    path = tmp_path / "results" / "run.json"
    run = json.loads(path.read_text())
    run["facts"]["system"] = run["facts"].pop("model")  # the key before e5461b6
    path.write_text(json.dumps(run))
    model = another(model_folder, tmp_path / "m2")
    with pytest.raises(GateError, match="evaluates another model"):
        publish(workspace, model, results=tmp_path / "results")
    assert publish(workspace, model_folder, results=tmp_path / "results").metrics["qa.count"] == 2


def test_an_answering_library_without_our_model_goes_with_any(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    workspace = set_params(workspace.root, ask={"answerer": {"pretrained": "random"}})
    model = another(model_folder, tmp_path / "m2")
    run = evaluated(workspace, model, tmp_path / "results", of_library=True)
    assert run.facts.ask is not None
    assert publish(workspace, model, results=tmp_path / "results").metrics == run.metrics


def test_a_version_belongs_to_the_library_that_it_was_evaluated_with(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    first = live(workspace).manifest
    add_video(workspace, "b.mp4", 50)
    model = another(model_folder, tmp_path / "m2")
    old = set_params(workspace.root, ask={"answerer": {"pretrained": "random"}})
    results = tmp_path / "results"
    run = evaluated(old, model, results, of_library=True)
    assert (
        publish(workspace, model, results=results).library_tag
        == live_at(workspace, "newest").manifest.tag
    )
    kept = json.loads((results / "run.json").read_text())
    assert kept["facts"]["library"] == run.facts.library
    for digest, outcome in ((first.digest, first.tag), ("0" * 64, None)):
        (results / "run.json").write_text(
            json.dumps(kept | {"facts": kept["facts"] | {"library": digest}})
        )
        if outcome:
            assert publish(workspace, model, results=results).library_tag == outcome
        else:
            with pytest.raises(WorkspaceError, match="not kept here"):
                publish(workspace, model, results=results)


# what is refused


def test_a_library_with_another_embedder_is_not_promoted(workspace: Workspace):
    first = live(workspace).manifest.tag
    other = set_params(
        workspace.root, materialize={"frame_embedder": {"name": "conse", "pretrained": "random"}}
    )
    materialize(other)
    with pytest.raises(
        GateError, match=rf"frame_embedder is conse.*--library-tag {first}"
    ) as refused:
        promote(other)
    assert refused.value.exit_code == 10
    assert [video.name for video in Library.open(workspace.root).videos()] == ["a.mp4"]
    assert promote(other, "v1", library_tag=first).library_tag == first


@pytest.mark.parametrize("damage", ["changed", "missing", "added"])
def test_a_damaged_version_is_refused(
    workspace: Workspace, model_folder: Path, tmp_path: Path, damage: str
):
    publish(workspace, another(model_folder, tmp_path / "m2"))
    promote(workspace)
    for version in ("v1", "v2"):
        weights = workspace.published_dir / version / "connector.safetensors"
        weights.chmod(0o644)
        if damage == "changed":
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(content)
        elif damage == "missing":
            weights.unlink()
        else:
            (weights.parent / "extra.json").write_text("{}")
    expected = rf"v\d is damaged: .*{damage}|was {damage}|has {damage}|is {damage}"
    library = Library.open(workspace.root)
    library = library.with_answerer("video_llm")
    with pytest.raises(WeightsError, match=expected):
        library.ask("what is shown?", videos=["a.mp4"])
    for refused in (rollback, lambda each: promote(each, "v1")):
        with pytest.raises(WeightsError, match=expected):
            refused(workspace)
    assert history(workspace)[-1].version == "v2"
    assert [check.ok for check in examine(workspace.root) if check.name == "champion"] == [False]


def test_a_broken_pointer_is_an_error_in_words(workspace: Workspace):
    (workspace.published_dir / "champion.json").write_text('{"format": 1, "history": [{}]}')
    with pytest.raises(WorkspaceError, match=r"champion\.json.*git checkout"):
        Library.open(workspace.root)


# many at once, and kills


def python(program: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WRITER = """
import sys
from pathlib import Path
from mgv.registry import promote, publish, rollback
from mgv.registry.evaluation import read_evaluation
from mgv.workspace import find_workspace
workspace = find_workspace(Path(sys.argv[1]))
version = publish(workspace, Path(sys.argv[2])).version
for _ in range(10):
    promote(workspace, version, reason=version)
    promote(workspace, "v1", reason=version)
"""


def test_two_processes_publish_two_versions_and_promote_one_after_the_other(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    models = [another(model_folder, tmp_path / name, name) for name in ("m2", "m3")]
    running = [python(WRITER, str(workspace.root), str(model)) for model in models]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert [each.version for each in published(workspace)] == ["v1", "v2", "v3"]
    notes = {(each.folder / "note.txt").read_text() for each in published(workspace)[1:]}
    assert notes == {"m2", "m3"}
    live_versions = [entry.version for entry in history(workspace)]
    assert all(a != b for a, b in pairwise(live_versions))  # none was lost or doubled
    assert live_versions.count("v2") == live_versions.count("v3") == 10
    assert (workspace.published_dir / "v3.dvc").is_file()


KILLER = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import dvc.repo  # loaded once, before the forks
from mgv.registry import history, live, promote, publish, published, rollback, verify
from mgv.registry.evaluation import read_evaluation
from mgv.workspace import find_workspace

workspace, model = find_workspace(Path(sys.argv[1])), Path(sys.argv[2])
rng = random.Random(7)

def move():
    while True:
        promote(workspace, published(workspace)[-1].version)
        promote(workspace, "v1")
        rollback(workspace)

def make(note):
    (model / "note.txt").write_text(note)
    publish(workspace, model)
    move()

(model / "note.txt").write_text("first")
started = time.monotonic()
publish(workspace, model)
publish_s = time.monotonic() - started
before = history(workspace)
for number in range(20):
    child = os.fork()
    if child == 0:
        move() if number % 2 else make(str(number))
        os._exit(3)
    time.sleep(rng.uniform(0.005, publish_s * (0.5 if number % 2 else 3.0)))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    after = history(workspace)
    assert after[: len(before)] == before, "an entry was lost"
    before = after
    for version in published(workspace):
        verify(version.folder)
    assert live(workspace).version == after[-1].version
print(len(before), len(published(workspace)))
"""


def test_a_kill_at_any_point_leaves_whole_versions_and_a_whole_history(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    model = another(model_folder, tmp_path / "m2")
    killer = python(KILLER, str(workspace.root), str(model))
    counts, said = killer.communicate(timeout=200)
    assert killer.returncode == 0, said
    num_entries, num_versions = map(int, counts.split())
    assert num_entries > 3
    assert num_versions > 1
    (model / "note.txt").write_text("after the kills")
    last = publish(workspace, model)
    assert promote(workspace).version == last.version == f"v{num_versions + 1}"
    assert not (workspace.published_dir / ".partial").exists()
    assert (workspace.published_dir / f"{last.version}.dvc").is_file()


def test_dvc_works_again_after_a_kill_that_cut_its_lock_short(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    (workspace.root / ".dvc/tmp/rwlock").write_text("")
    version = publish(workspace, another(model_folder, tmp_path / "m2")).version
    assert (workspace.published_dir / f"{version}.dvc").is_file()


def test_what_git_cannot_stage_is_kept_by_dvc_all_the_same(
    workspace: Workspace, model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    lock = workspace.root / ".git/index.lock"
    lock.touch()  # a git command at work, or one that was killed
    version = publish(workspace, another(model_folder, tmp_path / "m2")).version
    assert (workspace.published_dir / f"{version}.dvc").is_file()
    (warning,) = [
        record.getMessage() for record in caplog.records if "staged" in record.getMessage()
    ]
    assert f"`git add models/published/{version}.dvc`" in warning
    assert "index.lock': File exists" in warning
    assert lock.exists()
    lock.unlink()
    after = publish(workspace, another(model_folder, tmp_path / "m3", "a third")).version
    staged = subprocess.run(["git", "diff", "--cached", "--name-only"], cwd=workspace.root, check=True,
                            capture_output=True, text=True).stdout.split()  # fmt: skip
    assert f"models/published/{after}.dvc" in staged


# the command line


def run(workspace: Workspace, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*words, "--library", str(workspace.root)])
    if isinstance(result.exception, MgvError):
        return result.exception.exit_code, "", str(result.exception)
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_the_commands_publish_list_promote_and_roll_back(
    workspace: Workspace, model_folder: Path, tmp_path: Path
):
    first = live(workspace).manifest.tag
    model = another(model_folder, tmp_path / "m2")
    accuracy = evaluated(workspace, model, tmp_path / "results").metrics["qa.accuracy"]
    code, out, _ = run(
        workspace, "publish", str(model), "--results", str(tmp_path / "results"), "--json"
    )
    made = json.loads(out)
    assert (code, made["version"], made["pushed_to"]) == (0, "v2", None)
    _, out, said = run(workspace, "materialize")
    assert "until this one is promoted" not in said
    second = add_video(workspace, "b.mp4", 50)
    _, out, said = run(workspace, "materialize")
    assert f"searches answer from the champion's library {first} until this one is promoted" in said
    code, out, _ = run(workspace, "promote", "--reason", "better", "--json")
    assert (
        json.loads(out).items()
        >= {"version": "v2", "library_tag": second, "reason": "better"}.items()
    )
    _, out, _ = run(workspace, "models")
    assert [line[:5].split() for line in out.splitlines()[:2]] == [["v1"], ["*", "v2"]]
    assert f"qa.accuracy {accuracy:.3f}" in out.splitlines()[1]
    assert "(better)" in out
    code, out, _ = run(workspace, "rollback")
    assert (code, out) == (0, f"live: v1 with library {first}\n")
    _, out, _ = run(workspace, "models", "--json")
    listed = json.loads(out)
    assert [each["is_champion"] for each in listed["models"]] == [True, False]
    assert listed["champion"] == listed["history"][-1]
    code, _, said = run(workspace, "promote", "v7")
    assert (code, "v1, v2" in said) == (2, True)
    code, _, said = run(workspace, "promote", "--library-tag", "abc")
    assert (code, "not kept here" in said) == (5, True)


def test_dvc_knows_the_model_as_an_artifact(workspace: Workspace, model_folder: Path):
    import dvc.api

    shutil.copytree(model_folder, workspace.root / "models/train/instruct")
    commit = commit_all(workspace, "a model")
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "tag", "-a", "video-llm@v1.0.0", "-m", "v1"],
        cwd=workspace.root, check=True,
    )  # fmt: skip
    shown = dvc.api.artifacts_show("video-llm", repo=str(workspace.root))
    assert shown == {"rev": commit, "path": "models/train/instruct"}
    artifact = yaml.safe_load((workspace.root / "dvc.yaml").read_text())["artifacts"]["video-llm"]
    assert artifact["type"] == "model"


# a hub


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's HTTP as a push of small files needs; what it is sent is kept."""

    seen: list[tuple[str, str, bytes]]

    def log_message(self, *words: object) -> None: ...

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", ""), b""))
        self._answer({"id": "me/model", "sha": "0" * 40, "siblings": [], "name": "me"})

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers.get("Authorization", ""), body))
        if "/preupload/" in self.path:
            names = [each["path"] for each in json.loads(body)["files"]]
            files = [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            address = f"http://{self.headers['Host']}/me/model/commit/{'1' * 40}"
            self._answer({"success": True, "commitOid": "1" * 40, "commitUrl": address})
        else:
            self._answer(
                {"url": f"http://{self.headers['Host']}/me/model", "warnings": [], "errors": []}
            )


@contextmanager
def hub() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    seen: list[tuple[str, str, bytes]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Seen", (Hub,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def test_a_version_is_pushed_whole_with_the_environments_token(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with hub() as (address, seen):
        monkeypatch.setenv("HF_ENDPOINT", address)
        registry.push_to_hub(workspace, "v1", "me/model")
    assert {token for _, token, _ in seen} == {"Bearer secret"}
    (created,) = (json.loads(body) for path, _, body in seen if path == "/api/repos/create")
    assert (created["name"], created["visibility"]) == ("model", "private")
    (commit,) = (body for path, _, body in seen if "/commit/" in path)
    rows = [json.loads(line) for line in commit.splitlines()]
    sent = {
        row["value"]["path"]: base64.b64decode(row["value"]["content"])
        for row in rows
        if row["key"] == "file"
    }
    folder = workspace.published_dir / "v1"
    assert sent == {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert any(path.startswith("/api/models/me/model/tag/") for path, _, _ in seen)


def test_without_a_token_or_a_network_the_version_stands_and_the_error_says_so(
    workspace: Workspace, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = another(model_folder, tmp_path / "m2")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    code, _, said = run(workspace, "publish", str(model), "--push-to-hub", "me/model")
    assert (code, said) == (
        3,
        "v2 is published here, but not pushed: the environment has no HF_TOKEN",
    )
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        MgvError, match=r"v2 is published here, but not pushed to me/model: .*try again"
    ) as error:
        registry.push_to_hub(workspace, "v2", "me/model")
    assert not isinstance(error.value, ConfigError)
    assert "secret" not in str(error.value)
    assert [each.version for each in published(workspace)] == ["v1", "v2"]
