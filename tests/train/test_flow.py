"""Training as DVC runs it: real DVC, real Prefect."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from mgv.workspace import Workspace
from tests.test_flows import run


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_dvc_trains_once_and_shows_metrics_and_curves(trainable: Workspace):
    root = trainable.root
    done = run("dvc", "repro", "--single-item", "pretrain_image", cwd=root, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(run("dvc", "metrics", "show", "--json", cwd=root).stdout)
    shown = metrics[""]["data"]["results/train/pretrain_image/metrics.json"]["data"]
    assert shown["steps"] > 0
    assert (root / "results/train/pretrain_image/curves/train_loss.tsv").is_file()
    again = run("dvc", "repro", "--single-item", "pretrain_image", cwd=root, OMP_NUM_THREADS="1")
    assert "didn't change, skipping" in again.stdout


def test_metrics_and_curves_are_kept_by_dvc_or_by_git_so_that_experiments_can_be_compared(
    workspace: Workspace,
):
    stages = yaml.safe_load((workspace.root / "dvc.yaml").read_text())["stages"]
    for stage in stages.values():
        for entry in [*stage.get("metrics", ()), *stage.get("plots", ())]:
            path, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
            words = ["git", "-C", str(workspace.root), "check-ignore", "--quiet", path]
            is_ignored = subprocess.run(words, check=False).returncode == 0
            assert is_ignored == options.get("cache", True), path


@pytest.mark.slow
def test_a_stage_that_cannot_start_exits_non_zero(trainable: Workspace):
    done = run("flows.train", "instruct", cwd=trainable.root)
    assert done.returncode != 0
    assert "starts from it: run `mgv train pretrain_video`" in done.stderr
