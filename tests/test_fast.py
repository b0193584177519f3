"""Fast tests neither sleep nor measure: what hangs on a clock is marked slow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
CLOCKS = {"monotonic", "perf_counter", "process_time", "time"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LONGEST_S = 0.05


def is_slow(node: ast.AST) -> bool:
    """A function, class or module that is marked slow."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return any("mark.slow" in ast.unparse(mark) for mark in node.decorator_list)
    if isinstance(node, ast.Module):
        marks = [n for n in node.body if isinstance(n, ast.Assign) and "mark.slow" in ast.unparse(n)]
        return any(ast.unparse(mark.targets[0]) == "pytestmark" for mark in marks)
    return False


def fast_tests(node: ast.AST) -> Iterator[ast.AST]:
    """The test functions that are not marked slow; a stand-in for a server may take its time."""
    if is_slow(node):
        return
    if isinstance(node, FUNCTIONS) and node.name.startswith("test_"):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from fast_tests(child)


def called(node: ast.AST) -> str:
    """Name of the function that a call calls."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", ""))


def waits(node: ast.AST) -> bool:
    """A sleep of a fixed time that is long, or an assertion about the clock."""
    if isinstance(node, ast.Assert):
        return any(called(part) in CLOCKS for part in ast.walk(node.test))
    if called(node) == "sleep" and isinstance(node, ast.Call) and node.args:
        seconds = node.args[0]
        return isinstance(seconds, ast.Constant) and seconds.value > LONGEST_S
    return False


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_long_sleep_and_no_bound_on_time(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for test in fast_tests(tree) for node in ast.walk(test)]
    lines = [getattr(node, "lineno", 0) for node in nodes if waits(node)]
    assert not lines, f"{path.relative_to(TESTS)}: lines {lines} sleep or bound time; mark them slow"
