"""OpenLineage: what ran, on what, into what, as run events of openlineage.io's specification (object model 2-0-2).

Nothing is recorded for it: events are made from what the runs left behind, every time with the same run ids.

materialize          data/manifests/<tag>.json
prepare              data/prepare/report.json
pretrain_image, …    models/train/STAGE/train.json
evaluate             results/run.json
publish              models/published/<version>/lineage.json
ask                  data/receipts/<id>.json

dvc.lock adds the hashes of what DVC ran a stage on. Datasets are named by their path in the workspace, in a namespace
that is the workspace's folder's name. Where no start was kept, START carries the time of COMPLETE.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mgv import __version__, versioning
from mgv.ask.receipts import Receipt, read_receipt, receipt_ids
from mgv.errors import UsageError, WeightsError
from mgv.library.manifest import Manifest, versions
from mgv.registry import published, read_lineage
from mgv.registry.evaluation import datasets, parse_facts
from mgv.workspace import Workspace

logger = logging.getLogger(__name__)

Json = dict[str, Any]

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
FACETS = "https://openlineage.io/spec/facets"
_RUNS = uuid.UUID("4a2b5d0e-7c9f-5b1a-9d63-0c8f4f1e6a57")
"""Run ids are made in this space, of job and record: the same run always gets the same id."""
TRAINING = ("pretrain_image", "pretrain_video", "instruct")
JOBS = ("materialize", "prepare", "train", "evaluate", "publish", "ask")
"""What can be asked for by name; `train` is all of TRAINING."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Something that a run read or wrote."""

    name: str
    """Its path in the workspace."""
    version: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, as its records tell it."""

    job: str
    key: str
    """What tells it from the job's other runs, for example a library's tag."""
    started_at: str
    """ISO-8601 with time zone."""
    finished_at: str
    inputs: tuple[Dataset, ...]
    outputs: tuple[Dataset, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Parameters, parts, metrics: the run facet `mgv_run`."""
    flow_run: str | None = None


def events(workspace: Workspace, which: Sequence[str] | None = None) -> Iterator[Json]:
    """START and COMPLETE of every run, or of those that `which` names by job, library tag, model version or receipt.

    Raises UsageError for a name that no run has.
    """
    for run in _chosen(workspace, which):
        yield from _events(run, workspace.root.name)


def _chosen(workspace: Workspace, which: Sequence[str] | None) -> Iterable[RunRecord]:
    if not which:
        return runs(workspace)
    by_key: dict[tuple[str, str], RunRecord] = {}
    for name in which:
        jobs = TRAINING if name == "train" else (name,)
        if name in (*JOBS, *TRAINING):
            named = list(runs(workspace, jobs))
        else:
            named = [run for run in runs(workspace, ("materialize", "publish")) if run.key == name]
            named = named or [_asked(read_receipt(workspace, name))]
        if not named:
            raise UsageError(f"--run {name!r}: no run of it is on record here")
        by_key |= {(run.job, run.key): run for run in named}
    return by_key.values()


def runs(workspace: Workspace, jobs: Sequence[str] | None = None) -> Iterator[RunRecord]:
    """The runs of these jobs that left a record, or of all; of one that cannot be read a warning is logged."""
    stages = versioning.lock_digests(workspace.root)
    for job in jobs or ("materialize", "prepare", *TRAINING, "evaluate", "publish", "ask"):
        if job == "materialize":
            yield from (
                _materialized(manifest) for manifest in versions(workspace) if manifest.finished_at
            )
        elif job == "publish":
            yield from _published(workspace)
        elif job == "ask":
            yield from (_asked(read_receipt(workspace, each)) for each in receipt_ids(workspace))
        else:
            try:
                yield from _stage_run(workspace, job, stages.get(job, {}))
            except (OSError, ValueError, LookupError, TypeError) as error:
                logger.warning("the record of %s cannot be read and is left out: %s", job, error)


def _materialized(manifest: Manifest) -> RunRecord:
    tables = tuple(
        Dataset(name=f"{manifest.store}/{name}", version=str(number))
        for name, number in manifest.versions.items()
    )
    return RunRecord(
        job="materialize",
        key=manifest.tag,
        started_at=manifest.finished_at,
        finished_at=manifest.finished_at,
        inputs=(Dataset(name="data/videos", version=manifest.listing),),
        outputs=(*tables, Dataset(name="data/library.json", version=manifest.tag)),
        facts={
            "tag": manifest.tag,
            "digest": manifest.digest,
            "parts": manifest.parts,
            "params": asdict(manifest.params),
            "videos": {item.name: item.video_id for item in manifest.items},
            "failed": manifest.failed,
        },
    )


