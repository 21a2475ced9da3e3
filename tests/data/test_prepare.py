"""Prepare: samples joined with real videos and a real library, split by content, the same on every run."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mgv.data import media as data_media
from mgv.data.prepare import prepare, preparing, split_of
from mgv.data.report import PrepareReport
from mgv.data.samples import SampleFile, read_weights, sample_to_json
from mgv.errors import BusyError, ConfigError, DataError
from mgv.library.ingest import ingest
from mgv.library.materialize import materialize
from mgv.records import Cue, Sample, Turn
from mgv.workspace import Workspace
from tests.conftest import set_params
from tests.media.make_video import make_video
from tests.media.test_images import jpeg, make_tar

TURN = {"question": "q", "answer": "one two"}
VTT = "WEBVTT\n\n00:00.000 --> 00:01.000\nEarly.\n\n00:01.500 --> 00:02.500\nLate words.\n"


def annotate(workspace: Workspace, *rows: dict[str, Any], name: str = "mine.jsonl") -> str:
    """Write rows of our own format, with a turn where none is given; the file's name."""
    lines = [json.dumps({"turns": [TURN]} | row) + "\n" for row in rows]
    (workspace.root / name).write_text("".join(lines))
    return name


def use(workspace: Workspace, *sources: dict[str, Any], **params: Any) -> Workspace:
    """Set the sources; `media` and `name` are ours unless given."""
    given = [{"name": "samples", "media": "clips"} | source for source in sources]
    return set_params(workspace.root, prepare={"sources": given, **params})


def files(workspace: Workspace) -> dict[str, bytes]:
    folder = workspace.root / "data" / "prepare"
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.json*"))
    }


def samples(workspace: Workspace, stage: str = "instruct") -> dict[str, Sample]:
    """What was prepared for a stage, by id."""
    folder = workspace.root / "data" / "prepare" / stage
    return {
        s.sample_id: s
        for split in ("train", "validation", "test")
        for s in SampleFile(folder / f"{split}.jsonl")
    }


def splits(workspace: Workspace, stage: str = "instruct") -> dict[str, str]:
    """The split of each sample, by id."""
    folder = workspace.root / "data" / "prepare" / stage
    return {
        s.sample_id: split
        for split in ("train", "validation", "test")
        for s in SampleFile(folder / f"{split}.jsonl")
    }


@pytest.fixture
def clips(workspace: Workspace) -> Path:
    """A folder with two videos of 1 s and 4 s, a copy of the first, and a picture."""
    folder = workspace.root / "clips"
    folder.mkdir()
    make_video(folder / "short.mp4", num_frames=25)
    make_video(folder / "long.mp4", num_frames=100)
    shutil.copy(folder / "short.mp4", folder / "copy.mp4")
    (folder / "cat.jpg").write_bytes(jpeg())
    return folder


def test_a_sample_learns_what_its_media_is(workspace: Workspace, clips: Path):
    (clips / "long.en.vtt").write_text(VTT)
    rows = [
        {"media": "long.mp4"},
        {"media": "long.mp4", "start_s": 1, "end_s": 1.25},
        {"media": "cat.jpg"},
    ]
    workspace = use(workspace, {"annotations": annotate(workspace, *rows)})
    prepare(workspace)
    found = samples(workspace)
    turns = (Turn(question="q", answer="one two"),)
    cues = (Cue(start_s=0, end_s=1, text="Early."), Cue(start_s=1.5, end_s=2.5, text="Late words."))
    long_id = hashlib.sha256((clips / "long.mp4").read_bytes()).hexdigest()
    whole = Sample(
        sample_id="samples/1",
        media="clips/long.mp4",
        media_id=long_id,
        turns=turns,
        end_s=4.0,
        cues=cues,
    )
    assert found["samples/1"] == whole
    stretch = found["samples/2"]
    assert (stretch.start_s, stretch.end_s, stretch.cues) == (1.0, 1.25, ())
    image = found["samples/3"]
    assert image.media_id == hashlib.sha256((clips / "cat.jpg").read_bytes()).hexdigest()
    assert (image.is_image, image.end_s, image.cues) == (True, None, ())


