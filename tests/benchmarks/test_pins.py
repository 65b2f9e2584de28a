"""The versions that figures are measured with are pinned, beside those of the product."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pins(path: str) -> list[str]:
    return (ROOT / path).read_text(encoding="utf-8").split()


def test_peers_are_pinned_by_name_alone_and_only_once() -> None:
    lines = pins("benchmarks/constraints.txt")
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!-]+", line)] == []
    names = [line.partition("==")[0].lower() for line in lines]
    assert {"dlt", "orjson", "pyarrow"} <= set(names)
    assert set(names).isdisjoint(line.partition("==")[0].lower() for line in pins("constraints.txt"))
