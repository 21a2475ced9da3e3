"""Asking at length: chapters, chat."""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mgv.cli.app import app
from mgv.cli.console import HERE, Json, LibraryDir, open_library, printable, show, span, spinner
from mgv.errors import MgvError, UsageError

if TYPE_CHECKING:
    from mgv.ask.chat import Chat
    from mgv.records import Answer


@app.command()
def chapters(
    video: Annotated[str, typer.Argument(help="A video of the library, by file name.")],
    library: LibraryDir = HERE,
    as_webvtt: Annotated[
        bool, typer.Option("--webvtt", help="Print a WebVTT chapters track, for a player.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a video's chapters: where what is said and seen turns to something else."""
    from mgv.library.chapters import outline, webvtt

    if as_webvtt and as_json:
        raise UsageError("--webvtt and --json: choose one of them")
    with spinner("reading"):
        opened = open_library(library)
        parts = opened.chapters(video)
    text = webvtt(parts).rstrip("\n") if as_webvtt else printable_lines(outline(parts))
    show(as_json, {"video": video, "chapters": [asdict(part) for part in parts]}, text)


def printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))


@app.command()
def chat(
    library: LibraryDir = HERE,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume", metavar="ID", help="Go on with a kept chat; `last` is the newest."
        ),
    ] = None,
) -> None:
    """Talk with the library. Ctrl-C ends an answer, Ctrl-D the chat; every turn has its receipt."""
    from mgv.ask.chat import Chat

    with spinner("reading"):
        talk = Chat(open_library(library), resume)
    print(
        f"chat {talk.chat_id} (Ctrl-D ends it; `mgv chat --resume {talk.chat_id}` goes on)",
        file=sys.stderr,
    )
    for turn in talk.turns:
        print(f"> {printable(turn.said)}\n{printable(turn.answer or f'no answer: {turn.reason}')}")
    stop = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while (line := _read_line()) is not None:
            if line.strip():
                _turn(talk, line)
    finally:
        signal.signal(signal.SIGINT, stop)


def _read_line() -> str | None:
    """The next question; None at the end of the input. Ctrl-C forgets the line."""
    while True:
        try:
            return input("> ")
        except KeyboardInterrupt:
            print("\n(Ctrl-D ends the chat)", file=sys.stderr)
        except EOFError:
            return None


def _turn(talk: Chat, said: str) -> None:
    """Ask and print as it comes. Ctrl-C ends the answer."""
    from mgv.records import Answer

    try:
        for piece in talk.stream(said):
            if isinstance(piece, Answer):
                print(_ending(piece))
            else:
                print(printable(piece), end="", flush=True)
    except KeyboardInterrupt:
        print("\n(stopped; this answer is not kept)", file=sys.stderr)
    except MgvError as error:
        print(f"mgv: {printable(str(error))}", file=sys.stderr)


def _ending(answer: Answer) -> str:
    """Citations and receipt, below the text; or why there is none."""
    lines = (
        [""]
        if answer.text
        else [f"no answer: {printable(answer.reason or 'nothing answers that')}"]
    )
    lines += [f"[{each.number}] {printable(each.video)}  {span(each)}" for each in answer.citations]
    if answer.receipt_id:
        lines.append(f"receipt {answer.receipt_id}")
    return "\n".join(lines)
