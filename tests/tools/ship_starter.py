"""Put a workspace's trained model into the package as the starter video language model.

    python -m tests.tools.ship_starter WORKSPACE

The workspace is one of `mgv init`, `mgv prepare` and `mgv train` with the params.yaml of this repository. The weights
are rounded to float16; beside them lie the params, and each stage's facts, scores and curves.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

from mgv.model.checkpoint import STARTER_MODEL, load_checkpoint, model_card, save_checkpoint
from mgv.train.stages import STAGES


def main() -> None:
    root = Path(sys.argv[1])
    model, processor = load_checkpoint(root / "models/train/instruct", device="cpu")
    save_checkpoint(
        model, processor, STARTER_MODEL, card(root, model_card(model)), dtype=torch.float16
    )
    training = STARTER_MODEL / "training"
    training.mkdir()
    shutil.copyfile(root / "params.yaml", training / "params.yaml")
    for stage in STAGES:
        shutil.copyfile(root / "models/train" / stage / "train.json", training / f"{stage}.json")
        for curve in sorted((root / "results/train" / stage / "curves").glob("*_loss.tsv")):
            shutil.copyfile(curve, training / f"{stage}_{curve.name}")
    size = sum(file.stat().st_size for file in STARTER_MODEL.rglob("*.safetensors"))
    print(f"{STARTER_MODEL}: {size / 1e6:.1f} MB of weights")


def card(root: Path, base: str) -> str:
    """The model card: what it is for, what it is not, and each stage's scores."""
    lines = [
        base,
        "## What it is",
        "",
        "The starter: it answers questions about the short narrated scenes of shapes that `mgv prepare` makes",
        "(mgv/data/scenes.py), and shows that the whole path of training works. It has seen nothing else: of other",
        "videos it knows what their subtitles say, if that. Made by `mgv prepare && mgv train`, training/params.yaml.",
        "",
        "## Scores on its validation set",
        "",
    ]
    for stage in STAGES:
        about = json.loads(
            (root / "models/train" / stage / "train.json").read_text(encoding="utf-8")
        )
        lines.append(f"* {stage}: {json.dumps(about['metrics'])}")
        lines += [f"  * {split}.jsonl SHA-256 {value}" for split, value in about["data"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
