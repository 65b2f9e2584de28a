"""Which tests play which rows of the matrix, read from their source: no test module is imported for it.

A test counts if pytest would collect and run it: a function `test_…` in a file `test_….py` that is neither skipped nor
expected to fail. Markers stand on the function, or on a parameter of it, in its decorators or in a table of its module
that a decorator names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
_CASES = "from tests.faults.cycles import"
_NOT_RUN = {"skip", "skipif", "xfail"}


def find_tests(folder: Path = TESTS, *, marker: str = "fault") -> dict[str, list[str]]:
    """The tests of each row number of the matrix whose marker that is, as `path::name`, in the order of paths."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        source = path.read_text()
        cases = marker == "fault" and _CASES in source
        if f"{marker}(" not in source and not cases:
            continue
        place = path.relative_to(folder.parent)
        for name, numbers in _marked_functions(ast.parse(source), marker, cases=cases):
            for number in sorted(numbers):
                found.setdefault(number, []).append(f"{place}::{name}")
    return found


def _marked_functions(module: ast.Module, marker: str, *, cases: bool) -> Iterator[tuple[str, set[str]]]:
    tables = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            parts: list[ast.AST] = list(node.decorator_list)
            named = {part.id for root in parts for part in ast.walk(root) if isinstance(part, ast.Name)}
            parts += [tables[name] for name in named & tables.keys()]
            calls = [part for root in parts for part in ast.walk(root)]
            if not any(isinstance(part, ast.Attribute) and part.attr in _NOT_RUN for part in calls):
                yield node.name, {number for part in calls for number in _numbers(part, marker, cases=cases)}


def _numbers(node: ast.AST, marker: str, *, cases: bool) -> list[str]:
    """Row numbers given to `pytest.mark.<marker>(…)`, or to `case(…)` where that is the one of the fault matrix."""
    if not isinstance(node, ast.Call):
        return []
    arguments = node.args
    if cases and isinstance(node.func, ast.Name) and node.func.id == "case":
        arguments = node.args[:1]
    elif not (isinstance(node.func, ast.Attribute) and node.func.attr == marker):
        return []
    values = [argument.value for argument in arguments if isinstance(argument, ast.Constant)]
    return [value for value in values if isinstance(value, str)]
