"""Chapters and chat: pure cuts by hand, and a conversation whose library only records what it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from mgv.ask.chat import Chat
from mgv.errors import UsageError
from mgv.library.chapters import Chapter, cut, title, webvtt
from mgv.records import Answer, Citation
from mgv.workspace import Workspace


class Recorder:
    """A library that answers everything from one video."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.asked: list[tuple[str, list[str] | None]] = []

    def videos(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(video_id="a")]

    def ask_stream(self, question: str, *, videos: list[str] | None) -> Iterator[str | Answer]:
        self.asked.append((question, videos))
        cited = Citation(number=1, video="a.mp4", video_id="a", start_s=0.0, end_s=1.0)
        yield "Yes. [1]"
        yield Answer(question=question, text="Yes. [1]", citations=(cited,), moments=())


def test_a_follow_up_is_asked_with_the_subject_and_the_videos_of_the_question_before(
    workspace: Workspace,
):
    library = Recorder(workspace)
    chat = Chat(library)  # type: ignore[arg-type]
    for said in ("how old is Kiwi?", "and why?", "who fed the parrot then?", "where is Leeds?"):
        chat.ask(said)
    assert library.asked == [
        ("how old is Kiwi?", None),
        ("why (kiwi)?", ["a"]),
        ("who fed the parrot then?", ["a"]),
        ("where is Leeds?", None),
    ]
    again = Chat(library, "last")  # type: ignore[arg-type]
    assert (again.chat_id, again.turns) == (chat.chat_id, chat.turns)


def test_an_unknown_chat_is_an_error_in_words(workspace: Workspace):
    with pytest.raises(UsageError, match="no chat of this workspace"):
        Chat(Recorder(workspace), "../../etc/passwd")  # type: ignore[arg-type]


def test_a_video_is_cut_where_its_vectors_turn():
    one, other = np.asarray([1.0, 0.0]), np.asarray([0.0, 1.0])
    vectors = np.stack([one] * 6 + [other] * 6)
    assert cut([10.0 * n for n in range(12)], vectors) == [0, 6]
    assert cut([10.0 * n for n in range(12)], np.stack([one] * 12)) == [0]
    assert cut([0.0], one[None]) == [0]
    assert cut([1.0 * n for n in range(12)], vectors) == [
        0
    ]  # both parts would be shorter than 20 s


def test_chapters_are_a_webvtt_track_whose_titles_are_only_text():
    parts = [Chapter(start_s=0.0, end_s=3725.5, title="a <b> & c")]
    assert webvtt(parts) == "WEBVTT\n\n00:00:00.000 --> 01:02:05.500\na &lt;b&gt; &amp; c\n"
    assert title("Short.") == "Short"
    assert title("word " * 30) == "word " * 14 + "…"
