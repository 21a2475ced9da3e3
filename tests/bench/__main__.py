"""Benchmarks: each a ratio measured side by side in one run.

python -m tests.bench [NAME...] [--quick]     run all or some; figures go to results/bench/<name>.json
python -m tests.bench --table                 the table of docs/figures.md, from those files

A figure over its goal is said, not an error: how quick a machine is does not make the code right or wrong.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys

from tests.bench.measure import Figure, Result, circumstances, read_results, shown, write_result

BENCHMARKS = {
    "materialize": "materialising beside its bare parts",
    "sampling": "reading frames beside bare decord and PyAV loops",
    "search": "warm search at growing sizes beside a raw LanceDB query",
    "startup": "starting mgv beside starting Python",
    "incremental": "materialising again, and one new video among many",
    "model": "the video language model beside the bare language model",
    "starter": "the starter model on unseen combinations",
    "train": "training beside a plain loop that does what upstream does",
    "scale": "materialising on Ray workers beside one process",
    "memory": "peak memory on an hour of video",
    "hostile": "mutated inputs, kills, full disks, read-only libraries and damage",
}


def main() -> int:
    """Run what the command line asks for; 1 when a benchmark broke."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all without"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: a minute or so each")
    parser.add_argument(
        "--table",
        action="store_true",
        help="print the table of docs/figures.md from the last figures",
    )
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if asked.table:
        print(table())
        return 0
    names = asked.names or list(BENCHMARKS)
    if len(names) == 1:
        _run(names[0], asked.quick)
        return 0
    words = [sys.executable, "-m", "tests.bench", *(["--quick"] if asked.quick else [])]
    codes = [
        subprocess.run([*words, name], check=False).returncode for name in names
    ]  # each in a fresh process
    return int(any(codes))


def _run(name: str, quick: bool) -> None:
    print(f"{name}: {BENCHMARKS[name]}{' (quick)' if quick else ''}", flush=True)
    before = circumstances()
    result: Result = importlib.import_module(f"tests.bench.{name}").run(quick)
    for figure in result.figures:
        goal = "" if figure.goal is None else f"≤ {shown(figure.goal, figure.unit)}"
        print(
            f"  {figure.what:62}  {figure.text:>10}  {goal:>10}  {figure.verdict:4}  {figure.beside}"
        )
    print(f"  → {write_result(name, quick, before, result)}\n", flush=True)


def table() -> str:
    """Every figure as a row of a Markdown table, and the machines they were taken on."""
    lines = ["| what | figure | goal | printed by |", "|---|---:|---:|---|"]
    places = []
    order = list(BENCHMARKS)
    for result in sorted(read_results(), key=lambda result: order.index(result["benchmark"])):
        command = (
            f"`python -m tests.bench {result['benchmark']}{' --quick' if result['quick'] else ''}`"
        )
        for figure in (Figure(**row) for row in result["figures"]):
            goal = "" if figure.goal is None else f"≤ {shown(figure.goal, figure.unit)}"
            beside = f" ({figure.beside})" if figure.beside else ""
            lines.append(f"| {figure.what} | {figure.text}{beside} | {goal} | {command} |")
        where = result["machine"]
        places.append(
            f"{where['cores']} × {where['cpu']}, {where['memory_gb']} GB, {where['system']}"
        )
    return "\n".join([*lines, "", *(f"Machine: {place}." for place in dict.fromkeys(places))])


if __name__ == "__main__":
    sys.exit(main())
