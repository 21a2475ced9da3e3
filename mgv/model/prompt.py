"""Prompts: frames, captions and the question as text pieces and places for visual tokens, then as token ids.

A piece is a text, tokenised by itself, or a frame. A frame's k-th visual token of a prompt has the id `-1 - k`, so
that ids say which visual token stands where, also in a prompt that was cut or that shows a frame twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mgv.errors import ConfigError

Piece = str | int
"""A text, or the number of a frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """How a language model is spoken to."""

    opening: str
    """Ahead of the first message, after BOS."""
    user: str
    """Ahead of a later message."""
    assistant: str
    """After a message: the answer follows."""
    end: str
    """After an answer."""


_ASSISTANT = "artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the"
VICUNA_V1 = f"A chat between a curious user and an {_ASSISTANT} user's questions. "
LLAVA_V1 = f"A chat between a curious human and an {_ASSISTANT} human's questions. "

CHATS = {
    "inst": Chat(opening="[INST] ", user="[INST] ", assistant=" [/INST]", end="</s>"),
    "vicuna_v1": Chat(
        opening=f"{VICUNA_V1}USER: ", user="USER: ", assistant=" ASSISTANT:", end="</s>"
    ),
    "llava_v1": Chat(
        opening=f"{LLAVA_V1}USER: ", user="USER: ", assistant=" ASSISTANT:", end="</s>"
    ),
}
"""The published chats; `tokenizer` stands for the language model's own template, `plain` for lines: a question, its
answer, and the tokenizer's end mark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a system lays out a video before the question."""

    chat: str
    """A name in CHATS."""
    frame_open: str = ""
    frame_close: str = ""
    caption_open: str = ""
    after_frames: str = "\n"
    upstream_captions: bool = False
    """Whether the published inference writes captions."""
    double_bos: bool = False
    """Whether it writes `<s>` as text and lets the tokenizer add another."""
    train_assistant: str | None = None
    """What the published training writes after the question, where it is not the chat's own."""
    train_chat: str | None = None
    """The published training's chat, where it is another."""
    train_strips: bool = False
    """Whether the published training takes the space off a question's ends."""
    image: Layout | None = None
    """How the published training of the image stage lays out an image, where it is not a video of one frame."""
    movie: tuple[str, str] | None = None
    """What the published inference puts around a video with captions."""


PROMPTS = {
    "minigpt4_video": Layout(
        chat="inst",
        frame_open="<Img>",
        caption_open="<Cap>",
        upstream_captions=True,
        double_bos=True,
        train_assistant="[/INST]",
        image=Layout(
            chat="inst",
            frame_open="<Img>",
            frame_close="</Img>",
            after_frames=" ",
            double_bos=True,
            train_assistant=" [/INST] ",
        ),
    ),
    "minigpt_v2": Layout(
        chat="inst",
        frame_open="<Img>",
        frame_close="</Img>",
        after_frames=" ",
        double_bos=True,
        train_assistant="  [/INST]",
    ),
    "video_llava": Layout(chat="llava_v1", train_chat="vicuna_v1"),
    "llama_vid": Layout(
        chat="vicuna_v1",
        train_strips=True,
        upstream_captions=True,
        movie=(
            "Below is a movie. Memorize the content and answer my question after watching this movie.",
            "Now the movie end.",
        ),
    ),
}


def find_layout(name: str) -> Layout:
    """The layout of that name. Raises ConfigError for an unknown one."""
    if name not in PROMPTS:
        raise ConfigError(f"model.prompt: {name!r} is none of {', '.join(PROMPTS)}")
    return PROMPTS[name]


def frame_pieces(
    layout: Layout, captions: Sequence[str], order: Sequence[int] | None = None
) -> list[Piece]:
    """Each frame in order with its caption: `<Img>` FRAME `<Cap>text `. `order` may show a frame twice."""
    pieces: list[Piece] = []
    for place, frame in enumerate(order if order is not None else range(len(captions))):
        pieces += [layout.frame_open, frame, layout.frame_close]
        if captions[place]:
            pieces.append(f"{layout.caption_open}{captions[place]}")
    return pieces


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Texts that meet become one, empty ones go: as upstream, which splits a whole prompt at its frames."""
    merged: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        elif piece != "":
            merged.append(piece)
    return merged


def find_chat(name: str, tokenizer: Any) -> Chat:
    """A published chat, or for `tokenizer` the language model's own template cut around its message."""
    if name in CHATS:
        return CHATS[name]
    if name == "plain":
        return Chat(opening="", user="\n", assistant="\n", end=tokenizer.eos_token)
    if name != "tokenizer":
        raise ConfigError(f"model.chat: {name!r} is none of {', '.join(CHATS)}, plain, tokenizer")
    if not tokenizer.chat_template:
        raise ConfigError(
            "model.chat: tokenizer: this language model has no chat template; choose one by name"
        )
    first, answer, second = "FIRST-MESSAGE", "FIRST-ANSWER", "SECOND-MESSAGE"
    turns = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": second},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    opening, rest = text.split(first)
    lead, rest = rest.split(answer)
    between, assistant = rest.split(second)
    end = tokenizer.eos_token if between.startswith(tokenizer.eos_token) else ""
    opening = (
        opening.removeprefix(tokenizer.bos_token or "") if not _is_chat_mark(tokenizer) else opening
    )
    assert assistant.startswith(lead.rstrip()), "the template opens an answer in two ways"
    return Chat(opening=opening, user=between.removeprefix(end), assistant=assistant, end=end)


def _is_chat_mark(tokenizer: Any) -> bool:
    """Whether the template's own marks hold the BOS token (`<|im_start|>` of SmolLM2), so none is to be added."""
    return bool(tokenizer.bos_token) and tokenizer.chat_template.count(tokenizer.bos_token) > 1


def adds_bos(chat: str, tokenizer: Any) -> bool:
    """Whether a prompt begins with a BOS of its own, ahead of the chat's text."""
    if tokenizer.bos_token_id is None:
        return False
    return chat != "tokenizer" or not _is_chat_mark(tokenizer)


class SegmentEncoder:
    """Texts to ids, each text by itself with the prefix space that the SentencePiece tokenizers give it.

    Upstream reads the slow tokenizers, which put a space ahead of every text. Some fast ones leave it out when a text
    begins with a space already; that one is put back.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        a, spaced = self._encode("a"), self._encode(" a")
        self._skips_prefix_before_space = a == spaced

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def __call__(self, text: str) -> list[int]:
        """One text, no BOS. Special tokens written in it are taken as such."""
        return self._encode(
            f" {text}" if self._skips_prefix_before_space and text[:1] == " " else text
        )

    def clean(self, text: str) -> str:
        """A person's text without the written form of special tokens."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text

    def pieces(self, pieces: Iterable[Piece], tokens_per_frame: int) -> list[int]:
        """Texts to their ids, frame f to the ids of its M visual tokens: -1 - (f*M), -1 - (f*M + 1), ..."""
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, str):
                ids += self(piece)
            else:
                first = piece * tokens_per_frame
                ids += [-1 - k for k in range(first, first + tokens_per_frame)]
        return ids
