"""Make the narrated development library: grey videos whose subtitles are the texts of narrated.txt, and its questions.

python -m tests.tools.devset.make_narrated FOLDER

Writes FOLDER/videos/NAME.mp4 with NAME.vtt beside it (2.5 words a second, cues of at most seven words, cut wherever a
cue is full, as broadcasters' are), and FOLDER/{fit,validation}.jsonl: questions in mgv's own format, split by video.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from tests.media.make_video import make_video

TEXTS = Path(__file__).with_name("narrated.txt")
WORDS_A_SECOND = 2.5
WORDS_A_CUE = 7


def clips() -> list[tuple[str, str, list[tuple[str, str | None]]]]:
    """Name, text, and questions with what a right answer holds (None: it is said nowhere)."""
    found = []
    for block in TEXTS.read_text(encoding="utf-8").split("# ")[1:]:
        name, text, *asked = block.strip().splitlines()
        pairs = [line.removeprefix("? ").rsplit(" | ", 1) for line in asked]
        found.append(
            (
                name,
                text,
                [(question, None if answer == "-" else answer) for question, answer in pairs],
            )
        )
    return found


def webvtt(text: str) -> str:
    words, blocks = text.split(), ["WEBVTT"]
    for first in range(0, len(words), WORDS_A_CUE):
        cue = words[first : first + WORDS_A_CUE]
        times = (first / WORDS_A_SECOND, (first + len(cue)) / WORDS_A_SECOND)
        blocks.append(
            " --> ".join(f"00:{int(t // 60):02}:{t % 60:06.3f}" for t in times)
            + "\n"
            + " ".join(cue)
        )
    return "\n\n".join(blocks) + "\n"


def question_rows(
    name: str, text: str, asked: list[tuple[str, str | None]]
) -> list[dict[str, Any]]:
    """Rows of mgv's question format; a moment is the whole sentence that holds the answer."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    rows = []
    for number, (question, answer) in enumerate(asked, start=1):
        row: dict[str, Any] = {
            "item_id": f"{name}/{number:02}", "video": f"{name}.mp4", "question": question, "answer": answer,
            "kind": "said" if answer else "unanswerable",
        }  # fmt: skip
        if answer:
            place = next(n for n, sentence in enumerate(sentences) if answer in sentence)
            before = sum(len(sentence.split()) for sentence in sentences[:place])
            after = before + len(sentences[place].split())
            row["moments"] = [{"start_s": before / WORDS_A_SECOND, "end_s": after / WORDS_A_SECOND}]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    split: dict[str, list[dict[str, Any]]] = {"fit": [], "validation": []}
    for number, (name, text, asked) in enumerate(clips()):
        duration_s = len(text.split()) / WORDS_A_SECOND
        path, size = (
            folder / "videos" / f"{name}.mp4",
            (96 + 2 * number, 64),
        )  # no two are the same file
        make_video(path, num_frames=int(duration_s * 2) + 1, rate=2, size=size)
        (folder / "videos" / f"{name}.vtt").write_text(webvtt(text), encoding="utf-8")
        split["fit" if number % 2 == 0 else "validation"] += question_rows(name, text, asked)
    for part, rows in split.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{part}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
