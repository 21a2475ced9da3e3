"""Ingest as a flow: python -m flows.ingest PATH... [--library DIR]"""

from __future__ import annotations

import argparse
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import run_flow
from mgv.library import ingest as library_ingest
from mgv.workspace import find_workspace


@task(retries=2, retry_delay_seconds=[2, 10], cache_policy=NO_CACHE)
def take_in(library: Path, paths: list[Path]) -> list[library_ingest.IngestResult]:
    """Store and version files and folders of videos; retried when another process holds the workspace."""
    return library_ingest.ingest(find_workspace(library), paths)


@flow(name="ingest", flow_run_name="ingest into {library}")
def ingest(paths: list[Path], library: Path = Path()) -> dict[str, int]:
    """Take videos in. Unreadable files are logged with the reason; how many of each outcome comes back."""
    log = get_run_logger()
    counts: dict[str, int] = {}
    for result in take_in(library, paths):
        counts[result.outcome] = counts.get(result.outcome, 0) + 1
        level = log.warning if result.outcome == "rejected" else log.info
        level("%s %s %s", result.outcome, result.name or result.source, result.reason or "")
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--library", type=Path, default=Path(), metavar="DIR")
    given = parser.parse_args()
    run_flow(ingest, paths=given.paths, library=given.library)
