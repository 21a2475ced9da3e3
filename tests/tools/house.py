"""The figures of the house: measured as the review of commit 87784af measured them, and printed next to its values.

Of 87784af this script gives the review's own figures, but for functions over 10: 4.4 % instead of 4.5.

    python -m tests.tools.house

Vague bindings are names of VAGUE that are assigned, looped over, or taken as a parameter. Cyclomatic complexity is
one, and one more for each branch, loop, handler, assertion, case, comprehension and condition in it, and for each
further operand of `and` and `or`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ("mgv", "flows")
MAX_COLUMNS, MAX_COMPLEXITY = 100, 10
VAGUE = frozenset(
    {
        "found",
        "each",
        "said",
        "told",
        "given",
        "shown",
        "one",
        "other",
        "others",
        "asked",
        "kept",
        "known",
    }
    | {"wanted", "what", "held", "heard", "seen", "taken"}
)
BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.match_case,
    ast.Assert,
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True, slots=True)
class HouseFigure:
    """One figure: the review's value, what issue 13 asks for, and today's."""

    name: str
    review: float
    goal: float | None
    today: float
    unit: str = ""


def measure(root: Path = ROOT) -> list[HouseFigure]:
    """All figures of the working tree."""
    texts = [path.read_text(encoding="utf-8") for path in sources(root)]
    trees = [ast.parse(text) for text in texts]
    functions = [function for tree in trees for function in functions_of(tree)]
    lines = [line for text in texts for line in text.splitlines()]
    kloc = len(lines) / 1000
    return [
        HouseFigure(
            name="signatures with Any", review=13.9, goal=3.0, unit="%",
            today=share(map(holds_any, functions)),
        ),
        HouseFigure(
            name=f"lines over {MAX_COLUMNS} columns", review=8.0, goal=1.0, unit="%",
            today=share(len(line) > MAX_COLUMNS for line in lines if line.strip()),
        ),
        HouseFigure(
            name=f"functions over cyclomatic {MAX_COMPLEXITY}", review=4.5, goal=2.0, unit="%",
            today=share(complexity(function) > MAX_COMPLEXITY for function in functions),
        ),
        HouseFigure(
            name="loose modules on top of mgv/", review=19, goal=10,
            today=len(list((root / "mgv").glob("*.py"))),
        ),
        HouseFigure(
            name="README words", review=4165, goal=1200,
            today=len((root / "README.md").read_text(encoding="utf-8").split()),
        ),
        HouseFigure(
            name="vague bindings per 1,000 lines", review=19.6, goal=None,
            today=sum(name in VAGUE for tree in trees for name in bindings(tree)) / kloc,
        ),
        HouseFigure(name="lines of code", review=24_699, goal=None, today=len(lines)),
    ]  # fmt: skip


def sources(root: Path) -> list[Path]:
    """The files that the review read: mgv and flows."""
    return sorted(path for folder in CODE for path in (root / folder).rglob("*.py"))


def functions_of(tree: ast.AST) -> Iterator[Function]:
    """Functions and methods, inner ones included."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def holds_any(function: Function) -> bool:
    """Whether the annotation of the result or of a parameter, `*args` and `**kwargs` aside, holds `Any`."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    annotations = [function.returns, *(argument.annotation for argument in named)]
    return any(
        isinstance(node, ast.Name) and node.id == "Any"
        for annotation in annotations
        if annotation is not None
        for node in ast.walk(annotation)
    )


def complexity(function: Function) -> int:
    """Cyclomatic complexity of a function, without that of the functions inside it."""
    total, waiting = 1, list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function | ast.ClassDef):
            continue
        if isinstance(node, ast.BoolOp):
            total += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            total += 1 + len(node.ifs)
        elif isinstance(node, BRANCHES):
            total += 1
        waiting += ast.iter_child_nodes(node)
    return total


def bindings(tree: ast.AST) -> Iterator[str]:
    """Names that are assigned, looped over, or taken as a parameter."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def share(marks: Iterator[bool]) -> float:
    """The percentage of true ones."""
    values = list(marks)
    return 100 * sum(values) / max(len(values), 1)


def table(figures: list[HouseFigure]) -> str:
    """The figures as lines: name, the review's, the goal, today's, and whether the goal is met."""
    lines = [f"{'':34}{'87784af':>10}{'goal':>10}{'today':>10}"]
    for figure in figures:
        goal = "" if figure.goal is None else f"≤ {figure.goal:,g}{figure.unit}"
        missed = "" if figure.goal is None or figure.today <= figure.goal else "  over"
        today = (
            f"{figure.today:,.1f}{figure.unit}"
            if figure.today % 1
            else f"{figure.today:,.0f}{figure.unit}"
        )
        lines.append(
            f"{figure.name:34}{figure.review:>9,g}{figure.unit or ' '}{goal:>10}{today:>10}{missed}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    print(table(measure()))


if __name__ == "__main__":
    main()
