"""Tiny videos, and questions about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.media.make_video import make_video


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 (2 s, with subtitles beside it) and b.mp4 (1 s)."""
    folder = tmp_path_factory.mktemp("clips")
    make_video(folder / "a.mp4", num_frames=50)
    make_video(folder / "b.mp4", num_frames=25)
    (folder / "a.vtt").write_text("WEBVTT\n\n00:00.200 --> 00:00.800\nhello there\n")
    return folder


@pytest.fixture(scope="session")
def questions_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six questions in our own format; two with choices, one about a stretch."""
    rows: list[dict[str, Any]] = [
        {
            "item_id": "a1",
            "video": "a.mp4",
            "question": "what is said?",
            "answer": "hello there",
            "kind": "said",
        },
        {
            "item_id": "a2",
            "video": "a.mp4",
            "question": "what is seen?",
            "answer": "a number",
            "kind": "seen",
        },
        {
            "item_id": "a3",
            "video": "a.mp4",
            "question": "colour?",
            "answer": "grey",
            "choices": ["grey", "red"],
        },
        {
            "item_id": "b1",
            "video": "b.mp4",
            "question": "what is seen?",
            "answer": "a number",
            "kind": "seen",
        },
        {
            "item_id": "b2",
            "video": "b.mp4",
            "question": "colour?",
            "answer": "red",
            "choices": ["grey", "red"],
        },
        {
            "item_id": "b3",
            "video": "b.mp4",
            "question": "moves?",
            "answer": "yes",
            "start_s": 0.4,
            "end_s": 0.8,
        },
    ]
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
