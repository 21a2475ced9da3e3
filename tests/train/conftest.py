"""A workspace with a little of the starter data set prepared, and parts that are tiny and random."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mgv.data.prepare import prepare
from mgv.workspace import Workspace, find_workspace, init_workspace
from tests.conftest import set_params

torch.set_num_threads(1)
TINY_MODEL = {
    "connector": {"name": "minigpt4_video"},
    "vision_encoder": {"name": "efficientnet_lite", "pretrained": "random"},
    "language_model": {"pretrained": "random"},
    "lora": {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]},
    "num_frames": 2,
}
TINY_STAGE = {
    "epochs": 1.0,
    "batch_size": 4,
    "micro_batch_size": 2,
    "warmup_steps": 2,
    "learning_rate": 1.0e-2,
    "min_learning_rate": 1.0e-3,
}
TINY_TRAIN = {
    "log_every": 1,
    "validate_every": 3,
    "save_every": 2,
    "pretrain_image": TINY_STAGE,
    "pretrain_video": TINY_STAGE,
    "instruct": TINY_STAGE,
}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = init_workspace(tmp_path_factory.mktemp("train") / "workspace").root
    workspace = set_params(
        root,
        prepare={"sources": [{"name": "scenes", "num_videos": 13, "seed": 1}]},
        model=TINY_MODEL,
        train=TINY_TRAIN,
    )
    prepare(workspace)
    return root


@pytest.fixture
def trainable(prepared: Path, tmp_path: Path) -> Workspace:
    """A workspace of one's own."""
    root = tmp_path / "workspace"
    shutil.copytree(prepared, root, symlinks=True)
    return find_workspace(root)


def stage_params(root: Path, stage: str, **values: Any) -> Workspace:
    """Change a stage's params."""
    return set_params(root, train={stage: TINY_STAGE | values})
