"""Question files, each in its data set's own format; videos that are missing; subtitles."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mgv.errors import ConfigError, MgvError
from mgv.evaluate.sets.annotations import Shelf
from mgv.evaluate.sets.questions import (
    QUESTION_FORMATS,
    EvaluationItem,
    items_digest,
    read_questions,
)
from mgv.evaluate.spans import Span
from mgv.records import Cue
from tests.evaluate.test_queries import lines, write

TVQA = {
    "a0": "A martini", "a1": "Nothing", "a2": "Wine", "a3": "Beer", "a4": "Water", "answer_idx": 2,
    "q": "What is Castle holding?", "qid": 122039, "show_name": "Castle", "ts": "23.2-30.4",
    "vid_name": "castle_clip_00",
}  # fmt: skip
LVB: dict[str, Any] = {
    "video_id": "86CxyhFV9MI", "question": "What is on the table?", "question_wo_referring_query": "What is there?",
    "candidates": ["a vase", "a cup"], "correct_choice": 1, "position": [10], "topic_category": "NP-News-Programs",
    "question_category": "S2O", "level": "L1-Perception", "id": "86CxyhFV9MI_0", "video_path": "86CxyhFV9MI.mp4",
    "subtitle_path": "86CxyhFV9MI_en.json", "duration_group": 600, "starting_timestamp_for_subtitles": 10,
    "duration": 190.16, "view_count": 259852,
}  # fmt: skip
CASES: dict[str, tuple[str, Any, list[str], dict[str, Any]]] = {
    # format: file name, its content, the videos here, what its first item says
    "mgv": (
        "q.jsonl",
        lines(
            {
                "item_id": "a", "video": "cat.mp4", "question": "who?", "answer": "Matilda", "kind": "name",
                "start_s": 1, "end_s": 5, "choices": ["Matilda", "Tom"], "moments": [{"start_s": 2, "end_s": 4}],
            }
        ),
        ["cat.mp4"],
        {
            "item_id": "a", "answer": "Matilda", "choices": ("Matilda", "Tom"), "kind": "name", "start_s": 1.0,
            "end_s": 5.0, "moments": (Span(video="cat.mp4", start_s=2, end_s=4),),
        },
    ),
    "msvd": (
        "test_qa.json",
        [{"answer": "animal", "id": 30933, "question": "what chews on a log?", "video_id": 1301}],
        ["-4wsuPCjDBc_5_15.avi"],
        {"item_id": "msvd/30933", "question": "what chews on a log?", "answer": "animal"},
    ),
    "msrvtt": (
        "test_qa.json",
        [{"answer": "couch", "category_id": 14, "id": 158581, "question": "what do they sit on?", "video_id": 7010}],
        ["video7010.mp4"],
        {"item_id": "msrvtt/158581", "answer": "couch"},
    ),
    "activitynet": (
        "test_q.json",
        [{"video_name": "1QIUV7WYKXg", "question": "is he an athlete", "question_id": "v_1QIUV7WYKXg_3"}],
        ["v_1QIUV7WYKXg.mp4"],
        {"item_id": "activitynet/v_1QIUV7WYKXg_3", "answer": "yes", "kind": "yes or no"},
    ),
    "tgif": (
        "Test_frameqa_question.csv",
        "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\ntumblr_no73_250\twhat is licked ?\tface\t0\tTG1\t77\n",
        ["tumblr_no73_250.gif"],
        {"item_id": "tgif/TG1", "question": "what is licked ?", "answer": "face", "kind": "object"},
    ),
    "tvqa": (
        "tvqa_val.jsonl",
        lines(TVQA),
        ["castle_clip_00.mp4"],
        {
            "item_id": "tvqa/122039", "answer": "Wine", "kind": "Castle", "shows_choices": True,
            "moments": (Span(video="castle_clip_00", start_s=23.2, end_s=30.4),),
        },
    ),
    "tvqa_long": (
        "tvqa_val_edited.json",
        {"Castle": {"season_01": {"episode_01": {"clips": ["castle_clip_00", "castle_clip_01"],
                                                 "questions": [TVQA]}}}},
        ["castle_clip_00.mp4", "castle_clip_01.mp4"],
        {"item_id": "tvqa_long/122039", "answer": "Wine", "kind": "Castle"},
    ),
    "video_chatgpt_generic": (
        "generic_qa.json",
        [{"Q": "What is the man doing?", "A": "He cooks.", "video_name": "v_x"}],
        ["v_x.mp4"],
        {"item_id": "video_chatgpt_generic/0", "protocols": ("correctness", "detail", "context")},
    ),
    "video_chatgpt_temporal": (
        "temporal_qa.json",
        [{"Q": "What happens first?", "A": "He cooks.", "video_name": "v_x"}],
        ["v_x.mp4"],
        {"protocols": ("temporal",)},
    ),
    "video_chatgpt_consistency": (
        "consistency_qa.json",
        [{"Q1": "What is he doing?", "Q2": "What does he do?", "A": "He cooks.", "video_name": "v_x"}],
        ["v_x.mp4"],
        {"question": "What is he doing?", "also_asked": "What does he do?", "protocols": ("consistency",)},
    ),
    "video_mme": (
        "video_mme.json",
        [{"video_id": "001", "url": "https://www.youtube.com/watch?v=fFjv93ACGo8", "videoID": "fFjv93ACGo8",
          "duration": "short", "domain": "Knowledge", "sub_category": "Humanity & History",
          "questions": [{"question_id": "001-1", "task_type": "Counting Problem", "question": "How many?",
                         "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds are equal."],
                         "answer": "C"}]}],
        ["fFjv93ACGo8.mp4"],
        {"item_id": "video_mme/001-1", "answer": "Berries.", "kind": "short",
         "choices": ("Apples.", "Candles.", "Berries.", "The three kinds are equal.")},
    ),
    "mvbench": (
        "action_sequence.json",
        [{"video": "ZS9XR.mp4", "question": "What happened?", "candidates": ["Ate.", "Tidied up."], "answer": "Ate.",
          "question_id": "Interaction_T1_1", "start": 11.1, "end": 19.6}],
        ["star/Charades_v1_480/ZS9XR.mp4"],
        {"item_id": "mvbench/action_sequence/0", "answer": "Ate.", "start_s": 11.1, "end_s": 19.6},
    ),
    "longvideobench": (
        "lvb_val.json",
        [LVB],
        ["86CxyhFV9MI.mp4"],
        {"item_id": "longvideobench/86CxyhFV9MI_0", "answer": "a cup", "kind": "600"},
    ),
}  # fmt: skip


def lay_out(tmp_path: Path, format: str) -> tuple[Path, Path]:
    """A format's file and the folder of its videos (empty files: importing opens none)."""
    name, content, videos, _ = CASES[format]
    for video in videos:
        place = tmp_path / "videos" / video
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    if format == "msvd":
        (tmp_path / "youtube_mapping.txt").write_text("-4wsuPCjDBc_5_15 vid1301\n")
    if format == "activitynet":
        answers = [{"answer": "yes", "type": 3, "question_id": "v_1QIUV7WYKXg_3"}]
        (tmp_path / "test_a.json").write_text(json.dumps(answers))
    return write(tmp_path / name, content), tmp_path / "videos"


