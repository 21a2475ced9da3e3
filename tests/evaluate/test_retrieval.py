"""Retrieval: what a ranked list is worth, what the controls leave out, and a real library."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from mgv.ask.library import Library
from mgv.evaluate.retrieval import (
    CONTROLS,
    PRIOR,
    evaluate_retrieval,
    is_hit,
    position_prior,
    resolve,
    score_query,
)
from mgv.evaluate.scores import Scored
from mgv.evaluate.sets.queries import Query
from mgv.evaluate.spans import Span
from mgv.library.ingest import ingest
from mgv.library.materialize import materialize
from mgv.records import Video
from mgv.workspace import Workspace
from tests.media.make_video import make_video


def video(name: str, duration_s: float = 10.0) -> Video:
    return Video(
        video_id=name, name=name, start_s=0.0, duration_s=duration_s, width=9, height=9, frame_rate=25.0,
        video_codec="h264", audio_codec=None, size_bytes=1,
    )  # fmt: skip


def span(name: str, start_s: float, end_s: float | None = None) -> Span:
    return Span(video=name, start_s=start_s, end_s=end_s)


def test_a_query_is_scored_by_video_and_by_moment():
    query = Query(query_id="1", query="x", moments=(span("b.mp4", 0, 10),))
    ranked = [
        span("a.mp4", 0, 10),
        span("a.mp4", 20, 30),
        span("b.mp4", 4, 10),
    ]  # b is the second video, IoU .6
    scores = score_query(query, ranked, says_nothing=False)
    assert (scores["recall_at_1"], scores["recall_at_5"], scores["mrr"], scores["map"]) == (
        0,
        1,
        0.5,
        0.5,
    )
    assert scores["moment_recall_at_5_iou_0_5"] == 1
    assert scores["moment_recall_at_5_iou_0_7"] == 0
    assert scores["iou"] == 0  # of the first
    assert scores["moment_map_iou_0_5"] == pytest.approx(1 / 3)


def test_a_query_inside_its_video_has_no_video_scores_and_a_whole_video_no_moment_scores():
    inside = Query(query_id="1", query="x", moments=(span("a.mp4", 0, 10),), within=True)
    assert "recall_at_1" not in score_query(inside, [span("a.mp4", 0, 10)], says_nothing=False)
    whole = Query(query_id="1", query="x", moments=(span("a.mp4", 0),))
    assert "iou" not in score_query(whole, [span("a.mp4", 0, 10)], says_nothing=False)


def test_where_nothing_is_meant_finding_nothing_is_right():
    query = Query(query_id="1", query="x", moments=())
    assert score_query(query, [], says_nothing=True) == {"nothing_found": 1.0}
    assert score_query(query, [span("a.mp4", 0, 1)], says_nothing=False) == {"nothing_found": 0.0}


def test_goldfish_queries_are_scored_by_clips():
    query = Query(query_id="1", query="x", moments=(span("a.mp4", 1, 4),), within=True, clip_s=15.0)
    scores = score_query(query, [span("a.mp4", 40, 50), span("a.mp4", 0, 10)], says_nothing=False)
    assert (scores["clip_recall_at_1"], scores["clip_recall_at_3"]) == (0, 1)


def test_didemo_has_its_own_ranks_beside_iou():
    query = Query(
        query_id="1",
        query="x",
        moments=(span("a.mp4", 5, 15),),
        within=True,
        annotated=((1, 2), (1, 2), (1, 2), (0, 0)),
    )
    scores = score_query(query, [span("a.mp4", 6, 14), span("a.mp4", 0, 4)], says_nothing=False)
    assert (scores["didemo_rank_at_1"], scores["didemo_rank_at_5"], scores["didemo_iou"]) == (
        1,
        1,
        1,
    )
    assert scores["iou"] == pytest.approx(0.8)  # of the moment itself
    missed = score_query(query, [span("a.mp4", 20, 25)], says_nothing=False)
    assert (missed["didemo_rank_at_1"], missed["didemo_rank_at_5"], missed["didemo_iou"]) == (
        0,
        0,
        0,
    )


def test_the_position_prior_is_one_list_at_the_usual_place():
    queries = [
        Query(query_id="1", query="x", moments=(span("b.mp4", 2, 4),)),
        Query(query_id="2", query="y", moments=(span("b.mp4", 4, 6),)),
        Query(query_id="3", query="z", moments=(span("a.mp4", 3, 5),)),
    ]
    assert position_prior(queries, [video("a.mp4"), video("b.mp4"), video("c.mp4", 20)]) == [
        span("b.mp4", 3, 5), span("a.mp4", 3, 5), span("c.mp4", 6, 10),
    ]  # fmt: skip


def test_names_without_suffix_meet_the_librarys_and_missing_videos_are_counted():
    queries = [
        Query(query_id="1", query="x", moments=(span("a_210.0_360.0", 1, 2),)),
        Query(query_id="2", query="y", moments=(span("gone.avi", 1, 2),)),
    ]
    known, missing = resolve(queries, [video("a_210.0_360.0.mp4")])
    assert [query.moments[0].video for query in known] == ["a_210.0_360.0.mp4"]
    assert missing == {"gone.avi": 1}


def test_a_hit_is_the_moment_where_there_is_one():
    row = Scored(task="query", key="1", group="a", kind="", text="x", scores={"recall_at_1": 1.0})
    assert is_hit(row) == 1
    assert (
        is_hit(
            Scored(
                task="query", key="1", group="a", kind="", text="x", scores={"nothing_found": 0.0}
            )
        )
        == 0
    )


@pytest.fixture
def tiny_library(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Two videos with subtitles, random parts."""
    said_in = (("cake", 50, "the cake is chocolate"), ("piano", 60, "she plays the piano slowly"))
    for name, num_frames, said in said_in:
        make_video(tmp_path / f"{name}.mp4", num_frames=num_frames)
        (tmp_path / f"{name}.vtt").write_text(f"WEBVTT\n\n00:00.200 --> 00:01.800\n{said}\n")
    ingest(workspace, [tmp_path / "cake.mp4", tmp_path / "piano.mp4"])
    materialize(workspace)
    return workspace


