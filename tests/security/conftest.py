"""The worlds of the rooms, for tests that look at them from outside."""

from __future__ import annotations

from tests.rally.conftest import make_sqlite_world, make_world
from tests.sell.conftest import make_sqlite_world as make_sell_world

__all__ = ["make_sell_world", "make_sqlite_world", "make_world"]
