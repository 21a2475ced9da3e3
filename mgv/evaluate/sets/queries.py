"""Queries: what to look for in a library, and the moments that should be found; our JSONL and data sets' own files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mgv.errors import ConfigError, MgvError
from mgv.evaluate.metrics import DIDEMO_CHUNK_S, DIDEMO_SEGMENTS, Chunks
from mgv.evaluate.sets.annotations import Row, json_rows, line_rows, read_json, table_rows
from mgv.evaluate.spans import Span

GOLDFISH_CLIP_S = 15.0
"""Goldfish ranks clips of 45 frames at 3 a second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What is looked for, and where it is."""

    query_id: str
    query: str
    moments: tuple[Span, ...]
    """What should be found; none: nothing in the library is meant. A whole video where only the video counts."""
    kind: str = ""
    within: bool = False
    """Whether the data set asks inside the video that is named, and not in all of them."""
    clip_s: float | None = None
    """Length of the clips that Goldfish's protocol ranks; None: moments are ranked."""
    annotated: tuple[Chunks, ...] = ()
    """DiDeMo: what each annotator marked, as first and last chunk of 5 s, for the data set's own ranks."""


def read_queries(path: Path, format: str = "mgv") -> list[Query]:
    """The queries of a file. Raises ConfigError for an unknown format, MgvError for a row that cannot be understood."""
    if format not in QUERY_FORMATS:
        raise ConfigError(
            f"evaluate.queries_format: {format!r} is none of {', '.join(sorted(QUERY_FORMATS))}"
        )
    queries = list(QUERY_FORMATS[format](path))
    if not queries:
        raise MgvError(f"{path}: no queries in it")
    check_unique((query.query_id for query in queries), path)
    return queries


def check_unique(ids: Iterable[str], path: Path) -> None:
    """Raises MgvError that names an id which stands for two things: results are kept by it."""
    twice = [each for each, count in Counter(ids).items() if count > 1]
    if twice:
        raise MgvError(
            f"{path}: the id {twice[0]!r} is used more than once ({len(twice)} such ids)"
        )


def queries_digest(queries: Sequence[Query]) -> str:
    """SHA-256 of the queries and what they should find."""
    rows = sorted((asdict(query) for query in queries), key=lambda row: str(row["query_id"]))
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _own(path: Path) -> Iterator[Query]:
    """`{"query_id", "query", "moments": [{"video", "start_s", "end_s"}], "kind"}`, a line each."""
    for row in line_rows(path):
        moments = (Row(each, row.where) for each in row.values.get("moments") or ())
        yield Query(
            query_id=row.text("query_id"),
            query=row.text("query"),
            moments=tuple(own_span(each) for each in moments),
            kind=row.text("kind") if row.has("kind") else "",
        )


def own_span(row: Row) -> Span:
    """A moment of our JSONL; without `end_s` it is the whole video."""
    start_s = row.number("start_s") if row.has("start_s") else 0.0
    end_s = row.number("end_s") if row.has("end_s") else None
    if end_s is not None and end_s <= start_s:
        raise MgvError(f"{row.where}: a moment from {start_s} s to {end_s} s has no length")
    return Span(video=row.text("video"), start_s=start_s, end_s=end_s)


def _msrvtt(path: Path) -> Iterator[Query]:
    """MSR-VTT 1k-A, MSRVTT_JSFUSION_test.csv: key, vid_key, video_id, sentence."""
    for row in table_rows(path):
        whole = Span(video=row.text("video_id"))
        yield Query(
            query_id=f"msrvtt/{row.text('key')}", query=row.text("sentence"), moments=(whole,)
        )


def _didemo(path: Path) -> Iterator[Query]:
    """DiDeMo, test_data.json: annotators' `times` as first and last chunk of 5 s.

    Gold, for IoU, are the stretches that two annotators or more agree on; where none do, all of them. The data set's
    own ranks take every annotator's.
    """
    for row in json_rows(path):
        annotated = tuple(_chunks(row, times) for times in row.raw("times"))
        counts = Counter(annotated)
        agreed = [times for times, count in counts.items() if count > 1] or list(counts)
        yield Query(
            query_id=f"didemo/{row.text('annotation_id')}",
            query=row.text("description"),
            moments=tuple(
                Span(
                    video=row.text("video"),
                    start_s=first * DIDEMO_CHUNK_S,
                    end_s=(last + 1) * DIDEMO_CHUNK_S,
                )
                for first, last in sorted(agreed)
            ),
            within=True,
            annotated=annotated,
        )