def test_every_query_is_searched_with_all_channels_and_with_every_control(
    tiny_library: Workspace, caplog: pytest.LogCaptureFixture
):
    queries = [
        Query(query_id="1", query="chocolate cake", moments=(span("cake", 0.2, 1.8),)),
        Query(query_id="2", query="slow piano", moments=(span("piano.mp4", 0),)),
        Query(query_id="3", query="submarine", moments=()),
        Query(query_id="4", query="rocket", moments=(span("rocket.mp4", 0),)),
    ]
    with caplog.at_level(logging.WARNING):
        found = evaluate_retrieval(Library.open(tiny_library.root), queries, depth=5)
    assert "1 videos are missing, with 1 entries: rocket.mp4" in caplog.text
    assert {row.task for row in found.rows} == {
        "query",
        *(f"query.{name}" for name in (*CONTROLS, PRIOR)),
    }
    assert len(found.rows) == 3 * 5
    text = {row.key: row for row in found.rows if row.task == "query.text_only"}
    assert text["1"].scores["recall_at_1"] == 1
    assert text["2"].scores["recall_at_1"] == 1
    assert text["3"].scores["nothing_found"] == 1  # no word of it is said
    assert json.dumps(text["1"].found[0].video) == '"cake.mp4"'


def test_a_control_leaves_its_channels_out_and_the_library_as_it_was(tiny_library: Workspace):
    library = Library.open(tiny_library.root)
    words = library.with_weights(**CONTROLS["text_only"])
    assert {name for moment in words.search("chocolate cake") for name in moment.channels} == {
        "text"
    }
    assert library.workspace.params.search.weights.frames == 1.0
    assert words.workspace.params.search.weights.frames == 0.0
