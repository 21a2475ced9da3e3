"""Scale: the same videos by one process, by one Ray worker and by four, each worker with a core. Whole commands.

What four workers gain is bounded by the machine's cores, so the efficiency counts as many workers as there are cores.
The four are two nodes of two on this machine: what crosses between machines is not in the figure.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from pathlib import Path

import yaml

from mgv.library.manifest import read_manifest
from tests.bench.make import make_pictures, make_workspace
from tests.bench.measure import Child, Figure, Result, machine, run_child, run_mgv

NUM_WORKERS = 4


def run(quick: bool) -> Result:
    """How four workers compare with one, and that all find the same."""
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    from ray.cluster_utils import Cluster

    num_videos, seconds = (24, 4) if quick else (200, 8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PREFECT_HOME"] = str(folder / "prefect")
        clips = [
            make_pictures(
                folder / f"clip-{i:03}.mp4", seconds=seconds, size=(320, 180), rate=10, seed=i
            )
            for i in range(num_videos)
        ]
        library = make_workspace(folder / "library", clips)
        took: dict[str, float] = {}
        digests: dict[str, str] = {}

        def note(side: str, done: Child) -> None:
            manifest = read_manifest(library.manifest)
            assert manifest is not None
            assert len(manifest.items) == num_videos, manifest.failed
            took[side], digests[side] = done.wall_s, manifest.digest

        _set(library.root, num_cpus=1)
        note("one process", run_mgv("materialize", "--rebuild", "--library", str(library.root)))
        node = {"num_cpus": NUM_WORKERS // 2, "object_store_memory": 200 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            cluster.add_node(**node)
            flow = [
                sys.executable,
                "-m",
                "flows.materialize",
                "--rebuild",
                "--library",
                str(library.root),
            ]
            for count in (1, NUM_WORKERS):
                _set(library.root, num_workers=count)
                note(f"{count} Ray workers", run_child([*flow, "--ray", cluster.address]))
        finally:
            cluster.shutdown()
    assert len(set(digests.values())) == 1, json.dumps(digests)
    cores = machine()["cores"]
    faster = took["1 Ray workers"] / took[f"{NUM_WORKERS} Ray workers"]
    figures = [
        Figure(
            what=f"materialising {num_videos} videos on {NUM_WORKERS} Ray workers beside one",
            value=took[f"{NUM_WORKERS} Ray workers"] / took["1 Ray workers"],
            unit="x",
            beside=f"{faster:.2f} times as fast on {cores} cores: efficiency {faster / min(NUM_WORKERS, cores):.2f}, "
            "same digest",
        ),
        Figure(
            what=f"materialising {num_videos} videos on {NUM_WORKERS} Ray workers beside one process on one core",
            value=took[f"{NUM_WORKERS} Ray workers"] / took["one process"],
            unit="x",
            beside=f"that process: {took['one process']:.0f} s; the flow starts and each worker loads",
        ),
    ]
    return Result(
        figures=figures,
        sizes={
            "num_videos": num_videos,
            "seconds_each": seconds,
            "workers": NUM_WORKERS,
            "cores": cores,
        },
        details={"wall": took, "digest": digests},
    )


def _set(root: Path, **values: int) -> None:
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["materialize"] |= values
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
