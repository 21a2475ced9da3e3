"""Versioning: the one place that talks to DVC and git; programs are run with lists of words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mgv.errors import WorkspaceError

_OFFLINE = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
_SETTINGS = """\
[core]
    analytics = false
    check_update = false
    autostage = true
[cache]
    type = "reflink,hardlink,copy"
"""


def _run(words: list[str], cwd: Path) -> str:
    """Run a program in cwd; its output. Raises WorkspaceError with the program's own last line."""
    environment = {**os.environ, **_OFFLINE}
    try:
        done = subprocess.run(
            words, cwd=cwd, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError as error:
        raise WorkspaceError(f"{words[0]!r} is not installed; mgv needs it to version a workspace") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        reason = next((line for line in said if line.startswith("ERROR")), said[-1])
        raise WorkspaceError(f"{' '.join(words[-3:])} failed in {cwd}: {reason.strip()}")
    return done.stdout.strip()


def _dvc(words: list[str], cwd: Path) -> str:
    return _run([sys.executable, "-m", "dvc", *words], cwd)


def init_repository(root: Path) -> None:
    """Make root a git and DVC repository with analytics off. What is there already is left as it is."""
    if not (root / ".git").exists():
        _run(["git", "init", "--quiet"], root)
    if not (root / ".dvc").exists():
        _dvc(["init", "--quiet"], root)
        (root / ".dvc" / "config").write_text(_SETTINGS, encoding="utf-8")


def commit(root: Path, names: list[str], message: str) -> None:
    """Commit these files of root and no others, under the person's own name if git knows it."""
    named = subprocess.run(["git", "config", "user.email"], cwd=root, capture_output=True, check=False)
    identity = [] if named.stdout.strip() else ["-c", "user.name=mgv", "-c", "user.email=mgv@localhost"]
    _run(["git", "add", "--", *names], root)
    _run(["git", *identity, "commit", "--quiet", "--message", message, "--", *names], root)


def track(root: Path, path: Path) -> None:
    """Put a file or folder under DVC (`dvc add`), which writes `<path>.dvc` and stages it in git."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            repo.add(str(path))
    except (DvcException, OSError) as error:
        raise WorkspaceError(f"dvc add {path.relative_to(root)} failed in {root}: {error}") from error
