"""Opened: a finished library's tables, parts and raw videos, open once and shared by all who ask it."""

from __future__ import annotations

import difflib
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mgv import versioning
from mgv.ask.answer import Answerer
from mgv.ask.answerers import answerer_weights, load_answerer
from mgv.ask.evidence import Sentence, around, sentences
from mgv.ask.receipts import ModelState
from mgv.ask.retrieve import MomentSpan
from mgv.config import AnswererParams
from mgv.encoders.devices import choose_device
from mgv.encoders.loaded import Parts
from mgv.encoders.parts import part_revisions
from mgv.errors import UsageError
from mgv.files import file_digest
from mgv.library.chapters import Chapter, central, cut, joined, title
from mgv.library.manifest import Manifest
from mgv.library.raw import RawVideos
from mgv.library.search import Hit, rows_within, text_hits, vector_hits
from mgv.library.store import open_for_reading, reading
from mgv.records import Cue, Moment
from mgv.registry import verify
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)

_NUM_LABELS = 3


@dataclass(frozen=True, kw_only=True)
class LoadedAnswerer:
    """An answerer and what receipts say of it."""

    answerer: Answerer
    state: ModelState
    device: str
    prompt: str
    """Version and SHA-256 of the prompt that it gives a language model; empty where it gives none of ours."""


@dataclass
class Answerers:
    """Loaded answerers, by their parameters and the text embedder that they quote with. Each is loaded once."""

    _loaded: dict[tuple[str, AnswererParams], LoadedAnswerer] = field(default_factory=dict)
    _loading: threading.Lock = field(default_factory=threading.Lock)

    def get(
        self, embedder: str, params: AnswererParams, load: Callable[[], LoadedAnswerer]
    ) -> LoadedAnswerer:
        """The answerer of these parameters; `load` loads it where it is not there yet."""
        with self._loading:
            key = (embedder, params)
            if key not in self._loaded:
                self._loaded[key] = load()
            return self._loaded[key]


