"""Chat: questions that build on each other. What a follow-up leaves unsaid is taken from the question before it.

"and when was that?" names nothing: it is asked with the subject of the question before, of the videos that answered it.
Every turn is a question like any other, with its receipt; the turns are kept in data/chats/<id>.jsonl.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from mgv.ask.kinds import understand
from mgv.errors import MgvError, UsageError, WorkspaceError
from mgv.records import Answer

if TYPE_CHECKING:
    from mgv.ask.library import Library

LAST = "last"
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_LEANS = re.compile(
    r"^(?:and|but|so|then)\b|^(?:what|how) about\b|^why(?: not)?\W*$"
    r"|\b(?:it|its|that|this|those|these|he|him|his|she|her|hers|they|them|their|there|then|the same)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(r"^(?:(?:and|but|so|then)\b[ ,]*)+|^(?:what|how) about\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ChatTurn:
    """A question of a chat and what became of it."""

    said: str
    """As it was typed."""
    question: str
    """As it was asked: with what it left unsaid."""
    videos: tuple[str, ...] | None
    """The ids of the videos that were asked; None: all."""
    answer: str | None
    reason: str | None
    cited: tuple[str, ...]
    """The ids of the videos that are cited."""
    receipt_id: str | None


class Chat:
    """A conversation with a library. Not for use from several threads at once."""

    def __init__(self, library: Library, chat_id: str | None = None) -> None:
        """chat_id: a kept chat to go on with, or `last`; None begins another.

        Raises UsageError for one that is not kept, WorkspaceError for one that was damaged.
        """
        self.library = library
        self._folder = library.workspace.root / "data" / "chats"
        self.chat_id = _new_id() if chat_id is None else _kept_id(self._folder, chat_id)
        self.turns: list[ChatTurn] = [] if chat_id is None else _read(self._path)

    @property
    def _path(self) -> Path:
        return self._folder / f"{self.chat_id}.jsonl"

    def ask(self, said: str) -> Answer:
        """The answer to the next question, kept as a turn."""
        *_, answer = self.stream(said)
        assert isinstance(answer, Answer), "a stream ends with its answer"
        return answer

    def stream(self, said: str) -> Iterator[str | Answer]:
        """`ask`, as it comes: pieces of the text, then the Answer. A turn is kept when its answer is whole."""
        question, videos = self.resolve(said)
        for piece in self.library.ask_stream(question, videos=videos):
            if isinstance(piece, Answer):
                self._keep(said, question, videos, piece)
            yield piece

    def resolve(self, said: str) -> tuple[str, list[str] | None]:
        """A question with what it leaves unsaid, and the videos to ask it of; None: all."""
        if not self.turns or understand(said).kind in ("chat", "library") or not _leans(said):
            return said, None
        before = self.turns[-1]
        missing = () if understand(said).subject else understand(before.question).subject
        plain = _OPENING.sub("", said).strip(" ,?") or "what is said"
        about = f" ({' '.join(missing)})" if missing else ""
        names = [video.video_id for video in self.library.videos()]
        videos = [video_id for video_id in before.cited if video_id in names]
        return f"{plain}{about}?", videos or (list(before.videos) if before.videos else None)

    def _keep(self, said: str, question: str, videos: list[str] | None, answer: Answer) -> None:
        turn = ChatTurn(
            said=said,
            question=question,
            videos=None if videos is None else tuple(videos),
            answer=answer.text,
            reason=answer.reason,
            cited=tuple(dict.fromkeys(citation.video_id for citation in answer.citations)),
            receipt_id=answer.receipt_id,
        )
        if (
            not turn.cited and self.turns and _leans(said)
        ):  # the thread is not lost by one question without an answer
            turn = replace(turn, cited=self.turns[-1].cited)
        self.turns.append(turn)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(asdict(turn)) + "\n")
        except OSError as error:
            raise MgvError(f"{self._path}: this turn cannot be kept: {error.strerror}") from error


def _leans(said: str) -> bool:
    """Whether a question needs the one before it: it points back, or names nothing itself."""
    return _LEANS.search(said) is not None or not understand(said).subject


def _new_id() -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _kept_id(folder: Path, wanted: str) -> str:
    ids = sorted(path.stem for path in folder.glob("*.jsonl") if _ID.fullmatch(path.stem))
    if wanted == LAST and ids:
        return ids[-1]
    if wanted not in ids:
        known = f"; the last ones are {', '.join(ids[-3:])}" if ids else "; none is kept yet"
        raise UsageError(f"{wanted[:60]!r} is no chat of this workspace{known}")
    return wanted


def _read(path: Path) -> list[ChatTurn]:
    """The turns of a chat; a last line that a kill cut off is left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    turns = []
    for number, line in enumerate(lines, start=1):
        try:
            turns.append(TypeAdapter(ChatTurn).validate_python(json.loads(line)))
        except (ValueError, ValidationError) as error:
            if number < len(lines):
                raise WorkspaceError(
                    f"{path}: line {number} is no turn of a chat; was it edited?"
                ) from error
    return turns
