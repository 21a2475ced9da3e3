"""The loop: its schedule, its gradients, and what it does when things go wrong."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mgv.config import StageParams
from mgv.errors import ConfigError, MgvError, TrainingError, WorkspaceError
from mgv.model.checkpoint import load_checkpoint
from mgv.model.processor import Batch
from mgv.model.video_llm import IGNORED
from mgv.train.features import FeatureExtractor
from mgv.train.loop import parameter_groups, train_step
from mgv.train.schedule import learning_rate
from mgv.train.stages import new_model, train_stage
from mgv.train.training_rows import TrainingRows, num_micro_batches
from mgv.workspace import Workspace, find_workspace
from tests.conftest import set_params
from tests.train.conftest import TINY_STAGE, stage_params

ROOT = Path(__file__).parents[2]


def test_the_learning_rate_warms_up_and_then_follows_a_cosine_that_counts_from_the_first_step():
    stage = StageParams(
        learning_rate=1.0e-4, min_learning_rate=8.0e-5, warmup_learning_rate=1.0e-6, warmup_steps=10
    )
    assert learning_rate(0, 100, stage) == pytest.approx(1.0e-6)
    assert learning_rate(5, 100, stage) == pytest.approx(1.0e-6 + 0.5 * 9.9e-5)
    assert learning_rate(50, 100, stage) == pytest.approx(9.0e-5)
    assert learning_rate(10, 100, stage) == pytest.approx(
        8.0e-5 + 1.0e-5 * (1 + math.cos(math.pi / 10))
    )
    assert learning_rate(100, 100, stage) == pytest.approx(8.0e-5)


def test_biases_and_norms_do_not_decay():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    matrices, vectors = parameter_groups(model, 0.05)
    assert [tuple(p.shape) for p in matrices["params"]] == [(2, 3)]
    assert [tuple(p.shape) for p in vectors["params"]] == [(2,), (2,), (2,)]
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.05, 0.0)


def test_three_stages_each_start_from_the_one_before_and_end_in_a_folder(
    trainable: Workspace, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="mgv.train")
    for stage in ("pretrain_image", "pretrain_video", "instruct"):
        report = train_stage(trainable, stage)
        assert report.outcome.num_steps == len(report.outcome.losses)
        metrics = json.loads(
            (trainable.root / "results/train" / stage / "metrics.json").read_text()
        )
        assert metrics["validation_loss"] == pytest.approx(report.scores.loss, abs=1e-4)  # type: ignore[union-attr]
        curve = (
            (trainable.root / "results/train" / stage / "curves/train_loss.tsv")
            .read_text()
            .splitlines()
        )
        assert len(curve) == 1 + report.outcome.num_steps
        assert not (trainable.root / "models/resume" / stage).exists()
    _, processor = load_checkpoint(report.folder)
    assert processor.config.limits.num_frames == 2
    about = json.loads((report.folder / "train.json").read_text())
    assert about["answers"][0].keys() == {"sample", "question", "expected", "answer"}
    said = [
        record.getMessage() for record in caplog.records if "(expected: " in record.getMessage()
    ]
    assert said[0].startswith("step 3: ")  # sample answers come with every validation


def test_a_stage_needs_the_one_before_it(trainable: Workspace):
    with pytest.raises(WorkspaceError, match="starts from it: run `mgv train pretrain_image`"):
        train_stage(trainable, "pretrain_video")


def test_a_stage_needs_prepared_samples(workspace: Workspace):
    with pytest.raises(WorkspaceError, match="run `mgv prepare`"):
        train_stage(workspace, "pretrain_image")


def test_another_connector_than_the_stage_before_is_refused(trainable: Workspace):
    train_stage(trainable, "pretrain_image")
    other = set_params(trainable.root, model={"connector": {"name": "video_llava"}})
    with pytest.raises(ConfigError, match="train the stages anew"):
        train_stage(other, "pretrain_video")


def test_it_overfits_eight_samples(trainable: Workspace):
    file = trainable.root / "data/prepare/pretrain_image/train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()[:8]]
    for row in rows:
        row["turns"] = row["turns"][1:2]  # what colour?
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    workspace = stage_params(
        trainable.root, "pretrain_image", epochs=300, batch_size=8, micro_batch_size=8, language_model="full",
        weight_decay=0.0, learning_rate=5.0e-3, min_learning_rate=1.0e-4,
    )  # fmt: skip
    set_params(trainable.root, train={"validate_every": 1000, "save_every": 1000})
    report = train_stage(find_workspace(workspace.root), "pretrain_image")
    assert report.outcome.losses[-1] < 0.02


def test_kept_features_give_the_very_losses_of_looking_again(trainable: Workspace):
    kept = train_stage(trainable, "pretrain_image")
    again = set_params(trainable.root, train={"cache_features": False})
    assert train_stage(again, "pretrain_image").outcome.losses == kept.outcome.losses
    assert (trainable.root / "data/features").is_dir()


def test_micro_batches_do_not_change_the_losses(trainable: Workspace):
    whole = train_stage(stage_params(trainable.root, "pretrain_image", epochs=2, batch_size=4, micro_batch_size=4),
                        "pretrain_image")  # fmt: skip
    assert all(math.isfinite(loss) for loss in whole.outcome.losses)
    # the same rows, cut into passes of two: another order of the data is drawn, so the gradient is compared instead
    from mgv.data.samples import SampleFile
    from mgv.train.training_rows import TrainingRows

    model, processor = new_model(trainable.params.model, "cpu")
    model.requires_grad_(False)
    model.connector.requires_grad_(True)
    eye = FeatureExtractor(model, processor, root=trainable.root)
    lessons = TrainingRows(
        SampleFile(trainable.root / "data/prepare/pretrain_image/train.jsonl"), processor, 16
    )
    batch = lessons.collate([0, 1, 2, 3], eye)
    model(**batch.inputs()).loss.backward()
    together = [p.grad.clone() for p in model.connector.parameters()]  # type: ignore[union-attr]
    model.zero_grad()
    total = int((batch.labels != -100).sum())  # type: ignore[operator]
    for rows in ([0, 1], [2, 3]):
        part = lessons.collate(rows, eye)
        share = int((part.labels != -100).sum()) / total  # type: ignore[operator]
        (model(**part.inputs()).loss * share).backward()
    for gradient, parameter in zip(together, model.connector.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-6)


def test_an_uneven_share_of_processes_is_refused():
    assert num_micro_batches(16, 4, 2) == 4
    with pytest.raises(
        ConfigError, match="batch_size 12 is not a multiple of micro_batch_size 4 times 2"
    ):
        num_micro_batches(12, 4, 2)


def test_a_loss_that_is_no_number_stops_the_run_and_names_what_was_read(trainable: Workspace):
    workspace = stage_params(
        trainable.root, "pretrain_image", learning_rate=1.0e30, warmup_steps=0, clip_norm=None
    )
    with pytest.raises(
        TrainingError,
        match=r"step \d+: the (loss|gradient norm) is .* expected a finite number.*scenes/train-",
    ):
        train_stage(workspace, "pretrain_image")


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_change():
    from accelerate import Accelerator

    class Root(torch.nn.Module):
        """sqrt(w) at w = 0: the loss is 0, its derivative 1 / (2 sqrt(w)) is infinite."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(loss=self.weight.sqrt().sum())

    model = Root()
    batch = SimpleNamespace(labels=torch.tensor([[IGNORED, 7]]), inputs=dict)
    with pytest.raises(
        TrainingError, match=r"step 3: the gradient norm is inf.*The step read: a, b"
    ):
        train_step(
            model, [batch], torch.optim.SGD(model.parameters(), lr=1.0), list(model.parameters()),  # type: ignore[list-item]
            Accelerator(cpu=True), step=3, clip_norm=1.0, sample_ids=["a", "b"],
        )  # fmt: skip
    assert model.weight.item() == 0.0


