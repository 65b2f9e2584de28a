"""Fixtures of the SignalSmith tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.signalsmith.bench import Bench


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Benches with options of their own, closed at the end."""
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        bench = Bench(tmp_path / f"bench{len(made)}", **options)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A workspace with the two syncs of the demo."""
    return make_bench()