@pytest.mark.parametrize("format", sorted(QUESTION_FORMATS))
def test_a_question_file_is_read_in_its_own_format(tmp_path: Path, format: str):
    path, videos = lay_out(tmp_path, format)
    read = read_questions(path, format, videos=videos)
    (item,) = read.items
    assert {key: getattr(item, key) for key in CASES[format][3]} == CASES[format][3]
    assert item.videos == tuple(str(videos / video) for video in CASES[format][2])
    assert read.missing == {}


def test_mvbench_videos_of_the_same_name_are_told_apart_by_the_task(tmp_path: Path):
    row = {"video": "video_10009.mp4", "question": "?", "candidates": ["1", "2"], "answer": "2"}
    (tmp_path / "json").mkdir()
    for task in ("moving_count", "action_count"):
        write(tmp_path / "json" / f"{task}.json", [row])
    for folder in ("clevrer/video_validation", "perception/videos"):
        (tmp_path / "video" / folder).mkdir(parents=True)
        (tmp_path / "video" / folder / "video_10009.mp4").touch()
    read = read_questions(tmp_path / "json", "mvbench", videos=tmp_path / "video")
    assert {item.kind: Path(item.videos[0]).parent.parent.name for item in read.items} == {
        "moving_count": "clevrer", "action_count": "perception",
    }  # fmt: skip


