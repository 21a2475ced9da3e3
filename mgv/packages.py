"""Packages: the distribution's own name, and how to install what an extra needs.

The distribution is `mgv-video`; the import and the command are `mgv`. (The name `mgv` on PyPI is another project's.)
"""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "mgv-video"


def extra_requirements(extra: str) -> list[str]:
    """What pyproject.toml lists under an extra, for this machine; empty where mgv is not installed as a package."""
    from packaging.requirements import Requirement

    try:
        requirements = map(Requirement, metadata.requires(DISTRIBUTION) or [])
    except metadata.PackageNotFoundError:
        return []
    return [
        f"{requirement.name}{requirement.specifier}"
        for requirement in requirements
        if requirement.marker is not None
        and requirement.marker.evaluate({"extra": extra})
        and not requirement.marker.evaluate({"extra": ""})
    ]


def install_command(extra: str) -> str:
    """The command that installs an extra's packages. It names them one by one, so it installs nobody else's `mgv`."""
    requirements = extra_requirements(extra)
    if not requirements:
        return f"pip install -e '.[{extra}]' (in a clone of mgv)"
    return "pip install " + " ".join(f"'{requirement}'" for requirement in requirements)
