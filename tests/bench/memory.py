"""Memory: the peak of `mgv materialize` on an hour of narrated 720p, in a process of its own."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

from tests.bench.make import NARRATED, make_pictures, make_workspace, mux_looped
from tests.bench.measure import Figure, Result, run_mgv

GOAL_MB = 2000.0


def run(quick: bool) -> Result:
    """The peak, and how long it took."""
    length_s = 300.0 if quick else 3600.0
    with tempfile.TemporaryDirectory() as folder:
        piece = make_pictures(Path(folder, "piece.mp4"), seconds=20)
        path = mux_looped(
            Path(folder, "long.mp4"), length_s=length_s, pictures=piece, sounds=NARRATED
        )
        size_mb = path.stat().st_size / 1e6
        workspace = make_workspace(Path(folder, "workspace"), [path])
        path.unlink()
        own_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        child = run_mgv("materialize", "--library", str(workspace.root), "--json")
    assert child.peak_mb > own_mb, (child.peak_mb, own_mb)  # else it is ours, not the child's
    figures = [
        Figure(
            what=f"peak memory of materialising {length_s / 60:.0f} min of narrated 720p h264",
            value=child.peak_mb,
            unit="MB",
            goal=GOAL_MB,
            beside=f"{length_s / child.wall_s:.0f}× real time",
        )
    ]
    sizes = {"length_s": length_s, "size_mb": round(size_mb, 1)}
    return Result(
        figures=figures,
        sizes=sizes,
        details={"wall_s": child.wall_s, "memory_mb_every_10_s": child.memory_mb},
    )
