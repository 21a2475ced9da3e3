"""Query files, each in its data set's own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mgv.errors import ConfigError, MgvError
from mgv.evaluate.sets.queries import QUERY_FORMATS, Query, queries_digest, read_queries
from mgv.evaluate.spans import Span

Shape = tuple[str, str, list[tuple[str, float, float | None]]]


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def lines(*rows: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


FILES: dict[str, tuple[Any, list[Shape]]] = {
    "mgv": (
        lines(
            {"query_id": "q1", "query": "a cat", "moments": [{"video": "cat.mp4", "start_s": 1, "end_s": 4.5}]},
            {"query_id": "q2", "query": "a whale", "moments": []},
            {"query_id": "q3", "query": "a talk", "moments": [{"video": "talk.mp4"}], "kind": "video"},
        ),
        [
            ("q1", "a cat", [("cat.mp4", 1, 4.5)]),
            ("q2", "a whale", []),
            ("q3", "a talk", [("talk.mp4", 0, None)]),
        ],
    ),
    "msrvtt": (
        "key,vid_key,video_id,sentence\n"
        "ret0,msr9770,video9770,a person is connecting something to system\n"
        'ret1,msr9771,video9771,"a dog, a cat"\n',
        [
            ("msrvtt/ret0", "a person is connecting something to system", [("video9770", 0, None)]),
            ("msrvtt/ret1", "a dog, a cat", [("video9771", 0, None)]),
        ],
    ),
    "didemo": (
        [
            {
                "annotation_id": 7, "description": "camera pans left", "num_segments": 6, "video": "12@N00_1.mov",
                "times": [[0, 0], [1, 2], [1, 2], [3, 3]], "dl_link": "", "reference_description": "",
            },
            {
                "annotation_id": 8, "description": "a man waves", "num_segments": 6, "video": "12@N00_1.mov",
                "times": [[5, 5], [4, 4]],
            },
        ],
        [
            ("didemo/7", "camera pans left", [("12@N00_1.mov", 5, 15)]),
            ("didemo/8", "a man waves", [("12@N00_1.mov", 20, 25), ("12@N00_1.mov", 25, 30)]),
        ],
    ),
    "didemo_paragraph": (
        [
            {"annotation_id": 7, "description": "camera pans", "video": "1.mov", "times": [[0, 0]]},
            {"annotation_id": 8, "description": "a man waves", "video": "1.mov", "times": [[0, 0]]},
        ],
        [("didemo_paragraph/1.mov", "camera pans a man waves", [("1.mov", 0, None)])],
    ),
    "activitynet": (
        {"v_a": {"duration": 82.7, "timestamps": [[0.83, 19.86], [60, 17.4]], "sentences": ["He sits. ", "He runs."]}},
        [
            ("activitynet/v_a/0", "He sits.", [("v_a", 0.83, 19.86)]),
            ("activitynet/v_a/1", "He runs.", [("v_a", 17.4, 60)]),
        ],
    ),
    "activitynet_paragraph": (
        {"v_a": {"duration": 82.7, "timestamps": [[0.83, 19.86], [17.4, 60]], "sentences": ["He sits. ", "He runs."]}},
        [("activitynet_paragraph/v_a", "He sits. He runs.", [("v_a", 0, None)])],
    ),
    "qvhighlights": (
        lines(
            {
                "qid": 2579, "query": "A girl cleans her kitchen.", "duration": 150, "vid": "NUsG9BgSes0_210.0_360.0",
                "relevant_clip_ids": [41], "saliency_scores": [[4, 4, 3]], "relevant_windows": [[82, 92], [96, 98]],
            }
        ),
        [
            (
                "qvhighlights/2579",
                "A girl cleans her kitchen.",
                [("NUsG9BgSes0_210.0_360.0", 82, 92), ("NUsG9BgSes0_210.0_360.0", 96, 98)],
            )
        ],
    ),
    "tvr": (
        lines(
            {
                "vid_name": "friends_s01e03_seg02_clip_19", "duration": 61.46, "ts": [16.48, 33.87],
                "desc": "Phoebe puts one of her ponytails in her mouth.", "type": "v", "desc_id": 90200,
            }
        ),
        [
            (
                "tvr/90200",
                "Phoebe puts one of her ponytails in her mouth.",
                [("friends_s01e03_seg02_clip_19", 16.48, 33.87)],
            )
        ],
    ),
    "goldfish": (
        [{"vid_name": "castle_clip_00", "ts": [1.5, 4], "desc": "Castle smiles.", "type": "t", "desc_id": 5}],
        [("goldfish/5", "Castle smiles.", [("castle_clip_00", 1.5, 4)])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("format", sorted(QUERY_FORMATS))
def test_a_query_file_is_read_in_its_own_format(tmp_path: Path, format: str):
    content, expected = FILES[format]
    queries = read_queries(write(tmp_path / "file", content), format)
    shapes = [
        (q.query_id, q.query, [(m.video, m.start_s, m.end_s) for m in q.moments]) for q in queries
    ]
    assert shapes == expected


def test_a_table_may_have_semicolons_and_a_text_other_line_breaks(tmp_path: Path):
    table = write(
        tmp_path / "q.csv", 'key;vid_key;video_id;sentence\nret0;msr7;video7;"a dog; a\ncat"\n'
    )
    assert [query.query for query in read_queries(table, "msrvtt")] == ["a dog; a\ncat"]
    own = write(tmp_path / "q.jsonl", '{"query_id": "1", "query": "a\u2028b"}\r\n')
    assert [query.query for query in read_queries(own)] == ["a\u2028b"]


def test_what_is_asked_inside_its_video_is_known(tmp_path: Path):
    within = {
        f for f in QUERY_FORMATS if read_queries(write(tmp_path / f, FILES[f][0]), f)[0].within
    }
    assert within == {"didemo", "qvhighlights", "goldfish"}


def test_kinds_of_tvr_are_in_words(tmp_path: Path):
    assert read_queries(write(tmp_path / "tvr", FILES["tvr"][0]), "tvr")[0].kind == "seen"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            '{"query_id": "a", "query": "x"}\n{"query_id": "b"}\n',
            r"line 2: no 'query' \(it has query_id\)",
        ),
        (
            '{"query_id": "a", "query": "x"}\n{"query_id": "a", "query": "y"}\n',
            "id 'a' is used more than once",
        ),
        ('{"query_id": "a", "query": "x"}\n{oops\n', "line 2 is not JSON"),
        ('["a"]\n', "expected an object"),
        ("", "no queries in it"),
        (
            '{"query_id": "a", "query": "x", "moments": [{"video": "v", "start_s": 5, "end_s": 5}]}',
            "has no length",
        ),
        (
            '{"query_id": "a", "query": "x", "moments": [{"video": "v", "end_s": "soon"}]}',
            "expected a number",
        ),
    ],
)
def test_a_row_that_cannot_be_understood_is_named_with_its_line(
    tmp_path: Path, content: str, says: str
):
    with pytest.raises(MgvError, match=says):
        read_queries(write(tmp_path / "q.jsonl", content))


def test_an_unknown_format_is_told_with_those_that_exist(tmp_path: Path):
    with pytest.raises(ConfigError, match="'vatex' is none of activitynet"):
        read_queries(tmp_path / "q", "vatex")
    with pytest.raises(MgvError, match="cannot be read"):
        read_queries(tmp_path / "q")


def test_the_digest_is_that_of_the_queries_in_any_order():
    one = Query(query_id="1", query="a", moments=(Span(video="v"),))
    other = Query(query_id="2", query="b", moments=())
    assert queries_digest([one, other]) == queries_digest([other, one]) != queries_digest([one])
