"""Measure: sides timed in turn, child processes, and the figures that come of them."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "bench"
PACKAGES = ("torch", "transformers", "lancedb", "av", "decord", "openai-whisper", "numpy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One number that a benchmark shows."""

    what: str
    value: float
    unit: str
    """`x` for a ratio, `s`, `ms`, `MB`, or `` for a share."""
    goal: float | None = None
    """At most this."""
    beside: str = ""
    """What the number was taken beside."""

    @property
    def text(self) -> str:
        """The value as a person reads it."""
        return shown(self.value, self.unit)

    @property
    def verdict(self) -> str:
        """`ok`, `over`, or nothing where there is no goal."""
        return "" if self.goal is None else "ok" if self.value <= self.goal else "over"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a benchmark found: its figures, and everything that they were made of."""

    figures: Sequence[Figure]
    sizes: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)


def shown(value: float, unit: str) -> str:
    """A number with its unit."""
    digits = {"x": 2, "s": 2, "ms": 1, "MB": 0, "": 3}[unit]
    return f"{value:,.{digits}f}{'×' if unit == 'x' else ' ' + unit if unit else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Seconds:
    """What each side took, round by round."""

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]
    """Of this process and its finished children: on a busy machine the steadier of the two."""


def rounds(
    sides: Mapping[str, Callable[[], object]],
    num_rounds: int,
    before: Callable[[], object] = lambda: None,
) -> Seconds:
    """Time every side, side by side: each round runs all of them, every other round in reverse order.

    `before` runs ahead of every side, untimed.
    """
    seconds = Seconds(wall={name: [] for name in sides}, cpu={name: [] for name in sides})
    for number in range(num_rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            before()
            wall_s, cpu_s = time.perf_counter(), sum(os.times()[:4])
            sides[name]()
            seconds.wall[name].append(time.perf_counter() - wall_s)
            seconds.cpu[name].append(sum(os.times()[:4]) - cpu_s)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of two sides, round by round: what slows a whole round slows both."""
    return median(a / b for a, b in zip(over, under, strict=True))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed."""
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """A finished child process."""

    wall_s: float
    peak_mb: float
    """Its greatest resident memory."""
    memory_mb: list[int]
    """Its resident memory every 10 s, where /proc tells."""
    stdout: str


def run_child(words: Sequence[str]) -> Child:
    """Run a program to its end; raises CalledProcessError when it fails.

    Byte code is written and used, as on a person's machine. The peak cannot be told below this process's own,
    which the child shares until it is another program: keep this one small.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    memory_mb: list[int] = []
    while True:
        try:
            stdout, stderr = process.communicate(timeout=10)
            break
        except subprocess.TimeoutExpired:
            memory_mb.append(_resident_mb(process.pid))
    wall_s = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(words), stdout, stderr)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of the largest child so far
    peak_mb = peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)
    return Child(wall_s=wall_s, peak_mb=peak_mb, memory_mb=memory_mb, stdout=stdout)


def run_mgv(*words: str) -> Child:
    """Run the program `mgv` as installed beside this Python."""
    program = Path(sys.executable).with_name("mgv")
    return run_child([str(program), *words])


def _resident_mb(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return round(pages * resource.getpagesize() / 1e6)


def write_result(name: str, quick: bool, before: Mapping[str, Any], result: Result) -> Path:
    """Write results/bench/<name>.json, whole or not at all; `before` is what `circumstances` said before the run."""
    value = {
        "benchmark": name,
        "quick": quick,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "before": dict(before),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "figures": [asdict(figure) for figure in result.figures],
        "sizes": dict(result.sizes),
        "details": dict(result.details),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return beside.rename(path)


def read_results() -> list[dict[str, Any]]:
    """What the benchmarks wrote, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def machine() -> dict[str, Any]:
    """Where the figures were taken."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gb": round(memory_gb, 1),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        "unknown",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def circumstances() -> dict[str, Any]:
    """The commit that is measured, and how busy the machine is with other things."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return {"commit": commit, "load": round(os.getloadavg()[0], 2)}