def test_what_the_library_knows_is_taken_from_it_under_any_name(
    workspace: Workspace, clips: Path, tmp_path: Path
):
    talk = make_video(tmp_path / "talk.mp4", num_frames=75, num_audio=1)
    talk.with_suffix(".vtt").write_text(VTT)
    ingest(workspace, [talk])
    shutil.copy(talk, clips / "other name.mp4")
    (clips / "other name.vtt").write_text(
        "WEBVTT\n\n00:00.000 --> 00:03.000\nThe file beside it.\n"
    )
    (workspace.root / "subs").mkdir()
    (workspace.root / "subs" / "talk.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nFrom the folder.\n"
    )
    own = [{"start_s": 0, "end_s": 1, "text": "Own."}]
    annotations = annotate(
        workspace, {"media": "other name.mp4"}, {"media": "other name.mp4", "cues": own}
    )
    in_library = {
        "annotations": annotate(workspace, {"media": "talk.mp4"}, name="lib.jsonl"),
        "media": "data/videos",
    }
    workspace = use(
        workspace, {"annotations": annotations}, in_library, in_library | {"subtitles": "subs"}
    )

    prepare(workspace)  # there is no library yet
    assert [cue.text for cue in samples(workspace)["samples/1"].cues] == ["The file beside it."]
    materialize(workspace)
    prepare(workspace)
    said = {key: [cue.text for cue in sample.cues] for key, sample in samples(workspace).items()}
    assert said == {
        "samples/1": ["Early.", "Late words."],
        "samples/2": ["Own."],
        "samples-2/1": ["Early.", "Late words."],
        "samples-3/1": ["From the folder."],
    }
    assert {sample.end_s for sample in samples(workspace).values()} == {3.0}
    assert samples(workspace)["samples-2/1"].media == "data/videos/talk.mp4"


def test_what_a_row_says_wrongly_of_its_media_is_a_bad_row(workspace: Workspace, clips: Path):
    (clips / "bad.mp4").write_text("no video")
    (clips / "bad.jpg").write_bytes(jpeg(size=(300, 300))[:-200])
    (clips / "long.vtt").write_text("no subtitles")
    shutil.copy(clips / "long.mp4", clips / "talk.mp4")
    rows = [
        {"media": "short.mp4", "start_s": 1.5},
        {"media": "bad.mp4"},
        {"media": "bad.jpg"},
        {"media": "long.mp4"},
        {"media": "missing.mp4"},
        {"media": "short.mp4", "sample_id": "same"},
        {"media": "short.mp4", "sample_id": "same"},
        {"media": "../mine.jsonl"},
        {"media": "short.mp4", "start_s": 0.5, "end_s": 9},
    ]
    workspace = use(workspace, {"annotations": annotate(workspace, *rows)}, max_bad_share=1)
    report = prepare(workspace)
    reasons = [str(row) for row in report.bad_rows]
    expected = [
        "line 1: it begins at 1.5 s, expected a time within clips/short.mp4, which has 0 to 1 s",
        "line 2: clips/bad.mp4: not a readable video",
        "line 3: clips/bad.jpg: cannot be read as an image (image file is truncated",
        "line 4: clips/long.vtt: no cue can be read",
        "line 5: no such file: clips/missing.mp4",
        "line 7: the sample_id 'samples/same' is taken by a row before it",
        "line 8: '../mine.jsonl' leads out of the media folder",
    ]
    assert [
        reason.startswith(f"mine.jsonl, {e}") for reason, e in zip(reasons, expected, strict=True)
    ] == [True] * 7
    assert samples(workspace)["samples/9"].end_s == 1.0
    shown = json.loads(files(workspace)["report.json"])
    assert (shown["bad_rows"], shown["first_bad_rows"]) == (7, reasons)
    assert str(workspace.root) not in files(workspace)["report.json"].decode()


def test_too_many_bad_rows_stop_the_run_and_leave_the_last_result(
    workspace: Workspace, clips: Path
):
    rows = [{"media": "short.mp4"}] * 50
    workspace = use(workspace, {"annotations": annotate(workspace, *rows)})
    prepare(workspace)
    before = files(workspace)
    annotate(workspace, *rows, {"media": "x.mp4"})
    with pytest.raises(DataError) as caught:
        prepare(workspace)
    assert str(caught.value) == (
        "samples: 1 of 51 rows are bad, more than prepare.max_bad_share (0.01) allows; "
        "the first is mine.jsonl, line 51: no such file: clips/x.mp4"
    )
    assert files(workspace) == before
    assert not (workspace.root / "data" / ".prepare").exists()
    assert (
        prepare(use(workspace, {"annotations": "mine.jsonl"}, max_bad_share=0.02))
        .tally()
        .counts["samples"]
        == 50
    )


