"""The starter data set: what is asked is to be seen or heard, and test scenes are new combinations."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from mgv.data.scenes import (
    COLOURS,
    FACTS,
    Scene,
    Thing,
    describe,
    draw,
    draw_lots,
    make_scenes,
    recipes,
)
from mgv.media.frames import read_frames
from mgv.media.subtitles import read_subtitles
from mgv.records import Sample


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str, Sample]]]:
    folder = tmp_path_factory.mktemp("scenes")
    return folder, list(make_scenes(folder, num_videos=13, seed=3))


def test_no_recipe_is_in_two_splits():
    for sort, places in (("group", 5), ("motion", 4), ("order", 3)):
        sets = [set(recipes(split, sort)) for split in ("train", "validation", "test")]
        assert sum(map(len, sets)) == len(set().union(*sets)) == 8 * 8 * places
        assert len(sets[1]) == len(sets[2]) == 8 * places


def test_every_pair_of_colour_and_shape_is_seen_in_training():
    for sort in ("group", "motion", "order"):
        assert len({(colour, shape) for colour, shape, _ in recipes("train", sort)}) == 64


def test_a_test_scene_is_about_a_test_recipe():
    for seed in range(40):
        scene = draw_lots(random.Random(seed), "test", "group")
        first = scene.things[0]
        number = sum((t.colour, t.shape) == (first.colour, first.shape) for t in scene.things)
        assert (first.colour, first.shape, number - 1) in recipes("test", "group")


def test_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, made: tuple[Path, list[tuple[str, str, Sample]]]
):
    folder, samples = made
    again = list(make_scenes(tmp_path, num_videos=13, seed=3))
    assert [(s, p, x.media_id, x.turns, x.cues) for s, p, x in again] == [
        (s, p, x.media_id, x.turns, x.cues) for s, p, x in samples
    ]
    assert (tmp_path / "queries.jsonl").read_bytes() == (folder / "queries.jsonl").read_bytes()


def test_another_seed_in_the_same_folder_draws_anew(
    tmp_path: Path, made: tuple[Path, list[tuple[str, str, Sample]]]
):
    list(make_scenes(tmp_path, num_videos=13, seed=4, splits=("test",)))
    again = list(make_scenes(tmp_path, num_videos=13, seed=3, splits=("test",)))
    assert [x.media_id for _, _, x in again] == [
        x.media_id for _, split, x in made[1] if split == "test"
    ]


def test_each_split_has_its_share_and_each_stage_its_samples(
    made: tuple[Path, list[tuple[str, str, Sample]]],
):
    counts: dict[tuple[str, str], int] = {}
    for stage, split, _ in made[1]:
        counts[stage, split] = counts.get((stage, split), 0) + 1
    assert counts == {
        ("pretrain_image", "train"): 42, ("pretrain_image", "validation"): 4, ("pretrain_image", "test"): 6,
        ("pretrain_video", "train"): 10, ("pretrain_video", "validation"): 1, ("pretrain_video", "test"): 2,
        ("instruct", "train"): 10, ("instruct", "validation"): 1, ("instruct", "test"): 2,
    }  # fmt: skip


def test_samples_are_whole(made: tuple[Path, list[tuple[str, str, Sample]]]):
    ids = [sample.sample_id for _, _, sample in made[1]]
    assert len(set(ids)) == len(ids)
    for _, _, sample in made[1]:
        assert hashlib.sha256(Path(sample.media).read_bytes()).hexdigest() == sample.media_id
        for turn in sample.turns:
            assert turn.kind == "describe" or turn.answer in turn.choices


def test_what_the_narrator_says_is_in_the_subtitles_alone(
    made: tuple[Path, list[tuple[str, str, Sample]]],
):
    for stage, _, sample in made[1]:
        if stage != "instruct":
            continue
        said = " ".join(cue.text for cue in sample.cues)
        spoken = [turn for turn in sample.turns if turn.kind == "narration"]
        assert len(spoken) == 2
        for turn in spoken:
            assert turn.answer in said
            assert turn.answer not in " ".join(COLOURS)
        assert [c.text for c in read_subtitles(Path(sample.media).with_suffix(".vtt"))] == [
            c.text for c in sample.cues
        ]


def test_a_scene_is_described_as_it_is_drawn():
    star = Thing(colour="orange", shape="star", x=0.2, y=0.2, radius=0.1)
    ring = Thing(colour="blue", shape="ring", x=0.8, y=0.4, radius=0.1)
    group = Scene(sort="group", things=(star, star, ring), word="EXIT", background=(20, 20, 20))
    assert describe(group) == "Two orange stars and a blue ring. The word EXIT is on the screen."
    order = Scene(sort="order", things=(star, ring, star), word=None, background=(20, 20, 20))
    assert describe(order) == "First an orange star, then a blue ring, then an orange star."
    mover = Thing(colour="red", shape="heart", x=0.5, y=0.2, radius=0.1, direction="left")
    motion = Scene(sort="motion", things=(mover, ring), word=None, background=(20, 20, 20))
    assert describe(motion) == "A red heart moves left while a blue ring rests."


def test_what_moves_left_is_further_left_later():
    mover = Thing(colour="white", shape="square", x=0.5, y=0.4, radius=0.1, direction="left")
    scene = Scene(sort="motion", things=(mover,), word=None, background=(0, 0, 0))

    def centre(time_s: float) -> float:
        picture = draw(scene, time_s).convert("L")
        columns = [x for x in range(256) if picture.getpixel((x, 102)) > 128]
        return sum(columns) / len(columns)

    assert centre(0.0) - centre(3.5) == pytest.approx(256 * 0.66 * 3.5 / 4, abs=2)


def test_the_video_shows_the_colours(made: tuple[Path, list[tuple[str, str, Sample]]]):
    folder, _ = made
    rng = random.Random("3/video/train/0")
    scene = draw_lots(rng, "train", "group")
    frame = next(iter(read_frames(folder / "videos/train-00000.mp4", [0.5], size_px=256))).frames[0]
    thing = next(t for t in scene.things if t.shape not in ("ring",))
    pixel = frame[round(thing.y * 256), round(thing.x * 256)].astype(int)
    assert abs(pixel - COLOURS[thing.colour]).max() < 30


def test_queries_name_moments_of_test_videos(made: tuple[Path, list[tuple[str, str, Sample]]]):
    queries = [json.loads(line) for line in (made[0] / "queries.jsonl").read_text().splitlines()]
    assert {query["kind"] for query in queries} == {"narration", "scene"}
    assert len({query["query_id"] for query in queries}) == len(queries)
    for query in queries:
        for moment in query["moments"]:
            assert moment["video"].startswith("test-")
            assert 0 <= moment["start_s"] < moment["end_s"] <= 4


def test_every_answer_of_a_fact_is_said_in_every_way():
    for question, answers, ways in FACTS.values():
        assert question.endswith("?")
        assert len(set(answers)) == len(answers)
        assert all(way.count("{}") == 1 for way in ways)
