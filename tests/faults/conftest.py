"""Fixtures of the fault matrix: worlds of every room, and the row's words in the name of its test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import ROWS
from tests.rally.conftest import MakeWorld
from tests.rally.conftest import _maker as rally_worlds
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.conftest import _maker as import_desks
from tests.sell.conftest import MakeWorld as MakeSellWorld
from tests.sell.conftest import _maker as sell_worlds
from tests.signalsmith.bench import Bench


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that carries the marker itself shows its rows as its parameter."""
    numbers = [number for marker in metafunc.definition.iter_markers("fault") for number in marker.args]
    if numbers:
        label = "; ".join(ROWS[number].label for number in numbers)
        metafunc.parametrize("row", [numbers], ids=[label], indirect=True)


@pytest.fixture(autouse=True)
def row(request: pytest.FixtureRequest) -> object:
    """The rows that the test plays; it is there for the test's name."""
    return getattr(request, "param", None)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Iterator[str]:
    """A file in memory where there is such a place: these tests commit often and lose power never."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield f"sqlite:///{folder}/warehouse.db"


@pytest.fixture
def make_world(warehouse_url: str) -> Iterator[MakeWorld]:
    """A Rally world on each database in turn."""
    yield from rally_worlds(warehouse_url)


@pytest.fixture
def make_sqlite_world(sqlite_url: str) -> Iterator[MakeWorld]:
    """A Rally world on SQLite, for tests whose subject is not the database."""
    yield from rally_worlds(sqlite_url)


@pytest.fixture
def make_postgres_world(postgres_url: str) -> Iterator[MakeWorld]:
    """A Rally world on PostgreSQL."""
    yield from rally_worlds(postgres_url)


@pytest.fixture
def make_sell_world(sqlite_url: str) -> Iterator[MakeSellWorld]:
    """A Sell world on SQLite."""
    yield from sell_worlds(sqlite_url)


@pytest.fixture
def make_desk(warehouse_url: str, tmp_path: Path) -> Iterator[MakeDesk]:
    """An import desk on each database in turn."""
    yield from import_desks(warehouse_url, tmp_path)


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """SignalSmith benches, closed at the end."""
    made: list[Bench] = []

    def make(**options: object) -> Bench:
        made.append(Bench(tmp_path / f"bench{len(made)}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A workspace with the two syncs of the demo."""
    return make_bench()
