"""Ask a file of questions, one answer a line.  python -m flows.ask FILE [--output FILE] [--library DIR]

FILE has a question a line, or (.jsonl) an object: {"question": …, "id": …, "videos": [name, …]}. What is answered
already is not asked again: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows import FLOW_RUN, gpu_slot, may_pass, run_flow
from mgv.errors import MgvError, UsageError
from mgv.evaluate.results import write_text

LOG_EVERY = 20
"""Questions."""


@dataclass(frozen=True, kw_only=True)
class AskedQuestion:
    """A line of the file."""

    id: str
    """Its own, or the number of its line."""
    question: str
    videos: list[str] | None = None
    """Ask only these."""


def read_asked(path: Path) -> list[AskedQuestion]:
    """The questions of a file. Raises UsageError that names the line at fault."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    asked = [_asked(path, n, line) for n, line in enumerate(lines, start=1) if line.strip()]
    if len({each.id for each in asked}) < len(asked):
        raise UsageError(f"{path}: two questions have the same id")
    return asked


def _asked(path: Path, number: int, line: str) -> AskedQuestion:
    if path.suffix != ".jsonl":
        return AskedQuestion(id=str(number), question=line.strip())
    try:
        row = json.loads(line)
        videos = row.get("videos")
        if not isinstance(row["question"], str) or not (videos is None or isinstance(videos, list)):
            raise ValueError('"question" is text, "videos" a list of names')
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'{path}: line {number}: {error}; expected {{"question": …}}') from error
    return AskedQuestion(
        id=str(row.get("id", number)),
        question=row["question"],
        videos=videos and [str(v) for v in videos],
    )


def kept_answers(path: Path, asked: list[AskedQuestion]) -> list[dict[str, Any]]:
    """What an earlier run answered, without what failed and a line that a kill cut off."""
    rows = []
    questions = {each.id: each.question for each in asked}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict) or questions.get(row.get("id", "")) != row.get("question"):
            raise UsageError(
                f"{path}: holds answers to other questions; name another file by --output"
            )
        if not row.get("error"):
            rows.append(row)
    return rows


@task(
    name="answer",
    task_run_name="answer {asked.id}",
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def answer_one(library: Any, asked: AskedQuestion) -> dict[str, Any]:
    """A row of the answers' file."""
    given = library.ask(asked.question, videos=asked.videos)
    return {
        "id": asked.id,
        "question": asked.question,
        "answer": given.text,
        "citations": [asdict(citation) for citation in given.citations],
        "receipt": getattr(given, "receipt_id", None),
    }


@flow(name="ask", flow_run_name="ask {questions}")
def ask(questions: Path, output: Path | None = None, library: Path = Path()) -> dict[str, int]:
    """Answer every question from what is live. Raises MgvError when some failed: a further run asks those again."""
    from mgv.ask.library import Library

    log = get_run_logger()
    os.environ[FLOW_RUN] = str(flow_run.id)
    output = output or questions.with_name(f"{questions.stem}.answers.jsonl")
    asked = read_asked(questions)
    kept = kept_answers(output, asked)
    write_text(output, "".join(json.dumps(row) + "\n" for row in kept))
    known = {row["id"] for row in kept}
    failed = 0
    opened = Library.open(library)
    with gpu_slot(), output.open("a", encoding="utf-8") as out:
        for number, each in enumerate(asked, start=1):
            if each.id in known:
                continue
            row = _row(opened, each)
            failed += "error" in row
            out.write(json.dumps(row) + "\n")
            out.flush()
            if number % LOG_EVERY == 0 or number == len(asked):
                log.info("%d of %d questions", number, len(asked))
    if failed:
        raise MgvError(
            f"{failed} of {len(asked)} questions failed ({output} has why); run it again to ask them"
        )
    return {"questions": len(asked), "kept": len(kept)}


def _row(library: Any, asked: AskedQuestion) -> dict[str, Any]:
    try:
        return answer_one(library, asked)
    except MgvError as error:
        return {"id": asked.id, "question": asked.question, "answer": None, "error": str(error)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path, metavar="FILE")
    parser.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="FILE.answers.jsonl when left out"
    )
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    given = parser.parse_args()
    run_flow(ask, questions=given.questions, output=given.output, library=given.library)
