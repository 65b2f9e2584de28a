"""Desks for import/export tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rally_pipeline.rally.entities import Entity
from rally_pipeline.sandbox.application import Sandbox
from tests.rally.files.desk import Desk

MakeDesk = Callable[..., Desk]


def _maker(url: str, folder: Path) -> Iterator[MakeDesk]:
    made: list[Desk] = []

    def make(
        *,
        records: Any = 0,
        seed: int = 1,
        mirrored: bool = False,
        rally: dict[str, Any] | None = None,
        policy: dict[str, Any] | None = None,
        **switches: Any,
    ) -> Desk:
        sandbox = Sandbox(
            records=records, seed=seed, limit_per_minute=None, apis=["rally"], rally=rally or {}
        )
        sandbox.rally.files.switch(**switches)
        inbox = folder / f"inbox{len(made)}"
        inbox.mkdir()
        desk = Desk(url, inbox, sandbox, **(policy or {}))
        if mirrored:
            desk.extract(tuple(Entity))
        sandbox.log.clear()
        made.append(desk)
        return desk

    yield make
    for desk in made:
        desk.close()


@pytest.fixture
def make_desk(warehouse_url: str, tmp_path: Path) -> Iterator[MakeDesk]:
    """A desk on each database in turn."""
    yield from _maker(warehouse_url, tmp_path)


@pytest.fixture
def make_sqlite_desk(sqlite_url: str, tmp_path: Path) -> Iterator[MakeDesk]:
    """A desk on SQLite, for tests whose subject is not the database."""
    yield from _maker(sqlite_url, tmp_path)
