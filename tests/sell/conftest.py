"""Worlds for drain tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rally_pipeline.sandbox.application import Sandbox
from tests.sell.world import World

MakeWorld = Callable[..., World]


def _maker(url: str, *, several: bool = False) -> Iterator[MakeWorld]:
    made: list[World] = []

    def make(
        *,
        records: int = 45,
        seed: int = 1,
        page_size: int = 12,
        policy: dict[str, Any] | None = None,
        sandbox: Sandbox | None = None,
        uuid: str | None = None,
        home: Path | None = None,
        **switches: Any,
    ) -> World:
        if sandbox is None:
            options = {"records": records, "page_size": page_size, "limit_per_second": None, **switches}
            sandbox = Sandbox(seed=seed, apis=["sell"], sell=options)
        place = f"{url}.{len(made)}" if several else url
        made.append(World(place, sandbox, uuid=uuid, home=home, **(policy or {})))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def make_world(warehouse_url: str) -> Iterator[MakeWorld]:
    """A world on each database in turn."""
    yield from _maker(warehouse_url)


@pytest.fixture
def make_sqlite_world(sqlite_url: str) -> Iterator[MakeWorld]:
    """A world on SQLite, for tests whose subject is not the database."""
    yield from _maker(sqlite_url)


@pytest.fixture
def make_sqlite_worlds(sqlite_url: str) -> Iterator[MakeWorld]:
    """Worlds with a warehouse file each."""
    yield from _maker(sqlite_url, several=True)


@pytest.fixture
def make_postgres_world(postgres_url: str) -> Iterator[MakeWorld]:
    """A world on PostgreSQL."""
    yield from _maker(postgres_url)
