"""What the repository's texts tell people to install."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DISTRIBUTION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
OTHERS = re.compile(r"""\b(?:pip|pipx|uv|uvx)\b[^\n`]*?[\s'"]mgv(?![-\w./])""")
"""Advice to install `mgv`: on PyPI that is another project, a pipeline manager."""


def texts() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    suffixes = (".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".html", ".ipynb")
    paths = [
        ROOT / name for name in names.split("\0") if name.endswith(suffixes) or name.endswith("Makefile")
    ]
    return [path for path in paths if path.is_file() and path != Path(__file__)]


def test_the_distribution_has_a_name_of_its_own():
    assert DISTRIBUTION == "mgv-video"


def test_the_pattern_knows_advice_from_a_command():
    assert OTHERS.search("pip install 'mgv[ocr]'")
    assert OTHERS.search("pipx install mgv")
    assert not OTHERS.search("pip install 'mgv-video[serve]'")
    assert not OTHERS.search("pip install ray; then run `mgv doctor`")


def test_no_text_tells_people_to_install_a_strangers_package():
    named = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts()
        for match in OTHERS.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert named == []
