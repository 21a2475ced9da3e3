"""What the command line and the server give as JSON: one shape for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mgv.records import Answer, Moment


def plain(value: Any) -> Any:
    """Tuples and paths as JSON knows them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def moments_json(moments: Sequence[Moment]) -> list[dict[str, Any]]:
    """Ranked moments."""
    return [plain(asdict(moment)) for moment in moments]


def answer_json(answer: Answer) -> dict[str, Any]:
    """An answer with its citations, or the reason why there is none."""
    return {
        "query": answer.question,
        "kind": answer.kind,
        "answer": answer.text,
        "reason": answer.reason,
        "citations": [plain(asdict(citation)) for citation in answer.citations],
        "moments": moments_json(answer.moments),
        "nearest": moments_json(answer.nearest),
        "receipt": answer.receipt_id,
    }
