"""Worlds for engine tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rally_pipeline.sandbox.application import Sandbox
from tests.rally.world import World

MakeWorld = Callable[..., World]


def _maker(url: str) -> Iterator[MakeWorld]:
    made: list[World] = []

    def make(
        *, records: Any = 200, seed: int = 1, policy: dict[str, Any] | None = None, **switches: Any
    ) -> World:
        sandbox = Sandbox(records=records, seed=seed, limit_per_minute=None, apis=["rally"])
        if switches:
            sandbox.rally.switch(**switches)
        made.append(World(url, sandbox, **(policy or {})))
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
