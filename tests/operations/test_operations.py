"""Cleaning and metrics, on real tables, a real registry and real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from mgv import registry
from mgv.ask.library import Library
from mgv.cli.app import app
from mgv.errors import WorkspaceError
from mgv.library.ingest import ingest
from mgv.library.manifest import Manifest, read_manifest, versions
from mgv.library.materialize import materialize
from mgv.library.store import open_for_reading
from mgv.operations.cleaning import check_budget, clean, disk_usage
from mgv.operations.metrics import exposition
from mgv.retrain import Decision, Note, write_note
from mgv.workspace import Workspace, find_workspace
from tests.conftest import set_params
from tests.media.make_video import make_video

NOW = timedelta(0)
WORDS = ("rocket", "parrot", "penguin", "engine")


def _say(library: Workspace, word: str) -> Manifest:
    """Have the video say something else, and make the library of it."""
    path = library.videos_dir / "talk.vtt"
    path.unlink(missing_ok=True)  # DVC's copy of it stays as it was
    path.write_text(f"WEBVTT\n\n00:00.000 --> 00:01.000\nThe {word} is here.\n")
    return materialize(library).manifest


@pytest.fixture
def library(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with one video and no grace for readers."""
    ingest(workspace, [make_video(tmp_path / "talk.mp4", num_frames=25)])
    return set_params(workspace.root, operations={"grace_hours": 0})


def _has(library: Workspace, manifest: Manifest) -> bool:
    try:
        open_for_reading(library.store_uri, manifest.versions)
    except WorkspaceError:
        return False
    return True


def model_folder(folder: Path) -> Path:
    """The least that can be published."""
    folder.mkdir(parents=True)
    parts = {"connector": {"name": "any"}, "vision_encoder": {"name": "any"}}
    (folder / "config.json").write_text(
        json.dumps(parts | {"language_model": {"pretrained": "any"}})
    )
    return folder


def test_only_libraries_that_are_new_live_or_published_stay_and_they_answer_as_before(
    library: Workspace, tmp_path: Path
):
    made = [_say(library, word) for word in WORDS[:2]]
    published = registry.publish(library, model_folder(tmp_path / "model"))
    registry.promote(library, published.version, library_tag=made[0].tag)
    assert published.library_tag == made[1].tag
    made += [_say(library, word) for word in ("whale", *WORDS[2:])]
    assert clean(library, keep=1).retired == ()  # none is older than 30 days
    before = disk_usage(library)["library"]
    rehearsed = clean(library, keep=1, older_than=NOW, dry_run=True)
    assert [each.tag for each in versions(library)] == [each.tag for each in made]
    done = clean(library, keep=1, older_than=NOW)
    assert done.retired == rehearsed.retired == (made[2].tag, made[3].tag)
    assert done.waiting == ()
    assert [each.tag for each in versions(library)] == [made[i].tag for i in (0, 1, 4)]
    assert [_has(library, each) for each in made] == [True, True, False, False, True]
    assert before - done.usage["library"] == pytest.approx(done.num_bytes, abs=4096)
    assert "rocket" in Library.open(library.root).search("rocket")[0].text
    assert "engine" in Library.open(library.root, as_of="newest").search("engine")[0].text
    with pytest.raises(WorkspaceError, match=r"not kept here"):
        Library.open(library.root, as_of=made[2].tag)
    assert clean(library, keep=1, older_than=NOW).num_bytes == 0
    assert materialize(library).computed == ()
    assert materialize(library, rebuild=True).manifest.digest == made[4].digest


def test_who_reads_a_library_keeps_it_for_the_grace_period(library: Workspace):
    first = _say(library, "rocket")
    reader = Library.open(library.root)
    _say(library, "parrot")
    patient = set_params(library.root, operations={"grace_hours": 1})
    done = clean(patient, keep=1, older_than=NOW)
    assert (done.retired, done.waiting) == ((first.tag,), (first.tag,))
    assert "rocket" in reader.search("rocket")[0].text
    with pytest.raises(WorkspaceError, match="not kept here"):
        Library.open(library.root, as_of=first.tag)
    retired = library.manifests_dir / "retired" / f"{first.tag}.json"
    an_hour_ago = time.time() - 3601
    os.utime(retired, (an_hour_ago, an_hour_ago))
    eager = set_params(library.root, operations={"grace_hours": 0})
    assert clean(eager, keep=1, dry_run=True).num_bytes > 0
    assert _has(library, first)
    assert clean(eager, keep=1).waiting == ()
    assert not retired.exists()
    assert not _has(library, first)


def test_libraries_of_receipts_stay_when_asked_for(library: Workspace):
    first = _say(library, "rocket")
    _say(library, "parrot")
    folder = library.root / "data" / "receipts"
    folder.mkdir()
    (folder / "20261124-031502-k3f9.json").write_text(json.dumps({"library": {"tag": first.tag}}))
    assert clean(library, keep=1, older_than=NOW, keep_receipts=True).retired == ()
    assert clean(library, keep=1, older_than=NOW).retired == (first.tag,)