def _stage_run(
    workspace: Workspace, stage: str, locked: Mapping[str, Mapping[str, str]]
) -> Iterator[RunRecord]:
    """The last run of a stage: its own record, with what DVC knows of its inputs and outputs."""
    record = {
        "prepare": workspace.samples_dir / "report.json",
        "evaluate": workspace.results_dir / "run.json",
    }.get(stage, workspace.trained_dir / stage / "train.json")
    if not record.is_file():
        return
    facts = json.loads(record.read_text(encoding="utf-8"))
    finished = datetime.fromtimestamp(record.stat().st_mtime, UTC)
    started = finished
    inputs = [Dataset(name=path, version=md5) for path, md5 in locked.get("deps", {}).items()]
    outputs = [Dataset(name=path, version=md5) for path, md5 in locked.get("outs", {}).items()]
    if stage == "prepare":
        inputs = inputs or [Dataset(name="data/library.json")]
        outputs = outputs or [Dataset(name=f"data/prepare/{name}") for name in TRAINING]
        facts = {
            name: facts[name]
            for name in ("samples", "turns", "bad_rows", "sources")
            if name in facts
        }
    elif stage == "evaluate":
        evaluation = parse_facts(facts["facts"])
        facts = evaluation.as_json()
        started = datetime.fromisoformat(evaluation.made)
        finished = max(started + timedelta(seconds=evaluation.time_s), started)
        inputs += [Dataset(name=name, version=version) for name, version in datasets(evaluation)]
        outputs = outputs or [Dataset(name="results")]
    else:
        inputs += [
            Dataset(name=f"data/prepare/{stage}/{split}.jsonl", version=digest)
            for split, digest in facts["data"].items()
        ]
        outputs = outputs or [Dataset(name=f"models/train/{stage}")]
        facts = {name: facts.get(name) for name in ("model", "train", "weights", "metrics")}
    yield RunRecord(
        job=stage,
        key=finished.isoformat(timespec="seconds"),
        started_at=started.isoformat(),
        finished_at=finished.isoformat(),
        inputs=_each_once(inputs),
        outputs=_each_once(outputs),
        facts=facts,
    )


def _published(workspace: Workspace) -> Iterator[RunRecord]:
    for each in published(workspace):
        try:
            lineage = read_lineage(each.folder)
        except WeightsError as error:
            logger.warning("%s", error)
            continue
        yield RunRecord(
            job="publish",
            key=each.version,
            started_at=each.published_at,
            finished_at=each.published_at,
            inputs=(
                Dataset(name=str(lineage["model"]["from"]), version=lineage["model"]["digest"]),
                Dataset(name="data/library.json", version=each.library_tag),
            ),
            outputs=(
                Dataset(
                    name=f"models/published/{each.version}", version=lineage["model"]["digest"]
                ),
            ),
            facts={
                name: lineage.get(name)
                for name in ("git", "dvc", "data", "model", "metrics", "params_digest")
            },
            flow_run=lineage.get("flow_run"),
        )


def _asked(receipt: Receipt) -> RunRecord:
    model = receipt.model
    name = (
        f"models/published/{model.version}"
        if model.version
        else f"answerer {model.name} {Path(model.pretrained).name}"
    )
    videos = tuple(
        Dataset(name=each.path or each.name, version=each.video_id) for each in receipt.sources
    )
    tables = tuple(
        Dataset(name=f"{receipt.library.store}/{table}", version=str(number))
        for table, number in receipt.library.versions.items()
    )
    return RunRecord(
        job="ask",
        key=receipt.receipt_id,
        started_at=receipt.asked_at,
        finished_at=receipt.asked_at,
        inputs=(*tables, *videos, Dataset(name=name, version=model.weights or None)),
        outputs=(
            Dataset(name=f"data/receipts/{receipt.receipt_id}.json", version=receipt.receipt_id),
        ),
        facts={
            "library_tag": receipt.library.tag,
            "parts": receipt.library.parts,
            "params_hash": receipt.params_hash,
            "software": receipt.software,
        },
        flow_run=receipt.flow_run,
    )


def _each_once(datasets: Iterable[Dataset]) -> tuple[Dataset, ...]:
    """By name; one with a version stands before one without."""
    by_name: dict[str, Dataset] = {}
    for dataset in datasets:
        if dataset.name not in by_name or by_name[dataset.name].version is None:
            by_name[dataset.name] = dataset
    return tuple(by_name.values())


# as events


def _events(run: RunRecord, namespace: str) -> Iterator[Json]:
    """START with what the run read; COMPLETE with what it wrote too."""
    run_id = str(uuid.uuid5(_RUNS, f"{namespace} {run.job} {run.key}"))
    about: Json = {
        "producer": _producer(),
        "schemaURL": f"{SPEC}#/$defs/RunEvent",
        "run": {"runId": run_id, "facets": _run_facets(run, namespace)},
        "job": {
            "namespace": namespace,
            "name": run.job,
            "facets": {
                "jobType": _facet(
                    f"{FACETS}/2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet",
                    processingType="BATCH", integration="MGV", jobType="JOB",
                )
            },
        },
        "inputs": [_dataset(each, namespace) for each in run.inputs],
    }  # fmt: skip
    yield {"eventType": "START", "eventTime": run.started_at, **about, "outputs": []}
    outputs = [_dataset(each, namespace) for each in run.outputs]
    yield {"eventType": "COMPLETE", "eventTime": run.finished_at, **about, "outputs": outputs}


def _run_facets(run: RunRecord, namespace: str) -> Json:
    facets = {"mgv_run": _facet(f"{SPEC}#/$defs/RunFacet", key=run.key, facts=dict(run.facts))}
    if run.flow_run and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", run.flow_run):
        facets["parent"] = _facet(
            f"{FACETS}/1-0-1/ParentRunFacet.json#/$defs/ParentRunFacet",
            run={"runId": run.flow_run},
            job={"namespace": namespace, "name": "flow"},
        )
    return facets


def _dataset(dataset: Dataset, namespace: str) -> Json:
    facets = {}
    if dataset.version:
        facets["version"] = _facet(
            f"{FACETS}/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
            datasetVersion=dataset.version,
        )
    return {"namespace": namespace, "name": dataset.name, "facets": facets}


def _facet(schema: str, **values: Any) -> Json:
    return {"_producer": _producer(), "_schemaURL": schema, **values}


def _producer() -> str:
    return f"urn:mgv:{__version__}"
