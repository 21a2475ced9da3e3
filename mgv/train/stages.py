"""The three stages: pretrain_image, pretrain_video, instruct; each starts from the one before and ends in a folder.

data/prepare/STAGE/{train,validation}.jsonl   what is learnt (mgv prepare)
data/features                                 what the frozen vision encoder saw
models/resume/STAGE                           the run's states and curves, until it is done
models/train/STAGE                            the model (mgv/model/checkpoint.py), train.json
results/train/STAGE                           metrics.json and curves/*.tsv for DVC
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mgv.config import ModelParams, StageParams
from mgv.data.samples import SampleFile, read_weights
from mgv.errors import ConfigError, TrainingError, UsageError, WorkspaceError
from mgv.files import file_digest, write_json
from mgv.model.adapt import Lora, adapt
from mgv.model.build import build_processor, build_video_llm
from mgv.model.checkpoint import load_checkpoint, model_card, save_checkpoint
from mgv.model.processor import Processor
from mgv.model.video_llm import VideoLLM
from mgv.train.features import FeatureCache, FeatureExtractor, fingerprint
from mgv.train.log import Log
from mgv.train.loop import Outcome, Progress, Scores, measure, sample_answers, train
from mgv.train.state import learnt_weights
from mgv.train.training_rows import TrainingRows
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)

STAGES = ("pretrain_image", "pretrain_video", "instruct")
NUM_LOSSES = 20
"""The last losses of the curve, of which the metric is the mean."""
NUM_ANSWERS = 8
"""Sample answers in train.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """What a stage came to."""

    stage: str
    folder: Path
    outcome: Outcome
    scores: Scores | None
    """Over the whole validation set; None where there is none."""


def train_stage(workspace: Workspace, stage: str, progress: Progress | None = None) -> StageReport:
    """Train one stage and write its folder. A run that was stopped goes on where it was."""
    from accelerate import Accelerator

    if stage not in STAGES:
        raise UsageError(f"stage {stage!r} is none of {', '.join(STAGES)}")
    params = workspace.params
    chosen: StageParams = getattr(params.train, stage)
    accelerator = Accelerator(mixed_precision=_precision(params.train.precision))
    if accelerator.distributed_type == "FSDP" and not accelerator.is_fsdp2:
        raise ConfigError(
            "accelerate: FSDP of version 1, which torch gives up; expected fsdp_version: 2"
        )
    report = progress if accelerator.is_main_process else None
    files = _sample_files(workspace.root, stage)

    place = accelerator.device
    device = str(place) if place.type == "cuda" else place.type  # accelerate numbers the CPU too
    torch.manual_seed(params.train.seed)
    model, processor = begin_model(workspace, stage, device)
    base = fingerprint(model)
    eye = FeatureExtractor(model, processor, root=workspace.root)
    _adapt(model, chosen, params.model)
    if params.train.cache_features:
        with accelerator.main_process_first():
            eye.cache = FeatureCache(workspace.features_dir, params.train.cache_max_gb)
            if accelerator.is_main_process:
                _look_at_all(eye, eye.cache, list(files.values()), report)
    weights = read_weights(files["train"].path.parent)
    lessons = {
        split: TrainingRows(
            file, processor, chosen.turns_per_video, weights if split == "train" else None
        )
        for split, file in files.items()
        if len(file)
    }
    about = {
        "stage": stage,
        "model": asdict(params.model),
        "train": asdict(chosen) | {"seed": params.train.seed, "precision": params.train.precision},
        "data": {split: file_digest(file.path) for split, file in files.items()},
        "weights": base,
    } | ({"source_weights": weights} if weights else {})
    resume = workspace.states_dir / stage
    log = Log(
        resume / "log", workspace.results_dir / "tensorboard" / stage, accelerator.is_main_process
    )
    run = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
    try:
        outcome = train(
            model,
            lessons["train"],
            lessons.get("validation"),
            eye,
            stage=chosen,
            params=params.train,
            state_dir=resume,
            log=log,
            fingerprint=run,
            accelerator=accelerator,
            progress=report,
        )
    finally:
        log.end()
    last_losses = log.recent("train/loss", NUM_LOSSES) or outcome.losses[-NUM_LOSSES:]
    if accelerator.is_main_process and not last_losses:
        raise TrainingError(
            f"{stage}: nothing was trained: no sample has an answer token within the prompt's limits, expected "
            f"some in each step; shorten the questions, history and subtitles in data/prepare/{stage}"
        )
    if accelerator.is_fsdp2:  # from here on as one whole again, on every process
        learnt = learnt_weights(model)
        torch.manual_seed(params.train.seed)
        model, _ = begin_model(workspace, stage, device)
        _adapt(model, chosen, params.model)
        model.load_state_dict(learnt, strict=False)
        eye.model = model
    scores = (
        measure(model, lessons["validation"], eye, accelerator) if "validation" in lessons else None
    )
    folder = workspace.trained_dir / stage
    if accelerator.is_main_process:
        answers = sample_answers(
            model, lessons.get("validation", lessons["train"]), eye, NUM_ANSWERS
        )
        metrics = _metrics(outcome.num_steps, last_losses, scores)
        card = model_card(model) + _card(about, metrics)
        save_checkpoint(model, processor, folder, card)
        write_json(folder / "train.json", about | {"metrics": metrics, "answers": answers})
        _publish_curves(resume / "log", workspace.results_dir / "train" / stage, metrics)
        shutil.rmtree(resume)
    accelerator.wait_for_everyone()
    return StageReport(stage=stage, folder=folder, outcome=outcome, scores=scores)