def test_old_states_answers_features_and_what_killed_runs_left_go_and_nothing_else(
    library: Workspace,
):
    _say(library, "rocket")
    root = library.root
    old = [
        "models/resume/instruct/step-000100/optimizer.pt",
        "results/answers/0a1b2c/answers.jsonl",
        "data/features/features.lance/data/a.lance",
        "data/.library.json.123.tmp",
        "models/train/.instruct.partial/connector.safetensors",
        "data/library.broken-2/videos.lance/data/a.lance",
    ]
    kept = ["models/train/instruct/connector.safetensors", "results/report.html", "data/videos/.odd.tmp",
            "data/library.broken/thesis.txt"]  # fmt: skip
    for name in (*old, *kept):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 1000)
    assert {each.kind for each in clean(library).removed} == {
        "library",
        "temporary",
    }  # the others are young
    (root / old[3]).write_bytes(b"x" * 1000)
    done = clean(library, older_than=NOW)
    assert sorted(each.kind for each in done.removed if each.kind != "library") == [
        "answers", "features", "states", "temporary"
    ]  # fmt: skip
    assert not [name for name in old if (root / name).exists()]
    assert all((root / name).exists() for name in kept)


def test_a_workspace_over_its_disk_budget_says_what_takes_most(library: Workspace):
    check_budget(library)
    (library.root / "results").mkdir()
    (library.root / "results" / "large").write_bytes(b"x" * 5_000_000)
    small = set_params(library.root, operations={"disk_budget_gb": 0.001})
    with pytest.raises(WorkspaceError, match=r"more than .*: results 5.0 MB.*mgv clean"):
        check_budget(small)


def test_a_file_under_two_names_counts_once(workspace: Workspace):
    before = sum(disk_usage(workspace).values())
    folder = workspace.root / ".dvc" / "cache"
    folder.mkdir(parents=True)
    (workspace.videos_dir / "a.mp4").write_bytes(b"x" * 10_000)
    os.link(workspace.videos_dir / "a.mp4", folder / "a")
    assert sum(disk_usage(workspace).values()) - before == 10_000


KILLED = """
import os, signal, sys
from datetime import timedelta
from pathlib import Path
from mgv.library.store import Retention
from mgv.operations.cleaning import clean
from mgv.workspace import find_workspace

calls = 0
def deadly(method):
    def call(*args, **options):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args, **options)
    return call
Retention.untag, Retention.clean = deadly(Retention.untag), deadly(Retention.clean)
os.replace = deadly(os.replace)
Path.unlink = deadly(Path.unlink)
clean(find_workspace(Path(sys.argv[1])), keep=1, older_than=timedelta(0))
"""


def test_a_kill_while_cleaning_leaves_what_is_listed_readable_and_the_next_run_goes_on(
    library: Workspace, tmp_path: Path
):
    made = [_say(library, word) for word in WORDS]
    (tmp_path / "killed.py").write_text(KILLED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    for at in (
        2,
        4,
        7,
    ):  # between two libraries leaving the list, between two tags, before the files go
        words = [sys.executable, str(tmp_path / "killed.py"), str(library.root), str(at)]
        killed = subprocess.run(words, env=environment, capture_output=True, check=False)
        assert killed.returncode in (-signal.SIGKILL, 0), killed.stderr.decode()
        assert all(_has(library, each) for each in versions(library))
        assert "engine" in Library.open(library.root).search("engine")[0].text
    clean(library, keep=1, older_than=NOW)
    assert [_has(library, each) for each in made] == [False, False, False, True]
    assert not list((library.manifests_dir / "retired").iterdir())


def test_the_metrics_are_what_prometheus_reads(library: Workspace, tmp_path: Path):
    (library.videos_dir / "bad.mp4").write_text("not a video")
    manifest = _say(library, "rocket")
    (library.root / "results").mkdir()
    (library.root / "results" / "metrics.json").write_text(json.dumps({"qa.accuracy": 0.75}))
    published = registry.publish(library, model_folder(tmp_path / "model"), results=None)
    registry.promote(library, published.version)
    write_note(
        library, Note(key="k", decision=Decision(promote="candidate", reason="better"), done=True)
    )
    found = _parsed(exposition(library))
    expected = {"mgv_videos": 1, "mgv_failed_videos": 1, "mgv_frames": 1, "mgv_segments": 1, "mgv_receipts": 0,
                "mgv_published_models": 1, "mgv_libraries": 1}  # fmt: skip
    assert {name: found[name, ()] for name in expected} == expected
    assert found["mgv_library_info", (("tag", manifest.tag),)] == 1
    assert found["mgv_champion_info", (("library_tag", manifest.tag), ("version", "v1"))] == 1
    assert found["mgv_evaluation_score", (("metric", "qa.accuracy"),)] == 0.75
    assert found["mgv_disk_bytes", (("kind", "library"),)] == disk_usage(library)["library"]
    assert (
        time.time() - found["mgv_last_retrain_timestamp_seconds", (("outcome", "promoted"),)] < 60
    )
    assert time.time() - found["mgv_library_finished_timestamp_seconds", ()] < 60


def _parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def test_the_commands_write_serve_and_clean(library: Workspace, tmp_path: Path):
    _say(library, "rocket")
    cli, at = CliRunner(), ["--library", str(library.root)]
    said = cli.invoke(app, ["clean", "--dry-run", "--older-than", "1w", "--json", *at])
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert told["dry_run"]
    assert told["usage"]["library"] > 0
    assert cli.invoke(app, ["clean", "--older-than", "soon", *at]).exception is not None
    file = tmp_path / "mgv.prom"
    assert cli.invoke(app, ["metrics", "--output", str(file), *at]).exit_code == 0
    assert _parsed(file.read_text())["mgv_videos", ()] == 1
    from mgv.operations.metrics import serve_metrics

    server, thread = serve_metrics(find_workspace(library.root), 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
        assert _parsed(answer.read().decode())["mgv_videos", ()] == 1
    server.shutdown()
    server.server_close()
    thread.join()
    assert read_manifest(library.manifest) is not None
