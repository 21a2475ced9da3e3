"""Answerers that look at the moments' frames: our video language model, any of transformers, any OpenAI endpoint."""

from __future__ import annotations

import base64
import io
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgv.config import AnswererParams
from mgv.endpoint import Endpoint
from mgv.errors import ConfigError, MediaError, UsageError, WeightsError
from mgv.media.frames import frame_times, read_all_frames
from mgv.media.probe import probe
from mgv.records import Cue, Locate, Look, Moment, Written

logger = logging.getLogger(__name__)

T = TypeVar("T")
FRAME_SIZE_PX = 448
"""Short side of the frames that are shown."""
SURENESS_WEIGHT = 4
"""A moment's answer weighs score * sureness ** 4; measured with the starter model."""
CUE_WORDS = 24
"""A longer sentence is cut."""
KEPT_MOMENTS = 8
"""Moments whose prefix stays in memory; the one asked about longest ago goes first."""
INSTRUCTION = (
    "Answer the question about the video moments in one or two sentences, from what they show and say. "
    "Write [n] after what you take from moment n. If they do not hold the answer, write only: none"
)


class Writer(Protocol):
    """What an answerer does (mgv.answer.Answerer)."""

    def write(self, question: str, moments: Sequence[Moment]) -> Written:
        """The answer, with [n] for the n-th moment, and the frames looked at."""
        ...


def moment_frames(
    moment: Moment, locate: Locate, num_frames: int, size_px: int = FRAME_SIZE_PX
) -> tuple[NDArray[np.uint8], list[float], list[float]]:
    """num_frames frames [T, H, W, 3] spread evenly over a moment, the times wanted, and when each frame begins."""
    times_s = frame_times(moment.start_s, moment.end_s, num_frames)
    batch = read_all_frames(locate(moment), times_s, size_px=size_px)
    return batch.frames, times_s[: len(batch.frames)], [round(time_s, 6) for time_s in batch.times_s]


class VideoLLMAnswerer:
    """`video_llm`: our model watches each moment by itself, with its words, and the best answer stands.

    The model was trained on one clip at a time, so each moment is asked in a prompt of its own. How sure the model is
    of what it wrote says little of whether it saw the right moment, so the search's score counts beside it
    (docs/model.md has the figures). A moment's visual prefix is kept: another question about it is quick.
    """

    watches = True
    """Frames are looked at: a short video that is named is watched as a whole (mgv.api.WHOLE_VIDEO_S)."""

    def __init__(self, model: Any, processor: Any, locate: Locate, params: AnswererParams) -> None:
        self._model, self._processor = model, processor
        self._locate, self._params = locate, params
        self._sessions: OrderedDict[tuple[str, float, float], tuple[Any, Sequence[float]]] = OrderedDict()

    def write(self, question: str, moments: Sequence[Moment]) -> Written:
        answers: list[tuple[float, str]] = []
        looks: list[Look] = []
        for number, moment, (session, begin_s) in readable(moments, self._session):
            text, sureness = session.ask_surely(
                question, max_new_tokens=self._params.max_new_tokens, do_sample=False
            )
            looks.append(Look(number=number, times_s=tuple(begin_s[place] for place in session.shown)))
            if text:
                answers.append((moment.score * sureness**SURENESS_WEIGHT, f"{text} [{number}]"))
        best = max(answers, key=lambda each: each[0])[1] if answers else None
        return Written(text=best, looks=tuple(looks))

    def _session(self, moment: Moment) -> tuple[Any, Sequence[float]]:
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

    def _watch(self, moment: Moment) -> tuple[Any, Sequence[float]]:
        """The moment's frames and words as a Clip, and when each frame begins."""
        from mgv.data.features import read_stretch
        from mgv.model.processor import Clip

        config = self._processor.config
        if config.mode == "corrected":
            num_frames = min(self._params.num_frames, config.limits.num_frames)
            frames, times_s, begin_s = moment_frames(moment, self._locate, num_frames, config.image_size_px)
            clip = Clip(question="", frames=frames, frame_times_s=tuple(times_s))
        else:
            path = self._locate(moment)
            rate = probe(path, moment.video_id).frame_rate
            clip = read_stretch(path, moment.start_s, moment.end_s, rate, self._processor)
            begin_s = list(clip.frame_times_s)
        return replace(clip, cues=spread_words(moment)), begin_s