def _chunks(row: Row, times: Any) -> Chunks:
    """One annotator's first and last chunk. Raises MgvError for what is no stretch of DiDeMo's six chunks."""
    if not isinstance(times, list) or tuple(times) not in DIDEMO_SEGMENTS:
        raise MgvError(
            f"{row.where}: 'times' holds {str(times)[:40]}, expected a first and a last chunk, 0 to 5"
        )
    return times[0], times[1]


def _didemo_paragraphs(path: Path) -> Iterator[Query]:
    """DiDeMo as whole-video search: all descriptions of a video, in the file's order, are one query."""
    descriptions: dict[str, list[str]] = {}
    for row in json_rows(path):
        descriptions.setdefault(row.text("video"), []).append(row.text("description"))
    yield from _paragraphs("didemo_paragraph", descriptions)


def _activitynet(path: Path) -> Iterator[Query]:
    """ActivityNet Captions, val_1.json: video → timestamps and sentences."""
    for video, row in _by_video(path):
        for place, (sentence, times) in enumerate(_captions(row)):
            yield Query(
                query_id=f"activitynet/{video}/{place}",
                query=sentence,
                moments=(Span(video=video, start_s=times[0], end_s=times[1]),),
            )


def _activitynet_paragraphs(path: Path) -> Iterator[Query]:
    """ActivityNet Captions as whole-video search: all sentences of a video are one query."""
    sentences = {
        video: [sentence for sentence, _ in _captions(row)] for video, row in _by_video(path)
    }
    yield from _paragraphs("activitynet_paragraph", sentences)


def _by_video(path: Path) -> Iterator[tuple[str, Row]]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise MgvError(f"{path}: expected an object of videos, found a list")
    yield from ((str(video), Row(values, f"{path}: {video}")) for video, values in value.items())


def _captions(row: Row) -> list[tuple[str, tuple[float, float]]]:
    sentences, timestamps = row.texts("sentences"), row.raw("timestamps")
    if len(sentences) != len(timestamps):
        raise MgvError(f"{row.where}: {len(sentences)} sentences but {len(timestamps)} timestamps")
    return [
        (
            text,
            (min(float(one), float(other)), max(float(one), float(other))),
        )  # some are the wrong way round
        for text, (one, other) in zip(sentences, timestamps, strict=True)
    ]


def _paragraphs(name: str, said: dict[str, list[str]]) -> Iterator[Query]:
    for video, sentences in said.items():
        yield Query(
            query_id=f"{name}/{video}", query=" ".join(sentences), moments=(Span(video=video),)
        )


def _qvhighlights(path: Path) -> Iterator[Query]:
    """QVHighlights, highlight_val_release.jsonl: qid, query, vid, relevant_windows. Its test split has no windows."""
    for row in line_rows(path):
        yield Query(
            query_id=f"qvhighlights/{row.text('qid')}",
            query=row.text("query"),
            moments=tuple(
                Span(video=row.text("vid"), start_s=float(start_s), end_s=float(end_s))
                for start_s, end_s in row.raw("relevant_windows")
            ),
            within=True,
        )


def _tvr(path: Path) -> Iterator[Query]:
    """TVR, tvr_val_release.jsonl: desc, ts, vid_name, and type v (seen), t (said) or vt."""
    kinds = {"v": "seen", "t": "said", "vt": "seen and said"}
    for row in json_rows(path):
        start_s, end_s = row.span("ts")
        kind = row.text("type") if row.has("type") else ""
        yield Query(
            query_id=f"tvr/{row.text('desc_id')}",
            query=row.text("desc"),
            moments=(Span(video=row.text("vid_name"), start_s=start_s, end_s=end_s),),
            kind=kinds.get(kind, kind),
        )


def _goldfish(path: Path) -> Iterator[Query]:
    """TVQA retrieval as Goldfish does it: TVR's descriptions, each looked for inside its own video, in 15 s clips."""
    for query in _tvr(path):
        yield Query(
            query_id=query.query_id.replace("tvr/", "goldfish/", 1),
            query=query.query,
            moments=query.moments,
            kind=query.kind,
            within=True,
            clip_s=GOLDFISH_CLIP_S,
        )


QUERY_FORMATS: dict[str, Callable[[Path], Iterator[Query]]] = {
    "mgv": _own,
    "msrvtt": _msrvtt,
    "didemo": _didemo,
    "didemo_paragraph": _didemo_paragraphs,
    "activitynet": _activitynet,
    "activitynet_paragraph": _activitynet_paragraphs,
    "qvhighlights": _qvhighlights,
    "tvr": _tvr,
    "goldfish": _goldfish,
}
"""Query files by the name of their format."""
