"""Versioning: the one place that talks to DVC and git; programs are run with lists of words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import yaml

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
    mend_lock(cwd)
    return _run([sys.executable, "-m", "dvc", *words], cwd)


def mend_lock(root: Path) -> None:
    """Remove DVC's list of running commands when a kill has cut it short: DVC refuses every command until then.

    It is written in place, under a lock that a killed process loses (dvc/rwlock.py).
    """
    folder = root / ".dvc" / "tmp"
    if not _is_cut_short(folder / "rwlock"):
        return
    from dvc.lock import LockError, make_lock

    with suppress(LockError), make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
        if _is_cut_short(folder / "rwlock"):
            (folder / "rwlock").unlink()


def _is_cut_short(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return True
    except OSError:
        pass
    return False


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


def track(root: Path, path: Path, *, relink: bool = True) -> None:
    """Put a file or folder under DVC (`dvc add`), which writes `<path>.dvc` and stages it in git.

    relink: its files become links to DVC's cache, one after the other; without, they are copied there and left alone.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    mend_lock(root)
    try:
        with Repo(str(root)) as repo:
            repo.add(str(path), relink=relink)
    except (DvcException, OSError) as error:
        raise WorkspaceError(f"dvc add {path.relative_to(root)} failed in {root}: {error}") from error


def head(root: Path) -> tuple[str, bool] | None:
    """The commit that root is at and whether tracked files differ from it; None before the first commit."""
    try:
        commit = _run(["git", "rev-parse", "--verify", "--quiet", "HEAD"], root)
        return commit, bool(_run(["git", "status", "--porcelain", "--untracked-files=no"], root))
    except WorkspaceError:
        return None


def find_commit(root: Path, revision: str) -> str | None:
    """The commit that a name (branch, tag, part of a hash) stands for; None when git knows none."""
    try:
        return _run(
            ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"], root
        )
    except WorkspaceError:
        return None


def read_at(root: Path, commit: str, path: str) -> str | None:
    """The text of a file of a commit, of git's or of DVC's (from its cache, else the remote); None when there is none.

    Raises WorkspaceError when DVC knows the file and cannot get it.
    """
    import dvc.api
    from dvc.exceptions import DvcException, PathMissingError
    from dvc.scm import SCMError

    try:
        return str(dvc.api.read(path, repo=str(root), rev=commit, encoding="utf-8"))
    except (PathMissingError, FileNotFoundError):
        return None
    except (DvcException, SCMError, OSError) as error:
        raise WorkspaceError(
            f"{path} of commit {commit[:12]} cannot be read ({error}); try `dvc fetch`"
        ) from error


def lock_digests(root: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Digests that dvc.lock holds: stage → `deps` or `outs` → path → digest. Empty before the first `dvc repro`."""
    try:
        stages = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    except (OSError, TypeError, KeyError, ValueError, yaml.YAMLError):
        return {}
    return {
        name: {
            side: {each["path"]: each["md5"] for each in stage.get(side, ()) if "md5" in each}
            for side in ("deps", "outs")
        }
        for name, stage in stages.items()
    }
