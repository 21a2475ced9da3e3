"""The Python API: a materialised library to search and ask.

from mgv import Library

library = Library.open("talks")
for moment in library.search("a white parrot"):
    print(moment.video, moment.start_s, moment.end_s, moment.score)
print(library.ask("what license is proposed?").text)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mgv import versioning
from mgv.ask.answer import Answerer, Phraser, answer
from mgv.ask.kinds import understand
from mgv.ask.opened import Answerers, LoadedAnswerer, OpenedLibrary
from mgv.ask.receipts import (
    LibraryState,
    ModelState,
    Receipt,
    flow_run,
    keep,
    params_hash,
    software,
)
from mgv.ask.replies import Replier
from mgv.ask.retrieve import Reach, fuse
from mgv.config import AnswererParams, AskParams, Params, SearchParams, parse_params
from mgv.errors import MgvError, UsageError, WorkspaceError
from mgv.files import now
from mgv.library.chapters import Chapter
from mgv.library.manifest import Manifest
from mgv.library.words import MAX_QUERY_CHARS
from mgv.records import Answer, Cue, Moment, Video
from mgv.registry import CHAMPION, Live, live, live_at
from mgv.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from mgv.ask.chat import Chat

logger = logging.getLogger(__name__)

WHOLE_VIDEO_S = 180.0
"""A named video up to this long is watched as a whole, no moments are looked for: Goldfish's rule (goldfish_lv.py)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Library:
    """A finished library and the model that answers from it: those that are live, or were (mgv/registry).

    A view: what is open is shared by every view made of it (`with_answerer`, `with_weights`, …), and may be used from
    many threads.
    """

    workspace: Workspace
    """Its place, and the parameters that it is searched and asked with."""
    live: Live
    opened: OpenedLibrary
    video_ids_in_view: frozenset[str]
    """The videos that it shows, searches and names."""

    @classmethod
    def open(cls, path: str | Path = ".", *, as_of: str | None = None) -> Library:
        """The library of the workspace at path or above it: the champion's, else the last `mgv materialize`'s.

        as_of: another one, by `newest`, a tag, a model version, a date or time, or a git commit (registry.live_at).
        Raises WorkspaceError where there is none yet, or it is not kept.
        """
        workspace = find_workspace(Path(path))
        answering = live(workspace) if as_of is None else live_at(workspace, as_of)
        return cls.of(replace(workspace, params=parameters_of(workspace, answering)), answering)

    @classmethod
    def of(
        cls,
        workspace: Workspace,
        answering: Live,
        *,
        listings: Sequence[str] = (),
        answerers: Answerers | None = None,
    ) -> Library:
        """The library of a manifest, asked by the workspace's parameters.

        listings: versions of data/videos to look for raw videos in first (RawVideos). answerers: those that are loaded
        already.
        """
        opened = OpenedLibrary(workspace, answering.manifest, listings, answerers)
        return cls(
            workspace=workspace,
            live=answering,
            opened=opened,
            video_ids_in_view=frozenset(opened.videos),
        )

    @property
    def manifest(self) -> Manifest:
        """The versions that are open."""
        return self.opened.manifest

    @property
    def parts(self) -> dict[str, str]:
        """Revision of every part that it is searched with."""
        return self.opened.revisions

    def videos(self) -> list[Video]:
        """The library's videos, by name."""
        videos = [self._video(video_id) for video_id in self.video_ids_in_view]
        return sorted(videos, key=lambda video: video.name)

    def video(self, video: str) -> Video:
        """A video by file name, path or id. Raises UsageError for an unknown one."""
        return self._video(self._video_id(video))

    def path_of(self, video: Video) -> Path:
        """The file of a video. Raises MediaError when its content is gone from the workspace and from DVC's cache."""
        return self.opened.raw.path_of(video.video_id, video.name)

    def subtitles(self, video: str) -> tuple[str, list[Cue]]:
        """Where a video's words come from (`sidecar`, the transcriber's name, or `none`), and its cues.

        video: a file name, path or id. Raises UsageError for an unknown one.
        """
        row = self.opened.videos[self._video_id(video)]
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
        params = self.workspace.params.search
        reach = Reach(merge_gap_s=params.merge_gap_s, moment_length_s=params.moment_length_s)
        hits = self.opened.hits(query, params.candidates, self._searched(videos))
        spans = fuse(hits, asdict(params.weights), rrf_k=params.rrf_k, reach=reach)
        return self.opened.moments(spans[: limit or params.limit])

    def ask(
        self,
        question: str,
        *,
        videos: Sequence[str] | None = None,
        answerer: Answerer | Phraser | None = None,
        keep_receipt: bool = True,
    ) -> Answer:
        """An answer with numbered citations; its text is None when nothing in the library is relevant.

        Its receipt says what made it (mgv/ask/receipts.py); keep_receipt: False keeps none.
        """
        question, asked_at = _checked(question), now()
        written = self._ask(question, videos, lambda: answerer or self._loaded.answerer)
        if not keep_receipt:
            return written
        try:
            receipt = keep(self.workspace, self._receipt(written, asked_at, videos, answerer))
        except MgvError as error:
            logger.warning("this answer has no receipt: %s", error)
            return written
        return replace(written, receipt_id=receipt.receipt_id)

    def ask_stream(
        self,
        question: str,
        *,
        videos: Sequence[str] | None = None,
        answerer: Answerer | Phraser | None = None,
        keep_receipt: bool = True,
    ) -> Iterator[str | Answer]:
        """`ask`, as it comes: pieces of the text, then the Answer, which is what counts.

        What a language model words is checked against what was said before any of it is shown, so an answer of `text`
        comes sentence by sentence when it stands.
        """
        given = self.ask(question, videos=videos, answerer=answerer, keep_receipt=keep_receipt)
        yield from re.findall(
            r"\S.*?(?:[.!?…;][”\"')]*(?:\s*\[\d+\])*\s+|$)", given.text or "", flags=re.DOTALL
        )
        yield given

    def chat(self, chat_id: str | None = None) -> Chat:
        """A conversation: follow-ups are understood. chat_id: a kept one to go on with, or `last`."""
        from mgv.ask.chat import Chat

        return Chat(self, chat_id)

    def chapters(self, video: str) -> list[Chapter]:
        """A video's parts in order of time, titled by what is said. Raises UsageError for an unknown video."""
        return self.opened.chapters(self._video_id(video))

    def with_answerer(self, name: str | None = None, pretrained: str | None = None) -> Library:
        """The same library, answered by another part than params.yaml says: its name, its weights, or both.

        `video_llm` without weights is the champion, where there is one.
        """
        ask = self.workspace.params.ask
        name = name or ask.answerer.name
        default = CHAMPION if name == "video_llm" and self.live.model else "starter"
        pretrained = pretrained or (
            ask.answerer.pretrained if name == ask.answerer.name else default
        )
        answerer = replace(ask.answerer, name=name, pretrained=pretrained)
        return self.with_params(
            self.workspace.params.search, replace(ask, answerer=answerer), self.live
        )

    def with_weights(self, **weights: float) -> Library:
        """The same library with these search channels weighted otherwise: 0 leaves one out."""
        params = self.workspace.params
        search = replace(params.search, weights=replace(params.search.weights, **weights))
        return self.with_params(search, params.ask, self.live)

    def with_params(self, search: SearchParams, ask: AskParams, answering: Live) -> Library:
        """The same library, searched and asked by these parameters; `champion` is `answering`'s model."""
        params = replace(self.workspace.params, search=search, ask=ask)
        return replace(self, workspace=replace(self.workspace, params=params), live=answering)

    def among(self, video_ids: Collection[str]) -> Library:
        """The same library, as if it held these of its videos only."""
        return replace(self, video_ids_in_view=self.video_ids_in_view & frozenset(video_ids))

    def contents(self) -> dict[str, Content]:
        """The library's videos by id: what of them is data, not computed."""
        return {
            video_id: Content(
                name=row["name"],
                subtitles=tuple((cue["start_s"], cue["end_s"], cue["text"]) for cue in row["cues"])
                if row["subtitles"] == "sidecar"
                else None,
            )
            for video_id, row in self.opened.videos.items()
            if video_id in self.video_ids_in_view
        }

    def video_ids(self, videos: Sequence[str]) -> list[str]:
        """The ids of videos given by file name, path or id. Raises UsageError for one that is not in the library."""
        return [self._video_id(video) for video in videos]

    def warm_up(self) -> None:
        """Load what a search needs, so that the first one is as quick as the next."""
        self.opened.hits("warm up", 1, None)

    @property
    def answerer_params(self) -> AnswererParams:
        """The part that answers; of our video language model the folder that `champion` or a path stands for."""
        params = self.workspace.params.ask.answerer
        if params.name != "video_llm":
            return params
        if params.pretrained != CHAMPION:
            inside = (
                self.workspace.root / params.pretrained
            )  # else it is relative to where mgv was started
            return replace(params, pretrained=str(inside)) if inside.is_dir() else params
        if self.live.model is None:
            raise WorkspaceError(
                "there is no champion to answer; run `mgv publish` and `mgv promote`"
            )
        return replace(params, pretrained=str(self.live.model))

    def _ask(
        self,
        question: str,
        videos: Sequence[str] | None,
        answerer: Callable[[], Answerer | Phraser],
    ) -> Answer:
        asked = understand(question)
        ids = self._asked_videos(question, videos)
        if asked.kind in ("chat", "library", "where"):  # no model is asked
            return Replier(self, asked, ids, None).answer()
        by = answerer()
        if isinstance(by, Phraser):
            return Replier(self, asked, ids, by).answer()
        return replace(self._watched(question, ids, by), kind=asked.kind)

    def _asked_videos(self, question: str, videos: Sequence[str] | None) -> list[str] | None:
        """The ids of the videos that are given, else of those that the question names by file name; None: all."""
        if videos is not None:
            return self.video_ids(videos)
        lower = question.lower()
        named = [
            video.video_id
            for video in self.videos()
            if video.name.lower() in lower and "." in video.name
        ]
        return named or self._searched(None)

    def _watched(self, question: str, ids: list[str] | None, answerer: Answerer) -> Answer:
        """The answer of an answerer that looks at moments itself."""
        params = self.workspace.params.ask
        if ids is not None and len(ids) == 1 and getattr(answerer, "watches", False):
            video = self.opened.videos[ids[0]]
            if video["duration_s"] <= WHOLE_VIDEO_S:
                return answer(question, [self.opened.whole(video)], answerer)
        ranked = self.search(question, limit=max(params.moments, 3), videos=ids)
        floor = (
            params.min_score if ids is None else 0.0
        )  # a named video is asked for what is nearest in it
        moments = [moment for moment in ranked if moment.score >= floor][: params.moments]
        if not moments:
            reason = "nothing in the library is about that"
            return replace(answer(question, [], answerer), reason=reason, nearest=tuple(ranked[:3]))
        given = answer(question, moments, answerer)
        if given.text is None:
            return replace(
                given,
                reason="the answerer found no answer in the moments",
                nearest=tuple(moments[:3]),
            )
        return given

    def _receipt(
        self,
        written: Answer,
        asked_at: str,
        videos: Sequence[str] | None,
        answerer: Answerer | Phraser | None,
    ) -> Receipt:
        """What made an answer. Of an answerer that was handed over only the name of its class is known."""
        manifest, params = self.manifest, self.workspace.params
        named = dict.fromkeys((moment.video_id, moment.video) for moment in written.moments)
        loaded = self._loaded if answerer is None else None
        return Receipt(
            receipt_id="",
            asked_at=asked_at,
            question=written.question,
            videos=None if videos is None else tuple(self.video_ids(videos)),
            answer=written.text,
            citations=written.citations,
            moments=written.moments,
            looks=written.looks,
            sources=self.opened.raw.sources(list(named)),
            library=LibraryState(
                tag=manifest.tag,
                versions=manifest.versions,
                digest=manifest.digest,
                store=manifest.store,
                parts=self.parts,
            ),
            model=loaded.state if loaded else _unknown_state(answerer),
            search=params.search,
            ask=params.ask,
            params_hash=params_hash(params.search, params.ask),
            flow_run=flow_run(),
            software={**software(), "device": loaded.device if loaded else ""},
            kind=written.kind,
            reason=written.reason,
            nearest=written.nearest,
            prompt=loaded.prompt if loaded else "",
        )

    @property
    def _loaded(self) -> LoadedAnswerer:
        return self.opened.answerer(self.answerer_params)

    def _searched(self, videos: Sequence[str] | None) -> list[str] | None:
        """The ids to search in; None for all that are open."""
        if videos is not None:
            return self.video_ids(videos)
        return (
            None
            if len(self.video_ids_in_view) == len(self.opened.videos)
            else sorted(self.video_ids_in_view)
        )

    def _video(self, video_id: str) -> Video:
        row = self.opened.videos[video_id]
        return Video(**{name: row[name] for name in Video.__dataclass_fields__})

    def _video_id(self, wanted: str) -> str:
        return self.opened.video_id(wanted, self.video_ids_in_view)


@dataclass(frozen=True, kw_only=True)
class Content:
    """A video of a library as it was taken in."""

    name: str
    subtitles: tuple[tuple[float, float, str], ...] | None
    """Start, end and words of the cues that came with it; None: it came without."""


def _unknown_state(answerer: Answerer | Phraser | None) -> ModelState:
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


def _checked(query: str) -> str:
    """A query without characters that no text holds. Raises UsageError when nothing is left."""
    cleaned = " ".join(query.encode("utf-8", "replace").decode().replace("\0", " ").split())
    if not cleaned:
        raise UsageError(
            'the query is empty; say what to look for, for example: mgv search "a white parrot"'
        )
    if len(cleaned) > MAX_QUERY_CHARS:
        logger.warning(
            "the query has %d characters; the first %d are used", len(cleaned), MAX_QUERY_CHARS
        )
    return cleaned[:MAX_QUERY_CHARS].rstrip()
