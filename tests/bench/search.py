"""Search: warm latency of a whole search at growing sizes beside a raw LanceDB query, exact and through an index.

The frames are made-up logits that go the way of the starter's (ConSE): a shot favours classes by how near they are to
one of them, its frames differ a little. Their spread was set by 145 frames of seven real videos: unrelated frames have
a cosine of about 0.88, neighbours 0.99. Such crowded vectors are harder for an index than random ones.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from mgv.ask.library import Library
from mgv.config import MaterializeParams
from mgv.encoders.base import Relevance
from mgv.encoders.conse import NUM_CLASSES, PROMPT, TEMPERATURE, read_class_names
from mgv.encoders.loaded import Parts
from mgv.encoders.parts import part_revisions
from mgv.library.manifest import Manifest, write_version
from mgv.library.schema import frames_schema, segments_schema
from mgv.library.search import text_hits, vector_hits
from mgv.library.store import Store, has_vector_index
from mgv.workspace import Workspace, find_workspace, init_workspace
from tests.bench.measure import Figure, Result, quantile

GOAL_ROWS, GOAL_MS = 100_000, 60.0
FRAMES_PER_VIDEO = 1000
SHOT_FRAMES = 5
SEGMENT_S = 8
VIDEOS_PER_WRITE = 50
RECALL_AT = 10
QUERIES = (
    "a white parrot", "scene where the rocket lifts off", "a cat sleeping on a sofa", "somebody pours coffee",
    "a red sports car on a road", "children playing football", "a volcano at night", "a sailing boat at sea",
    "a laptop on a desk", "the judge reads the verdict", "a dog running on the beach", "an old steam train",
    "a violin and a piano", "mountains covered with snow", "a butterfly on a flower", "a man in a suit at a microphone",
    "a pizza in an oven", "a school bus stops", "a castle on a hill", "an elephant drinks water",
)  # fmt: skip

Float32 = NDArray[np.float32]


def run(quick: bool) -> Result:
    """Rows for every size; the figures with a goal are those of the default way at that size."""
    sizes, num_rounds = ([10_000, 100_000], 3) if quick else ([10_000, 100_000, 1_000_000], 5)
    params = MaterializeParams()
    made = Makings.load(Parts(params))
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = init_workspace(Path(folder, "workspace")).root
        for num_rows in sizes:
            workspace = find_workspace(root)
            shutil.rmtree(workspace.store_uri, ignore_errors=True)
            detail: dict[str, Any] = {"fill_s": timed(partial(fill, workspace, made, num_rows))}
            details[str(num_rows)] = detail
            by_default = "index" if num_rows >= params.index_min_rows else "flat"
            for way, min_rows in (("flat", num_rows + 1), ("index", 256)):
                if way == "index" and num_rows < GOAL_ROWS:
                    continue
                detail[f"{way}_finish_s"] = timed(partial(finish, workspace, min_rows))
                detail[way] = measure(
                    Library.open(root), num_rounds if num_rows <= GOAL_ROWS else 2
                )
                print(f"  {num_rows:,} {way}: {detail[way]['median_ms']}", flush=True)
                figures += show(num_rows, way, detail[way], way == by_default)
    flat_ms = {
        int(num_rows): detail["flat"]["median_ms"]["mgv"] for num_rows, detail in details.items()
    }
    details["flat_reaches_goal_at_rows"] = crossing(flat_ms, GOAL_MS)
    return Result(
        figures=figures,
        sizes={
            "rows": sizes,
            "dim": made.dim,
            "queries": len(QUERIES),
            "rounds": num_rounds,
        },
        details=details,
    )


def show(num_rows: int, way: str, found: Mapping[str, Any], is_default: bool) -> list[Figure]:
    """What was measured of one library, as figures."""
    ms = found["median_ms"]
    latency = Figure(
        what=f"warm search, {num_rows:,} frames, {way}{'' if is_default else ' (not the default here)'}",
        value=ms["mgv"],
        unit="ms",
        goal=GOAL_MS if num_rows == GOAL_ROWS and is_default else None,
        beside=f"p95 {found['p95_ms']['mgv']:.0f} ms; raw LanceDB query: {ms['raw']:.1f} ms",
    )
    if way == "flat":
        return [latency]
    what = f"recall@{RECALL_AT} of the index against exact, {num_rows:,} frames"
    return [latency, Figure(what=what, value=found["recall"], unit="")]


def measure(library: Library, num_rounds: int) -> dict[str, Any]:
    """Latencies in ms of a whole search, a raw query and the channels alone, query by query in turn; recall."""
    frames, segments = library.opened._tables["frames"], library.opened._tables["segments"]
    parts, limit = library.opened.parts, library.workspace.params.search.candidates
    vectors = {query: parts.frame_embedder.embed_queries([query])[0] for query in QUERIES}
    said = {query: parts.text_embedder.embed([query])[0] for query in QUERIES}
    everything = Relevance(floor=-1.0, ceiling=1.0)
    sides: dict[str, Callable[[str, str], object]] = {
        "mgv": lambda _, fresh: library.search(fresh),
        "raw": lambda query, _: nearest(frames, vectors[query], limit),
        "embedding the query": lambda _, fresh: parts.text_embedder.embed([fresh]),
        "frames": lambda query, _: vector_hits(frames, vectors[query], everything, limit),
        "segments": lambda query, _: vector_hits(segments, said[query], everything, limit),
        "text": lambda query, _: text_hits(segments, query, limit),
    }
    for query in QUERIES:
        library.search(query)
        nearest(frames, vectors[query], limit)
    took: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(num_rounds):
        for query in QUERIES:
            for name in list(sides)[:: -1 if number % 2 else 1]:
                fresh = reworded(query, number * len(sides) + list(sides).index(name))
                took[name].append(1000 * timed(partial(sides[name], query, fresh)))
    found: dict[str, Any] = {
        "median_ms": {name: round(median(each), 2) for name, each in took.items()},
        "p95_ms": {name: round(quantile(each, 0.95), 2) for name, each in took.items()},
        "moments": [len(library.search(query)) for query in QUERIES],
    }
    if has_vector_index(frames):
        found["recall"] = round(recall(frames, list(vectors.values())), 3)
    return found


def nearest(table: Any, vector: Float32, limit: int, *, exact: bool = False) -> list[Any]:
    """The nearest rows straight from LanceDB: through its index with default settings, or exact."""
    query = table.search(vector, vector_column_name="vector").distance_type("cosine")
    if exact:
        query = query.bypass_vector_index()
    found: list[Any] = (
        query.limit(limit).select(["video_id", "start_s", "end_s", "_distance"]).to_list()
    )
    return found


def reworded(query: str, number: int) -> str:
    """The query with other punctuation for each number below 256: the embedder keeps what it was asked lately."""
    return query + " " + "".join(".,;:"[number // 4**place % 4] for place in range(4))


def recall(table: Any, vectors: Sequence[Float32]) -> float:
    """The share of the exact nearest rows that mgv's search through the index finds, over all queries."""
    everything = Relevance(floor=-1.0, ceiling=1.0)
    shares = []
    for vector in vectors:
        truth = {
            (row["video_id"], row["start_s"])
            for row in nearest(table, vector, RECALL_AT, exact=True)
        }
        hits = vector_hits(table, vector, everything, RECALL_AT)
        shares.append(len(truth & {(hit.video_id, hit.start_s) for hit in hits}) / RECALL_AT)
    return float(np.mean(shares))


