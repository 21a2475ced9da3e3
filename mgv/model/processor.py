"""Processor: a video's frames, its cues and a question to what the model reads. One for training and answering.

Modes. `corrected`: one BOS, every cue once with the frame nearest to it, the question never cut: frames are thinned
first, then captions. `upstream` is the published inference to the bit, quirks and all (docs/model.md); with an answer
it is the published training. `upstream_eval` is MiniGPT4-Video's evaluation: padded to N frames, whole frame rate.

T frames, N vision tokens, V vision width, M tokens per frame, L text length.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mgv.encoders.vision import to_pixel_values
from mgv.errors import ConfigError, UsageError, WeightsError
from mgv.media.frames import frame_times
from mgv.model.captions import (
    CaptionRule,
    cut_evenly,
    movie_captions,
    nearest_captions,
    upstream_captions,
)
from mgv.model.prompt import (
    Piece,
    SegmentEncoder,
    adds_bos,
    find_chat,
    find_layout,
    frame_pieces,
    joined,
)
from mgv.model.sampling import even_subset, floor_step_indices, linspace_indices, per_second_indices
from mgv.model.video_llm import IGNORED
from mgv.records import Cue

Mode = Literal["corrected", "upstream", "upstream_eval"]
SUBTITLE_SHARE = 0.25
"""Captions take at most this share of the room for a prompt."""
QUESTION_TOKENS = 256
"""LLaMA-VID's Q-Former reads at most this much of a question, from its end."""


Dialogue = Sequence[tuple[str, str]]
"""Questions and their answers, each building on those ahead of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A stretch of video and what is asked about it."""

    question: str
    frames: NDArray[np.uint8] | None = None
    """RGB [T, H, W, 3]; or features."""
    features: Tensor | None = None
    """[T, N, V] of the vision encoder, cached."""
    frame_times_s: tuple[float, ...] = ()
    """When each frame is shown; needed where there are cues."""
    cues: tuple[Cue, ...] = ()
    frame_rate: float = 0.0
    """Of the source; the upstream modes walk its frames from the first one shown."""
    is_image: bool = False
    answer: str | None = None
    """What to learn; None to generate."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier questions about these frames and their answers."""

    @property
    def num_frames(self) -> int:
        """T"""
        given = self.features if self.features is not None else self.frames
        return 0 if given is None else len(given)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long a system's prompts may be, as published."""

    num_frames: int
    subtitle_words: int = 0
    prompt_tokens: int | None = None
    """Inference keeps this many."""
    cut: Literal["left", "right"] = "left"
    """Which end inference cuts off."""
    train_prompt_tokens: int | None = None
    """Training keeps this many from the left, so that the question may be lost."""
    train_tokens: int | None = None
    """Training keeps this many of prompt and answer together."""
    train_counts_video_once: bool = False
    """Whether they are counted before a video takes the place of its one mark."""
    answer_tokens: int = 512