def blank_answers(monkeypatch: pytest.MonkeyPatch, blank: range) -> None:
    """Cut the answers off in the micro-batches of these numbers, two to a step."""
    collate, calls = TrainingRows.collate, itertools.count()

    def cut_off(self: TrainingRows, numbers: list[int], eye: FeatureExtractor) -> Batch:
        batch = collate(self, numbers, eye)
        if next(calls) in blank:
            assert batch.labels is not None
            batch.labels.fill_(IGNORED)
        return batch

    monkeypatch.setattr(TrainingRows, "collate", cut_off)


def test_a_step_without_answer_tokens_is_skipped(
    trainable: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    blank_answers(monkeypatch, range(2, 4))
    caplog.set_level(logging.WARNING, logger="mgv.train")
    outcome = train_stage(trainable, "pretrain_image").outcome
    assert len(outcome.losses) == outcome.num_steps - 1
    assert all(math.isfinite(loss) for loss in outcome.losses)
    assert (
        f"step 2 of {outcome.num_steps} skipped: no answer tokens in its samples" in caplog.messages
    )


def test_a_stage_without_any_answer_token_makes_no_model(
    trainable: Workspace, monkeypatch: pytest.MonkeyPatch
):
    blank_answers(monkeypatch, range(1000))
    with pytest.raises(TrainingError, match="pretrain_image: nothing was trained"):
        train_stage(trainable, "pretrain_image")
    assert not (trainable.root / "models/pretrain_image/config.json").exists()


RUN = """
import os, signal, sys, torch
torch.set_num_threads(1)
from mgv.train import loop
from mgv.train.stages import train_stage
from mgv.workspace import find_workspace
from pathlib import Path
kill_at = int(sys.argv[2])
rate = loop.learning_rate
def until(step, *rest):
    if step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return rate(step, *rest)
loop.learning_rate = until
train_stage(find_workspace(Path(sys.argv[1])), "pretrain_image")
"""


def run_until(root: Path, kill_at: int) -> int:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", RUN, str(root), str(kill_at)], env=environment
    ).returncode