def test_a_long_file_of_bad_rows_stops_once_a_hundred_were_seen(workspace: Workspace, clips: Path):
    annotations = annotate(
        workspace, {"media": "x.mp4"}, *[{"media": "short.mp4"}] * 98, *[{"media": "x.mp4"}] * 900
    )
    with pytest.raises(DataError, match="2 of 100 rows are bad"):
        prepare(use(workspace, {"annotations": annotations}))


def test_the_same_content_is_in_one_split_under_any_name_and_in_any_source(
    workspace: Workspace, clips: Path
):
    for number in range(40):
        make_video(clips / f"{number}.mp4", num_frames=2 + number, size=(16, 16))
        shutil.copy(clips / f"{number}.mp4", clips / f"copy {number}.mkv")
    names = [{"media": f"{number}.mp4"} for number in range(40)]
    copies = [{"media": f"copy {number}.mkv"} for number in range(40)]
    sources = (
        {"annotations": annotate(workspace, *names)},
        {
            "annotations": annotate(workspace, *copies, name="copies.jsonl"),
            "stage": "pretrain_video",
        },
    )
    workspace = use(workspace, *sources, validation_share=0.3, test_share=0.2)
    prepare(workspace)
    drawn = splits(workspace)
    assert set(drawn.values()) == {"train", "validation", "test"}
    assert {f"samples-2/{n}": drawn[f"samples/{n}"] for n in range(1, 41)} == splits(
        workspace, "pretrain_video"
    )
    prepare(use(workspace, *sources, validation_share=0.3, test_share=0.2, seed=1))
    assert splits(workspace) != drawn


def test_shares_of_a_split_are_kept_and_a_new_video_moves_no_other():
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(4000)]
    drawn = [split_of(media_id, seed=0, validation_share=0.1, test_share=0.05) for media_id in ids]
    assert drawn.count("validation") == pytest.approx(400, abs=4 * 19)  # four standard deviations
    assert drawn.count("test") == pytest.approx(200, abs=4 * 14)
    first = int(hashlib.sha256(f"0:{ids[0]}".encode()).hexdigest()[:16], 16) / 16**16
    assert drawn[0] == ("validation" if first < 0.1 else "test" if first < 0.15 else "train")
    assert {split_of(i, seed=0, validation_share=0.0, test_share=0.0) for i in ids} == {"train"}


def test_one_content_in_two_declared_splits_stops_the_run_and_names_both(
    workspace: Workspace, clips: Path
):
    train = {"annotations": annotate(workspace, {"media": "short.mp4"}), "split": "train"}
    test = {
        "annotations": annotate(workspace, {"media": "copy.mp4"}, name="test.jsonl"),
        "split": "test",
    }
    with pytest.raises(
        DataError, match=r"two splits: clips/short\.mp4 in train, clips/copy\.mp4 in test"
    ):
        prepare(use(workspace, train, test))


def test_what_declares_no_split_follows_what_does(workspace: Workspace, clips: Path):
    auto = {"annotations": annotate(workspace, {"media": "short.mp4"})}
    test = {
        "annotations": annotate(workspace, {"media": "copy.mp4"}, name="test.jsonl"),
        "split": "test",
    }
    workspace = use(workspace, auto, test, validation_share=0, test_share=0)
    prepare(workspace)
    assert splits(workspace) == {"samples/1": "test", "samples-2/1": "test"}
    assert list(samples(workspace)) == ["samples/1", "samples-2/1"]  # in the order of params.yaml


