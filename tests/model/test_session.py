"""Follow-up questions reuse the visual prefix and get the answers that a fresh run gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mgv.model.session import VideoSession
from tests.model.conftest import ARCHITECTURES, tiny_clip

QUESTIONS = ("what is it?", "who speaks?", "what is it?", "a much longer question than the others?")


@pytest.mark.parametrize("mode", ["corrected", "upstream"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_reuse_equals_recomputing(name: str, mode: str, built: Callable[..., Any]):
    model, processor = built(name, mode)
    clip = tiny_clip()
    session = VideoSession(model, processor, clip)
    for question in QUESTIONS:
        fresh = model.generate(
            **processor([replace(clip, question=question)]).inputs(), max_new_tokens=5
        )
        assert session.generate(question, max_new_tokens=5).tolist() == fresh.tolist()


def test_the_logits_of_a_follow_up_equal_those_recomputed(built: Callable[..., Any]):
    model, processor = built("minigpt4_video")
    clip = tiny_clip()
    session = VideoSession(model, processor, clip)
    session.ask("what is it?", max_new_tokens=2)
    seen: list[torch.Tensor] = []
    hook = model.language_model.register_forward_hook(lambda *call: seen.append(call[2].logits))
    session.ask("who speaks?", max_new_tokens=1)
    hook.remove()
    with torch.no_grad():
        whole = model(**processor([replace(clip, question="who speaks?")]).inputs()).logits
    assert (seen[0][0, -1] - whole[0, -1]).abs().max() < 1e-4
    read = len(processor.tokenizer("\nwho speaks? [/INST]").input_ids)
    assert seen[0].shape[1] <= read + 1  # the visual prefix was not read again


@pytest.mark.parametrize(("name", "num_connections"), [("minigpt4_video", 1), ("llama_vid", 3)])
def test_the_vision_encoder_runs_once_and_question_guided_tokens_are_made_anew(
    name: str, num_connections: int, built: Callable[..., Any]
):
    model, processor = built(name)
    calls: list[str] = []
    model.vision_encoder.register_forward_hook(lambda *_: calls.append("vision"))
    model.connector.register_forward_hook(lambda *_: calls.append("connector"))
    session = VideoSession(model, processor, tiny_clip())
    for question in QUESTIONS[:3]:
        session.ask(question, max_new_tokens=1)
    assert calls.count("vision") == 1
    assert calls.count("connector") == num_connections


def test_a_question_that_leaves_room_for_fewer_frames_starts_afresh(built: Callable[..., Any]):
    model, processor = built("minigpt4_video")
    tight = replace(processor.config, context_tokens=110, max_new_tokens=8)
    processor = type(processor)(tight, processor.tokenizer)
    clip = tiny_clip(num_frames=6, cues=())
    session = VideoSession(model, processor, clip)
    counts = []
    for question in ("why?", "why " * 10, "why?"):
        batch = processor([replace(clip, question=question)])
        counts.append(len(batch.prompts[0].frames))
        fresh = model.generate(**batch.inputs(), max_new_tokens=4)
        assert session.generate(question, max_new_tokens=4).tolist() == fresh.tolist()
    assert counts[0] == counts[2] > counts[1]


def test_a_dialogue_goes_on_from_its_own_words(built: Callable[..., Any]):
    model, processor = built("minigpt4_video")
    clip = tiny_clip()
    session = VideoSession(model, processor, clip)
    answer = session.ask("what is it?", max_new_tokens=4)
    history = (("what is it?", answer),)
    fresh = model.generate(
        **processor([replace(clip, question="and then?", history=history)]).inputs(),
        max_new_tokens=4,
    )
    assert session.generate("and then?", history, max_new_tokens=4).tolist() == fresh.tolist()
