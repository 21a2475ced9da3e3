"""`video_llm`: our video language model watches the moments."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from mgv.ask.answer import Answerer
from mgv.ask.answerers.frames import moment_frames, readable
from mgv.config import AnswererParams
from mgv.encoders.base import TextEmbedder
from mgv.errors import ConfigError
from mgv.media.probe import probe
from mgv.records import Cue, Locate, Look, Moment, Written

if TYPE_CHECKING:
    from mgv.model.processor import Clip, Processor
    from mgv.model.session import VideoSession
    from mgv.model.video_llm import VideoLLM

SURENESS_WEIGHT = 4
"""A moment's answer weighs score * sureness ** 4; measured with the starter model."""


CUE_WORDS = 24
"""A longer sentence is cut."""


KEPT_MOMENTS = 8
"""Moments whose prefix stays in memory; the one asked about longest ago goes first."""


class VideoLLMAnswerer:
    """`video_llm`: our model watches each moment by itself, with its words, and the best answer stands.

    The model was trained on one clip at a time, so each moment is asked in a prompt of its own. How sure the model is
    of what it wrote says little of whether it saw the right moment, so the search's score counts beside it
    (docs/model.md has the figures). A moment's visual prefix is kept: another question about it is quick.
    """

    watches = True
    """Frames are looked at: a short video that is named is watched as a whole (mgv.ask.library.WHOLE_VIDEO_S)."""

    def __init__(
        self, model: VideoLLM, processor: Processor, locate: Locate, params: AnswererParams
    ) -> None:
        self._model, self._processor = model, processor
        self._locate, self._params = locate, params
        self._sessions: OrderedDict[
            tuple[str, float, float], tuple[VideoSession, Sequence[float]]
        ] = OrderedDict()

    def write(self, question: str, moments: Sequence[Moment]) -> Written:
        answers: list[tuple[float, str]] = []
        looks: list[Look] = []
        for number, moment, (session, begin_s) in readable(moments, self._session):
            text, sureness = session.ask_with_confidence(
                question, max_new_tokens=self._params.max_new_tokens, do_sample=False
            )
            looks.append(
                Look(number=number, times_s=tuple(begin_s[place] for place in session.shown))
            )
            if text:
                answers.append((moment.score * sureness**SURENESS_WEIGHT, f"{text} [{number}]"))
        best = max(answers, key=lambda each: each[0])[1] if answers else None
        return Written(text=best, looks=tuple(looks))

    def _session(self, moment: Moment) -> tuple[VideoSession, Sequence[float]]:
        """The session about a moment, and when each of its frames begins."""
        from mgv.model.session import VideoSession

        key = (moment.video_id, moment.start_s, moment.end_s)
        if key not in self._sessions:
            clip, begin_s = self._watch(moment)
            self._sessions[key] = VideoSession(self._model, self._processor, clip), begin_s
        self._sessions.move_to_end(key)
        while len(self._sessions) > KEPT_MOMENTS:
            self._sessions.popitem(last=False)
        return self._sessions[key]

    def _watch(self, moment: Moment) -> tuple[Clip, Sequence[float]]:
        """The moment's frames and words as a Clip, and when each frame begins."""
        from mgv.model.looking import read_stretch
        from mgv.model.processor import Clip

        config = self._processor.config
        if config.mode == "corrected":
            num_frames = min(self._params.num_frames, config.limits.num_frames)
            frames, times_s, begin_s = moment_frames(
                moment, self._locate, num_frames, config.image_size_px
            )
            clip = Clip(question="", frames=frames, frame_times_s=tuple(times_s))
        else:
            path = self._locate(moment)
            rate = probe(path, moment.video_id).frame_rate
            clip = read_stretch(path, moment.start_s, moment.end_s, rate, self._processor)
            begin_s = list(clip.frame_times_s)
        return replace(clip, cues=spread_words(moment)), begin_s


def spread_words(moment: Moment) -> tuple[Cue, ...]:
    """A moment's words as cues spread over it by their number, as it does not know when each is said.

    A cue is a sentence, as those are that the model learns from: of one cut in two it makes little.
    """
    parts: list[list[str]] = []
    for sentence in re.split(r"(?<=[.!?…。])\s+", moment.text):
        words = sentence.split()
        parts += [words[first : first + CUE_WORDS] for first in range(0, len(words), CUE_WORDS)]
    ends = list(accumulate(map(len, parts)))
    word_s = (moment.end_s - moment.start_s) / ends[-1] if ends else 0.0
    return tuple(
        Cue(
            start_s=moment.start_s + (end - len(part)) * word_s,
            end_s=moment.start_s + end * word_s,
            text=" ".join(part),
        )
        for part, end in zip(parts, ends, strict=True)
    )


def load(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    if params.pretrained == "random":
        raise ConfigError("ask.answerer.pretrained: name the folder of a video language model, made by `mgv train` or "
                          "`mgv import-checkpoint`, or `starter`")  # fmt: skip
    from mgv.model.checkpoint import load_checkpoint, model_folder

    model, processor = load_checkpoint(
        model_folder(params.pretrained),
        device=params.device,
        quantization=params.quantization,
        device_map=params.device_map,
    )
    return VideoLLMAnswerer(model, processor, locate, params)