def test_a_run_killed_twice_ends_as_one_that_was_not(trainable: Workspace, tmp_path: Path):
    import shutil

    stage_params(trainable.root, "pretrain_image", epochs=1.6)
    set_params(
        trainable.root,
        model={"lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj"]}},
    )
    other = tmp_path / "killed"
    shutil.copytree(trainable.root, other, symlinks=True)
    assert run_until(trainable.root, -1) == 0
    assert run_until(other, 1) == -signal.SIGKILL  # ahead of the first state
    assert run_until(other, 5) == -signal.SIGKILL
    assert [place.name for place in sorted((other / "models/resume/pretrain_image").glob("step-*"))] == [
        "step-000002", "step-000004"
    ]  # fmt: skip
    assert run_until(other, -1) == 0
    for file in ("connector.safetensors", "adapter/adapter_model.safetensors"):
        one = load_file(trainable.root / "models/train/pretrain_image" / file)
        two = load_file(other / "models/train/pretrain_image" / file)
        assert all(torch.equal(one[name], two[name]) for name in one)
    for curve in ("train_loss.tsv", "validation_loss.tsv"):
        rows = [
            [
                line.split("\t")[1:]
                for line in (root / "results/train/pretrain_image/curves" / curve)
                .read_text()
                .splitlines()
            ]
            for root in (trainable.root, other)
        ]
        assert rows[0] == rows[1]


def test_a_state_of_other_params_is_not_gone_on_from(
    trainable: Workspace, caplog: pytest.LogCaptureFixture
):
    assert run_until(trainable.root, 3) == -signal.SIGKILL
    workspace = stage_params(trainable.root, "pretrain_image", learning_rate=2.0e-2)
    with caplog.at_level(logging.WARNING):
        assert train_stage(workspace, "pretrain_image").outcome.first_step == 0
    assert "of a run with other data, params or weights" in caplog.text