class HubAnswerer:
    """`hf`: any vision-language model of transformers with a chat template; a moment's frames go in as images."""

    watches = True

    def __init__(self, model: Any, processor: Any, locate: Locate, params: AnswererParams) -> None:
        self._model, self._processor = model, processor
        self._locate, self._params = locate, params

    def write(self, question: str, moments: Sequence[Moment]) -> Written:
        import torch
        from PIL import Image

        content, looks = shown(
            moments,
            self._locate,
            self._params.num_frames,
            lambda frame: {"type": "image", "image": Image.fromarray(frame)},
        )
        content.append({"type": "text", "text": f"{INSTRUCTION}\n{question}"})
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device)
        num_tokens, most_new = inputs["input_ids"].shape[1], self._params.max_new_tokens
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if context and num_tokens + most_new > context:
            raise UsageError(
                f"the moments and the question are {num_tokens} tokens: the model reads {context}, {most_new} are kept "
                "for the answer; lower ask.answerer.num_frames or ask.moments"
            )
        with torch.inference_mode():
            output = self._model.generate(**inputs, max_new_tokens=most_new, do_sample=False)
        new = output[0, num_tokens:]
        text = said(str(self._processor.decode(new, skip_special_tokens=True)))
        return Written(text=text, looks=looks)


class OpenAIAnswerer:
    """`openai`: any endpoint with `/chat/completions`; frames go in as JPEG. The key comes from the environment."""

    watches = True

    def __init__(self, locate: Locate, params: AnswererParams) -> None:
        self._endpoint = Endpoint("ask.answerer", params)
        self._locate, self._params = locate, params

    def write(self, question: str, moments: Sequence[Moment]) -> Written:
        content, looks = shown(
            moments,
            self._locate,
            self._params.num_frames,
            lambda frame: {"type": "image_url", "image_url": {"url": data_url(frame)}},
        )
        content.append({"type": "text", "text": question})
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": content},
        ]
        text = said(self._endpoint.chat(messages, self._params.max_new_tokens).text)
        return Written(text=text, looks=looks)


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


def shown(
    moments: Sequence[Moment],
    locate: Locate,
    num_frames: int,
    part: Callable[[NDArray[np.uint8]], dict[str, Any]],
) -> tuple[list[dict[str, Any]], tuple[Look, ...]]:
    """The moments as the parts of a chat's message, `part` for a frame, and the frames that were looked at."""
    parts: list[dict[str, Any]] = []
    looks: list[Look] = []
    read = partial(moment_frames, locate=locate, num_frames=num_frames)
    for number, moment, (frames, _, begin_s) in readable(moments, read):
        looks.append(Look(number=number, times_s=tuple(begin_s)))
        parts += [{"type": "text", "text": caption(number, moment)}, *map(part, frames)]
    return parts, tuple(looks)


def readable(moments: Sequence[Moment], read: Callable[[Moment], T]) -> Iterator[tuple[int, Moment, T]]:
    """Moments by their number, with what was read of each; one that cannot be read is left out, with a warning.

    Raises MediaError where none can.
    """
    unread: MediaError | None = None
    has_read = False
    for number, moment in enumerate(moments, start=1):
        try:
            found = read(moment)
        except MediaError as error:
            logger.warning("moment %d is left out: %s", number, error)
            unread = error
            continue
        has_read = True
        yield number, moment, found
    if unread and not has_read:
        raise unread


def caption(number: int, moment: Moment) -> str:
    """A moment's number and words, ahead of its frames."""
    words = f' Words: "{moment.text}"' if moment.text else ""
    return f"Moment [{number}], {moment.video}, {moment.start_s:.1f} s to {moment.end_s:.1f} s.{words}"


def said(text: str) -> str | None:
    """What a model wrote; None when it says that the moments hold no answer."""
    text = text.strip()
    return None if text.lower().strip(" .") in ("", "none") else text


def data_url(frame: NDArray[np.uint8]) -> str:
    """A frame as a JPEG inside an address."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _load_video_llm(params: AnswererParams, locate: Locate) -> Writer:
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


def _load_hub(params: AnswererParams, locate: Locate) -> Writer:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from mgv.encoders.devices import choose_device
    from mgv.model.language import weights_options

    place = choose_device(params.device)
    options = weights_options(params.quantization, params.device_map, place)
    try:
        processor = AutoProcessor.from_pretrained(params.pretrained)
        model = AutoModelForImageTextToText.from_pretrained(params.pretrained, dtype="auto", **options)
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise WeightsError(f"answerer {params.pretrained!r} cannot be loaded: {first}") from error
    return HubAnswerer((model if options else model.to(place)).eval(), processor, locate, params)


def _load_openai(params: AnswererParams, locate: Locate) -> Writer:
    return OpenAIAnswerer(locate, params)


SEEING: dict[str, Callable[[AnswererParams, Locate], Writer]] = {
    "video_llm": _load_video_llm,
    "hf": _load_hub,
    "openai": _load_openai,
}
"""Answerers that look at frames, by name."""
