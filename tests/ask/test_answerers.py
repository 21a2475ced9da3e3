"""Answerers that look at frames: ours, transformers', an endpoint's."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgv.ask.answer import answer
from mgv.ask.answerers import load_answerer
from mgv.ask.answerers.frames import FRAME_SIZE_PX, said
from mgv.ask.answerers.hub import HubAnswerer
from mgv.ask.answerers.openai import OpenAIAnswerer
from mgv.ask.answerers.video_llm import KEPT_MOMENTS, spread_words
from mgv.config import AnswererParams
from mgv.errors import ConfigError, MediaError, MgvError, UsageError
from mgv.media.frames import FrameBatch
from mgv.model.adapt import Lora, adapt
from mgv.model.build import build_processor, build_video_llm
from mgv.model.checkpoint import save_checkpoint
from mgv.records import Locate, Look, Moment, Written
from tests.endpoint import ChatServer, chat_server
from tests.media.make_video import make_video

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
        assert size_px in (
            FRAME_SIZE_PX,
            56,
        )  # a model of ours decodes at its own size, the tiny one at 56
        calls.append((path, list(times_s)))
        yield FrameBatch(
            times_s=tuple(times_s), frames=np.full((len(times_s), 30, 40, 3), 128, dtype=np.uint8)
        )

    monkeypatch.setattr("mgv.media.frames.read_frames", read)
    return calls


def inside(folder: Path) -> Locate:
    """Raw videos that lie in a folder by name."""
    return lambda moment: folder / moment.video


def test_words_are_spread_by_their_number_a_sentence_each():
    def cues(text: str) -> list[tuple[float, float, str]]:
        return [
            (cue.start_s, cue.end_s, cue.text) for cue in spread_words(replace(MOMENT, text=text))
        ]

    # from 2 s to 6 s, eight words: half a second each
    assert cues("One two three. Four!  Five six seven eight") == [
        (2.0, 3.5, "One two three."),
        (3.5, 4.0, "Four!"),
        (4.0, 6.0, "Five six seven eight"),
    ]
    long = cues("word " * 40)
    assert [len(text.split()) for _, _, text in long] == [24, 16]
    assert long[0][1] == pytest.approx(2.0 + 4.0 * 24 / 40)
    assert cues("  ") == []


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """Makes our answerer with a tiny random model that was saved and loaded."""

    def make(mode: str = "corrected") -> Any:
        model, tokenizer = build_video_llm("minigpt4_video", device="cpu")
        adapt(model, lora=Lora(rank=2))
        with torch.no_grad():
            model.connector.proj.weight.mul_(40)  # so that what is seen counts
        processor = build_processor(model, tokenizer, mode=mode, num_frames=4)  # type: ignore[arg-type]
        save_checkpoint(model, processor, tmp_path / "model")
        params = AnswererParams(
            name="video_llm",
            pretrained=str(tmp_path / "model"),
            device="cpu",
            num_frames=2,
            max_new_tokens=4,
        )
        return load_answerer(params, None, inside(tmp_path / "videos"))  # type: ignore[arg-type]

    return make


def test_our_model_reads_a_moment_once(own: Any, tmp_path: Path, seen: list[Any]):
    answerer = own()
    first = answer("what is said?", [MOMENT], answerer)
    assert first.citations[0].start_s == 2.0
    assert first.looks == (Look(number=1, times_s=(3.0, 5.0)),)
    assert answer("what is said?", [MOMENT], answerer) == first
    assert seen == [(tmp_path / "videos" / "talk.mp4", [3.0, 5.0])]
    for place in range(KEPT_MOMENTS):
        answer("what?", [replace(MOMENT, start_s=2.5, end_s=3.0 + place)], answerer)
    assert len(seen) == 1 + KEPT_MOMENTS
    answer("what is said?", [MOMENT], answerer)  # the oldest was let go of
    assert len(seen) == 2 + KEPT_MOMENTS


@pytest.mark.parametrize("mode", ["corrected", "upstream"])
def test_our_model_watches_each_moment_and_cites_the_one_its_answer_is_of(
    mode: str,
    own: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """The choice, from transformers' own scores of each moment asked by itself, on real videos."""
    monkeypatch.undo()
    (tmp_path / "videos").mkdir()
    moments = []
    for number, (name, score) in enumerate(
        (("gone", 0.9), ("a", 0.8), ("b", 0.8), ("c", 0.8)), start=1
    ):
        if name != "gone":
            make_video(tmp_path / "videos" / f"{name}.mp4", rate=5 * number, num_frames=10 * number)
        moments.append(
            replace(MOMENT, video=f"{name}.mp4", video_id=name, start_s=0.5, end_s=1.5, score=score)
        )
    answerer = own(mode)
    weights, texts = [0.0], [""]
    for moment in moments[1:]:
        clip = replace(answerer._watch(moment)[0], question="what?")
        assert clip.num_frames == (2 if mode == "corrected" else 4)
        output = answerer._model.generate(
            **answerer._processor([clip]).inputs(), max_new_tokens=4, do_sample=False, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        chances = [float(scores[0].softmax(-1).max()) for scores in output.scores]
        weights.append(moment.score * float(np.prod(chances)) ** (4 / len(chances)))
        texts.append(
            answerer._processor.tokenizer.decode(
                output.sequences[0], skip_special_tokens=True
            ).strip()
        )
    assert len(set(weights)) == 4
    best = int(np.argmax(weights))
    given = answer("what?", moments, answerer)
    assert given.text == f"{texts[best]} [{best + 1}]"
    assert [cited.video for cited in given.citations] == [moments[best].video]
    assert "moment 1 is left out: " in caplog.text
    raised = [
        replace(moment, score=0.999 if moment.video == "c.mp4" else 0.01) for moment in moments
    ]
    assert answer("what?", raised, answerer).citations[0].video == "c.mp4"
    with pytest.raises(MediaError):
        answer("what?", moments[:1], answerer)


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
    answerer = HubAnswerer(model, processor, inside(tmp_path), params)
    assert answerer.write("what?", [MOMENT]).looks == (Look(number=1, times_s=(3.0, 5.0)),)
    with pytest.raises(
        UsageError, match=r"are \d+ tokens: the model reads 2048, 3 are kept for the answer"
    ):
        answerer.write("what?" * 500, [MOMENT])


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setattr("mgv.ask.endpoint.time.sleep", lambda _: None)
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
    assert OpenAIAnswerer(inside(tmp_path), endpoint).write("what?", [MOMENT]) == Written(
        text="A rocket lifts off [1].", looks=(Look(number=1, times_s=(3.0, 5.0)),)
    )
    ((path, authorization, body),) = chat.requests
    assert (path, authorization, body["model"]) == (
        "/v1/chat/completions",
        "Bearer secret",
        "big-model",
    )
    kinds = [part["type"] for part in body["messages"][1]["content"]]
    assert kinds == ["text", "image_url", "image_url", "text"]
    assert body["messages"][1]["content"][1]["image_url"]["url"].startswith(
        "data:image/jpeg;base64,/9j/"
    )
    assert '"one two three"' in body["messages"][1]["content"][0]["text"]


def test_an_endpoint_is_not_shown_what_cannot_be_read(
    endpoint: AnswererParams, chat: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.undo()
    make_video(tmp_path / "here.mp4", rate=10, num_frames=80)
    gone, here = replace(MOMENT, video="gone.mp4"), replace(MOMENT, video="here.mp4")
    chat.replies = ["A dog [2]."]
    answerer = OpenAIAnswerer(inside(tmp_path), endpoint)
    written = answerer.write("what?", [gone, here])
    assert [look.number for look in written.looks] == [2]
    assert chat.bodies[0]["messages"][1]["content"][0]["text"].startswith("Moment [2], here.mp4")
    with pytest.raises(MediaError):
        answerer.write("what?", [gone])


def test_a_busy_endpoint_is_tried_again_a_bounded_number_of_times(
    endpoint: AnswererParams, chat: ChatServer, tmp_path: Path
):
    answerer = OpenAIAnswerer(inside(tmp_path), endpoint)
    chat.replies = [429, "none"]
    assert answerer.write("what?", [MOMENT]).text is None
    chat.replies = [503, 503]
    with pytest.raises(MgvError, match="no answer after 2 tries: 503"):
        answerer.write("what?", [MOMENT])


def test_a_refusal_and_a_strange_reply_are_told_at_once(
    endpoint: AnswererParams, chat: ChatServer, tmp_path: Path
):
    answerer = OpenAIAnswerer(inside(tmp_path), endpoint)
    chat.replies = [(401, {"error": "bad key"})]
    with pytest.raises(MgvError, match=r"401 .*bad key"):
        answerer.write("what?", [MOMENT])
    for strange in (
        {"choices": []},
        [],
        {"choices": [{"message": {"content": [{"text": "A dog."}]}}]},
    ):
        chat.replies = [(200, strange)]
        with pytest.raises(MgvError, match="its reply holds no answer"):
            answerer.write("what?", [MOMENT])


@pytest.mark.parametrize(
    "reply",
    [
        b"what?\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices"',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 500\r\n\r\nso",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + 40 * b" ",  # and on, but too slowly
    ],
)
def test_a_broken_or_endless_reply_is_told(
    reply: bytes, endpoint: AnswererParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    class Broken(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(2**20)
            for place in range(0, len(reply), 8):
                self.request.sendall(reply[place : place + 8])

    clock = count(step=2)
    monkeypatch.setattr("mgv.ask.endpoint.time.monotonic", lambda: next(clock))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        params = replace(
            endpoint, base_url=f"http://127.0.0.1:{server.server_address[1]}/v1", timeout_s=1
        )
        with pytest.raises(MgvError, match="no answer after 2 tries"):
            OpenAIAnswerer(inside(tmp_path), params).write("what?", [MOMENT])
        server.shutdown()


def test_a_newer_model_is_asked_by_its_own_names(
    endpoint: AnswererParams, chat: ChatServer, tmp_path: Path
):
    def refuses(kind: str, name: str) -> Any:
        return 400, {
            "error": {"message": f"Unsupported {kind}: '{name}' is not supported with this model."}
        }

    chat.replies = [
        refuses("parameter", "max_tokens"),
        refuses("value", "temperature"),
        "A dog.",
        "A cat.",
    ]
    answerer = OpenAIAnswerer(inside(tmp_path), endpoint)
    assert [answerer.write("what?", [MOMENT]).text for _ in range(2)] == ["A dog.", "A cat."]
    limits = [{"max_tokens", "temperature"}, {"max_completion_tokens", "temperature"}]
    limits += [{"max_completion_tokens"}] * 2
    assert [body.keys() - {"model", "messages"} for body in chat.bodies] == limits
    chat.replies = [refuses("parameter", "max_tokens")]
    with pytest.raises(MgvError, match="400 Bad Request"):  # and not for ever
        answerer.write("what?", [MOMENT])


def test_an_endpoint_that_is_not_there_is_told(tmp_path: Path):
    params = AnswererParams(
        name="openai", pretrained="m", base_url="http://127.0.0.1:9/v1", timeout_s=1, retries=0
    )
    with pytest.raises(MgvError, match="no answer after 1 tries"):
        OpenAIAnswerer(inside(tmp_path), params).write("what?", [MOMENT])


def test_a_missing_key_model_or_address_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for params, message in (
        (
            AnswererParams(name="openai", pretrained="gpt"),
            "set the environment variable OPENAI_API_KEY",
        ),
        (AnswererParams(name="openai"), "name the endpoint's model"),
        (
            AnswererParams(name="openai", pretrained="gpt", base_url="file:///etc/passwd"),
            "is no http",
        ),
        (
            AnswererParams(name="video_llm", pretrained="random"),
            "name the folder of a video language model",
        ),
        (AnswererParams(name="video_llm", quantization="8bit"), "8bit: needs a CUDA GPU"),
        (
            AnswererParams(name="hf", pretrained="big", quantization="4bit"),
            "4bit: needs a CUDA GPU",
        ),
        (
            AnswererParams(name="oracle"),
            "'oracle' is not one of hf, openai, quote, text, video_llm",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            load_answerer(params, None, inside(tmp_path))  # type: ignore[arg-type]


def test_none_is_no_answer():
    assert [said(text) for text in ("none", " None. ", "", "A dog.")] == [
        None,
        None,
        None,
        "A dog.",
    ]
