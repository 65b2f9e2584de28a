"""Fixtures of the SignalSmith tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.signalsmith.bench import Bench
from tests.signalsmith.location import Location


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


@pytest.fixture
def make_location(make_bench: Callable[..., Bench]) -> Iterator[Callable[..., Location]]:
    """Locations of refreshed benches, each with an instance of its own; ticks of schedules need a `stored` one."""
    with contextlib.ExitStack() as stack:

        def make(*, stored: bool = False, **options: Any) -> Location:
            bench = make_bench(**options)
            bench.refresh()
            kind = dg.DagsterInstance.local_temp if stored else dg.DagsterInstance.ephemeral
            instance = stack.enter_context(kind())
            return Location(bench, instance)

        yield make


@pytest.fixture
def location(make_location: Callable[..., Location]) -> Location:
    """The demo's two syncs in Dagster; SignalSmith's own scheduler sleeps."""
    return make_location(switches={"scheduler": False})