class OpenedLibrary:
    """The tables at the versions of one manifest. Safe to use from many threads."""

    def __init__(
        self,
        workspace: Workspace,
        manifest: Manifest,
        listings: Sequence[str] = (),
        answerers: Answerers | None = None,
    ) -> None:
        """listings: versions of data/videos in which to look for raw videos first (RawVideos).

        Raises WorkspaceError when the tables of this manifest are no longer there.
        """
        self.manifest, self._root, self._published = (
            manifest,
            workspace.root,
            workspace.published_dir,
        )
        self._store_uri = workspace.store_uri
        self._tables = open_for_reading(self._store_uri, manifest.versions, manifest.tag)
        with reading(self._store_uri):
            rows = self._tables["videos"].to_arrow().to_pylist()
        self.videos: dict[str, dict[str, Any]] = {
            row["video_id"]: row for row in rows if row["state"] == "ready"
        }
        """Rows of the videos that can be searched, by id."""
        self.parts = Parts(manifest.params)
        self.raw = RawVideos(workspace, [*listings, *filter(None, [manifest.listing])])
        self.revisions = part_revisions(manifest.params)
        """Revision of every part that it is searched with."""
        self._answerers = answerers or Answerers()
        self._sentences: dict[str, list[Sentence]] = {}
        self._chapters: dict[str, list[Chapter]] = {}
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="mgv-search")
        if self.revisions != manifest.parts:
            logger.warning(
                "the parts that made this library have been updated; run `mgv materialize`"
            )

    def hits(self, query: str, limit: int, video_ids: list[str] | None) -> dict[str, list[Hit]]:
        """Each channel's hits, at most `limit` a channel, the channels side by side."""
        frames, segments, pool = self._tables["frames"], self._tables["segments"], self._pool
        with reading(self._store_uri):
            text = pool.submit(text_hits, segments, query, limit, video_ids)
            screen = (
                pool.submit(text_hits, frames, query, limit, video_ids)
                if self.reads_screens
                else None
            )
            embedder = self.parts.text_embedder
            vector = embedder.embed_queries([query])[0]
            meaning = pool.submit(
                vector_hits, segments, vector, embedder.relevance, limit, video_ids
            )
            frame_embedder = self.parts.frame_embedder
            frame_vector = frame_embedder.embed_queries([query])[0]
            in_frames = vector_hits(
                frames, frame_vector, frame_embedder.relevance, limit, video_ids
            )
            hits = {"frames": in_frames, "segments": meaning.result(), "text": text.result()}
            return hits | ({"screen": screen.result()} if screen else {})

    @property
    def reads_screens(self) -> bool:
        """Whether on-screen text was read."""
        return self.manifest.params.ocr.name != "none"

    def moments(self, spans: Sequence[MomentSpan]) -> list[Moment]:
        """Spans with their words and labels, for all of them in one query a table."""
        stretches = [(span.video_id, span.start_s, span.end_s) for span in spans]
        with reading(self._store_uri):
            segments = self._pool.submit(rows_within, self._tables["segments"], stretches, ["text"])
            frames = rows_within(self._tables["frames"], stretches, ["labels", "probabilities"])
            return [
                Moment(
                    video=self.videos[span.video_id]["name"],
                    video_id=span.video_id,
                    start_s=round(span.start_s, 3),
                    end_s=round(span.end_s, 3),
                    score=round(span.score, 4),
                    channels=span.channels,
                    text=" ".join(row["text"] for row in words),
                    labels=_likeliest(looks),
                )
                for span, words, looks in zip(spans, segments.result(), frames, strict=True)
            ]

    def looks(self, moments: Sequence[Moment]) -> list[dict[str, float]]:
        """Names that the frame embedder gives to each moment's frames, with how sure it is at its surest, in (0, 1]."""
        stretches = [(moment.video_id, moment.start_s, moment.end_s) for moment in moments]
        with reading(self._store_uri):
            frames = rows_within(self._tables["frames"], stretches, ["labels", "probabilities"])
        looks: list[dict[str, float]] = []
        for rows in frames:
            surest: dict[str, float] = {}
            for row in rows:
                for name, probability in zip(row["labels"], row["probabilities"], strict=True):
                    surest[name] = max(surest.get(name, 0.0), probability)
            looks.append(dict(sorted(surest.items(), key=lambda pair: (-pair[1], pair[0]))))
        return looks

    def sentences(self, video_id: str) -> list[Sentence]:
        """What is said in a video, in whole sentences."""
        if video_id not in self._sentences:
            cues = [Cue(**cue) for cue in self.videos[video_id]["cues"]]
            self._sentences[video_id] = sentences(cues)
        return self._sentences[video_id]

    def chapters(self, video_id: str) -> list[Chapter]:
        """A video's parts, computed when they are first asked for."""
        if video_id not in self._chapters:
            self._chapters[video_id] = self._cut_chapters(self.videos[video_id])
        return self._chapters[video_id]

    def _cut_chapters(self, video: dict[str, Any]) -> list[Chapter]:
        video_id, end_s = video["video_id"], video["duration_s"]
        everything = [(video_id, -1.0, end_s + 1.0)]
        with reading(self._store_uri):
            segments = rows_within(self._tables["segments"], everything, ["vector"])[0]
            frames = rows_within(
                self._tables["frames"], everything, ["vector", "labels", "probabilities"]
            )[0]
        said, seen = (
            [
                (row["start_s"], row["end_s"], np.asarray(row["vector"], dtype=np.float64))
                for row in rows
            ]
            for rows in (segments, frames)
        )
        steps = joined(said, seen)
        if not steps:
            return []
        first = cut([step.start_s for step in steps], np.stack([step.vector for step in steps]))
        borders = [0.0, *(steps[place].start_s for place in first[1:]), end_s]
        titles = [
            self._title(video_id, said, frames, start_s, end_s)
            for start_s, end_s in pairwise(borders)
        ]
        return [
            Chapter(start_s=round(start_s, 3), end_s=round(end_s, 3), title=name)
            for (start_s, end_s), name in zip(pairwise(borders), titles, strict=True)
        ]

    def _title(
        self,
        video_id: str,
        said: Sequence[Any],
        frames: Sequence[dict[str, Any]],
        start_s: float,
        end_s: float,
    ) -> str:
        """The sentence that stands best for a stretch; where nothing is said, what the picture looks like."""
        inside = [row for row in said if start_s <= (row[0] + row[1]) / 2 < end_s]
        if inside:
            best = inside[
                central(
                    np.stack([row[2] for row in inside]), np.mean([row[2] for row in said], axis=0)
                )
            ]
            spoken = around(self.sentences(video_id), best[0], best[1], more=0)
            if spoken:
                return title(max(spoken, key=lambda each: min(len(each.text), 80)).text)
        shown = [row for row in frames if start_s <= row["start_s"] < end_s]
        names = _likeliest(shown)
        return f"looks like: {', '.join(names)}" if names else "nothing is said"

    def thumbnail(self, video_id: str, time_s: float) -> bytes | None:
        """The stored JPEG of the frame that stands for an instant; None where there is none."""
        with reading(self._store_uri):
            (rows,) = rows_within(
                self._tables["frames"], [(video_id, time_s, time_s + 0.2)], ["thumbnail"]
            )
        return bytes(rows[0]["thumbnail"]) if rows else None

    def whole(self, video: dict[str, Any]) -> Moment:
        """All of a video as one moment."""
        return self.stretch(video["video_id"], 0.0, video["duration_s"])

    def stretch(self, video_id: str, start_s: float, end_s: float) -> Moment:
        """A stretch of a video, chosen without a search."""
        span = MomentSpan(video_id=video_id, start_s=start_s, end_s=end_s, shares={"video": 1.0})
        return self.moments([span])[0]

    def video_id(self, wanted: str, among: Collection[str]) -> str:
        """The id of a video of `among`, given by file name, path or id. Raises UsageError for another."""
        by_name: dict[str, str] = {self.videos[video_id]["name"]: video_id for video_id in among}
        if wanted in among:
            return wanted
        if (name := Path(wanted).name) in by_name:
            return by_name[name]
        with suppress(OSError, ValueError):  # not every text is a path
            if Path(wanted).is_file() and (video_id := file_digest(Path(wanted))) in among:
                return video_id
        if reason := self.manifest.failed.get(name):
            raise UsageError(f"{wanted!r} could not be read: {reason}")
        near = difflib.get_close_matches(name, by_name, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else "; `mgv videos` lists them"
        raise UsageError(f"{wanted[:100]!r} is not in the library{hint}")

    def answerer(self, params: AnswererParams) -> LoadedAnswerer:
        """The answerer, loaded once. Raises WeightsError where its weights are missing or damaged."""
        return self._answerers.get(
            self.revisions["text_embedder"], params, lambda: self._load_answerer(params)
        )

    def _load_answerer(self, params: AnswererParams) -> LoadedAnswerer:
        folder = Path(params.pretrained)
        is_published = params.name == "video_llm" and folder.parent == self._published
        if is_published:
            verify(folder)
        inside = folder.is_absolute() and folder.is_relative_to(self._root)
        answerer = load_answerer(params, self.parts.text_embedder, self.raw.locate)
        return LoadedAnswerer(
            answerer=answerer,
            state=ModelState(
                name=params.name,
                pretrained=folder.relative_to(self._root).as_posix()
                if inside
                else params.pretrained,
                version=folder.name if is_published else None,
                weights=answerer_weights(params),
                listing=versioning.locked_output(self._root, folder) if inside else None,
            ),
            device="" if params.name in ("quote", "openai") else choose_device(params.device),
            prompt=getattr(answerer, "prompt", ""),
        )


def _likeliest(frames: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What frames show: the names with the highest summed probability."""
    sums: dict[str, float] = {}
    for row in frames:
        for name, probability in zip(row["labels"], row["probabilities"], strict=True):
            sums[name] = sums.get(name, 0.0) + probability
    return tuple(sorted(sums, key=lambda name: -sums[name])[:_NUM_LABELS])
