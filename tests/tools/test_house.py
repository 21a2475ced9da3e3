"""The script that measures the house, on code counted by hand."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.tools.house import bindings, complexity, functions_of, holds_any, measure, table

CODE = """
def plain(x: int) -> str:
    return str(x)

def loose(x: list[Any]) -> str:
    return str(x)

def branching(rows, limit):                # 1
    for row in rows:                       # 2
        if row and limit or row > 3:       # 3, and 2 operands more: 5
            pass
    try:
        found = [row for row in rows if row]   # comprehension and its condition: 7
    except ValueError:                     # 8
        found = None if rows else limit    # 9
    def inner():                           # counted by itself
        if rows: pass
    return found
"""


def test_signatures_complexity_and_bindings_are_counted():
    functions = {function.name: function for function in functions_of(ast.parse(CODE))}
    assert [holds_any(functions[name]) for name in ("plain", "loose")] == [False, True]
    assert {name: complexity(function) for name, function in functions.items()} == {
        "plain": 1, "loose": 1, "branching": 9, "inner": 2,
    }  # fmt: skip
    assert list(bindings(ast.parse(CODE))).count("found") == 2


def test_a_tree_is_measured_and_printed(tmp_path: Path):
    (tmp_path / "mgv").mkdir()
    (tmp_path / "flows").mkdir()
    (tmp_path / "README.md").write_text("one two three")
    (tmp_path / "mgv" / "a.py").write_text(
        "def f(x: int) -> Any:\n    return x  # " + "-" * 100 + "\n"
    )
    figures = {figure.name: figure.today for figure in measure(tmp_path)}
    assert figures["signatures with Any"] == 100
    assert figures["lines over 100 columns"] == 50
    assert figures["README words"] == 3
    assert "over" in table(measure(tmp_path))
