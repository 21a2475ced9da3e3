"""The texts for people: the README is short and true, links lead somewhere, notebooks run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mgv.cli import app
from mgv.config import load_params, setting
from mgv.errors import MgvError
from tests.test_layers import LAYERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def commands(group: object) -> set[str]:
    """The names of all commands, `lineage export` and the like included."""
    names = set()
    for name, command in getattr(group, "commands", {}).items():
        names |= {name} | {f"{name} {inner}" for inner in commands(command)}
    return names


def typed_commands(text: str) -> list[str]:
    """The lines and code spans of a text that begin with `mgv `, comments left out."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"(?<!`)`(mgv [^`\n]+)`", text)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()] + spans
    parts = [part.strip() for line in lines for part in re.split(r"\s{2,}#", line)[0].split("&&")]
    return [part for part in parts if re.match(r"mgv [a-z]", part)]


def test_the_readme_has_at_most_1200_words():
    assert len(README.split()) <= 1200


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_that_a_page_shows_exist(page: Path):
    known = commands(typer.main.get_command(app))
    for line in typed_commands(page.read_text(encoding="utf-8")):
        assert line.split()[1] in known, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_options_that_a_page_shows_exist(page: Path):
    group = typer.main.get_command(app)
    for line in typed_commands(page.read_text(encoding="utf-8")):
        words = line.split()
        command = group.commands[words[1]]  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            command = command.commands.get(words[2] if len(words) > 2 else "", command)
        options = {name for parameter in command.params for name in parameter.opts} | {
            "--help",
            "-h",
        }
        for word in words[2:]:
            if word == "--":
                break
            if re.fullmatch(r"--?[a-z][\w-]*", word):
                assert word in options, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(page: Path):
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        made_by_the_site = page.is_relative_to(ROOT / "docs") and Path(target).stem in {
            "cli",
            "parts",
        }
        if "://" not in target and not target.startswith("mailto:") and not made_by_the_site:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readmes_parts_are_those_of_params_and_mgv_parts():
    listed = json.loads(subprocess.run(
        [sys.executable, "-m", "mgv.cli", "parts", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout)  # fmt: skip
    defaults = load_params(ROOT / "params.yaml")
    rows = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| `(\w+)`(.*)$", README, flags=re.MULTILINE)
    assert {key for key, _, _ in rows} >= {"materialize.frame_embedder", "ask.answerer"}
    for key, default, _ in rows:
        assert setting(defaults, f"{key}.name") == default
        assert default in {*listed[key.split(".")[1]], "auto"}


def test_the_readmes_layers_are_those_that_are_tested():
    rows = re.findall(r"^\| ((?:`\w+` ?)+)\|", README, flags=re.MULTILINE)
    shown = [set(re.findall(r"\w+", row)) for row in rows]
    modules = {
        path.stem
        for path in (ROOT / "mgv").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert set().union(*shown) >= set(" ".join(LAYERS).split()) & modules
    flat = [sorted(set(layer.split()) & modules) for layer in LAYERS]
    order = {name: place for place, row in enumerate(shown) for name in row}
    places = [order[name] for layer in flat for name in layer]
    # a row of the table may join layers that follow one another, never change their order
    assert [max(order[n] for n in layer) for layer in flat if layer] == sorted(
        max(order[n] for n in layer) for layer in flat if layer
    ), places


def test_every_exit_code_is_documented():
    def tree(error: type[MgvError]) -> set[int]:
        return {error.exit_code}.union(*(tree(child) for child in error.__subclasses__()))

    page = (ROOT / "docs" / "output.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)}
    assert tree(MgvError) <= documented


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_start_to_end(path: Path, monkeypatch: pytest.MonkeyPatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
    assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells), (
        "outputs are not kept"
    )


@pytest.mark.slow
def test_the_site_builds_with_no_broken_link(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mgv search" in (tmp_path / "site" / "reference" / "cli" / "index.html").read_text(
        encoding="utf-8"
    )
