"""Registry: published models that never change, and which of them is live with which library.

models/published/v1, v2, …        a model's folder with metrics.json, run.json, curves/ and lineage.json
models/published/champion.json    every promotion and rollback; the last one is live

versions     a version's files and their digests; the lock of those who write
publishing   a version, made beside and renamed into place
promotion    promotion and rollback: the champion's pointer, replaced in one step
as_of        what answers now, or did at another time
hub          a version pushed to a Hub repository

Readers take no lock: a version and the pointer appear whole.
"""

from mgv.library.manifest import NEWEST
from mgv.registry.as_of import CHAMPION, Live, find_model, live, live_at
from mgv.registry.hub import push_to_hub
from mgv.registry.promotion import (
    Promotion,
    PublishedVersion,
    champion,
    history,
    promote,
    published,
    rollback,
)
from mgv.registry.publishing import publish
from mgv.registry.versions import read_lineage, verify

__all__ = [
    "CHAMPION",
    "NEWEST",
    "Live",
    "Promotion",
    "PublishedVersion",
    "champion",
    "find_model",
    "history",
    "live",
    "live_at",
    "promote",
    "publish",
    "published",
    "push_to_hub",
    "read_lineage",
    "rollback",
    "verify",
]
