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
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mgv import versioning
from mgv.ask.answer import Answerer, answer
from mgv.ask.answerers import answerer_weights, load_answerer
from mgv.ask.receipts import LibraryState, ModelState, Receipt, flow_run, keep, params_hash, software
from mgv.ask.retrieve import Found, Reach, fuse
from mgv.config import AnswererParams, AskParams, Params, SearchParams, parse_params
from mgv.encoders.base import TextEmbedder
from mgv.encoders.devices import choose_device
from mgv.encoders.loaded import Parts
from mgv.encoders.parts import part_revisions
from mgv.errors import MgvError, UsageError, WorkspaceError
from mgv.files import file_digest, now
from mgv.library.raw import RawVideos
from mgv.library.search import Hit, rows_within, text_hits, vector_hits
from mgv.library.store import open_for_reading, reading
from mgv.library.words import MAX_QUERY_CHARS
from mgv.records import Answer, Cue, Locate, Moment, Video
from mgv.registry import CHAMPION, Live, live, live_at, verify
from mgv.workspace import Workspace, find_workspace

logger = logging.getLogger(__name__)

_NUM_LABELS = 3
WHOLE_VIDEO_S = 180.0
"""A named video up to this long is watched as a whole, no moments are looked for: Goldfish's rule (goldfish_lv.py)."""


