"""MiniGPT-v2's boxes and tasks, both ways."""

from __future__ import annotations

import pytest

from mgv.errors import UsageError
from mgv.model.boxes import Box, read_boxes, read_grounded, task_text, write_box, write_grounded


def box(*corners: float) -> Box:
    left, top, right, bottom = corners
    return Box(left=left, top=top, right=right, bottom=bottom)


def test_a_box_is_cut_to_whole_hundredths():
    assert write_box(box(64 / 640, 239.9 / 480, 1.0, 0.999)) == "{<10><49><100><99>}"
    assert (
        write_box(box(29 / 100, 0, 0.5, 1)) == "{<28><0><50><100>}"
    )  # 29 / 100 * 100 is 28.999..., cut


def test_grounded_text_joins_boxes():
    text = write_grounded("a dog", [box(0.1, 0.2, 0.3, 0.4), box(0, 0, 1, 1)])
    assert text == "<p>a dog</p> {<10><20><30><40>}<delim>{<0><0><100><100>}"
    assert read_grounded(text) == [("a dog", [box(0.1, 0.2, 0.3, 0.4), box(0, 0, 1, 1)])]


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("{<1><2><3><4>}", [box(0.01, 0.02, 0.03, 0.04)]),
        ("{<30><40><10><20>}", [box(0.1, 0.2, 0.3, 0.4)]),  # corners the wrong way round
        ("{<0><0><120><999>}", [box(0, 0, 1, 1)]),  # beyond the image
        ("{<-3><0><50><100>}", [box(0, 0, 0.5, 1)]),
        ("{<1><2><3><4>} and {<5><6", [box(0.01, 0.02, 0.03, 0.04)]),  # the last one unfinished
        ("{<1><2><3><4>", [box(0.01, 0.02, 0.03, 0.04)]),  # only its brace missing
        ("nothing here {<1><2><3>}", []),
        ("", []),
    ],
)
def test_boxes_are_read_as_models_write_them(text: str, boxes: list[Box]):
    assert read_boxes(text) == boxes


def test_phrases_keep_their_own_boxes():
    text = "<p>a man</p> {<1><2><3><4>} rides <p>a horse</p>{<5><6><7><8>}<delim>{<9><9><9><9>} on <p>sand</p> ."
    found = read_grounded(text)
    assert [phrase for phrase, _ in found] == ["a man", "a horse"]
    assert [len(boxes) for _, boxes in found] == [1, 2]


def test_every_box_survives_the_way_there_and_back():
    for left in range(0, 100, 7):
        written = f"{{<{left}><{left}><{left + 1}><100>}}"
        (read,) = read_boxes(written)
        nudged = Box(
            left=read.left + 1e-9, top=read.top + 1e-9, right=read.right + 1e-9, bottom=read.bottom
        )
        assert write_box(nudged) == written


def test_a_task_is_a_tag_ahead_of_the_text():
    assert task_text("refer", "the dog") == "[refer] the dog"
    with pytest.raises(UsageError, match="none of vqa, caption"):
        task_text("sing", "a song")  # type: ignore[arg-type]
