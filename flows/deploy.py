"""Deploy: retrain on a schedule.  python -m flows.deploy [--library DIR] [--mode serve|pool]

serve   this process starts the runs, on this machine, until it is stopped
pool    the runs wait in a work pool; any machine takes them: prefect worker start --pool mgv

Both need a Prefect server (docs/retraining.md). Deploying again changes the deployment that there is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron
from prefect.settings import get_current_settings
from prefect.types.entrypoint import EntrypointType

from flows import GPU_LIMIT, errors_as_lines, say
from flows.retrain import retrain
from mgv.config import RetrainParams
from mgv.errors import ConfigError
from mgv.library.inbox import inbox_folder
from mgv.workspace import Workspace, find_workspace

POOL = "mgv"


def deployment_of(workspace: Workspace, name: str, schedule: RetrainParams) -> Any:
    """Retrain of this workspace, on its schedule, one run at a time; a run that comes due meanwhile waits."""
    return retrain.to_deployment(
        name,
        schedule=Cron(schedule.cron, timezone=schedule.timezone),
        parameters={"library": str(workspace.root), "wait": True},
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        ),
        description=f"New videos of {workspace.root.name} into a new model, when it is no worse",
        tags=["mgv"],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def make_gpu_limit(client: SyncPrefectClient, slots: int | None) -> None:
    """The concurrency limit `gpu`: as many as this machine has GPUs, at least one, or `slots`."""
    if slots is None:
        import torch

        slots = max(1, torch.cuda.device_count())
    client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, limit=slots)


def make_pool(client: SyncPrefectClient, name: str) -> None:
    """A work pool whose workers start processes, unless there is one of this name."""
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))


def main(given: argparse.Namespace) -> None:
    """Deploy, and with mode `serve` go on serving."""
    workspace = find_workspace(given.library)
    params = workspace.params.retrain
    changed = {
        key: value for key in ("cron", "timezone") if (value := getattr(given, key)) is not None
    }
    schedule = RetrainParams(**{"cron": params.cron, "timezone": params.timezone} | changed)
    if get_current_settings().api.url is None:
        raise ConfigError("PREFECT_API_URL is not set: start a server (`prefect server start`) and name it, "
                          "PREFECT_API_URL=http://127.0.0.1:4200/api")  # fmt: skip
    inbox = inbox_folder(workspace)
    deployment = deployment_of(workspace, given.name or workspace.root.name, schedule)
    with get_client(sync_client=True) as client:
        make_gpu_limit(client, given.gpus)
        if given.mode == "pool":
            make_pool(client, given.pool)
            deployment.work_pool_name = given.pool
    when = f"{schedule.cron} {schedule.timezone}, videos from {inbox}"
    if given.mode == "pool":
        deployment.apply()
        say(
            f"retrain/{deployment.name} deployed ({when}); start a worker: prefect worker start --pool {given.pool}"
        )
    else:
        say(f"retrain/{deployment.name} served ({when}); stop by Ctrl-C")
        serve(deployment, limit=1, print_starting_message=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--cron", metavar="CRON", help="instead of params.yaml's retrain.cron")
    parser.add_argument(
        "--timezone", metavar="ZONE", help="instead of params.yaml's retrain.timezone"
    )
    parser.add_argument("--mode", choices=("serve", "pool"), default="serve")
    parser.add_argument("--pool", default=POOL, metavar="NAME", help="the work pool (mode pool)")
    parser.add_argument(
        "--name", metavar="NAME", help="of the deployment; the workspace's folder when left out"
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="how many runs use a GPU at once")
    with errors_as_lines():
        main(parser.parse_args())
