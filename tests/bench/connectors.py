"""The four connectors trained alike on the starter data set, and asked the test split.

    python -m tests.bench.connectors FOLDER [--share 0.3]

Each gets a workspace in FOLDER, the same samples in the same order, and `share` of the starter's steps in all three
stages. A run that was stopped goes on, and what was found stays found: another share, another FOLDER. An hour and
more on two cores: not part of `make bench`.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mgv.config import TrainParams
from mgv.data.prepare import prepare
from mgv.data.samples import SampleFile
from mgv.evaluate.metrics import bootstrap_interval
from mgv.files import write_json
from mgv.model.checkpoint import load_checkpoint
from mgv.train.features import FeatureCache, FeatureExtractor
from mgv.train.stages import STAGES, train_stage
from mgv.train.training_rows import TrainingRows
from mgv.workspace import Workspace, find_workspace, init_workspace
from tests.bench.measure import RESULTS
from tests.bench.starter import Hits, answered

SMALL_QFORMER = {
    "hidden_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 768,
}
"""LLaMA-VID's Q-Former begins as BERT, which no starter weights hold: a small one that learns from nothing."""
CONNECTORS: dict[str, dict[str, Any]] = {
    "minigpt4_video": {},
    "minigpt_v2": {},
    "video_llava": {},
    "llama_vid": {"qformer": SMALL_QFORMER},
}
KINDS = ("colour", "count", "motion", "narration", "order", "presence", "shape", "word")


def main() -> None:
    """Train what is not trained yet, ask, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.connectors", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--share", type=float, default=0.3, help="of the starter's steps (0.3)")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("mgv").setLevel(logging.INFO)
    rows = []
    for name in CONNECTORS:
        workspace = _workspace(asked.folder.absolute(), name, asked.share)
        told = workspace.root / "row.json"
        if not told.is_file():
            seconds, steps = _train(workspace)
            write_json(
                told, {"connector": name, "seconds": seconds, "steps": steps, **_ask(workspace)}
            )
        rows.append(json.loads(told.read_text(encoding="utf-8")))
        write_json(RESULTS / "connectors.json", {"share": asked.share, "rows": rows})
        print(_table(rows), flush=True)


def _workspace(folder: Path, name: str, share: float) -> Workspace:
    """A workspace whose params differ in the connector only; the first one's samples and features serve all."""
    workspace = init_workspace(folder / name)
    params = yaml.safe_load((workspace.root / "params.yaml").read_text(encoding="utf-8"))
    params["model"]["connector"] = {"name": name, "options": CONNECTORS[name] or None}
    params["train"]["validate_every"] = 10_000
    for stage in STAGES:
        params["train"][stage]["epochs"] = getattr(TrainParams(), stage).epochs * share
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    workspace = find_workspace(workspace.root)
    first = folder / next(iter(CONNECTORS)) / "data"
    if workspace.root != first.parent:
        for shared in ("scenes", "features"):
            (workspace.root / "data" / shared).unlink(missing_ok=True)
            (workspace.root / "data" / shared).symlink_to(first / shared)
        shutil.copytree(first / "prepare", workspace.root / "data/prepare", dirs_exist_ok=True)
    elif not (first / "prepare/report.json").is_file():
        prepare(workspace)
    return workspace


def _train(workspace: Workspace) -> tuple[float, int]:
    """All stages that have no model yet: seconds and steps of training, in all."""
    seconds, steps = 0.0, 0
    for stage in STAGES:
        told = workspace.root / "models/train" / stage / "seconds.json"
        if not told.is_file():
            report = train_stage(_alike(workspace, stage), stage)
            write_json(told, {"seconds": report.outcome.seconds, "steps": report.outcome.num_steps})
        kept = json.loads(told.read_text(encoding="utf-8"))
        seconds, steps = seconds + kept["seconds"], steps + kept["steps"]
    return seconds, steps


def _alike(workspace: Workspace, stage: str) -> Workspace:
    """As many questions a step, where a connector reads the question and so gives each a row of its own."""
    params = workspace.params
    if params.model.connector.name != "llama_vid":
        return workspace
    samples = SampleFile(workspace.root / f"data/prepare/{stage}/train.jsonl")
    chosen = getattr(params.train, stage)
    a_video = sum(len(samples[i].turns) for i in range(len(samples))) / len(samples)
    size = round(chosen.batch_size * a_video)
    chosen = replace(chosen, batch_size=size, micro_batch_size=size)
    return replace(
        workspace, params=replace(params, train=replace(params.train, **{stage: chosen}))
    )


def _ask(workspace: Workspace) -> dict[str, Any]:
    """The test split's closed questions, with subtitles and without."""
    model, processor = load_checkpoint(workspace.root / "models/train/instruct", device="cpu")
    samples = SampleFile(workspace.root / "data/prepare/instruct/test.jsonl")
    lessons = TrainingRows([samples[i] for i in range(len(samples))], processor, 16)
    eye = FeatureExtractor(
        model, processor, FeatureCache(workspace.root / "data/features", 20.0), workspace.root
    )
    heard, deaf = (answered(model, lessons, eye, subtitles) for subtitles in (True, False))
    everything = [hit for hits in heard.values() for hit in hits]
    low, high = bootstrap_interval(
        [right for _, right in everything],
        num_resamples=2000,
        seed=0,
        groups=[video for video, _ in everything],
    )
    return {
        "right": _share({"all": everything}, "all"),
        "low": low,
        "high": high,
        "questions": len(everything),
        "tokens_per_frame": processor.config.tokens_per_frame,
        "by_kind": {kind: _share(heard, kind) for kind in KINDS},
        "narration_without_subtitles": _share(deaf, "narration"),
    }


def _share(hits: Hits, kind: str) -> float:
    return sum(right for _, right in hits[kind]) / len(hits[kind])


def _table(rows: list[dict[str, Any]]) -> str:
    head = [
        "connector",
        "tokens a frame",
        "closed questions right",
        *KINDS,
        "narration, no subtitles",
        "training",
    ]
    lines = [f"| {' | '.join(head)} |", f"|---{'|---:' * (len(head) - 1)}|"]
    for row in rows:
        shown = [f"{row['by_kind'][kind]:.0%}" for kind in KINDS]
        right = f"{row['right']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
        spent = f"{row['steps']} steps, {row['seconds'] / 60:.0f} min"
        line = [row["connector"], str(row["tokens_per_frame"]), right, *shown,
                f"{row['narration_without_subtitles']:.0%}", spent]  # fmt: skip
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
