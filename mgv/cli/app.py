"""The typer app that the commands join."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

app = typer.Typer(
    name="mgv",
    help="Ask a library of videos; get an answer with the moments it rests on.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
) -> None:
    logging.getLogger("mgv").setLevel(logging.INFO if verbose else logging.WARNING)