def test_a_video_that_may_be_one_of_two_is_not_guessed(tmp_path: Path):
    for name in ("old/v.mp4", "new/v.mp4", "w.de.mp4", "w.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    shelf = Shelf(tmp_path, {".mp4"})
    with pytest.raises(MgvError, match=r"v may be the one in .*new or .*old"):
        shelf.find("v")
    assert shelf.find("videos/old/v.mp4") == tmp_path / "old" / "v.mp4"
    assert shelf.find("w") == tmp_path / "w.mp4"


def test_an_answer_that_is_no_choice_is_refused(tmp_path: Path):
    (tmp_path / "v.mp4").touch()
    row = {
        "item_id": "a",
        "video": "v.mp4",
        "question": "?",
        "answer": "green",
        "choices": ["red", "blue"],
    }
    with pytest.raises(MgvError, match="a: the answer 'green' is none of its 2 choices"):
        read_questions(write(tmp_path / "q.jsonl", lines(row)), videos=tmp_path)


def test_video_mme_is_also_read_from_its_parquet(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "fFjv93ACGo8.mp4").touch()
    row = {"video_id": "001", "duration": "short", "videoID": "fFjv93ACGo8", "question_id": "001-1",
           "question": "How many?", "options": ["A. One", "B. Two"], "answer": "B"}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "test.parquet")
    (item,) = read_questions(tmp_path / "test.parquet", "video_mme", videos=tmp_path).items
    assert (item.answer, item.choices) == ("Two", ("One", "Two"))


def test_missing_videos_are_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = [
        {"question": "q", "answer": "a", "video_id": f"video{i // 2}", "id": i} for i in range(6)
    ]
    (tmp_path / "video1.mp4").touch()
    path = write(tmp_path / "qa.json", rows)
    with caplog.at_level(logging.WARNING):
        read = read_questions(path, "msrvtt", videos=tmp_path)
    assert read.missing == {"video0": 2, "video2": 2}
    assert [item.item_id for item in read.items] == ["msrvtt/2", "msrvtt/3"]
    assert "2 videos are missing, with 4 entries: video0, video2" in caplog.text
    (tmp_path / "video1.mp4").unlink()
    with pytest.raises(MgvError, match=r"none of its 3 videos is in .* \(first: video0\)"):
        read_questions(path, "msrvtt", videos=tmp_path)


def test_a_name_in_a_file_reaches_nothing_outside_the_folder(tmp_path: Path):
    (tmp_path / "secret.mp4").touch()
    (tmp_path / "videos").mkdir()
    row = {"question": "q", "answer": "a", "video_id": "../secret.mp4"}
    with pytest.raises(MgvError, match="none of its 1 videos"):
        read_questions(write(tmp_path / "qa.json", [row]), "msrvtt", videos=tmp_path / "videos")


def test_a_folder_of_frames_stands_for_a_video(tmp_path: Path):
    frames = tmp_path / "videos" / "castle_frames" / "castle_clip_00"
    frames.mkdir(parents=True)
    (frames / "00001.jpg").touch()
    (item,) = read_questions(
        write(tmp_path / "v.jsonl", lines(TVQA)), "tvqa", videos=tmp_path / "videos"
    ).items
    assert item.videos == (str(frames),)


def test_tvqas_subtitles_come_from_its_one_file(tmp_path: Path):
    path, videos = lay_out(tmp_path, "tvqa")
    said = {"vid_name": "castle_clip_00", "sub": [{"text": "Hi.", "start": 1.5, "end": 2}]}
    for content in (lines(said), [said]):
        (item,) = read_questions(
            path, "tvqa", videos=videos, subtitles=write(tmp_path / "subs", content)
        ).items
        assert item.cues == (Cue(start_s=1.5, end_s=2.0, text="Hi."),)


