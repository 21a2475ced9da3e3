"""Several questions share the frames they ask about: the same loss as one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mgv.model.video_llm import IGNORED, branch_mask, branch_positions
from tests.model.conftest import tiny_clip

TURNS = (
    ("what is it?", "a dog"),
    ("who speaks at the end of it?", "the man"),
    ("why?", "no one knows that"),
)


def test_a_branch_sees_what_is_shared_and_itself():
    branches = torch.tensor([[0, 0, 1, 1, 2, -1]])
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]
    assert branch_mask(branches)[0, 0].int().tolist() == expected


def test_every_branch_goes_on_from_what_is_shared():
    branches = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 3], [0, 1, 1, 1, 2, -1, -1, -1, -1]])
    assert branch_positions(branches)[0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 3]
    assert branch_positions(branches)[1, :5].tolist() == [0, 1, 2, 3, 1]


@pytest.mark.parametrize("connector", ["minigpt4_video", "minigpt_v2", "video_llava"])
def test_packed_questions_have_the_loss_and_gradients_of_a_row_each(
    connector: str, built: Callable[..., Any]
):
    model, processor = built(connector)
    clips = [tiny_clip(num_frames=1, seed=1), tiny_clip(num_frames=1, seed=2, cues=())]
    lessons = [[[turn] for turn in TURNS], [[TURNS[1]]]]
    model.requires_grad_(False)
    model.connector.requires_grad_(True)

    packed = model(**processor.pack(clips, lessons).inputs()).loss
    packed.backward()
    got = [parameter.grad.clone() for parameter in model.connector.parameters()]
    model.zero_grad()

    rows = [
        replace(clip, question=question, answer=answer)
        for clip, lesson in zip(clips, lessons, strict=True)
        for [(question, answer)] in lesson
    ]
    apart = model(**processor(rows).inputs()).loss
    apart.backward()
    assert abs(packed.item() - apart.item()) < 1e-5
    for gradient, parameter in zip(got, model.connector.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-6)


def test_every_answer_of_a_dialogue_is_learnt_and_nothing_else(built: Callable[..., Any]):
    _, processor = built("minigpt4_video")
    batch = processor.pack([tiny_clip()], [[TURNS[:2]]])
    labels, ids = batch.labels[0], batch.input_ids[0]
    learnt = processor.tokenizer.decode(labels[labels != IGNORED])
    assert learnt == "a dog</s>the man</s>"
    assert torch.equal(ids[labels != IGNORED], labels[labels != IGNORED])
    words = processor.tokenizer.decode(ids[ids >= 0])
    assert words.endswith(
        "what is it? [/INST]a dog</s>[INST] who speaks at the end of it? [/INST]the man</s>"
    )


def test_the_loss_is_the_mean_over_the_answers_tokens(built: Callable[..., Any]):
    model, processor = built("minigpt4_video")
    batch = processor([tiny_clip(answer="a dog"), tiny_clip("why?", answer="no one knows that")])
    inputs = batch.inputs()
    labels = inputs.pop("labels")
    logits = model(**inputs).logits
    losses = [
        F.cross_entropy(logits[row, place - 1][None], labels[row, place][None]).item()
        for row in range(2)
        for place in range(1, labels.shape[1])
        if labels[row, place] != -100
    ]
    assert abs(model(**batch.inputs()).loss.item() - sum(losses) / len(losses)) < 1e-5


def test_a_long_dialogue_thins_the_frames_of_all_that_share_them(built: Callable[..., Any]):
    _, processor = built("minigpt4_video")
    long = "why " * 180
    batch = processor.pack([tiny_clip(num_frames=40)], [[[TURNS[0]], [(long, "yes")]]])
    prefix = int((batch.branches[0] == 0).sum())
    longest = int((batch.branches[0] == 2).sum())
    assert batch.prompts[0].report.num_frames < 40
    assert prefix + longest <= processor.config.context_tokens
