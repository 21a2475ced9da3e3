"""Start-up: whole processes, beside Python alone and beside the bare imports."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench.make import NARRATED, make_workspace
from tests.bench.measure import Figure, Result, rounds, run_child, run_mgv

HELP_GOAL_S = 0.35
IMPORTS = "import lancedb, torch, transformers"
STEPS = """
import json, sys, time
began = last = time.perf_counter()
took = {}
def step(name):
    global last
    now = time.perf_counter()
    took[name] = round(now - last, 3)
    last = now
from mgv.ask.library import Library
step("import mgv.ask.library (lancedb)")
library = Library.open(sys.argv[1])
step("open the tables")
import torch
step("import torch")
import transformers
from transformers import AutoModel, AutoTokenizer
step("import transformers")
library.opened.parts.text_embedder
step("load the text embedder")
library.opened.parts.frame_embedder
step("load the frame embedder")
library.search("a cat on a sofa")
step("first search")
library.search("a rocket on its pad")
step("second search")
print(json.dumps(took))
"""


def run(quick: bool) -> Result:
    """`mgv --help`, a cold `mgv search`, and where its time goes."""
    num_rounds = 3 if quick else 11
    with tempfile.TemporaryDirectory() as folder:
        workspace = make_workspace(Path(folder, "workspace"), NARRATED[:1])
        place = ("--library", str(workspace.root))
        run_mgv("materialize", *place)
        sides = {
            "python": partial(run_child, [sys.executable, "-c", "pass"]),
            "imports": partial(run_child, [sys.executable, "-c", IMPORTS]),
            "help": partial(run_mgv, "--help"),
            "search": partial(run_mgv, "search", "a cat on a sofa", *place),
            "videos": partial(run_mgv, "videos", *place),
        }
        for side in sides.values():
            side()
        seconds = rounds(sides, num_rounds)
        steps = [
            json.loads(run_child([sys.executable, "-c", STEPS, str(workspace.root)]).stdout)
            for _ in range(num_rounds)
        ]
    middle = {name: median(each) for name, each in seconds.wall.items()}
    breakdown = {name: median(each[name] for each in steps) for name in steps[0]}
    figures = [
        Figure(
            what="mgv --help",
            value=middle["help"],
            unit="s",
            goal=HELP_GOAL_S,
            beside=f"python -c pass: {middle['python']:.3f} s",
        ),
        Figure(
            what="cold mgv search, whole process",
            value=middle["search"],
            unit="s",
            beside=f"bare import of lancedb, torch, transformers: {middle['imports']:.2f} s",
        ),
        Figure(what="mgv videos, whole process", value=middle["videos"], unit="s"),
    ]
    return Result(
        figures=figures,
        sizes={"rounds": num_rounds},
        details={"seconds": seconds.wall, "cold search by step": breakdown},
    )