def begin_model(workspace: Workspace, stage: str, device: str) -> tuple[VideoLLM, Processor]:
    """The first stage's new model, or that of the stage before."""
    params = workspace.params.model
    number = STAGES.index(stage)
    if number == 0:
        return new_model(params, device)
    before = workspace.trained_dir / STAGES[number - 1]
    if not (before / "config.json").is_file():
        raise WorkspaceError(
            f"{before}: no model there; stage {stage} starts from it: run `mgv train {STAGES[number - 1]}`"
        )
    model, processor = load_checkpoint(
        before, device=device, quantization=params.language_model.quantization
    )
    if model.config.connector["name"] != params.connector.name:
        raise ConfigError(
            f"model.connector.name is {params.connector.name}, {before} holds {model.config.connector['name']}: "
            f"train the stages anew, from {STAGES[0]}"
        )
    return model, processor


def _adapt(model: VideoLLM, stage: StageParams, params: ModelParams) -> None:
    """Set what learns in a stage."""
    lora = Lora(**asdict(params.lora))
    adapt(model, connector=stage.connector, language_model=stage.language_model, lora=lora)


def new_model(params: ModelParams, device: str = "auto") -> tuple[VideoLLM, Processor]:
    """A model of these parts with a connector that has learnt nothing."""
    model, tokenizer = build_video_llm(
        params.connector.name,
        vision_encoder=params.vision_encoder.name,
        vision_pretrained=params.vision_encoder.pretrained,
        language_model=params.language_model.pretrained,
        connector_options=params.connector.options,
        quantization=params.language_model.quantization,
        device=device,
    )
    processor = build_processor(
        model, tokenizer, mode=params.mode, chat=params.chat, num_frames=params.num_frames
    )
    return model, processor


def _sample_files(root: Path, stage: str) -> dict[str, SampleFile]:
    folder = root / "data/prepare" / stage
    if not (folder / "train.jsonl").is_file():
        raise WorkspaceError(
            f"{folder}/train.jsonl: not there; run `mgv prepare` (params: prepare.sources)"
        )
    return {
        split: SampleFile(folder / f"{split}.jsonl")
        for split in ("train", "validation")
        if (folder / f"{split}.jsonl").is_file()
    }


def _look_at_all(
    eye: FeatureExtractor, cache: FeatureCache, files: list[SampleFile], progress: Progress | None
) -> None:
    """Fill the feature cache."""
    total = sum(map(len, files))
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("features", done, total)

    encoded = eye.keep((file[i] for file in files for i in range(len(file))), step)
    logger.info(
        "%d videos and images looked at; %s holds %.2f GB",
        encoded,
        cache.folder,
        cache.num_bytes / 1e9,
    )


def _precision(wanted: str) -> str:
    """accelerate's word for it."""
    if wanted == "auto":
        wanted = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    return "no" if wanted == "fp32" else wanted


def _metrics(num_steps: int, last_losses: list[float], scores: Scores | None) -> dict[str, Any]:
    mean = sum(last_losses) / len(last_losses)
    metrics: dict[str, Any] = {"steps": num_steps, "train_loss": round(mean, 4)}
    if scores:
        metrics["validation_loss"] = round(scores.loss, 4)
        if scores.accuracy is not None:
            metrics["validation_accuracy"] = round(scores.accuracy, 4)
            metrics["validation_by_kind"] = {
                k: round(n / total, 4) for k, (n, total) in scores.right.items()
            }
    return metrics


def _card(about: dict[str, Any], metrics: dict[str, Any]) -> str:
    lines = [f"* {key}: {value}" for key, value in metrics.items()]
    data = [f"* {split}.jsonl: SHA-256 {value}" for split, value in about["data"].items()]
    return "\n## Training\n\n" + "\n".join([f"* stage: {about['stage']}", *lines, *data]) + "\n"


def _publish_curves(log: Path, folder: Path, metrics: dict[str, Any]) -> None:
    """Metrics and curves where DVC looks for them."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "curves").mkdir(parents=True)
    for file in sorted((log / "plots/metrics").rglob("*.tsv")):
        shutil.copyfile(file, folder / "curves" / f"{file.parent.name}_{file.name}")
    write_json(folder / "metrics.json", metrics)
