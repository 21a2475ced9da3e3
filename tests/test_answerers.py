"""Answerers that look at frames: ours, transformers', an endpoint's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgv.answer import answer, load_answerer
from mgv.answerers import FRAME_SIZE_PX, HubAnswerer, OpenAIAnswerer, said, spread_words
from mgv.config import AnswererParams
from mgv.errors import ConfigError, MgvError
from mgv.media.frames import FrameBatch
from mgv.model.adapt import Lora, adapt
from mgv.model.build import build_processor, build_video_llm
from mgv.model.checkpoint import save_checkpoint
from mgv.records import Moment
from tests.endpoint import ChatServer, chat_server

MOMENT = Moment(
    video="talk.mp4",
    video_id="a" * 64,
    start_s=2.0,
    end_s=6.0,
    score=0.9,
    channels=("frames",),
    text="one two three",
)
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, list[float]]]:
    """What was read of which file; the frames are grey."""
    calls: list[tuple[Path, list[float]]] = []

    def read(path: Path, times_s: list[float], *, size_px: int) -> Iterator[FrameBatch]:
        assert size_px in (FRAME_SIZE_PX, 56)  # a model of ours decodes at its own size, the tiny one at 56
        calls.append((path, list(times_s)))
        yield FrameBatch(
            times_s=tuple(times_s), frames=np.full((len(times_s), 30, 40, 3), 128, dtype=np.uint8)
        )

    monkeypatch.setattr("mgv.answerers.read_frames", read)
    return calls


def test_words_are_shared_out_over_the_frames():
    cues = spread_words(MOMENT, [3.0, 5.0])
    assert [(cue.start_s, cue.text) for cue in cues] == [(3.0, "one two"), (5.0, "three")]
    assert spread_words(replace(MOMENT, text=""), [3.0, 5.0]) == ()


def test_our_model_answers_from_the_best_moment_and_reads_it_once(tmp_path: Path, seen: list[Any]):
    model, tokenizer = build_video_llm("minigpt4_video", device="cpu")
    adapt(model, lora=Lora(rank=2))
    save_checkpoint(model, build_processor(model, tokenizer), tmp_path / "model")
    params = AnswererParams(
        name="video_llm", pretrained=str(tmp_path / "model"), device="cpu", num_frames=2, max_new_tokens=4
    )
    answerer = load_answerer(params, None, tmp_path / "videos")  # type: ignore[arg-type]
    first = answer("what is said?", [MOMENT], answerer)
    assert first.citations[0].start_s == 2.0
    assert answer("what is said?", [MOMENT], answerer) == first
    assert seen == [(tmp_path / "videos" / "talk.mp4", [3.0, 5.0])]


def test_a_model_of_transformers_answers_with_frames_as_images(tmp_path: Path):
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    from mgv.model.language import byte_tokenizer

    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.image_token = "<image>"
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    language = LlamaConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=len(tokenizer),
    )
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=vision, text_config=language, image_token_index=image_id, pad_token_id=0
    )
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] if c['type'] == 'text' else '<image>' }}"
        "{% endfor %}{% endfor %}"
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )
    params = AnswererParams(name="hf", num_frames=2, max_new_tokens=3)
    model = LlavaForConditionalGeneration(config).eval()
    written = HubAnswerer(model, processor, tmp_path, params).write("what?", [MOMENT])
    assert written is None or isinstance(written, str)


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setattr("mgv.endpoint.time.sleep", lambda _: None)
    monkeypatch.setenv("MY_KEY", "secret")
    with chat_server() as server:
        yield server


@pytest.fixture
def endpoint(chat: ChatServer) -> AnswererParams:
    return AnswererParams(
        name="openai", pretrained="big-model", base_url=chat.url, api_key_env="MY_KEY", num_frames=2, timeout_s=5,
        retries=1,
    )  # fmt: skip


def test_an_endpoint_gets_frames_words_and_the_key(
    endpoint: AnswererParams, chat: ChatServer, tmp_path: Path
):
    chat.replies = ["A rocket lifts off [1]."]
    assert OpenAIAnswerer(tmp_path, endpoint).write("what?", [MOMENT]) == "A rocket lifts off [1]."
    ((path, authorization, body),) = chat.requests
    assert (path, authorization, body["model"]) == ("/v1/chat/completions", "Bearer secret", "big-model")
    kinds = [part["type"] for part in body["messages"][1]["content"]]
    assert kinds == ["text", "image_url", "image_url", "text"]
    assert body["messages"][1]["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert '"one two three"' in body["messages"][1]["content"][0]["text"]


def test_a_busy_endpoint_is_tried_again_a_bounded_number_of_times(
    endpoint: AnswererParams, chat: ChatServer, tmp_path: Path
):
    answerer = OpenAIAnswerer(tmp_path, endpoint)
    chat.replies = [429, "none"]
    assert answerer.write("what?", [MOMENT]) is None
    chat.replies = [503, 503]
    with pytest.raises(MgvError, match="no answer after 2 tries: 503"):
        answerer.write("what?", [MOMENT])


def test_a_refusal_and_a_strange_reply_are_told_at_once(
    endpoint: AnswererParams, chat: ChatServer, tmp_path: Path
):
    answerer = OpenAIAnswerer(tmp_path, endpoint)
    chat.replies = [(401, {"error": "bad key"})]
    with pytest.raises(MgvError, match=r"401 .*bad key"):
        answerer.write("what?", [MOMENT])
    chat.replies = [(200, {"choices": []})]
    with pytest.raises(MgvError, match="its reply holds no answer"):
        answerer.write("what?", [MOMENT])


def test_an_endpoint_that_is_not_there_is_told(tmp_path: Path):
    params = AnswererParams(
        name="openai", pretrained="m", base_url="http://127.0.0.1:9/v1", timeout_s=1, retries=0
    )
    with pytest.raises(MgvError, match="no answer after 1 tries"):
        OpenAIAnswerer(tmp_path, params).write("what?", [MOMENT])


def test_a_missing_key_model_or_address_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for params, message in (
        (AnswererParams(name="openai", pretrained="gpt"), "set the environment variable OPENAI_API_KEY"),
        (AnswererParams(name="openai"), "name the endpoint's model"),
        (AnswererParams(name="openai", pretrained="gpt", base_url="file:///etc/passwd"), "is no http"),
        (AnswererParams(name="video_llm", pretrained="random"), "name the folder of a video language model"),
        (AnswererParams(name="oracle"), "'oracle' is not one of hf, openai, text, video_llm"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_answerer(params, None, tmp_path)  # type: ignore[arg-type]


def test_none_is_no_answer():
    assert [said(text) for text in ("none", " None. ", "", "A dog.")] == [None, None, None, "A dog."]
