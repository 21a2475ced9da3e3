"""mkdocs hooks: reference pages made from the program itself, and pages of the navigation that may be missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOPICS = {
    "media": "Media",
    "search": "Search",
    "answers": "Answers",
    "serving": "Serving",
    "published": "Published models",
}
"""Pages that join the navigation's Topics where they exist."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add what there is of TOPICS to the navigation."""
    topics: list[Any] = next(item["Topics"] for item in config.nav or [] if "Topics" in item)
    topics += [
        {title: f"{name}.md"}
        for name, title in TOPICS.items()
        if Path(config.docs_dir, f"{name}.md").is_file()
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from --help and the registries of parts."""
    files.append(File.generated(config, "reference/cli.md", content=cli_page()))
    files.append(File.generated(config, "reference/parts.md", content=parts_page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Blocks of commands have a name after the language, by which the tests find them; Markdown's parser knows none."""
    return re.sub(r"^```sh [\w-]+$", "```sh", markdown, flags=re.MULTILINE)


def cli_page() -> str:
    """Every command with its arguments and options, by typer's own generator."""
    command = [
        sys.executable,
        "-m",
        "typer",
        "mgv.cli",
        "utils",
        "docs",
        "--name",
        "mgv",
        "--title",
        "Command line",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def parts_page() -> str:
    """What `mgv parts` prints."""
    command = [sys.executable, "-m", "mgv.cli", "parts"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"# Parts\n\nThe names that params.yaml can use, as `mgv parts` lists them.\n\n```\n{listed}```\n"
