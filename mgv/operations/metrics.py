"""Monitor: what there is to watch in a workspace, as Prometheus metrics. Every figure is read from files when asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgv import registry
from mgv.errors import MgvError, WorkspaceError
from mgv.library.manifest import read_manifest, versions
from mgv.operations.cleaning import disk_usage
from mgv.retrain import read_note
from mgv.workspace import Workspace

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One figure. Times are seconds since 1970; a figure that is not known is left out."""

    name: str
    help: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


def measure(workspace: Workspace) -> list[Metric]:
    """Every figure of a workspace, as it is now."""
    metrics = [*_library(workspace), *_models(workspace), *_disk(workspace)]
    receipts = workspace.receipts_dir
    count = sum(1 for _ in receipts.glob("*.json")) if receipts.is_dir() else 0
    metrics.append(Metric(name="mgv_receipts", help="Answers whose receipt is kept.", value=count))
    return [*metrics, *_retrain(workspace)]


def _library(workspace: Workspace) -> Iterator[Metric]:
    manifest = read_manifest(workspace.manifest)
    kept = len(versions(workspace))
    yield Metric(name="mgv_libraries", help="Finished libraries that can be asked.", value=kept)
    if manifest is None:
        return
    figures = {
        "mgv_videos": ("Videos of the newest library.", len(manifest.items) - len(manifest.failed)),
        "mgv_failed_videos": ("Videos that could not be read.", len(manifest.failed)),
        "mgv_frames": ("Frames of the newest library.", manifest.num_frames),
        "mgv_segments": ("Stretches of speech of the newest library.", manifest.num_segments),
        "mgv_video_seconds": ("Length of all videos.", manifest.duration_s),
    }
    for name, (text, value) in figures.items():
        yield Metric(name=name, help=text, value=value)
    yield Metric(
        name="mgv_library_info", help="The newest library.", value=1, labels={"tag": manifest.tag}
    )
    if manifest.finished_at:
        yield Metric(
            name="mgv_library_finished_timestamp_seconds",
            help="When the newest library was finished.",
            value=_seconds(manifest.finished_at),
        )


def _models(workspace: Workspace) -> Iterator[Metric]:
    published = registry.published(workspace)
    yield Metric(name="mgv_published_models", help="Published versions.", value=len(published))
    current = registry.champion(workspace)
    if current is not None:
        labels = {"version": current.version, "library_tag": current.library_tag}
        yield Metric(name="mgv_champion_info", help="What is live.", value=1, labels=labels)
        yield Metric(
            name="mgv_champion_since_timestamp_seconds",
            help="When it became live.",
            value=_seconds(current.at),
        )
        for each in published:
            if each.version == current.version:
                yield from _scores(
                    "mgv_champion_score", "The live model's evaluation.", each.metrics
                )
    try:
        last = json.loads((workspace.results_dir / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    yield from _scores("mgv_evaluation_score", "The last evaluation.", last)


def _scores(name: str, text: str, scores: dict[str, Any]) -> Iterator[Metric]:
    for metric, value in sorted(scores.items()):
        if isinstance(value, int | float):
            yield Metric(name=name, help=text, value=float(value), labels={"metric": metric})


def _disk(workspace: Workspace) -> Iterator[Metric]:
    for kind, num_bytes in disk_usage(workspace).items():
        yield Metric(
            name="mgv_disk_bytes",
            help="What the workspace takes.",
            value=num_bytes,
            labels={"kind": kind},
        )
    free = shutil.disk_usage(workspace.root).free
    yield Metric(name="mgv_disk_free_bytes", help="Free on the workspace's disk.", value=free)
    if (budget_gb := workspace.params.operations.disk_budget_gb) is not None:
        yield Metric(
            name="mgv_disk_budget_bytes", help="operations.disk_budget_gb.", value=budget_gb * 1e9
        )


def _retrain(workspace: Workspace) -> Iterator[Metric]:
    """The last retrain that came to a verdict (flows/retrain.py notes it)."""
    note = read_note(workspace)
    if note is None:
        return
    outcome = "promoted" if note.decision.promote == "candidate" else "refused"
    at = workspace.retrain_note.stat().st_mtime
    if not note.done:
        outcome = "unfinished"
    yield Metric(
        name="mgv_last_retrain_timestamp_seconds",
        help="When the last retrain came to its outcome.",
        value=at,
        labels={"outcome": outcome},
    )


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


class _Collector:
    """Measures anew for every reader."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def collect(self) -> Iterator[GaugeMetricFamily]:
        from prometheus_client.core import GaugeMetricFamily

        families: dict[str, GaugeMetricFamily] = {}
        for metric in measure(self._workspace):
            family = families.setdefault(
                metric.name, GaugeMetricFamily(metric.name, metric.help, labels=list(metric.labels))
            )
            family.add_metric(list(metric.labels.values()), metric.value)
        yield from families.values()


def _prometheus(workspace: Workspace) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry

    collectors = CollectorRegistry()
    collectors.register(_Collector(workspace))
    return collectors


def exposition(workspace: Workspace) -> str:
    """Every figure in Prometheus' text format."""
    from prometheus_client import generate_latest

    text: str = generate_latest(_prometheus(workspace)).decode()
    return text


def write_metrics(workspace: Workspace, path: Path) -> None:
    """Write the text format to a file, whole or not at all, for node_exporter's textfile collector."""
    from prometheus_client import write_to_textfile

    try:
        write_to_textfile(str(path), _prometheus(workspace))
    except OSError as error:
        raise MgvError(f"{path}: cannot be written: {error.strerror}") from error


def serve_metrics(workspace: Workspace, port: int) -> Any:
    """Serve the text format on 127.0.0.1 until the process ends: the server and its thread."""
    from prometheus_client import start_http_server

    try:
        return start_http_server(port, addr="127.0.0.1", registry=_prometheus(workspace))
    except OSError as error:
        raise WorkspaceError(
            f"port {port} of 127.0.0.1 cannot be taken: {error.strerror}"
        ) from error
