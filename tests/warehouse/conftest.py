"""Fixtures of the warehouse's own tests."""

from __future__ import annotations

import pytest

from rally_pipeline.warehouse import Warehouse
from tests.warehouse import people


@pytest.fixture
def store(warehouse: Warehouse) -> Warehouse:
    """A warehouse with the example tables, once on each database."""
    warehouse.create_tables(people.metadata)
    return warehouse
