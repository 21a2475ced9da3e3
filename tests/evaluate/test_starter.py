"""Starter: the sets that come with mgv can be read, belong together, and are what `--starter` asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgv.cli.models import _evaluate_params
from mgv.config import EvaluateParams
from mgv.errors import UsageError
from mgv.evaluate.results import SETS
from mgv.evaluate.run import load_questions
from mgv.evaluate.sets import starter
from mgv.evaluate.sets.queries import read_queries
from mgv.evaluate.sets.questions import read_questions
from mgv.media.subtitles import read_subtitles
from mgv.workspace import Workspace

VIDEOS = starter.DEMO / "videos"


def test_the_demos_questions_and_queries_are_about_its_videos():
    questions = read_questions(starter.starter_set("library_questions"), videos=VIDEOS)
    assert (len(questions.items), questions.missing) == (20, {})
    queries = read_queries(starter.starter_set("queries"))
    assert {span.video for query in queries for span in query.moments} <= {
        path.name for path in VIDEOS.iterdir()
    }


def test_the_demos_references_are_of_videos_without_subtitles():
    references = sorted(starter.starter_set("transcripts").glob("*.vtt"))
    assert [path.stem for path in references] == ["cat", "coffee", "rocket"]
    assert not any((VIDEOS / path.name).exists() for path in references)
    assert [len(read_subtitles(path)) for path in references] == [7, 7, 9]


def test_the_scenes_are_made_once_and_are_the_first_of_the_test_split(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MGV_CACHE", str(tmp_path))
    monkeypatch.setattr(starter, "NUM_VIDEOS", 17)  # 12 % are 2
    questions, name, format = load_questions(
        workspace, EvaluateParams(questions="starter"), "questions"
    )
    assert (name, format, questions.missing) == ("test.jsonl", "samples", {})
    assert {Path(item.videos[0]).name for item in questions.items} == {
        "test-00000.mp4",
        "test-00001.mp4",
    }
    assert all(Path(item.videos[0]).is_file() and item.cues for item in questions.items)
    made = starter.starter_set("questions").stat().st_mtime_ns
    again, *_ = load_questions(workspace, EvaluateParams(questions="starter"), "questions")
    assert (starter.starter_set("questions").stat().st_mtime_ns, again) == (made, questions)


def test_starter_asks_all_sets_and_a_named_set_is_asked_alone():
    everything = _evaluate_params(EvaluateParams(), {"judge": "hf", "limit": 3}, starter=True)
    assert [getattr(everything, key) for key in SETS] == ["starter"] * 4
    assert (everything.model, everything.judge.name, everything.limit) == ("starter", "hf", 3)
    alone = _evaluate_params(
        EvaluateParams(transcripts="refs"), {"queries": "/q.jsonl"}, starter=False
    )
    assert [getattr(alone, key) for key in SETS] == [None, None, "/q.jsonl", None]
    as_it_is = _evaluate_params(EvaluateParams(transcripts="refs"), {"model": "m"}, starter=False)
    assert (as_it_is.transcripts, as_it_is.questions) == ("refs", EvaluateParams().questions)
    with pytest.raises(UsageError, match="--limit"):
        _evaluate_params(EvaluateParams(), {"limit": 0}, starter=True)
