"""Fixtures that every room's tests share: a warehouse on SQLite, on PostgreSQL, or on each in turn."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rally_pipeline.warehouse import Warehouse
from tests.canaries import pytest_runtest_makereport
from tests.postgres import PostgresServer, running_server
from tests.scheduling import pytest_xdist_make_scheduler

__all__ = ["pytest_runtest_makereport", "pytest_xdist_make_scheduler"]

_schemas = itertools.count(1)
_MEMORY = Path("/dev/shm")
_NEEDED_BYTES = 4 << 30
_folder = pytest.StashKey[Path]()
_APART = (Path(__file__).parent / "outside",)
"""Whole commands and deployments as processes: minutes of waiting, so only run where they are named."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Temporary files on a disk in memory where there is one: databases wait for the disk at each commit.

    What tests of durability need is that a process dies, not that the machine does.
    """
    of_worker = hasattr(config, "workerinput")
    if of_worker or config.option.basetemp or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free >= _NEEDED_BYTES:
        config.stash[_folder] = Path(tempfile.mkdtemp(prefix="rally-tests-", dir=_MEMORY))
        config.option.basetemp = str(config.stash[_folder] / "tmp")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Plain `pytest` leaves out what has a call of its own; `pytest tests/outside` finds it."""
    named = [
        Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args
    ]
    if collection_path in _APART and not any(path.is_relative_to(collection_path) for path in named):
        return True
    return None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Memory is given back, also after failures."""
    if (folder := config.stash.get(_folder, None)) is not None:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server per test process, started when the first test asks for it."""
    with running_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL whose search path is a fresh, empty schema."""
    schema = f"test_{next(_schemas)}"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    yield postgres_server.url(schema=schema)
    with postgres_server.connect() as connection:
        connection.execute(f"SET client_min_messages = error; DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of a file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'home' / 'warehouse.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def warehouse_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty warehouse, once on each database."""
    chosen = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(chosen)
    return url


@pytest.fixture
def warehouse(warehouse_url: str) -> Iterator[Warehouse]:
    """An open, empty warehouse, once on each database."""
    with Warehouse.open(warehouse_url) as opened:
        yield opened
