"""mgv is built in layers; a module imports from its own layer or from those before it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = [
    "__version__ errors records config files packages",
    "versioning workspace",
    "media",
    "starter",
    "encoders",
    "model",
    "library",
    "data",
    "train registry",
    "ask",
    "lineage evaluate",
    "retrain",
    "operations demo",
    "serve",
    "cli",
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer.split()}


def imported(path: Path) -> set[str]:
    """Parts of mgv that a file imports; 'flows' stands for the flows."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".") for name in names]
    named = {p[1] for p in parts if p[0] == "mgv" and len(p) > 1}
    return named | {"flows" for p in parts if p[0] == "flows"}


def test_each_module_imports_only_its_own_layer_or_earlier_ones():
    for path in (ROOT / "mgv").rglob("*.py"):
        part = path.relative_to(ROOT / "mgv").parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        assert part in RANK, f"{path}: {part} has no layer"
        for other in imported(path):
            assert other in RANK, f"{path}: {other} has no layer"
            assert RANK[other] <= RANK[part], f"{path}: {part} may not import {other}"


def test_only_the_command_line_prints():
    for path in (ROOT / "mgv").rglob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        ]
        printing = [
            call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"
        ]
        assert not printing or path.parent.name == "cli", f"{path} prints"
