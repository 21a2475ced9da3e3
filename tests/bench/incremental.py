"""Incremental: materialising again with nothing changed, and with one new video among many. Whole processes."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from mgv.library.ingest import ingest
from tests.bench.make import NARRATED, make_pictures, make_workspace
from tests.bench.measure import Figure, Result, ratio, rounds, run_child, run_mgv

UNCHANGED_GOAL_S = 3.0
NEW_GOAL = 1.2
HEAVY = ("torch", "transformers", "whisper", "lancedb", "decord", "av")
LOADED = f"""
import json, sys
from mgv.cli import main
sys.argv = ["mgv", "materialize", "--library", sys.argv[1]]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""


def run(quick: bool) -> Result:
    """One row for nothing changed, one for one new video."""
    num_others, num_rounds = (20, 3) if quick else (200, 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = [
            make_pictures(folder / f"clip-{i:03}.mp4", seconds=2, size=(96, 64), rate=10, seed=i)
            for i in range(num_others)
        ]
        many = make_workspace(folder / "many", clips)
        made = run_mgv("materialize", "--library", str(many.root))
        unchanged = rounds(
            {"unchanged": partial(run_mgv, "materialize", "--library", str(many.root))}, num_rounds
        )
        lines = run_child([sys.executable, "-c", LOADED, str(many.root)]).stdout.splitlines()
        loaded = json.loads(lines[-1])
        ingest(many, [NARRATED[0]])
        alone = make_workspace(folder / "alone", [NARRATED[0]])
        sides = {
            "among many": partial(
                run_mgv, "materialize", "--library", str(folder / "copy of many")
            ),
            "alone": partial(run_mgv, "materialize", "--library", str(folder / "copy of alone")),
        }
        new = rounds(sides, num_rounds, before=partial(_copy, [many.root, alone.root]))
    figures = [
        Figure(
            what=f"materialising again, nothing changed, {num_others} videos",
            value=median(unchanged.wall["unchanged"]),
            unit="s",
            goal=UNCHANGED_GOAL_S,
            beside=f"of {', '.join(HEAVY)} it imports {', '.join(loaded) or 'none'}",
        ),
        Figure(
            what=f"materialising one new video among {num_others}",
            value=ratio(new.wall["among many"], new.wall["alone"]),
            unit="x",
            goal=NEW_GOAL,
            beside=f"that video alone: {median(new.wall['alone']):.1f} s",
        ),
    ]
    return Result(
        figures=figures,
        sizes={"num_others": num_others, "new_video": NARRATED[0].name, "rounds": num_rounds},
        details={
            "wall": unchanged.wall | new.wall,
            "cpu": unchanged.cpu | new.cpu,
            "all_from_nothing_s": made.wall_s,
            "imported": loaded,
        },
    )


def _copy(roots: Sequence[Path]) -> None:
    """Workspaces as they were: with the new video ingested and not yet materialised."""
    for root in roots:
        target = root.with_name(f"copy of {root.name}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(root, target, symlinks=True)
