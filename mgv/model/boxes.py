"""Boxes and tasks of MiniGPT-v2, as text both ways.

A box is its corners over the image size, times 100, cut to whole numbers: `{<x1><y1><x2><y2>}`, as in
minigpt4/datasets/datasets/coco_dataset.py. Grounded text is `<p>phrase</p> {<..>}<delim>{<..>}` (demo_v2.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from mgv.errors import UsageError

Task = Literal["vqa", "caption", "grounding", "refer", "identify", "detection"]
SCALE = 100
_BOX = re.compile(r"\{?\s*<(-?\d{1,3})>\s*<(-?\d{1,3})>\s*<(-?\d{1,3})>\s*<(-?\d{1,3})>\s*\}?")
_PHRASE = re.compile(r"<p>(.*?)</p>((?:\s|<delim>|[{}]|<-?\d{1,3}>)*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Corners as shares of the image, 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float


def task_text(task: Task, text: str) -> str:
    """`[task] text`: what the person asks, under a task's tag."""
    if task not in get_args(Task):
        raise UsageError(f"task {task!r} is none of {', '.join(get_args(Task))}")
    return f"[{task}] {text}"


def write_box(box: Box) -> str:
    """A box as MiniGPT-v2 writes it."""
    corners = (box.left, box.top, box.right, box.bottom)
    return "{" + "".join(f"<{int(corner * SCALE)}>" for corner in corners) + "}"


def write_grounded(phrase: str, boxes: list[Box]) -> str:
    """A phrase and where it is."""
    return f"<p>{phrase}</p> " + "<delim>".join(write_box(box) for box in boxes)


def read_boxes(text: str) -> list[Box]:
    """Every finished box of a text, corners in order, cut to the image; an unfinished last one is left out."""
    return [_read(match) for match in _BOX.finditer(text)]


def read_grounded(text: str) -> list[tuple[str, list[Box]]]:
    """(phrase, boxes) in order; phrases without a finished box are left out."""
    phrases = ((match[1].strip(), read_boxes(match[2])) for match in _PHRASE.finditer(text))
    return [(phrase, boxes) for phrase, boxes in phrases if boxes]


def _read(match: re.Match[str]) -> Box:
    x1, y1, x2, y2 = (max(0, min(int(corner), SCALE)) / SCALE for corner in match.groups())
    return Box(left=min(x1, x2), top=min(y1, y2), right=max(x1, x2), bottom=max(y1, y2))
