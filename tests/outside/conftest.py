"""A home on each database, and the choice between the short form and the long one."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.outside.comparing import Tables, differences
from tests.outside.processes import Home, cleared
from tests.outside.source import Source, running_source
from tests.postgres import PostgresServer

SETTLED_SECONDS = 2.1
"""Times at the source are whole seconds: after this the last change is over."""
PACE = {"RALLY_FEED_OVERLAP_SECONDS": "10", "RALLY_STALENESS_SECONDS": "1"}
DATABASES = ("sqlite", "postgresql")
_schemas = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of these tests."""
    group = parser.getgroup("outside")
    group.addoption("--long", action="store_true", help="Many more kills and seeds: for a night.")
    group.addoption("--seed", type=int, default=None, help="Where the dice begin; printed with every test.")


def pytest_configure(config: pytest.Config) -> None:
    """The marker of what only the long form plays."""
    config.addinivalue_line("markers", "night(ids): with --long only; with ids, only those cases of the test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The short form plays each promise once on each database, but not each pair of everything."""
    if config.getoption("--long"):
        return
    left_out = [item for item in items if _is_of_the_night(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _is_of_the_night(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("night")
    return marker is not None and (not marker.args or item.name.partition("[")[2].strip("]") in marker.args)


@pytest.fixture
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether there is a night's time."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A new one every time; a failing test shows it."""
    given = request.config.getoption("--seed")
    found: int = given if given is not None else random.SystemRandom().randrange(1_000_000)
    print(f"--seed {found}")  # noqa: T201
    return found


@pytest.fixture
def dice(seed: int) -> random.Random:
    """Chance that the seed decides."""
    return random.Random(seed)


@dataclass
class Place:
    """A sandbox, a home whose commands mirror it, and the warehouse as SQL sees it."""

    source: Source
    home: Home
    tables: Tables

    def settle(self) -> None:
        """Until the last change is over at the source."""
        time.sleep(SETTLED_SECONDS)

    def require_equal(self, *systems: str) -> None:
        """Source and warehouse agree in every value."""
        found = differences(self.source, self.tables, systems or ("rally", "sell"))
        assert found == [], f"{len(found)} differences: {found[:10]}"


MakePlace = Callable[..., Place]


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    """Each in turn."""
    found: str = request.param
    return found


@pytest.fixture
def warehouse_variables(database: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """Where an empty warehouse is; the default for SQLite."""
    if database == "sqlite":
        return {}
    server: PostgresServer = request.getfixturevalue("postgres_server")
    schema = f"outside_{next(_schemas)}"
    with server.connect() as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return {"WAREHOUSE_URL": server.url(), "WAREHOUSE_SCHEMA": schema}


def tables_of(home: Home) -> Tables:
    """The warehouse that the home's settings name."""
    default = f"sqlite:///{home.path / 'warehouse.db'}"
    return Tables(home.variables.get("WAREHOUSE_URL", default), home.variables.get("WAREHOUSE_SCHEMA"))


@pytest.fixture
def make_place(tmp_path: Path, warehouse_variables: dict[str, str]) -> Iterator[MakePlace]:
    """Makes a place; takes the options of the sandbox, and variables by name."""
    with ExitStack() as stack:

        def make(*options: str, **variables: str) -> Place:
            source = stack.enter_context(running_source(tmp_path / "source", *options))
            settings = {**source.environment, **PACE, **warehouse_variables, **variables}
            home = stack.enter_context(cleared(Home(tmp_path, settings)))
            return Place(source, home, tables_of(home))

        yield make


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    """A small account of each system."""
    return make_place("--records", "400")
