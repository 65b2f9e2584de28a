"""Fixtures of the warehouse's own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rally_pipeline.warehouse import Warehouse
from tests.postgres import PostgresServer
from tests.warehouse import people


@pytest.fixture
def store(warehouse: Warehouse) -> Warehouse:
    """A warehouse with the example tables, once on each database."""
    warehouse.create_tables(people.metadata)
    return warehouse


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Warehouse]:
    """One warehouse with the example tables for all examples of a property, once on each database."""
    if request.param == "sqlite":
        url, schema = f"sqlite:///{tmp_path_factory.mktemp('shared') / 'warehouse.db'}", None
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url, schema = server.url(), f"shared_{request.module.__name__.rpartition('.')[2]}"
    with Warehouse.open(url, schema=schema) as opened:
        opened.create_tables(people.metadata)
        yield opened