class Library:
    """A finished library and the model that answers from it: those that are live, or were (mgv/registry.py)."""

    def __init__(self, workspace: Workspace, answering: Live, *, listings: Sequence[str] = ()) -> None:
        """listings: versions of data/videos to look for raw videos in first (RawVideos)."""
        self.workspace, self.live = workspace, answering
        self.manifest = manifest = answering.manifest
        self._tables = open_for_reading(workspace.store_uri, manifest.versions, manifest.tag)
        with reading(workspace.store_uri):
            rows = self._tables["videos"].to_arrow().to_pylist()
        self._videos = {row["video_id"]: row for row in rows if row["state"] == "ready"}
        self._parts = Parts(manifest.params)
        self._raw = RawVideos(workspace, [*listings, *filter(None, [manifest.listing])])
        self._among: list[str] | None = None
        self.parts = part_revisions(manifest.params)
        """Revision of every part that it is searched with."""
        if self.parts != manifest.parts:
            logger.warning("the parts that made this library have been updated; run `mgv materialize`")

    @classmethod
    def open(cls, path: str | Path = ".", *, as_of: str | None = None) -> Library:
        """The library of the workspace at path or above it: the champion's, else the last `mgv materialize`'s.

        as_of: another one, by `newest`, a tag, a model version, a date or time, or a git commit (registry.live_at).
        Raises WorkspaceError where there is none yet, or it is not kept.
        """
        workspace = find_workspace(Path(path))
        answering = live(workspace) if as_of is None else live_at(workspace, as_of)
        return cls(replace(workspace, params=parameters_of(workspace, answering)), answering)

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
        video_ids = self._among if videos is None else self.video_ids(videos)
        params = self.workspace.params.search
        reach = Reach(merge_gap_s=params.merge_gap_s, moment_length_s=params.moment_length_s)
        with reading(self.workspace.store_uri):
            hits = self._hits(query, video_ids)
            found = fuse(hits, asdict(params.weights), rrf_k=params.rrf_k, reach=reach)
            return self._moments(found[: limit or params.limit])

    def ask(
        self,
        question: str,
        *,
        videos: Sequence[str] | None = None,
        answerer: Answerer | None = None,
        keep_receipt: bool = True,
    ) -> Answer:
        """An answer with numbered citations; its text is None when nothing in the library is relevant.

        Its receipt says what made it (mgv/ask/receipts.py); keep_receipt: False keeps none.
        """
        question, asked_at = _checked(question), now()
        given = self._ask(question, videos, answerer or self._answerer)
        if not keep_receipt:
            return given
        try:
            receipt = keep(self.workspace, self._receipt(given, asked_at, videos, answerer))
        except MgvError as error:
            logger.warning("this answer has no receipt: %s", error)
            return given
        return replace(given, receipt_id=receipt.receipt_id)

    def _ask(self, question: str, videos: Sequence[str] | None, answerer: Answerer) -> Answer:
        params = self.workspace.params.ask
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
        self.__dict__.pop("_answering", None)

    @property
    def answerer_params(self) -> AnswererParams:
        """The part that answers; of our video language model the folder that `champion` or a path stands for."""
        params = self.workspace.params.ask.answerer
        if params.name != "video_llm":
            return params
        if params.pretrained != CHAMPION:
            inside = self.workspace.root / params.pretrained  # else it is relative to where mgv was started
            return replace(params, pretrained=str(inside)) if inside.is_dir() else params
        if self.live.model is None:
            raise WorkspaceError("there is no champion to answer; run `mgv publish` and `mgv promote`")
        return replace(params, pretrained=str(self.live.model))

    def _receipt(
        self, given: Answer, asked_at: str, videos: Sequence[str] | None, answerer: Answerer | None
    ) -> Receipt:
        """What made an answer. Of an answerer that was handed over only the name of its class is known."""
        manifest, params = self.manifest, self.workspace.params
        named = dict.fromkeys((moment.video_id, moment.video) for moment in given.moments)
        return Receipt(
            receipt_id="",
            asked_at=asked_at,
            question=given.question,
            videos=None if videos is None else tuple(self.video_ids(videos)),
            answer=given.text,
            citations=given.citations,
            moments=given.moments,
            looks=given.looks,
            sources=self._raw.sources(list(named)),
            library=LibraryState(
                tag=manifest.tag,
                versions=manifest.versions,
                digest=manifest.digest,
                store=manifest.store,
                parts=self.parts,
            ),
            model=self._answering.state if answerer is None else _handed_over(answerer),
            search=params.search,
            ask=params.ask,
            params_hash=params_hash(params.search, params.ask),
            flow_run=flow_run(),
            software={**software(), "device": self._answering.device if answerer is None else ""},
        )

    def with_weights(self, **weights: float) -> Library:
        """The same library, already open, with these search channels weighted otherwise: 0 leaves one out."""
        params = self.workspace.params
        search = replace(params.search, weights=replace(params.search.weights, **weights))
        return self.with_params(search, params.ask, self.live)

    def with_params(self, search: SearchParams, ask: AskParams, answering: Live) -> Library:
        """The same library, already open, searched and asked by these parameters; `champion` is `answering`'s model."""
        other = copy.copy(self)
        params = replace(self.workspace.params, search=search, ask=ask)
        other.workspace, other.live = replace(self.workspace, params=params), answering
        if (ask, answering) != (self.workspace.params.ask, self.live):
            other.__dict__.pop("_answering", None)
        return other

    def among(self, video_ids: Collection[str]) -> Library:
        """The same library, already open, as if it held these of its videos only."""
        other = copy.copy(self)
        other._videos = {video_id: row for video_id, row in self._videos.items() if video_id in video_ids}
        other._among = sorted(other._videos)
        return other

    def contents(self) -> dict[str, Content]:
        """The library's videos by id: what of them is data, not computed."""
        return {
            video_id: Content(
                name=row["name"],
                subtitles=tuple((cue["start_s"], cue["end_s"], cue["text"]) for cue in row["cues"])
                if row["subtitles"] == "sidecar"
                else None,
            )
            for video_id, row in self._videos.items()
        }

    def video_ids(self, videos: Sequence[str]) -> list[str]:
        """The ids of videos given by file name, path or id. Raises UsageError for one that is not in the library."""
        return [self._video_id(video) for video in videos]

    @property
    def text_embedder(self) -> TextEmbedder:
        """The part that its words were embedded with."""
        return self._parts.text_embedder

    @property
    def locate(self) -> Locate:
        """Names the file of a moment's raw video, from DVC's cache where it has left data/videos."""
        return self._raw.locate

    def warm_up(self) -> None:
        """Load what a search needs, so that the first one is as quick as the next."""
        self._hits("warm up", None)

    @property
    def _answerer(self) -> Answerer:
        return self._answering.answerer

    @cached_property
    def _answering(self) -> _Answering:
        """The answerer, loaded once, and what receipts say of it."""
        params = self.answerer_params
        folder = Path(params.pretrained)
        is_published = params.name == "video_llm" and folder.parent == self.workspace.published_dir
        if is_published:
            verify(folder)
        inside = folder.is_absolute() and folder.is_relative_to(self.workspace.root)
        return _Answering(
            answerer=load_answerer(params, self._parts.text_embedder, self._raw.locate),
            state=ModelState(
                name=params.name,
                pretrained=folder.relative_to(self.workspace.root).as_posix()
                if inside
                else params.pretrained,
                version=folder.name if is_published else None,
                weights=answerer_weights(params),
                listing=versioning.locked_output(self.workspace.root, folder) if inside else None,
            ),
            device=choose_device(params.device) if params.name != "openai" else "",
        )

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
            if Path(wanted).is_file() and (video_id := file_digest(Path(wanted))) in self._videos:
                return video_id
        if reason := self.manifest.failed.get(name):
            raise UsageError(f"{wanted!r} could not be read: {reason}")
        near = difflib.get_close_matches(name, by_name, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else "; `mgv videos` lists them"
        raise UsageError(f"{wanted[:100]!r} is not in the library{hint}")


@dataclass(frozen=True, kw_only=True)
class Content:
    """A video of a library as it was taken in."""

    name: str
    subtitles: tuple[tuple[float, float, str], ...] | None
    """Start, end and words of the cues that came with it; None: it came without."""


@dataclass(frozen=True, kw_only=True)
class _Answering:
    """A loaded answerer and what it is."""

    answerer: Answerer
    state: ModelState
    device: str


def _handed_over(answerer: Answerer) -> ModelState:
    return ModelState(name=type(answerer).__name__, pretrained="", version=None, weights="")


def parameters_of(workspace: Workspace, answering: Live) -> Params:
    """params.yaml as it counts for what is live: of a git commit, that commit's `search` and `ask`."""
    if answering.commit is None:
        return workspace.params
    text = versioning.read_at(workspace.root, answering.commit, "params.yaml")
    if text is None:
        return workspace.params
    then = parse_params(text, f"params.yaml of {answering.commit[:12]}", ("search", "ask"))
    return replace(workspace.params, search=then.search, ask=then.ask)


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
    return cleaned[:MAX_QUERY_CHARS].rstrip()
