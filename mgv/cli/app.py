"""The typer app that the commands join, what it does without a command, and the groups that --help shows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from typer.models import CommandInfo, TyperInfo

from mgv import __version__

GROUPS = {
    "Make a library": ("init", "ingest", "materialize", "videos", "remove"),
    "Search and ask": ("search", "ask", "search-and-ask", "chat", "chapters", "clip", "serve"),
    "Train and compare": ("prepare", "train", "evaluate", "compare", "import-checkpoint"),
    "Publish": ("publish", "models", "promote", "rollback"),
    "Trace answers": ("explain", "replay", "diff", "lineage"),
    "Look after it": ("setup", "doctor", "config", "parts", "clean", "metrics"),
}
"""The commands by what they are for, in the order of --help; a command that is not named here comes last."""

app = typer.Typer(
    name="mgv",
    help="Ask a library of videos; get an answer with the moments it rests on.",
    invoke_without_command=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def group_commands() -> None:
    """Sort the commands that joined the app into GROUPS."""
    order = [name for names in GROUPS.values() for name in names]
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    infos: list[CommandInfo | TyperInfo] = [*app.registered_commands, *app.registered_groups]
    for info in infos:
        info.rich_help_panel = group_of.get(_name(info), "More")
    app.registered_commands.sort(
        key=lambda info: order.index(_name(info)) if _name(info) in order else len(order)
    )


def _name(info: CommandInfo | TyperInfo) -> str:
    callback = getattr(info.callback, "__name__", "")
    return info.name or callback.replace("_", "-")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mgv {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show more detail on stderr.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    logging.getLogger("mgv").setLevel(logging.INFO if verbose else logging.WARNING)
    if context.invoked_subcommand is None:
        print(_what_next(Path()))


def _what_next(here: Path) -> str:
    """The commands that make sense now, in this folder."""
    from mgv.errors import WorkspaceError
    from mgv.library.manifest import read_manifest
    from mgv.starter.weights import starter_status
    from mgv.workspace import find_workspace

    steps = []
    if not all(part.at_hand for part in starter_status()):
        steps.append(("mgv setup", "download the starter weights, once"))
    try:
        workspace = find_workspace(here)
    except WorkspaceError:
        state = "There is no workspace here; make one:"
        steps += [
            ("mgv init talks && cd talks", "a folder for one library"),
            ("mgv ingest ~/Videos", "files or folders"),
            ("mgv materialize", "make them searchable"),
            ("mgv ask what is this about", "an answer with the moments it rests on"),
        ]
    else:
        manifest = read_manifest(workspace.manifest)
        if manifest is None:
            state = f"Workspace {workspace.root}, not searchable yet:"
            steps += [
                ("mgv ingest ~/Videos", "files or folders"),
                ("mgv materialize", "make them searchable"),
            ]
        else:
            state = (
                f"Workspace {workspace.root}, {len(manifest.items) - len(manifest.failed)} videos:"
            )
            steps += [
                ("mgv search a white parrot", "find moments"),
                ("mgv ask what does the speaker propose", "an answer with the moments it rests on"),
                ("mgv videos", "list them"),
            ]
    steps.append(("mgv --help", "all commands"))
    width = max(len(command) for command, _ in steps)
    lines = [f"  {command:{width}}   {purpose}" for command, purpose in steps]
    return "\n".join([f"mgv {__version__}. {state}", "", *lines])
