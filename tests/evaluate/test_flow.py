"""The stage `evaluate` as DVC runs it: real DVC, real Prefect, two processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mgv.workspace import Workspace
from tests.conftest import set_params
from tests.test_flows import run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_evaluate_stage_runs_in_shards_and_leaves_metrics_and_plots(
    workspace: Workspace, model_folder: Path, clips: Path, questions_file: Path, tmp_path: Path
):
    shutil.copytree(model_folder, workspace.root / "models" / "train" / "instruct")
    for needed in ("data/prepare", "data/library.json"):
        (workspace.root / needed).mkdir(parents=True)
    shutil.copyfile(questions_file, workspace.root / "data" / "prepare" / "questions.jsonl")
    set_params(
        workspace.root,
        evaluate={
            "questions": "data/prepare/questions.jsonl", "questions_format": "mgv", "videos": str(clips),
            "max_new_tokens": 4, "num_bootstrap": 50, "shards": 2,
        },
    )  # fmt: skip
    done = run("dvc", "repro", "--single-item", "evaluate", cwd=workspace.root, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    metrics = run("dvc", "metrics", "show", "--json", cwd=workspace.root)
    assert "qa.accuracy" in metrics.stdout
    (answers,) = (workspace.root / "results" / "answers").iterdir()
    assert {path.name for path in answers.glob("answers*.jsonl")} == {
        "answers.jsonl", "answers-1-of-2.jsonl", "answers-2-of-2.jsonl",
    }  # fmt: skip
    assert (answers / "answers.jsonl").read_text().count("\n") == 1  # nothing was left to answer
    plots = run("dvc", "plots", "show", "--json", cwd=workspace.root)
    assert plots.returncode == 0, plots.stderr
    assert "Calibration" in plots.stdout
