"""Fixtures that every room's tests share: a warehouse on SQLite, on PostgreSQL, or on each in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from rally_pipeline.warehouse import Warehouse
from tests.postgres import PostgresServer, running_server

_schemas = itertools.count(1)


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
