"""`quote`: no language model; the sentence that answers is quoted."""

from __future__ import annotations

from collections.abc import Sequence

from mgv.ask.answer import Answerer
from mgv.ask.evidence import Passage
from mgv.config import AnswererParams
from mgv.encoders.base import TextEmbedder
from mgv.records import Locate, Moment


class QuoteAnswerer:
    """`quote`: words nothing itself, so that mgv/ask/replies.py quotes the sentence that answers.

    On the development questions (docs/answers.md) the starter's own words made no answer better, and took 1.2 s each.
    """

    def phrase(self, question: str, passages: Sequence[Passage]) -> str | None:
        """Nothing."""
        return None

    def write(self, question: str, moments: Sequence[Moment]) -> str | None:
        """Nothing."""
        return None


def load(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    """It has no weights."""
    return QuoteAnswerer()