def test_longvideobench_subtitles_are_moved_to_the_clips_clock(tmp_path: Path):
    path, videos = lay_out(tmp_path, "longvideobench")
    (tmp_path / "subs").mkdir()
    place = tmp_path / "subs" / "86CxyhFV9MI_en.json"
    for rows in (
        [
            {"start": "00:00:02.000", "end": "00:00:05.000", "line": "old"},
            {"start": "00:00:12.5", "end": "0:14.0", "line": "now"},
        ],
        [{"timestamp": [2.0, 5.0], "text": "before"}, {"timestamp": [12.5, 14.0], "text": "now"}],
    ):  # fmt: skip
        write(place, rows)
        (item,) = read_questions(
            path, "longvideobench", videos=videos, subtitles=tmp_path / "subs"
        ).items
        assert item.cues == (Cue(start_s=2.5, end_s=4.0, text="now"),)


def test_subtitles_of_a_folder_are_found_by_the_videos_name(tmp_path: Path):
    path, videos = lay_out(tmp_path, "msrvtt")
    (tmp_path / "subs").mkdir()
    (tmp_path / "subs" / "video7010.en.vtt").write_text(
        "WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n"
    )
    (item,) = read_questions(path, "msrvtt", videos=videos, subtitles=tmp_path / "subs").items
    assert [cue.text for cue in item.cues] == ["hello"]
    (item,) = read_questions(path, "msrvtt", videos=videos).items
    assert item.cues == ()


def test_a_prepared_sample_gives_an_item_for_each_turn(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.mp4").touch()
    sample = {
        "sample_id": "talks/1", "media": "data/a.mp4", "media_id": "", "start_s": 2.0, "end_s": 8.0,
        "cues": [{"start_s": 3.0, "end_s": 4.0, "text": "hi"}], "is_dialogue": True, "is_image": False,
        "turns": [{"question": "who?", "answer": "Ann", "kind": "name", "choices": ["Ann", "Bo"]},
                  {"question": "why?", "answer": "fun", "kind": "", "choices": []}],
    }  # fmt: skip
    first, second = read_questions(
        write(tmp_path / "test.jsonl", lines(sample)), "samples", videos=tmp_path
    ).items
    assert (first.item_id, first.answer, first.choices, first.shows_choices) == (
        "talks/1#0",
        "Ann",
        ("Ann", "Bo"),
        False,
    )
    assert (second.history, second.start_s, second.end_s) == ((("who?", "Ann"),), 2.0, 8.0)
    assert second.cues == (Cue(start_s=3.0, end_s=4.0, text="hi"),)


@pytest.mark.parametrize(
    ("format", "row", "says"),
    [
        ("tvqa", {**TVQA, "answer_idx": 7}, "the right choice is number 7, but there are 5"),
        ("tvqa", {**TVQA, "answer_idx": "x"}, "expected a number"),
        ("msvd", {"question": "q", "video_id": "a"}, "no 'answer'"),
        ("longvideobench", {**LVB, "candidates": "a"}, "expected a list"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, format: str, row: dict[str, Any], says: str):
    with pytest.raises(MgvError, match=says):
        read_questions(write(tmp_path / "f.json", [row]), format, videos=tmp_path)


def test_an_unknown_format_and_a_missing_folder_are_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="'nextqa' is none of samples, activitynet"):
        read_questions(tmp_path / "q", "nextqa", videos=tmp_path)
    with pytest.raises(ConfigError, match=r"evaluate\.videos"):
        read_questions(tmp_path / "q", "msvd")
    with pytest.raises(MgvError, match="no such folder"):
        read_questions(tmp_path / "q", "msvd", videos=tmp_path / "nowhere")


def test_the_digest_knows_items_but_not_where_their_videos_lie():
    one = EvaluationItem(item_id="1", videos=("/here/a.mp4",), question="q", answer="x")
    there = EvaluationItem(item_id="1", videos=("/there/a.mp4",), question="q", answer="x")
    other = EvaluationItem(item_id="1", videos=("/here/a.mp4",), question="q", answer="y")
    assert items_digest([one]) == items_digest([there]) != items_digest([other])
