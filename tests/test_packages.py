"""Names of packages: what texts tell people to install is ours, or something that mgv itself depends on."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from mgv import __version__
from mgv.packages import DISTRIBUTION, extra_requirements, install_command

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ON_GPUS = {"bitsandbytes"}
"""What people with a CUDA device install themselves."""
TOOLS = {"pip", "uv", "pre-commit"}


def packaged_name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement.strip("'\"`"))[0]).lower()


def known_names() -> set[str]:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    declared = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return (
        {packaged_name(line) for lines in [pinned, *declared] for line in lines} | ON_GPUS | TOOLS
    )


def texts() -> dict[Path, str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    suffixes = {".md", ".py", ".toml", ".yaml", ".yml", ".txt", ".ipynb", ""}
    paths = [ROOT / name for name in listed.stdout.splitlines() if Path(name).suffix in suffixes]
    own = Path(__file__)
    return {
        path: path.read_text(encoding="utf-8") for path in paths if path.is_file() and path != own
    }


def installed_names(text: str) -> set[str]:
    """The packages named by every `pip install …` of a text: words that are neither options nor paths."""
    names = set()
    for words in re.findall(
        r"\b(?:pip3?|pipx|uv tool) install ((?:'[^'\n]*'|[^`\"\n;&|(])+)", text
    ):
        words = re.sub(r"(?<!\S)(-c|-r|-d|--constraint|--requirement|--find-links) \S+", "", words)
        for word in re.findall(r"'[^']*'|\S+", words):
            if not re.fullmatch(r"'?[A-Za-z0-9][\w.-]*(\[[\w,]+\])?([<>=!~][^']*)?'?[.,):]*", word):
                if word.startswith(("-", "'.", ".", "{", "$")) or "/" in word:
                    continue
                break
            names.add(packaged_name(word.rstrip(".,):")))
    return names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("run `pip install 'mgv[ocr]'`, then", {"mgv"}),
        ("pipx install mgv", {"mgv"}),
        ("pip install --no-deps -e .", set()),
        ("pip install 'ray>=2.50,<3' boto3", {"ray", "boto3"}),
        ("`pip install -e '.[s3]'` in the clone", set()),
    ],
)
def test_the_packages_of_an_install_command_are_found(text: str, names: set[str]):
    assert installed_names(text) == names


def test_no_text_tells_people_to_install_a_package_that_is_not_ours():
    known = known_names()
    assert "mgv" not in known
    strangers = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in texts().items()
        for name in installed_names(text) - known
        if name.isascii() and not name.isupper()
    }
    assert strangers == set()


def test_no_text_asks_for_an_extra_of_the_strangers_mgv():
    extra = re.compile(r"(?<![\w-])mgv\[\w")
    assert [str(path) for path, text in texts().items() if extra.search(text)] == []


def test_the_distribution_has_its_own_name_and_the_codes_version():
    assert PROJECT["name"] == DISTRIBUTION == "mgv-video"
    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_an_extra_is_installed_by_its_packages_own_names(monkeypatch: pytest.MonkeyPatch):
    requires = ["torch>=2", "ray<3,>=2.50 ; extra == 'ray'", "boto3 ; extra == 's3'"]
    monkeypatch.setattr(
        metadata, "requires", lambda name: requires if name == DISTRIBUTION else None
    )
    assert extra_requirements("ray") == ["ray<3,>=2.50"]
    assert install_command("ray") == "pip install 'ray<3,>=2.50'"


def test_run_from_its_source_mgv_names_the_extra_of_the_clone(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert install_command("ray") == "pip install -e '.[ray]' (in a clone of mgv)"