def test_two_runs_give_the_same_bytes_and_the_second_reads_no_video(
    workspace: Workspace, clips: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = [{"media": name} for name in ("short.mp4", "long.mp4", "cat.jpg", "copy.mp4")]
    workspace = use(workspace, {"annotations": annotate(workspace, *rows)})
    prepare(workspace)
    first = files(workspace)
    assert len(first) == 10
    with monkeypatch.context() as patch:
        patch.setattr(data_media, "file_digest", None)
        patch.setattr(data_media, "_image_facts", None)
        prepare(workspace)
    assert files(workspace) == first
    (workspace.root / "data" / "media.sqlite").write_text("damaged")
    prepare(workspace)
    assert files(workspace) == first
    make_video(clips / "short.mp4", num_frames=50)  # changed: it is looked at anew
    prepare(workspace)
    assert samples(workspace)["samples/1"].end_s == 2.0


def test_images_of_shards_are_prepared_and_a_damaged_one_is_named(
    workspace: Workspace, clips: Path
):
    cut = jpeg(size=(300, 300))[:-200]
    make_tar(
        clips / "0.tar",
        {
            "a.jpg": jpeg(),
            "a.txt": b"A square.",
            "b.jpg": cut,
            "b.txt": b"B.",
            "c.jpg": jpeg((0, 0, 9)),
            "c.txt": b"C.",
        },
    )
    workspace = use(
        workspace, {"name": "webdataset", "annotations": "clips/0.tar"}, max_bad_share=0.4
    )
    report = prepare(workspace)
    found = samples(workspace, "pretrain_image")
    assert {key: sample.media for key, sample in found.items()} == {
        "webdataset/0/a": "clips/0.tar/a.jpg", "webdataset/0/c": "clips/0.tar/c.jpg",
    }  # fmt: skip
    assert found["webdataset/0/a"].media_id == hashlib.sha256(jpeg()).hexdigest()
    (bad,) = report.bad_rows
    assert str(bad).startswith("clips/0.tar, b.jpg: clips/0.tar/b.jpg: cannot be read as an image")


def test_the_report_counts_by_source_stage_and_split(workspace: Workspace, clips: Path):
    (clips / "long.vtt").write_text(VTT)
    turns = [TURN | {"kind": "colour"}, {"question": "why?", "answer": "x y z"}]
    rows = [
        {"media": "long.mp4", "turns": turns, "is_dialogue": True},
        {"media": "cat.jpg"},
        {"media": "short.mp4"},
    ]
    workspace = use(
        workspace,
        {"annotations": annotate(workspace, *rows), "stage": "pretrain_video", "split": "test"},
    )
    told: list[tuple[str, int, int]] = []
    report = prepare(workspace, lambda *step: told.append(step))
    assert isinstance(report, PrepareReport)
    shown = json.loads(files(workspace)["report.json"])
    numbers = {
        "samples": 3, "turns": 4, "words": 9, "subtitle_words": 3, "images": 1, "dialogues": 1,
        "hours": round(5 / 3600, 4),
    }  # fmt: skip
    nothing = {
        "samples": 0,
        "turns": 0,
        "words": 0,
        "subtitle_words": 0,
        "images": 0,
        "dialogues": 0,
        "hours": 0,
    }
    assert {key: shown[key] for key in numbers} == numbers
    assert shown["stages"]["pretrain_video"] == {
        "train": nothing,
        "validation": nothing,
        "test": numbers,
    }
    assert shown["stages"]["instruct"] == {"train": nothing, "validation": nothing, "test": nothing}
    assert shown["sources"] == {"samples": {"rows": 3, "bad_rows": 0, "left_out": 0, **numbers}}
    assert shown["kinds"] == {"colour": 1, "open": 3}
    assert {bar: count for bar, count in shown["durations"].items() if count} == {
        "image": 1,
        "1-5 s": 2,
    }
    assert told == [("samples", n, 0) for n in (1, 2, 3)] + [("samples", 3, 3)]


def test_a_limit_takes_the_first_samples(workspace: Workspace, clips: Path):
    rows = [{"media": name} for name in ("missing.mp4", "short.mp4", "long.mp4", "cat.jpg")]
    source = {"annotations": annotate(workspace, *rows), "limit": 2}
    workspace = use(workspace, source, max_bad_share=0.5)
    prepare(workspace)
    assert set(samples(workspace)) == {"samples/2", "samples/3"}


def test_the_weights_of_a_stages_sources_lie_beside_its_samples(workspace: Workspace, clips: Path):
    one, two = ({"media": name} for name in ("short.mp4", "long.mp4"))
    sources = [
        {
            "annotations": annotate(workspace, one, name="one.jsonl"),
            "split": "train",
            "weight": 100,
        },
        {"annotations": annotate(workspace, two, name="two.jsonl"), "split": "train", "weight": 50},
    ]
    plain = {"annotations": "one.jsonl", "split": "train", "stage": "pretrain_video"}
    folder = workspace.root / "data" / "prepare"
    prepare(use(workspace, *sources, plain))
    assert read_weights(folder / "instruct") == {"samples": 100, "samples-2": 50}
    assert read_weights(folder / "pretrain_video") == {}
    prepare(use(workspace, plain))
    assert not list(folder.rglob("weights.json"))


def test_weights_that_mean_nothing_are_refused(workspace: Workspace, clips: Path):
    source = {"annotations": annotate(workspace, {"media": "short.mp4"}), "split": "train"}
    with pytest.raises(
        ConfigError, match="samples-2 of instruct without a weight beside others that have one"
    ):
        prepare(use(workspace, source | {"weight": 2}, source))
    with pytest.raises(ConfigError, match="its split test is not trained on"):
        use(workspace, source | {"weight": 2, "split": "test"})
    with pytest.raises(ConfigError, match="weight"):
        use(workspace, source | {"weight": 0})
    empty = {"annotations": annotate(workspace, name="empty.jsonl"), "weight": 1}
    with pytest.raises(
        DataError, match="samples-2: has a weight in instruct, but no sample to train on"
    ):
        prepare(use(workspace, source | {"weight": 2}, empty))


def tiny_scenes(
    folder: Path, *, num_videos: int, seed: int, progress: Any = None
) -> Iterator[tuple[str, str, Sample]]:
    """In the manner of mgv.data.scenes.make_scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_videos):
        path = make_video(
            folder / f"{number}.mp4", num_frames=2 + number + num_videos - 4, size=(16, 16)
        )
        sample = Sample(
            sample_id=f"scenes/{number}",
            media=str(path),
            media_id=hashlib.sha256(path.read_bytes()).hexdigest(),
            turns=(Turn(question="q", answer="red", kind="colour", choices=("red", "blue")),),
            end_s=1.0,
            cues=(Cue(start_s=0.0, end_s=1.0, text="Hello."),),
        )
        yield ("pretrain_video", "instruct")[number % 2], "test" if number == 3 else "train", sample
        if progress:
            progress(number + 1, num_videos)


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mgv.data.scenes")
    module.make_scenes = tiny_scenes  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mgv.data.scenes", module)


def test_scenes_go_to_the_stages_and_splits_that_they_say(workspace: Workspace, scenes: None):
    source = {"name": "scenes", "num_videos": 4}
    told: list[tuple[str, int, int]] = []
    workspace = set_params(workspace.root, prepare={"sources": [source]})
    prepare(workspace, lambda *step: told.append(step))
    assert splits(workspace) == {"scenes/1": "train", "scenes/3": "test"}
    assert splits(workspace, "pretrain_video") == {"scenes/0": "train", "scenes/2": "train"}
    found = samples(workspace)["scenes/1"]
    assert found.media == "data/scenes/1.mp4"
    assert (workspace.root / found.media).is_file()
    assert told == [("scenes", n, 4) for n in (1, 2, 3, 4)]
    prepare(set_params(workspace.root, prepare={"sources": [source | {"stage": "instruct"}]}))
    assert samples(workspace, "pretrain_video") == {}


def test_a_scene_in_two_splits_stops_the_run(workspace: Workspace, scenes: None):
    sources = [{"name": "scenes", "num_videos": 4}, {"name": "scenes", "num_videos": 5}]
    with pytest.raises(
        DataError, match=r"two splits: data/scenes/3\.mp4 in test, data/scenes/2\.mp4 in train"
    ):
        prepare(set_params(workspace.root, prepare={"sources": sources}))


def test_scenes_of_two_seeds_would_lie_in_one_folder(workspace: Workspace):
    sources = [{"name": "scenes"}, {"name": "scenes", "seed": 1}]
    with pytest.raises(ConfigError, match="the same seed"):
        set_params(workspace.root, prepare={"sources": sources})


def test_hostile_text_goes_through_unchanged(workspace: Workspace, clips: Path):
    answer = "a\u2028b\x1b]0;x\x07\u202e</s>[INST]\x00 {{7*7}}"
    row = {
        "media": "short.mp4",
        "turns": [{"question": "'; drop table media_1; --", "answer": answer}],
    }
    workspace = use(workspace, {"annotations": annotate(workspace, row), "split": "train"})
    prepare(workspace)
    (sample,) = SampleFile(workspace.root / "data" / "prepare" / "instruct" / "train.jsonl")
    assert sample.turns[0].answer == answer
    assert sample_to_json(sample).encode() + b"\n" == files(workspace)["instruct/train.jsonl"]


def test_an_unknown_source_stops_ahead_of_any_work(workspace: Workspace):
    with pytest.raises(ConfigError, match="no source 'lava'"):
        prepare(
            set_params(workspace.root, prepare={"sources": [{"name": "lava", "annotations": "x"}]})
        )


def test_two_preparations_at_once_are_refused(workspace: Workspace):
    with preparing(workspace), pytest.raises(BusyError), preparing(workspace):
        pass
