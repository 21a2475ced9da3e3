"""Settings: config get, config set."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mgv.ask.as_json import plain
from mgv.cli.app import app
from mgv.cli.console import HERE, Json, LibraryDir, open_workspace, show

config = typer.Typer(help="Read and change params.yaml.", no_args_is_help=True)
app.add_typer(config, name="config")


@config.command("get")
def get(
    key: Annotated[
        str, typer.Argument(metavar="[KEY]", help="For example search.limit; all when left out.")
    ] = "",
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Show a setting of params.yaml, or its default."""
    from mgv.config import setting

    value = plain(setting(open_workspace(library).params, key))
    show(as_json, {"key": key, "value": value}, _yaml(value))


@config.command("set")
def set_(
    key: Annotated[str, typer.Argument(metavar="KEY", help="For example search.limit.")],
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="A YAML value: 10, true, null, [a, b].")
    ],
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Change a setting of params.yaml; comments stay, and a value that is not allowed changes nothing."""
    from mgv.config import setting, write_setting

    workspace = open_workspace(library)
    write_setting(workspace.root / "params.yaml", key, value)
    new = plain(setting(open_workspace(library).params, key))
    show(as_json, {"key": key, "value": new}, f"{key}: {_yaml(new)}")


def _yaml(value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").rstrip()
