"""The Python API: a materialised library to search and ask.

from mgv import Library

library = Library.open("talks")
for moment in library.search("a white parrot"):
    print(moment.video, moment.start_s, moment.end_s, moment.score)
print(library.ask("what license is proposed?").text)
"""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mgv.answer import Answerer, answer, load_answerer
from mgv.config import AnswererParams
from mgv.encoders.parts import part_revisions
from mgv.errors import UsageError, WorkspaceError
from mgv.library.ingest import content_id
from mgv.library.parts import Parts
from mgv.library.search import Hit, rows_within, text_hits, vector_hits
from mgv.library.store import open_for_reading, reading
from mgv.library.words import MAX_QUERY_CHARS
from mgv.records import Answer, Cue, Moment, Video
from mgv.registry import CHAMPION, Live, live, live_at, verify
from mgv.retrieve import Found, Reach, fuse
from mgv.workspace import Workspace, find_workspace

logger = logging.getLogger(__name__)

_NUM_LABELS = 3
WHOLE_VIDEO_S = 180.0
"""A named video up to this long is watched as a whole, no moments are looked for: Goldfish's rule (goldfish_lv.py)."""


class Library:
    """A finished library and the model that answers from it: those that are live, or were (mgv/registry.py)."""

    def __init__(self, workspace: Workspace, answering: Live) -> None:
        self.workspace, self.live = workspace, answering
        self.manifest = manifest = answering.manifest
        self._tables = open_for_reading(workspace.store_uri, manifest.versions, manifest.tag)
        with reading(workspace.store_uri):
            rows = self._tables["videos"].to_arrow().to_pylist()
        self._videos = {row["video_id"]: row for row in rows if row["state"] == "ready"}
        self._parts = Parts(manifest.params)
        if part_revisions(manifest.params) != manifest.parts:
            logger.warning("the parts that made this library have been updated; run `mgv materialize`")

    @classmethod
    def open(cls, path: str | Path = ".", *, as_of: str | None = None) -> Library:
        """The library of the workspace at path or above it: the champion's, else the last `mgv materialize`'s.

        as_of: another one, by `newest`, a tag, a model version, a date or time, or a git commit (registry.live_at).
        Raises WorkspaceError where there is none yet, or it is not kept.
        """
        workspace = find_workspace(Path(path))
        return cls(workspace, live(workspace) if as_of is None else live_at(workspace, as_of))

    def videos(self) -> list[Video]:
        """The library's videos, by name."""
        names = Video.__dataclass_fields__
        videos = [Video(**{name: row[name] for name in names}) for row in self._videos.values()]
        return sorted(videos, key=lambda video: video.name)

    def subtitles(self, video: str) -> tuple[str, list[Cue]]:
        """Where a video's words come from (`sidecar`, the transcriber's name, or `none`), and its cues.

        video: a file name, path or id. Raises UsageError for an unknown one.
        """
        row = self._videos[self._video_id(video)]
        return row["subtitles"], [Cue(**cue) for cue in row["cues"]]

    def search(
        self, query: str, *, limit: int | None = None, videos: Sequence[str] | None = None
    ) -> list[Moment]:
        """Ranked moments; an empty list when nothing is relevant.

        videos: search only in these, by file name, path or id. Raises UsageError for an empty query, a limit
        below 1 or an unknown video.
        """
        query = _checked(query)
        if limit is not None and limit < 1:
            raise UsageError(f"limit must be at least 1, got {limit}")
        video_ids = None if videos is None else [self._video_id(video) for video in videos]
        params = self.workspace.params.search
        reach = Reach(merge_gap_s=params.merge_gap_s, moment_length_s=params.moment_length_s)
        with reading(self.workspace.store_uri):
            hits = self._hits(query, video_ids)
            found = fuse(hits, asdict(params.weights), rrf_k=params.rrf_k, reach=reach)
            return self._moments(found[: limit or params.limit])

    def ask(
        self, question: str, *, videos: Sequence[str] | None = None, answerer: Answerer | None = None
    ) -> Answer:
        """An answer with numbered citations; its text is None when nothing in the library is relevant."""
        question = _checked(question)
        params = self.workspace.params.ask
        answerer = answerer or self._answerer
        if videos is not None and len(videos) == 1 and getattr(answerer, "watches", False):
            video = self._videos[self._video_id(videos[0])]
            if video["duration_s"] <= WHOLE_VIDEO_S:
                return answer(question, [self._whole(video)], answerer)
        found = self.search(question, limit=params.moments, videos=videos)
        floor = params.min_score if videos is None else 0.0  # who names a video wants what is nearest in it
        moments = [moment for moment in found if moment.score >= floor]
        if not moments:
            return Answer(question=question, text=None, citations=(), moments=())
        return answer(question, moments, answerer)

    def use_answerer(self, name: str | None = None, pretrained: str | None = None) -> None:
        """Answer with another part than params.yaml says: its name, its weights, or both.

        `video_llm` without weights is the champion, where there is one.
        """
        params = self.workspace.params.ask.answerer
        name = name or params.name
        default = CHAMPION if name == "video_llm" and self.live.model else "starter"
        pretrained = pretrained or (params.pretrained if name == params.name else default)
        chosen = replace(params, name=name, pretrained=pretrained)
        ask = replace(self.workspace.params.ask, answerer=chosen)
        self.workspace = replace(self.workspace, params=replace(self.workspace.params, ask=ask))
        self._answerer = self._load_answerer()

    @property
    def answerer_params(self) -> AnswererParams:
        """The part that answers, `champion` as the folder that it stands for."""
        params = self.workspace.params.ask.answerer
        if params.name != "video_llm" or params.pretrained != CHAMPION:
            return params
        if self.live.model is None:
            raise WorkspaceError("there is no champion to answer; run `mgv publish` and `mgv promote`")
        return replace(params, pretrained=str(self.live.model))

    def with_weights(self, **weights: float) -> Library:
        """The same library, already open, with these search channels weighted otherwise: 0 leaves one out."""
        params = self.workspace.params
        search = replace(params.search, weights=replace(params.search.weights, **weights))
        other = copy.copy(self)
        other.workspace = replace(self.workspace, params=replace(params, search=search))
        return other

    def warm_up(self) -> None:
        """Load what a search needs, so that the first one is as quick as the next."""
        self._hits("warm up", None)

    @cached_property
    def _answerer(self) -> Answerer:
        return self._load_answerer()

    def _load_answerer(self) -> Answerer:
        params = self.answerer_params
        if self.live.model is not None and params.pretrained == str(self.live.model):
            verify(self.live.model)
        return load_answerer(params, self._parts.text_embedder, self.workspace.videos_dir)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=4, thread_name_prefix="mgv-search")

    def _hits(self, query: str, video_ids: list[str] | None) -> dict[str, list[Hit]]:
        """Each channel's hits, the channels side by side."""
        limit = self.workspace.params.search.candidates
        frames, segments, pool = self._tables["frames"], self._tables["segments"], self._pool
        text = pool.submit(text_hits, segments, query, limit, video_ids)
        screen = pool.submit(text_hits, frames, query, limit, video_ids) if self._reads_screens else None
        embedder = self._parts.text_embedder
        vector = embedder.embed([query])[0]
        meaning = pool.submit(vector_hits, segments, vector, embedder.relevance, limit, video_ids)
        eye = self._parts.frame_embedder
        seen = vector_hits(frames, eye.embed_queries([query])[0], eye.relevance, limit, video_ids)
        hits = {"frames": seen, "segments": meaning.result(), "text": text.result()}
        return hits | ({"screen": screen.result()} if screen else {})

    @property
    def _reads_screens(self) -> bool:
        return self.manifest.params.ocr.name != "none"

    def _moments(self, found: Sequence[Found]) -> list[Moment]:
        """Found moments with their words and labels, for all of them in one query a table."""
        spans = [(each.video_id, each.start_s, each.end_s) for each in found]
        said = self._pool.submit(rows_within, self._tables["segments"], spans, ["text"])
        seen = rows_within(self._tables["frames"], spans, ["labels", "probabilities"])
        return [
            Moment(
                video=self._videos[each.video_id]["name"],
                video_id=each.video_id,
                start_s=round(each.start_s, 3),
                end_s=round(each.end_s, 3),
                score=round(each.score, 4),
                channels=each.channels,
                text=" ".join(row["text"] for row in words),
                labels=_likeliest(frames),
            )
            for each, words, frames in zip(found, said.result(), seen, strict=True)
        ]

    def _whole(self, video: dict[str, Any]) -> Moment:
        """All of a video as one moment."""
        start_s = video["start_s"]
        end_s = start_s + video["duration_s"]
        whole = Found(video_id=video["video_id"], start_s=start_s, end_s=end_s, shares={"video": 1.0})
        with reading(self.workspace.store_uri):
            return self._moments([whole])[0]

    def _video_id(self, wanted: str) -> str:
        """The id of a video given by file name, path or id."""
        by_name: dict[str, str] = {row["name"]: video_id for video_id, row in self._videos.items()}
        if wanted in self._videos:
            return wanted
        if (name := Path(wanted).name) in by_name:
            return by_name[name]
        with suppress(OSError, ValueError):  # not every text is a path
            if Path(wanted).is_file() and (video_id := content_id(Path(wanted))) in self._videos:
                return video_id
        if reason := self.manifest.failed.get(name):
            raise UsageError(f"{wanted!r} could not be read: {reason}")
        near = difflib.get_close_matches(name, by_name, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else "; `mgv videos` lists them"
        raise UsageError(f"{wanted[:100]!r} is not in the library{hint}")


def _likeliest(frames: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What frames show: the names with the highest summed probability."""
    sums: dict[str, float] = {}
    for row in frames:
        for name, probability in zip(row["labels"], row["probabilities"], strict=True):
            sums[name] = sums.get(name, 0.0) + probability
    return tuple(sorted(sums, key=lambda name: -sums[name])[:_NUM_LABELS])


def _checked(query: str) -> str:
    """A query without characters that no text holds. Raises UsageError when nothing is left."""
    cleaned = " ".join(query.encode("utf-8", "replace").decode().replace("\0", " ").split())
    if not cleaned:
        raise UsageError('the query is empty; say what to look for, for example: mgv search "a white parrot"')
    if len(cleaned) > MAX_QUERY_CHARS:
        logger.warning("the query has %d characters; the first %d are used", len(cleaned), MAX_QUERY_CHARS)
    return cleaned[:MAX_QUERY_CHARS]
