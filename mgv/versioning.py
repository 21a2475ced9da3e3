"""Versioning: the one place that talks to DVC and git; programs are run with lists of words."""

from __future__ import annotations

import configparser
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import yaml

from mgv.errors import WorkspaceError, error_of

logger = logging.getLogger(__name__)

_OFFLINE = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "GIT_TERMINAL_PROMPT": "0"}
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
            words,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise WorkspaceError(
            f"{words[0]!r} is not installed; mgv needs it to version a workspace"
        ) from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        reason = next((line for line in errors if line.startswith(("ERROR", "fatal:"))), errors[-1])
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
    _run(["git", "add", "--", *names], root)
    _run(["git", *_identity(root), "commit", "--quiet", "--message", message, "--", *names], root)


def _identity(root: Path) -> list[str]:
    """Options that name somebody where git knows nobody."""
    named = subprocess.run(
        ["git", "config", "user.email"], cwd=root, capture_output=True, check=False
    )
    return [] if named.stdout.strip() else ["-c", "user.name=mgv", "-c", "user.email=mgv@localhost"]


def track(root: Path, path: Path, *, relink: bool = True) -> None:
    """Put a file or folder under DVC (`dvc add`), which writes `<path>.dvc`, and stage that in git.

    relink: its files become links to DVC's cache, one after the other; without, they are copied there and left alone.
    git itself stages: DVC's own writing of the index (dulwich), killed, leaves a lock that stops git until somebody
    deletes it. What cannot be staged is tracked all the same, with a warning.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    mend_lock(root)
    logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)  # its bars would cross ours
    try:
        with Repo(str(root), config={"core": {"autostage": False}}) as repo:
            repo.scm_context.quiet = True  # says how to stage, by print, to standard output
            repo.add(str(path), relink=relink)
            with repo.lock:
                _stage([path.with_name(f"{path.name}.dvc"), path.with_name(".gitignore")], root)
    except (DvcException, OSError, sqlite3.Error) as error:  # its own database, on a full disk
        raise WorkspaceError(
            f"dvc add {path.relative_to(root)} failed in {root}: {error}"
        ) from error


def _stage(paths: list[Path], root: Path) -> None:
    names = [str(path.relative_to(root)) for path in paths if path.exists()]
    try:
        _run(["git", "add", "--", *names], root)
    except WorkspaceError as error:
        logger.warning("not staged in git (`git add %s` does it): %s", shlex.join(names), error)


def changed_stages(root: Path) -> list[str]:
    """The stages, and tracked files (`data/videos.dvc`), that are not up to date."""
    return list(json.loads(_dvc(["status", "--json"], root) or "{}"))


Outcome = Literal["ran", "restored", "unchanged"]


def repro(
    root: Path,
    stage: str,
    on_line: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a DVC stage, and those ahead of it, where something changed; each line of output is told to on_line.

    `restored`: DVC had the result of the same inputs. Whatever ends this call ends the stage's processes too.
    Raises the stage's own MgvError where it ended with one, ChildProcessError when it died otherwise.
    """
    mend_lock(root)
    said: list[str] = []

    def read(lines: Any) -> None:
        for line in lines:
            if line.strip():
                said.append(line.rstrip())
                on_line(line.rstrip())

    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", stage],
        cwd=root,
        env={
            **os.environ,
            **_OFFLINE,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    reader = Thread(target=read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        while process.poll() is None:
            _pause()
    finally:
        _end_group(process)
        reader.join(5.0)
        assert process.stdout is not None, "asked for above"
        if not reader.is_alive():
            process.stdout.close()
    if process.returncode:
        raise _stage_error(stage, said)
    if any(f"Stage '{stage}' is cached" in line for line in said):
        return "restored"
    return "ran" if any(f"Running stage '{stage}'" in line for line in said) else "unchanged"


def _pause() -> None:
    """A step of waiting, after which a caller's time-out can interrupt."""
    time.sleep(0.1)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started."""
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _stage_error(stage: str, said: list[str]) -> Exception:
    """What a failed `dvc repro` comes to."""
    codes = [
        int(match[1])
        for line in said
        if (match := re.search(r"exited with (-?\d+)$", line.rstrip()))
    ]
    known = error_of(codes[-1]) if codes else None
    own = [line.partition("error: ")[2] for line in said if line.startswith("error: ")]
    messages = own or [line for line in said if line.startswith("ERROR")] or said or ["no message"]
    if known:
        return known(f"{stage}: {messages[-1]}")
    return ChildProcessError(f"stage {stage} failed: {messages[-1]}")


def commit_changes(root: Path, names: list[str], message: str) -> bool:
    """Commit those of these files that there are and that changed; whether there was anything to commit."""
    there = [name for name in names if (root / name).exists()]
    if not there or not _run(["git", "status", "--porcelain", "--", *there], root):
        return False
    commit(root, there, message)
    return True


def tag(root: Path, name: str, message: str) -> bool:
    """Tag the commit that is checked out; False when the tag exists."""
    if _run(["git", "tag", "--list", name], root):
        return False
    _run(["git", *_identity(root), "tag", "--annotate", "--message", message, name], root)
    return True


def push(root: Path) -> list[str]:
    """Push to DVC's default remote and to git's; what was pushed where, and what was not for want of a remote."""
    notes = []
    if _dvc(["remote", "list"], root):
        _dvc(["push", "--quiet"], root)
        notes.append("data and models pushed by DVC")
    else:
        notes.append(
            "data and models not pushed: DVC has no remote (`dvc remote add --default NAME URL`)"
        )
    remotes = _run(["git", "remote"], root).split()
    if remotes:
        remote = "origin" if "origin" in remotes else remotes[0]
        _run(["git", "push", "--quiet", "--follow-tags", remote, "HEAD"], root)
        notes.append(f"commits and tags pushed to {remote}")
    else:
        notes.append("commits not pushed: git has no remote (`git remote add origin URL`)")
    return notes


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
            [
                "git",
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                f"{revision}^{{commit}}",
            ],
            root,
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


# what was tracked, then and now: read from DVC's and git's own files, as an answer cannot wait for DVC to be imported

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


def tracked_version(root: Path, pointer: str) -> str | None:
    """DVC's hash of what a `.dvc` file (a path in root) stands for: of a folder, of its listing. None: not tracked."""
    try:
        return _pointed_at((root / pointer).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def tracked_version_at(root: Path, commit: str, pointer: str) -> str | None:
    """The same as a commit has it."""
    text = _shown(root, commit, pointer)
    return None if text is None else _pointed_at(text)


def _pointed_at(text: str) -> str | None:
    try:
        md5 = yaml.safe_load(text)["outs"][0]["md5"]
    except (yaml.YAMLError, LookupError, TypeError):
        return None
    return md5 if isinstance(md5, str) and _MD5.fullmatch(md5) else None


def last_commit(root: Path, path: str) -> tuple[str | None, bool]:
    """git's newest commit, and whether a file is in it as it stands now. (None, False) where there is none."""
    done = subprocess.run(
        ["git", "cat-file", "--batch"], cwd=root, input=f"HEAD\nHEAD:./{path}\n".encode(), capture_output=True,
        check=False,
    )  # fmt: skip
    head, _, rest = done.stdout.partition(b"\n")
    words = head.split()
    if len(words) != 3:
        return None, False
    about, _, content = rest[int(words[2]) + 1 :].partition(b"\n")
    if not about.endswith(b" " + str(len(content) - 1).encode()):
        return words[0].decode(), False
    try:
        return words[0].decode(), (root / path).read_bytes() == content[:-1]
    except OSError:
        return words[0].decode(), False


def past_versions(root: Path, pointer: str) -> list[tuple[str, str]]:
    """Every commit that changed a `.dvc` file, on any branch, newest first, with the hash it stood for."""
    try:
        commits = _run(["git", "log", "--all", "--format=%H", "--", pointer], root).split()
    except WorkspaceError:
        return []
    texts = ((commit, _shown(root, commit, pointer)) for commit in commits)
    pointed = ((commit, _pointed_at(text)) for commit, text in texts if text is not None)
    return [(commit, md5) for commit, md5 in pointed if md5]


def _shown(root: Path, commit: str, path: str) -> str | None:
    try:
        return _run(["git", "show", f"{commit}:./{path}"], root)
    except WorkspaceError:
        return None


def listing(root: Path, md5: str) -> dict[str, str] | None:
    """The files of a folder as DVC's cache knows it by its hash: path in it → hash. None when the cache does not."""
    path = cached(root, md5) if md5.endswith(".dir") else None
    if path is None:
        return None
    try:
        return {
            str(entry["relpath"]): str(entry["md5"])
            for entry in json.loads(path.read_text(encoding="utf-8"))
        }
    except (OSError, ValueError, LookupError, TypeError):
        return None


def holds(root: Path, pointer: str, path: Path) -> bool:
    """Whether DVC keeps a file of a tracked folder as it is now: in the folder's listing, and in the cache."""
    md5 = tracked_version(root, pointer)
    held = (listing(root, md5) or {}).get(path.name) if md5 else None
    return held is not None and holds_as(root, path, held)


def holds_as(root: Path, path: Path, md5: str) -> bool:
    """Whether a file has this hash of DVC's, and the cache holds it."""
    if cached(root, md5) is None:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5


def locked_output(root: Path, path: Path) -> str | None:
    """dvc.lock's hash of a stage's output, a path in root; None where it is none, or DVC has not run the stage."""
    name = path.relative_to(root).as_posix()
    outputs = (stage.get("outs", {}) for stage in lock_digests(root).values())
    return next((found[name] for found in outputs if name in found), None)


def restore(root: Path, md5: str, folder: Path) -> bool:
    """Fill a new folder with what DVC's cache keeps by a folder's hash; False when it does not hold all of it."""
    files = {name: cached(root, held) for name, held in (listing(root, md5) or {}).items()}
    inside = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in files)
    if not files or not inside or None in files.values():
        return False
    for name, source in files.items():
        assert source is not None, "looked at above"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    return True


def cached(root: Path, md5: str) -> Path | None:
    """A file of DVC's cache by its hash; None when the cache does not hold it."""
    if not _MD5.fullmatch(md5):
        return None
    path = _cache_folder(root) / "files" / "md5" / md5[:2] / md5[2:]
    return path if path.is_file() else None


def _cache_folder(root: Path) -> Path:
    """DVC's cache, as the workspace's own settings place it."""
    folder = root / ".dvc" / "cache"
    settings = configparser.ConfigParser(interpolation=None, strict=False)
    for name in ("config", "config.local"):
        try:
            settings.read(root / ".dvc" / name, encoding="utf-8")
        except configparser.Error:
            continue
    named = settings.get("cache", "dir", fallback=None)
    return (root / ".dvc" / named).resolve() if named else folder
