"""Answering: a system's answers to questions. A system is a trained model on clips, or a library by search-and-ask.

Decoding is greedy, results are kept by item, and an item that fails is recorded with its reason and is done.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mgv.config import AskParams, EvaluateParams, SearchParams
from mgv.errors import BusyError, ConfigError, MediaError, UsageError, WeightsError
from mgv.evaluate.ledger import Ledger, Shard
from mgv.evaluate.metrics import LETTERS, chosen
from mgv.evaluate.sets.annotations import plain_name
from mgv.evaluate.sets.questions import EvaluationItem
from mgv.evaluate.spans import Span
from mgv.files import folder_digest
from mgv.media.images import IMAGE_SUFFIXES, read_image
from mgv.records import Cue

if TYPE_CHECKING:
    from mgv.ask.library import Library
    from mgv.model.processor import Clip, Processor
    from mgv.model.session import VideoSession
    from mgv.model.video_llm import VideoLLM

logger = logging.getLogger(__name__)

VERSION = 2
"""Goes up whenever this code gives other answers with the same model and questions."""
FOLDER_RATE = 3.0
"""Frames a second of a video kept as its frames: TVQA's."""
CHOOSE = "Answer with the letter of the right choice."

OnPlan = Callable[[int], None]
OnStep = Callable[[str, str, float], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What a system says to an item."""

    item_id: str
    answer: str | None
    """None: the system says that there is no answer."""
    also_answer: str = ""
    """To the same question in other words."""
    choice: int | None = None
    """Which of the item's choices; None when it takes none of them."""
    confidence: float | None = None
    """0 to 1."""
    citations: tuple[Span, ...] = ()
    read: str = ""
    """What the prompt holds, and what was left out of it."""
    error: str = ""
    """Why there is no answer, where the item failed."""
    time_s: float = 0.0


class System(Protocol):
    """What can be asked."""

    def facts(self) -> dict[str, Any]:
        """What it is, so that its answers are never taken for another's."""
        ...

    def answer(self, item: EvaluationItem) -> Given:
        """The answer to one item. Raises where it cannot."""
        ...


def answer_items(
    items: Iterable[EvaluationItem],
    system: System,
    ledger: Ledger,
    *,
    shard: Shard = Shard(),  # noqa: B008
    retry_failed: bool = False,
    on_plan: OnPlan = lambda count: None,
    on_step: OnStep = lambda name, step, done: None,
) -> None:
    """Answer a shard's items that the ledger has no answer to yet; those of one video follow each other.

    An item that fails is recorded with its reason, and asked again only by retry_failed. What no other item could
    survive either (wrong parameters, missing weights, a held workspace) is raised.
    """
    done = {key[0] for key, row in ledger.rows.items() if not (retry_failed and row["error"])}
    waiting = [item for item in items if shard.holds(_clip_name(item)) and item.item_id not in done]
    waiting.sort(key=lambda item: (item.videos, item.start_s, item.end_s or math.inf, item.item_id))
    on_plan(len(waiting))
    with ledger.writing(shard) as out:
        for item in waiting:
            on_step(item.item_id, "answer", 0.0)
            started = time.perf_counter()
            try:
                given = system.answer(item)
            except (ConfigError, WeightsError, BusyError):
                raise
            except Exception as error:
                logger.info("%s", item.item_id, exc_info=True)
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                given = Given(item_id=item.item_id, answer=None, error=reason)
            out.add(asdict(replace(given, time_s=round(time.perf_counter() - started, 3))))
            on_step(item.item_id, "done", 1.0)


def _clip_name(item: EvaluationItem) -> str:
    """What items about the same clips have in common, wherever these lie: one process watches a video, and once."""
    return " ".join(Path(video).name for video in item.videos)


def given_of(row: dict[str, Any]) -> Given:
    """A ledger's row as the record that it was."""
    return Given(**row | {"citations": tuple(Span(**span) for span in row["citations"])})


def prompt_of(question: str, item: EvaluationItem) -> str:
    """The question, with its choices under it where the item shows them."""
    if not (item.choices and item.shows_choices):
        return question
    listed = [f"{LETTERS[place]}. {choice}" for place, choice in enumerate(item.choices)]
    return "\n".join([question, *listed, CHOOSE])


# a trained model


class ModelSystem:
    """A video language model that watches an item's clip, with its subtitles or without."""

    def __init__(self, folder: Path, params: EvaluateParams, device: str = "auto") -> None:
        self._folder, self._params, self._device = folder, params, device
        self._watched: tuple[tuple[Any, ...], VideoSession] | None = None

    def facts(self) -> dict[str, Any]:
        params = self._params
        return {
            "system": "model",
            "version": VERSION,
            "model": folder_digest(self._folder),
            "quantization": params.quantization,
            "use_subtitles": params.use_subtitles,
            "max_new_tokens": params.max_new_tokens,
            "repetition_penalty": params.repetition_penalty,
            "choices": params.choices,
        }

    def answer(self, item: EvaluationItem) -> Given:
        """Greedy; the confidence is the geometric mean of the probabilities of what was written or chosen."""
        session = self._session(item)
        if item.choices and self._params.choices == "likelihood":
            shares = self._choice_shares(session, item)
            best = int(np.argmax(shares))
            return Given(
                item_id=item.item_id,
                answer=item.choices[best],
                choice=best,
                confidence=float(shares[best]),
            )
        text, confidence, read = self._write(session, prompt_of(item.question, item), item.history)
        also = self._write(session, item.also_asked, item.history)[0] if item.also_asked else ""
        return Given(
            item_id=item.item_id,
            answer=text or None,
            also_answer=also,
            choice=chosen(text, item.choices) if item.choices else None,
            confidence=confidence,
            read=read,
        )

    def _write(
        self, session: VideoSession, question: str, history: tuple[tuple[str, str], ...]
    ) -> tuple[str, float, str]:
        """The answer's text, how sure the model was of it, and what it read."""
        text, sureness = session.ask_with_confidence(
            question,
            history,
            max_new_tokens=self._params.max_new_tokens,
            repetition_penalty=self._params.repetition_penalty,
            do_sample=False,
            num_beams=1,
        )
        written = session.processor.write(replace(session.clip, question=question, history=history))
        return text, sureness, str(written.report)

    def _choice_shares(self, session: VideoSession, item: EvaluationItem) -> NDArray[np.float64]:
        """How likely each choice is among them, by the mean log probability of its tokens: of its letter, if shown."""
        import torch

        model, processor = session.model, session.processor
        question = prompt_of(item.question, item)
        scores: list[float] = []
        for place, choice in enumerate(item.choices):
            answer = LETTERS[place] if item.shows_choices else choice
            clip = replace(session.clip, question=question, history=item.history, answer=answer)
            batch = processor([clip]).to(model.get_input_embeddings().weight.device)  # type: ignore[arg-type]
            with torch.inference_mode():
                scores.append(-float(model(**batch.inputs()).loss))
        shares = np.exp(np.asarray(scores) - max(scores))
        return np.asarray(shares / shares.sum())

    def _session(self, item: EvaluationItem) -> VideoSession:
        """The session of an item's clip: that of the item before where it is the same."""
        from mgv.model.looking import see
        from mgv.model.session import VideoSession

        key = (item.videos, item.start_s, item.end_s, item.cues)
        if self._watched is None or self._watched[0] != key:
            model, processor = self._loaded
            self._watched = None  # one clip's features at a time
            clip = read_clip(item, processor, self._params.use_subtitles)
            clip = replace(clip, frames=None, features=see(clip, model, processor))
            self._watched = (key, VideoSession(model, processor, clip))
        return self._watched[1]

    @cached_property
    def _loaded(self) -> tuple[VideoLLM, Processor]:
        from mgv.model.checkpoint import load_checkpoint

        return load_checkpoint(
            self._folder, device=self._device, quantization=self._params.quantization
        )


def read_clip(item: EvaluationItem, processor: Processor, use_subtitles: bool) -> Clip:
    """An item's frames, by the processor's own rule, and the words said while they are shown."""
    from mgv.model.processor import Clip

    if len(item.videos) != 1:
        raise UsageError(
            f"the question is about {len(item.videos)} clips and a model reads one; "
            "ask the library: evaluate.library_questions"
        )
    place = Path(item.videos[0])
    if place.is_dir():
        start_s, end_s, rate, read = _folder_reader(place)
    elif place.suffix.lower() in IMAGE_SUFFIXES:
        return Clip(question="", frames=read_image(place)[None], frame_times_s=(0.0,))
    else:
        start_s, end_s, rate, read = _video_reader(place, processor.config.image_size_px)
    start_s = max(start_s, item.start_s)
    end_s = end_s if item.end_s is None else min(end_s, item.end_s)
    if end_s <= start_s:
        raise MediaError(f"{place.name}: nothing to see from {start_s:.2f} s to {end_s:.2f} s")
    times_s = processor.sample_times(start_s, end_s, rate)
    frames = read(processor.reading_times(times_s, rate))
    cues = (
        [cue for cue in item.cues if cue.end_s > start_s and cue.start_s < end_s]
        if use_subtitles
        else []
    )
    origin_s = (
        0.0 if processor.config.mode == "corrected" else start_s
    )  # the upstream rules count from the first frame
    return Clip(
        question="",
        frames=frames,
        frame_times_s=tuple(time_s - origin_s for time_s in times_s[: len(frames)]),
        cues=tuple(
            Cue(start_s=c.start_s - origin_s, end_s=c.end_s - origin_s, text=c.text) for c in cues
        ),
        frame_rate=rate,
    )


_Read = Callable[[Sequence[float]], NDArray[np.uint8]]


def _video_reader(path: Path, size_px: int) -> tuple[float, float, float, _Read]:
    """A video's start, end and frame rate, and how to read frames [T, H, W, 3] at times."""
    from mgv.media.frames import read_all_frames
    from mgv.media.probe import probe

    video = probe(path, "")

    def read(times_s: Sequence[float]) -> NDArray[np.uint8]:
        return read_all_frames(path, times_s, size_px=size_px).frames

    return 0.0, video.duration_s, video.frame_rate, read


def _folder_reader(folder: Path) -> tuple[float, float, float, _Read]:
    """The same of a video kept as its frames, FOLDER_RATE a second."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)

    def read(times_s: Sequence[float]) -> NDArray[np.uint8]:
        places = [min(int(time_s * FOLDER_RATE), len(files) - 1) for time_s in times_s]
        return np.stack([read_image(files[place]) for place in places])

    return 0.0, len(files) / FOLDER_RATE, FOLDER_RATE, read


# a library


class LibrarySystem:
    """A library that searches and answers with citations, as `mgv search-and-ask` does."""

    def __init__(self, library: Library, *, within_video: bool) -> None:
        """within_video: a question is asked of the video that it is about, not of the whole library."""
        self._library, self._within = library, within_video
        self._names = {plain_name(video.name): video.name for video in library.videos()}

    def facts(self) -> dict[str, Any]:
        from mgv.model.checkpoint import model_folder

        params = self._library.workspace.params
        answerer = self._library.answerer_params
        own = model_folder(answerer.pretrained) if answerer.name == "video_llm" else None
        return {
            "system": "library",
            "version": VERSION,
            "library": self._library.manifest.digest,
            "parts": self._library.manifest.parts,
            "search": _plain(params.search),
            "ask": _plain(params.ask),
            "answerer": folder_digest(own) if own else answerer.pretrained,
            "within_video": self._within,
        }

    def answer(self, item: EvaluationItem) -> Given:
        """The confidence is the score of the best moment, 0 where none was found."""
        videos = (
            [self._name(video) for video in item.videos]
            if self._within or len(item.videos) > 1
            else None
        )
        reply = self._library.ask(prompt_of(item.question, item), videos=videos, keep_receipt=False)
        also = (
            self._library.ask(item.also_asked, videos=videos, keep_receipt=False).text
            if item.also_asked
            else ""
        )
        text = None if reply.text is None else _uncited(reply.text)
        return Given(
            item_id=item.item_id,
            answer=text,
            also_answer=_uncited(also or ""),
            choice=chosen(text or "", item.choices) if item.choices else None,
            confidence=max((moment.score for moment in reply.moments), default=0.0),
            citations=tuple(
                Span(video=each.video, start_s=each.start_s, end_s=each.end_s)
                for each in reply.citations
            ),
        )

    def _name(self, video: str) -> str:
        name = self._names.get(plain_name(video))
        if name is None:
            raise UsageError(
                f"{Path(video).name} is not in the library; take it in by `mgv ingest`"
            )
        return name


def _uncited(text: str) -> str:
    """An answer without its [1], [2]: what is cited is kept beside it."""
    return re.sub(r"\s*\[\d+\]", "", text).strip()


def _plain(section: SearchParams | AskParams) -> dict[str, Any]:
    return asdict(section)