def test_a_state_cut_short_falls_back_to_the_one_before(
    trainable: Workspace, caplog: pytest.LogCaptureFixture
):
    stage_params(trainable.root, "pretrain_image", epochs=1.6)
    assert run_until(trainable.root, 5) == -signal.SIGKILL
    state = trainable.root / "models/resume/pretrain_image/step-000004/optimizer.pt"
    state.write_bytes(state.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert train_stage(find_workspace(trainable.root), "pretrain_image").outcome.first_step == 2
    assert "trying the one before it" in caplog.text


FULL_DISK = f"""
import resource, signal, sys, torch
torch.set_num_threads(1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from mgv.train import loop
from mgv.train.stages import train_stage
from mgv.workspace import find_workspace
from mgv.errors import MgvError
from pathlib import Path
rate = loop.learning_rate
def until(step, *rest):
    if step == 3:  # from here on no file can grow beyond a few bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, {resource.RLIM_INFINITY}))
    return rate(step, *rest)
loop.learning_rate = until
try:
    train_stage(find_workspace(Path(sys.argv[1])), "pretrain_image")
except MgvError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_state_before_it(trainable: Workspace):
    stage_params(trainable.root, "pretrain_image", epochs=1.6)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", FULL_DISK, str(trainable.root)], env=environment, text=True,
                         capture_output=True)  # fmt: skip
    assert "the state after step 4 cannot be written" in ran.stdout, ran.stderr
    assert "step 2 is kept, run the same command to go on from it" in ran.stdout
    states = trainable.root / "models/resume/pretrain_image"
    assert [place.name for place in states.glob("*step*")] == ["step-000002"]


def test_a_model_that_could_not_be_written_is_written_by_the_next_run_without_a_step(
    trainable: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(trainable.root, other, symlinks=True)
    expected = train_stage(trainable, "pretrain_image")

    def fill_up(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("mgv.model.checkpoint.save_tensors", fill_up)
        with pytest.raises(MgvError, match="the model cannot be written: I/O error: No space left"):
            train_stage(find_workspace(other), "pretrain_image")
    assert not list((other / "models/train").glob("*"))
    again = train_stage(find_workspace(other), "pretrain_image")
    assert (again.outcome.first_step, again.outcome.losses) == (expected.outcome.num_steps, [])
    metrics = [
        root / "results/train/pretrain_image/metrics.json" for root in (trainable.root, other)
    ]
    assert metrics[0].read_text() == metrics[1].read_text()


TWO = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
import accelerate
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.elastic.multiprocessing.errors import record
from torch.distributed.tensor import DTensor
from mgv.train import loop
from mgv.train.stages import train_stage
from mgv.workspace import find_workspace
begin, load = accelerate.Accelerator.__init__, loop.load_state
def sharded(self, **kwargs):  # as accelerate does on GPUs; on CPUs it knows only DDP, though torch shards there too
    begin(self, **kwargs)
    for state in (AcceleratorState, PartialState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    self.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
def checked(folder, model, *rest):
    parts = {name.split(".")[0] for name, weight in model.named_parameters() if isinstance(weight, DTensor)}
    assert parts == {"connector", "language_model"}, parts
    return load(folder, model, *rest)
if sys.argv[2] == "fsdp":
    accelerate.Accelerator.__init__, loop.load_state = sharded, checked
record(train_stage)(find_workspace(Path(sys.argv[1])), "pretrain_image")  # torchrun ends with what it raised
"""


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_two_processes_learn_what_one_does_whole_or_sharded(trainable: Workspace, tmp_path: Path):
    import shutil

    others = [tmp_path / "ddp", tmp_path / "fsdp"]
    for other in others:
        shutil.copytree(trainable.root, other, symlinks=True)
    one = train_stage(trainable, "pretrain_image")
    (tmp_path / "run.py").write_text(TWO)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    for other in others:
        ran = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
             str(tmp_path / "run.py"), str(other), other.name],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        for file in ("connector.safetensors", "adapter/adapter_model.safetensors"):
            expected = load_file(trainable.root / "models/train/pretrain_image" / file)
            found = load_file(other / "models/train/pretrain_image" / file)
            for name, tensor in expected.items():
                torch.testing.assert_close(tensor, found[name], rtol=1e-3, atol=1e-5)
        metrics = json.loads((other / "results/train/pretrain_image/metrics.json").read_text())
        assert metrics["train_loss"] == pytest.approx(
            sum(one.outcome.losses) / len(one.outcome.losses), abs=1e-3
        )


@pytest.mark.parametrize("connector", ["minigpt_v2", "video_llava", "llama_vid"])
def test_every_connector_goes_through_the_loop(connector: str, trainable: Workspace):
    set_params(
        trainable.root, model={"connector": {"name": connector}}, train={"instruct": TINY_STAGE}
    )
    workspace = stage_params(trainable.root, "pretrain_image", max_steps=3)
    report = train_stage(workspace, "pretrain_image")
    assert report.outcome.num_steps == 3
    assert report.scores is not None
    assert sum(total for _, total in report.scores.right.values()) == sum(
        len(row["turns"]) - 1
        for row in map(
            json.loads,
            (workspace.root / "data/prepare/pretrain_image/validation.jsonl")
            .read_text()
            .splitlines(),
        )
    )