def crossing(ms_by_rows: Mapping[int, float], goal_ms: float) -> int | None:
    """Where the line through the two largest sizes reaches goal_ms; None with fewer than two."""
    if len(ms_by_rows) < 2:
        return None
    (rows, ms), (more_rows, more_ms) = sorted(ms_by_rows.items())[-2:]
    return round(rows + (goal_ms - ms) * (more_rows - rows) / (more_ms - ms))


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Makings:
    """What rows are made of. K classes, D width, S sentences."""

    names: Sequence[str]
    class_vectors: Float32
    """[K, D]"""
    dim: int
    """Width of a frame's vector: that of a text and what the frame embedder adds (zero in frames)."""
    sentences: Sequence[str]
    sentence_vectors: Float32
    """[S, D]"""
    thumbnail: bytes

    @classmethod
    def load(cls, parts: Parts) -> Makings:
        """Embed the class names and some made-up sentences."""
        names = read_class_names()
        random = np.random.default_rng(0)
        words = np.array(
            sorted({word for name in names for word in name.replace(",", "").lower().split()})
        )
        random.shuffle(words)
        likely = 1.0 / np.arange(1, len(words) + 1)
        picked = random.choice(words, (600, 12), p=likely / likely.sum())
        sentences = [" ".join(row) for row in picked]
        out = io.BytesIO()
        noise = Image.fromarray(random.integers(0, 256, (9, 16, 3), np.uint8))
        noise.resize((160, 90), Image.Resampling.BICUBIC).save(out, "JPEG", quality=80)
        return cls(
            names=[name.split(",")[0] for name in names],
            class_vectors=parts.text_embedder.embed([PROMPT.format(name) for name in names]),
            dim=parts.frame_embedder.dim,
            sentences=sentences,
            sentence_vectors=parts.text_embedder.embed(sentences),
            thumbnail=out.getvalue(),
        )

    def frames(self, num_rows: int, random: np.random.Generator) -> tuple[Float32, list[list[str]]]:
        """Vectors [T, dim], and the five likeliest labels of each frame's shot."""
        num_shots = -(-num_rows // SHOT_FRAMES)
        shown = random.integers(0, len(self.names), num_shots)
        near = 8.0 * self.class_vectors @ self.class_vectors.T  # [K, K]
        shots = near[shown] + 0.8 * random.standard_normal((num_shots, len(self.names)), np.float32)
        vectors = np.zeros((num_rows, self.dim), np.float32)
        for begin in range(0, num_rows, 5000):
            logits = np.repeat(
                shots[begin // SHOT_FRAMES : (begin + 5000) // SHOT_FRAMES], SHOT_FRAMES, axis=0
            )
            logits += 0.25 * random.standard_normal(logits.shape, np.float32)
            vectors[begin : begin + len(logits), : self.class_vectors.shape[1]] = self._vectors(
                logits
            )
        likeliest = np.argsort(-shots, axis=1)[:, :5]
        labels = [
            [self.names[k] for k in row]
            for row in np.repeat(likeliest, SHOT_FRAMES, axis=0)[:num_rows]
        ]
        return vectors, labels

    def _vectors(self, logits: Float32) -> Float32:
        """As mgv.encoders.conse.conse_vectors, by one product: it gathers gigabytes for this many frames."""
        weights = np.exp(logits / TEMPERATURE)
        weights[weights < np.partition(weights, -NUM_CLASSES, axis=1)[:, [-NUM_CLASSES]]] = 0.0
        return unit(weights @ self.class_vectors)

    def segments(self, num_rows: int, random: np.random.Generator) -> tuple[Float32, list[str]]:
        """Vectors [S, D] and texts: a made-up sentence each, with two words of another."""
        picked, other = random.integers(0, len(self.sentences), (2, num_rows))
        vectors = self.sentence_vectors[picked]
        vectors = unit(vectors + random.normal(0, 0.02, vectors.shape))
        texts = [
            f"{self.sentences[a]} {' '.join(self.sentences[b].split()[:2])}"
            for a, b in zip(picked, other, strict=True)
        ]
        return vectors, texts


def unit(vectors: NDArray[Any]) -> Float32:
    """[T, D] to unit length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def fill(workspace: Workspace, made: Makings, num_rows: int) -> None:
    """Write a library of num_rows frames and an eighth as many segments, some videos at a time."""
    store = Store(workspace.store_uri)
    random = np.random.default_rng(num_rows)
    video_ids = [f"{number:064x}" for number in range(num_rows // FRAMES_PER_VIDEO)]
    for begin in range(0, len(video_ids), VIDEOS_PER_WRITE):
        here = video_ids[begin : begin + VIDEOS_PER_WRITE]
        store.replace_rows("frames", frame_rows(made, here, random), ())
        store.replace_rows("segments", segment_rows(made, here, random), ())
    store.put_videos([video_row(video_id, number) for number, video_id in enumerate(video_ids)])


def finish(workspace: Workspace, index_min_rows: int) -> None:
    """Fold, index from index_min_rows on, and publish, as materialise does."""
    store = Store(workspace.store_uri)
    store.finish(index_min_rows)
    params, versions = workspace.params.materialize, store.versions()
    manifest = Manifest(
        store=params.store, tag=f"{0:012x}-{versions['frames']}", versions=versions, digest="", items=(), failed={},
        parts=part_revisions(params), params=params, num_frames=0, num_segments=0, duration_s=0.0,
    )  # fmt: skip
    store.tag(manifest.tag)
    write_version(workspace, manifest)


def frame_rows(made: Makings, video_ids: Sequence[str], random: np.random.Generator) -> pa.Table:
    """FRAMES_PER_VIDEO rows of each video, one a second."""
    num_rows = len(video_ids) * FRAMES_PER_VIDEO
    vectors, labels = made.frames(num_rows, random)
    starts_s = np.tile(np.arange(FRAMES_PER_VIDEO, dtype=np.float64), len(video_ids))
    schema = frames_schema(vectors.shape[1])
    columns = {
        "video_id": pa.array(np.repeat(video_ids, FRAMES_PER_VIDEO)),
        "time_s": starts_s + 0.5,
        "start_s": starts_s,
        "end_s": starts_s + 1,
        "vector": vector_column(vectors),
        "labels": labels,
        "probabilities": [[0.5, 0.2, 0.1, 0.05, 0.02]] * num_rows,
        "text": [""] * num_rows,
        "thumbnail": [made.thumbnail] * num_rows,
    }
    return pa.Table.from_pydict(columns, schema=schema)


def segment_rows(made: Makings, video_ids: Sequence[str], random: np.random.Generator) -> pa.Table:
    """A row every SEGMENT_S of each video."""
    per_video = FRAMES_PER_VIDEO // SEGMENT_S
    vectors, texts = made.segments(len(video_ids) * per_video, random)
    starts_s = np.tile(np.arange(per_video) * float(SEGMENT_S), len(video_ids))
    columns = {
        "video_id": pa.array(np.repeat(video_ids, per_video)),
        "start_s": starts_s,
        "end_s": starts_s + SEGMENT_S,
        "text": texts,
        "vector": vector_column(vectors),
    }
    return pa.Table.from_pydict(columns, schema=segments_schema(vectors.shape[1]))


def vector_column(vectors: Float32) -> pa.Array:
    """[T, D] → a column of D-wide vectors."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def video_row(video_id: str, number: int) -> dict[str, Any]:
    """A video's own row."""
    return {
        "video_id": video_id, "name": f"video-{number:05}.mp4", "start_s": 0.0, "duration_s": float(FRAMES_PER_VIDEO),
        "width": 1280, "height": 720, "frame_rate": 25.0, "video_codec": "h264", "audio_codec": "aac",
        "size_bytes": 1, "state": "ready", "reason": "", "subtitles": "whisper", "frames_key": "", "cues_key": "",
        "segments_key": "", "cues": [], "num_frames": FRAMES_PER_VIDEO, "num_segments": FRAMES_PER_VIDEO // SEGMENT_S,
        "frames_digest": "", "segments_digest": "",
    }  # fmt: skip