LIMITS = {
    "minigpt4_video": Limits(
        num_frames=45,
        subtitle_words=400,
        prompt_tokens=3700,
        train_prompt_tokens=3600,
        answer_tokens=256,
    ),
    "minigpt4_video_mistral": Limits(
        num_frames=90,
        subtitle_words=800,
        prompt_tokens=7500,
        train_prompt_tokens=7200,
        answer_tokens=512,
    ),
    "minigpt_v2": Limits(num_frames=1, train_prompt_tokens=3800, answer_tokens=1024),
    "video_llava": Limits(num_frames=8, prompt_tokens=3072, cut="right", train_tokens=3072),
    "llama_vid": Limits(num_frames=180, train_tokens=2048, train_counts_video_once=True),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CutReport:
    """What a prompt holds, and what was left out of it."""

    num_frames: int
    num_frames_given: int
    num_words: int
    """Caption words in the prompt."""
    num_words_given: int
    num_tokens: int
    num_tokens_cut: int = 0
    """Prompt tokens that an upstream limit cut off."""
    num_answer_tokens_cut: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether anything was left out."""
        cut = self.num_tokens_cut + self.num_answer_tokens_cut
        return (
            cut > 0
            or self.num_frames < self.num_frames_given
            or self.num_words < self.num_words_given
        )

    def __str__(self) -> str:
        return (
            f"{self.num_tokens} prompt tokens: {self.num_frames} of {self.num_frames_given} frames, "
            f"{self.num_words} of {self.num_words_given} caption words"
            + (f"; {self.num_tokens_cut} prompt tokens cut off" if self.num_tokens_cut else "")
            + (
                f"; {self.num_answer_tokens_cut} answer tokens cut off"
                if self.num_answer_tokens_cut
                else ""
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One clip, ready to be batched."""

    input_ids: list[int]
    frames: tuple[int, ...]
    """Which of the clip's frames it shows; visual token k belongs to frame frames[k // M]."""
    answer_ids: list[int]
    report: CutReport


@dataclass(kw_only=True, slots=True)
class Batch:
    """What VideoLLM reads; left-padded to generate, right-padded to learn."""

    input_ids: Tensor
    """[B, L]; -1 - k stands for the k-th visual token."""
    attention_mask: Tensor
    num_frames: Tensor
    """[B]"""
    pixel_values: Tensor | None = None
    """[B, T, 3, S, S]"""
    features: Tensor | None = None
    """[B, T, N, V]"""
    question_ids: Tensor | None = None
    question_mask: Tensor | None = None
    labels: Tensor | None = None
    branches: Tensor | None = None
    """[B, L], of `pack`: 0 for what all questions share, k for the k-th question, -1 for padding."""
    prompts: list[Prompt] = field(default_factory=list)

    def inputs(self) -> dict[str, Tensor]:
        """The tensors that are there, by the names of VideoLLM.forward."""
        named = {name: getattr(self, name) for name in self.__slots__ if name != "prompts"}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def to(self, device: str | torch.device) -> Batch:
        """The same on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.inputs().items()}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class ProcessorConfig:
    """How prompts are written; travels with the weights."""

    prompt: str
    """A name in PROMPTS: how a video is laid out."""
    tokens_per_frame: int
    """M"""
    pixels: str
    image_size_px: int
    context_tokens: int
    """How much the language model reads."""
    mode: Mode = "corrected"
    chat: str | None = None
    """A name in CHATS or `tokenizer`; None takes the layout's own."""
    limits: Limits = Limits(num_frames=45)
    max_new_tokens: int = 512
    """Room kept for an answer."""
    reads_question: bool = False

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(f"model.mode: {self.mode!r} is none of {', '.join(get_args(Mode))}")


class Processor:
    """Clips -> a Batch."""

    def __init__(
        self, config: ProcessorConfig, tokenizer: Any, question_tokenizer: Any = None
    ) -> None:
        self.config, self.tokenizer, self.question_tokenizer = config, tokenizer, question_tokenizer
        self.layout = find_layout(config.prompt)
        self.chat_name = config.chat or self.layout.chat
        self.chat = find_chat(self.chat_name, tokenizer)
        self.encode = SegmentEncoder(tokenizer)
        if config.reads_question and question_tokenizer is None:
            raise ConfigError(
                "this connector reads the question: give the Processor a question_tokenizer (BERT)"
            )

    def __call__(self, clips: Sequence[Clip], vision: bool = True) -> Batch:
        """Any number of clips, all to learn or all to answer; `vision=False` leaves out pixels and features."""
        if not clips:
            raise UsageError("no clips to process")
        learns = clips[0].answer is not None
        if any((clip.answer is not None) != learns for clip in clips):
            raise UsageError(
                "a batch mixes clips with an answer (training) and without (generation)"
            )
        prompts = [self.write(clip) for clip in clips]
        rows = [prompt.input_ids + prompt.answer_ids for prompt in prompts]
        batch = Batch(
            input_ids=_pad(rows, self._pad_id, left=not learns),
            attention_mask=_pad([[1] * len(row) for row in rows], 0, left=not learns),
            num_frames=torch.tensor([len(prompt.frames) for prompt in prompts]),
            prompts=prompts,
        )
        if learns:
            targets = [[IGNORED] * len(prompt.input_ids) + prompt.answer_ids for prompt in prompts]
            batch.labels = _pad(targets, IGNORED, left=False)
        if vision:
            self._add_vision(batch, clips)
        if self.config.reads_question:
            self._add_questions(batch, clips)
        return batch

    @property
    def packs(self) -> bool:
        """Whether several questions can share what is shown of a video: not where the frames' tokens depend on the
        question (LLaMA-VID), and not in the upstream modes, which cut a prompt as a whole."""
        return self.config.mode == "corrected" and not self.config.reads_question

    def pack(
        self, clips: Sequence[Clip], lessons: Sequence[Sequence[Dialogue]], vision: bool = True
    ) -> Batch:
        """Clips, each with several dialogues to learn that share its frames and captions, read once.

        The loss is that of each dialogue in a row of its own (tests/model/test_packing.py): a dialogue sees what is
        shared and itself, and its positions go on from what is shared. Every answer of a dialogue is learnt.
        """
        assert self.packs, "this processor cannot pack"
        prompts, rows, branches, targets = [], [], [], []
        for clip, dialogues in zip(clips, lessons, strict=True):
            written = [self._write_dialogue(dialogue) for dialogue in dialogues]
            longest = max(len(ids) for ids, _, _ in written)
            shown, frames, report = self._fit(clip, longest, 0)
            num_cut = sum(num_cut for _, _, num_cut in written)
            report = replace(report, num_answer_tokens_cut=num_cut)
            prompts.append(
                Prompt(input_ids=shown, frames=tuple(frames), answer_ids=[], report=report)
            )
            rows.append(shown + [i for ids, _, _ in written for i in ids])
            targets.append([IGNORED] * len(shown) + [i for _, labels, _ in written for i in labels])
            branches.append(
                [0] * len(shown) + [k for k, (ids, _, _) in enumerate(written, 1) for _ in ids]
            )
        batch = Batch(
            input_ids=_pad(rows, self._pad_id, left=False),
            attention_mask=_pad([[1] * len(row) for row in rows], 0, left=False),
            num_frames=torch.tensor([len(prompt.frames) for prompt in prompts]),
            labels=_pad(targets, IGNORED, left=False),
            branches=_pad(branches, -1, left=False),
            prompts=prompts,
        )
        if vision:
            self._add_vision(batch, clips)
        return batch

    def _write_dialogue(self, dialogue: Dialogue) -> tuple[list[int], list[int], int]:
        """Ids and labels of questions and answers in turn, and how many answer tokens were cut."""
        ids: list[int] = []
        labels: list[int] = []
        num_cut = 0
        lead = self.layout.after_frames
        for question, answer in dialogue:
            asked = self.encode(f"{lead}{self.encode.clean(question)}{self.chat.assistant}")
            answered, num_answer_cut = self._answer_ids(answer)
            ids += asked + answered
            labels += [IGNORED] * len(asked) + answered
            num_cut += num_answer_cut
            lead = self.chat.user
        return ids, labels, num_cut

    @property
    def frame_rule(self) -> str:
        """Which rule `sample_times` follows: those who share it look at the same frames."""
        is_llama_vid = self.config.prompt == "llama_vid"
        if self.config.mode == "corrected":
            return "even, one a second" if is_llama_vid else "even"
        if is_llama_vid:
            return "per second"
        return "linspace" if self.config.prompt == "video_llava" else "floor step"

    def sample_times(self, start_s: float, end_s: float, frame_rate: float) -> list[float]:
        """When to take frames of [start_s, end_s]: evenly, or in the upstream modes by the system's own rule.

        The rules count frames from the first, so an upstream time is start_s + index / frame_rate.
        """
        most, rule = self.config.limits.num_frames, self.frame_rule
        # 58 frames at 25 a second are 2.32 s, and 2.32 * 25 is a little less than 58
        num_source = max(1, int((end_s - start_s) * frame_rate + 1e-3))
        if rule == "even":
            return frame_times(start_s, end_s, min(most, num_source))
        if rule == "even, one a second":
            return frame_times(start_s, end_s, min(most, max(1, round(end_s - start_s))))
        if rule == "linspace":
            indices = linspace_indices(num_source, most)
        elif rule == "per second":
            indices = per_second_indices(num_source, frame_rate)[:most]
        else:
            indices = floor_step_indices(num_source, most)
        return [start_s + index / frame_rate for index in indices]

    def reading_times(self, times_s: Sequence[float], frame_rate: float) -> list[float]:
        """When to read the frames of `sample_times`: in the upstream modes a quarter of a frame later.

        Their times are frames' own, which a file may have rounded up: the frame before would be read.
        """
        late_s = 0.0 if self.config.mode == "corrected" else 0.25 / frame_rate
        return [time_s + late_s for time_s in times_s]

    @property
    def _pad_id(self) -> int:
        pad: int | None = self.tokenizer.pad_token_id
        return pad if pad is not None else self.tokenizer.eos_token_id or 0

    def _add_vision(self, batch: Batch, clips: Sequence[Clip]) -> None:
        chosen = [list(prompt.frames) for prompt in batch.prompts]
        if all(clip.features is not None for clip in clips):
            features = [clip.features[rows] for clip, rows in zip(clips, chosen, strict=True)]  # type: ignore[index]
            batch.features = pad_sequence(features, batch_first=True)
            return
        if any(clip.frames is None for clip in clips):
            raise UsageError("a batch mixes clips with frames and clips with cached features")
        pixels = [self.pixel_values(clip, rows) for clip, rows in zip(clips, chosen, strict=True)]
        batch.pixel_values = pad_sequence(pixels, batch_first=True)

    def pixel_values(self, clip: Clip, chosen: Sequence[int] | None = None) -> Tensor:
        """A clip's frames (the chosen ones) as the vision encoder takes them, [T, 3, S, S]."""
        assert clip.frames is not None, "the clip has features, not frames"
        frames = clip.frames if chosen is None else clip.frames[list(chosen)]
        return to_pixel_values(frames, self.config.pixels, self.config.image_size_px)

    def _add_questions(self, batch: Batch, clips: Sequence[Clip]) -> None:
        tokenizer = self.question_tokenizer
        tokenizer.truncation_side = "left"
        as_trained = self.config.mode == "upstream" and clips[0].answer is not None
        encoded = tokenizer(
            [
                clip.question.strip().replace("\n", "") if as_trained else clip.question
                for clip in clips
            ],
            padding="longest",
            truncation=True,
            max_length=QUESTION_TOKENS,
            return_tensors="pt",
        )
        batch.question_ids, batch.question_mask = encoded.input_ids, encoded.attention_mask

    def write(self, clip: Clip) -> Prompt:
        """One clip's prompt. Raises UsageError for a clip without frames, or a question beyond the context."""
        if clip.num_frames == 0:
            raise UsageError(
                "the clip has no frames; decode some first (an empty or unreadable stretch of video?)"
            )
        if clip.frames is not None and (
            clip.frames.dtype != np.uint8 or clip.frames.shape[3:] != (3,)
        ):
            raise UsageError(
                f"the clip's frames are {clip.frames.dtype} {list(clip.frames.shape)}, expected uint8 [T, H, W, 3]"
            )
        if clip.cues and len(clip.frame_times_s) != clip.num_frames:
            raise UsageError(
                f"the clip has cues but {len(clip.frame_times_s)} frame times for {clip.num_frames} frames"
            )
        return (
            self._write_corrected(clip)
            if self.config.mode == "corrected"
            else self._write_upstream(clip)
        )

    # corrected

    def _write_corrected(self, clip: Clip) -> Prompt:
        answer_ids, num_answer_cut = self._answer(clip)
        asked = self._asked(clip)
        shown, frames, report = self._fit(
            clip, len(asked), len(answer_ids) or self.config.max_new_tokens
        )
        report = replace(report, num_answer_tokens_cut=num_answer_cut)
        return Prompt(
            input_ids=shown + asked, frames=tuple(frames), answer_ids=answer_ids, report=report
        )

    def _fit(
        self, clip: Clip, num_asked: int, num_answer: int
    ) -> tuple[list[int], list[int], CutReport]:
        """What stands ahead of a question of that many tokens, and the frames it shows."""
        room = self.config.context_tokens - num_answer
        captions_room = int(room * SUBTITLE_SHARE) if clip.cues else 0
        num_frames = min(clip.num_frames, self.config.limits.num_frames)
        while True:
            frames = even_subset(clip.num_frames, num_frames)
            captions = self._captions(clip, frames, captions_room)
            shown = self._shown(captions)
            excess = len(shown) + num_asked - room
            if excess <= 0:
                break
            if num_frames > 1:
                num_frames = max(1, num_frames - -(-excess // (self.config.tokens_per_frame + 4)))
            elif captions_room > 0:
                captions_room = max(
                    0, min(captions_room, sum(map(len, map(self.encode, captions)))) - excess
                )
            else:
                raise UsageError(
                    f"the question ({num_asked} tokens) and one frame ({len(shown)}) do not fit: the model reads "
                    f"{self.config.context_tokens} tokens, {num_answer} are kept for the answer"
                )
        report = CutReport(
            num_frames=num_frames,
            num_frames_given=clip.num_frames,
            num_words=sum(len(caption.split()) for caption in captions),
            num_words_given=sum(len(cue.text.split()) for cue in clip.cues),
            num_tokens=len(shown) + num_asked,
        )
        return shown, frames, report

    def _captions(self, clip: Clip, frames: Sequence[int], room: int) -> list[str]:
        """Each shown frame's words, cut evenly to a number of tokens."""
        if not clip.cues:
            return [""] * len(frames)
        times_s = [clip.frame_times_s[frame] for frame in frames]
        captions = [self.encode.clean(text) for text in nearest_captions(clip.cues, times_s)]
        lengths = [
            len(self.encode(f"{self.layout.caption_open}{text} ")) if text else 0
            for text in captions
        ]
        kept = cut_evenly(lengths, room)
        return [self._cut_words(text, kept[i], lengths[i]) for i, text in enumerate(captions)]

    def _cut_words(self, text: str, num_tokens: int, length: int) -> str:
        """The first words of a caption that fit."""
        words = text.split()
        while words and length > num_tokens:
            words = words[: min(len(words) - 1, len(words) * num_tokens // length)]
            length = len(self.encode(f"{self.layout.caption_open}{' '.join(words)} "))
        return " ".join(words)

    def _shown(self, captions: Sequence[str]) -> list[int]:
        """All that comes before the question: the same for every question about these frames."""
        spaced = [f"{caption} " if caption else "" for caption in captions]
        pieces = joined([self.chat.opening, *frame_pieces(self.layout, spaced)])
        if isinstance(pieces[-1], str):
            pieces[-1] = pieces[-1].rstrip()
        return self._bos() + self.encode.pieces(pieces, self.config.tokens_per_frame)

    def _asked(self, clip: Clip) -> list[int]:
        """The question, after earlier questions and their answers."""
        ids: list[int] = []
        lead = self.layout.after_frames
        for question, answer in clip.history:
            ids += self.encode(f"{lead}{self.encode.clean(question)}{self.chat.assistant}")
            ids += self.encode(f"{self.encode.clean(answer)}{self.chat.end}")
            lead = self.chat.user
        return ids + self.encode(f"{lead}{self.encode.clean(clip.question)}{self.chat.assistant}")

    def _answer(self, clip: Clip) -> tuple[list[int], int]:
        """The answer's ids with its end, and how many were cut from its middle so that the end stays."""
        return ([], 0) if clip.answer is None else self._answer_ids(clip.answer)

    def _answer_ids(self, answer: str) -> tuple[list[int], int]:
        ids = self.encode(f"{self.encode.clean(answer)}{self.chat.end}")
        most = min(self.config.limits.answer_tokens, self.config.context_tokens // 2)
        if len(ids) <= most:
            return ids, 0
        return [*ids[: most - 1], ids[-1]], len(ids) - most

    def _bos(self) -> list[int]:
        return [self.tokenizer.bos_token_id] if adds_bos(self.chat_name, self.tokenizer) else []

    # upstream

    def _write_upstream(self, clip: Clip) -> Prompt:
        learns, limits = clip.answer is not None, self.config.limits
        layout = self.layout.image if clip.is_image and self.layout.image else self.layout
        is_own_chat = self.chat_name == self.layout.chat
        chat, assistant = self.chat, self.chat.assistant
        if learns and is_own_chat and layout.train_chat:
            chat = find_chat(layout.train_chat, self.tokenizer)
            assistant = chat.assistant
        if learns and is_own_chat and layout.train_assistant is not None:
            assistant = layout.train_assistant
        num_frames = min(clip.num_frames, limits.num_frames)
        captions = self._upstream_captions(clip, num_frames)
        order = list(range(num_frames))
        if (
            layout.double_bos
            and layout.upstream_captions
            and (learns or self.config.mode == "upstream_eval")
        ):
            order += [num_frames - 1] * (limits.num_frames - num_frames)
            captions += [""] * (limits.num_frames - num_frames)
        before, after = layout.movie if layout.movie and any(captions) else ("", "")
        bos = self.tokenizer.bos_token or "" if layout.double_bos and is_own_chat else ""
        evaluation_space = (
            " " if self.config.mode == "upstream_eval" and layout.upstream_captions else ""
        )
        asked = [question for question, _ in clip.history] + [clip.question]
        if learns and layout.train_strips:
            asked = [question.strip() for question in asked]
        turns = [f"{after}{layout.after_frames}{asked[0]}{assistant}"]
        for (_, answer), question in zip(clip.history, asked[1:], strict=True):
            follows = f"{bos}{chat.user}{question}{assistant}"
            if (
                bos and not learns
            ):  # MiniGPT-v2's demo: all turns are one text, and an answer has no end
                turns[-1] += f"{answer}{follows}"
            else:
                turns.append(f"{answer}{chat.end}{follows}")
        pieces: list[Piece] = [
            f"{'' if learns else bos}{chat.opening}{evaluation_space}{before}",
            *frame_pieces(layout, captions, order),
            turns[0],
        ]
        ids = self.encode.pieces(joined(pieces), self.config.tokens_per_frame)
        for turn in turns[1:]:
            ids += self.encode(turn)
        answer_ids = self.encode(f"{clip.answer}{chat.end}") if clip.answer is not None else None
        return self._cut_upstream(clip, ids, answer_ids, captions)

    def _upstream_captions(self, clip: Clip, num_frames: int) -> list[str]:
        if not clip.cues or not self.layout.upstream_captions:
            return [""] * num_frames
        start_s = clip.frame_times_s[0]
        times_s = [time_s - start_s for time_s in clip.frame_times_s[:num_frames]]
        cues = [
            Cue(start_s=c.start_s - start_s, end_s=c.end_s - start_s, text=c.text)
            for c in clip.cues
        ]
        if self.layout.movie:
            return movie_captions(cues, times_s)
        if clip.frame_rate <= 0:
            raise UsageError(
                "the upstream modes walk the source's frames: give the clip its frame_rate"
            )
        indices = [round(time_s * clip.frame_rate) for time_s in times_s]
        rule: CaptionRule = "training" if clip.answer is not None else "inference"
        if self.config.mode == "upstream_eval":
            rule = "evaluation"
        return upstream_captions(
            cues, indices, clip.frame_rate, self.config.limits.subtitle_words, rule
        )

    def _cut_upstream(
        self, clip: Clip, ids: list[int], answer_ids: list[int] | None, captions: list[str]
    ) -> Prompt:
        """Published limits: inference keeps one end, training the left one; a cut answer loses its end mark."""
        limits = self.config.limits
        whole = ([] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]) + ids
        kept, kept_answer = whole, answer_ids or []
        if answer_ids is None:
            if limits.prompt_tokens is not None and limits.cut == "left":
                kept = whole[-limits.prompt_tokens :]
            elif limits.prompt_tokens is not None:
                kept = whole[: limits.prompt_tokens]
        elif limits.train_tokens is not None:
            num_video = sum(i < 0 for i in whole)
            most = limits.train_tokens + (num_video - 1 if limits.train_counts_video_once else 0)
            kept, kept_answer = whole[:most], answer_ids[: max(0, most - len(whole))]
        else:
            if limits.train_prompt_tokens is not None:
                kept = whole[: len(whole) - len(ids) + limits.train_prompt_tokens]
            kept_answer = answer_ids[: limits.answer_tokens]
        last = max((-1 - i for i in kept if i < 0), default=-1)
        num_shown = last // self.config.tokens_per_frame + 1
        report = CutReport(
            num_frames=num_shown,
            num_frames_given=clip.num_frames,
            num_words=sum(len(caption.split()) for caption in captions),
            num_words_given=sum(len(cue.text.split()) for cue in clip.cues),
            num_tokens=len(kept),
            num_tokens_cut=len(whole) - len(kept),
            num_answer_tokens_cut=len(answer_ids or []) - len(kept_answer),
        )
        return Prompt(
            input_ids=kept, frames=tuple(range(num_shown)), answer_ids=kept_answer, report=report
        )

    # files

    def save(self, folder: Path) -> None:
        """Write processor_config.json and the tokenizers."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        if self.question_tokenizer is not None:
            self.question_tokenizer.save_pretrained(folder / "question_tokenizer")
        text = json.dumps({"processor_class": "mgv.Processor", **asdict(self.config)}, indent=2)
        (folder / "processor_config.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Processor:
        """Read what `save` wrote. Raises WeightsError where that cannot be read."""
        from transformers import PreTrainedTokenizerFast

        questions = None
        try:
            raw = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
            raw.pop("processor_class")
            config = ProcessorConfig(**raw | {"limits": Limits(**raw["limits"])})
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
            if config.reads_question:
                questions = PreTrainedTokenizerFast.from_pretrained(folder / "question_tokenizer")
        except (OSError, ValueError, KeyError, TypeError) as error:
            first = str(error).strip().splitlines()[0]
            raise WeightsError(
                f"{folder}: its processor_config.json or a tokenizer is missing, broken or of another version: {first}"
            ) from error
        return cls(config, tokenizer, questions)


def _pad(rows: Sequence[Sequence[int]], value: int, *, left: bool) -> Tensor:
    """Rows of unequal length -> [B, L]."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(
        tensors, batch_first=True, padding_value=value, padding_side="left" if left else "right"
    )
