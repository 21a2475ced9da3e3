"""Right, wrong and refused on the narrated development set, with Wilson's 95 % intervals.

python -m tests.tools.devset.measure WORKSPACE QUESTIONS.jsonl [--quote-only] [--within-video]

Right: the answer or its quote holds the reference's words, numbers as values, and a citation overlaps its moment.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from math import sqrt
from pathlib import Path
from typing import Any

from mgv import Library
from mgv.ask.kinds import understand
from mgv.ask.numbers import numbers, tokens
from mgv.ask.replies import Replier
from mgv.records import Answer


def plain(text: str) -> str:
    """Words, with numbers as digits."""
    words = tokens(text.replace("-", " "))
    for number in reversed(numbers(words)):
        words[number.first : number.after] = [number.value]
    return " ".join(words)


def outcome(row: dict[str, Any], answer: Answer) -> str:
    if answer.text is None:
        return "refused"
    if row["answer"] is None:
        return "wrong"
    said = " ".join([answer.text, *(citation.quote for citation in answer.citations)])
    moment = row["moments"][0]
    cited = any(
        citation.video == row["video"]
        and citation.start_s < moment["end_s"]
        and citation.end_s > moment["start_s"]
        for citation in answer.citations
    )
    return "right" if plain(row["answer"]) in plain(said) and cited else "wrong"


def interval(count: int, of: int) -> str:
    """A share in percent with Wilson's interval."""
    if not of:
        return "-"
    z, share = 1.96, count / of
    middle, spread = (
        share + z * z / (2 * of),
        z * sqrt(share * (1 - share) / of + z * z / (4 * of * of)),
    )
    low, high = ((middle + sign * spread) / (1 + z * z / of) for sign in (-1, 1))
    return f"{100 * share:.0f} % ({100 * low:.0f}-{100 * high:.0f}), {count} of {of}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--quote-only", action="store_true")
    parser.add_argument("--within-video", action="store_true")
    given = parser.parse_args()
    library = Library.open(given.workspace)
    counts: Counter[tuple[bool, str]] = Counter()
    worded, begin_s = 0, time.perf_counter()
    rows = [json.loads(line) for line in given.questions.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        videos = library.video_ids([row["video"]]) if given.within_video else None
        if given.quote_only:
            answer = Replier(library, understand(row["question"]), videos, None).answer()
        else:
            answer = library.ask(row["question"], videos=videos, keep_receipt=False)
        result = outcome(row, answer)
        counts[row["answer"] is not None, result] += 1
        worded += answer.text is not None and "“" not in answer.text
        if result == "wrong":
            print("wrong:", row["question"], "|", row["answer"], "|", answer.text)
    answered = sum(counts[True, name] for name in ("right", "wrong", "refused"))
    empty = sum(counts[False, name] for name in ("wrong", "refused"))
    print("answered by speech, right:", interval(counts[True, "right"], answered))
    print("answered by speech, refused:", interval(counts[True, "refused"], answered))
    print("answered nowhere, refused:", interval(counts[False, "refused"], empty))
    print(
        "wrong, of all:", interval(counts[True, "wrong"] + counts[False, "wrong"], answered + empty)
    )
    print(
        f"in the model's words: {worded}; {(time.perf_counter() - begin_s) / len(rows):.2f} s a question"
    )


if __name__ == "__main__":
    main()
