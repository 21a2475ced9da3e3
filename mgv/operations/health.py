"""Health: one thing that doctor looked at, what it found, and what mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthCheck:
    """One thing that was looked at."""

    name: str
    ok: bool
    level: Literal["missing", "optional"]
    """How much it matters when it is not ok."""
    found: str
    advice: str
    """What to do about it; empty when it is ok."""
    fix: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    """What `mgv doctor --fix` runs; None where a person has to decide."""


def check(
    name: str,
    ok: bool,
    found: str,
    advice: str,
    *,
    optional: bool = False,
    fix: Callable[[], None] | None = None,
) -> HealthCheck:
    """A check; advice and fix are dropped where it is ok."""
    return HealthCheck(
        name=name,
        ok=ok,
        level="optional" if optional else "missing",
        found=found,
        advice="" if ok else advice,
        fix=None if ok else fix,
    )
