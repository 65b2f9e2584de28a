"""These tests meet the package as its users do: nothing of it is imported, by them or by what they import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.outside.processes import ROOT

FORBIDDEN = ("rally_pipeline", "dagster", "importlib", "runpy")


def modules_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            yield node.module


def test_nothing_of_the_package_is_imported() -> None:
    waiting = sorted((ROOT / "tests" / "outside").glob("**/*.py"))
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for module in modules_of(path):
            # `tests/postgres.py` looks for the folder of the server's wheel.
            allowed = {"importlib", "importlib.util"} if path.name == "postgres.py" else set()
            assert module.partition(".")[0] not in FORBIDDEN or module in allowed, f"{path} imports {module}"
            helper = (ROOT / module.replace(".", "/")).with_suffix(".py")
            if module.startswith("tests.") and helper not in seen:
                assert helper.exists(), f"{path} imports {module}"
                waiting.append(helper)
    assert {"postgres.py", "processes.py", "test_syncs.py"} <= {path.name for path in seen}
