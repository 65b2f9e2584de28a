"""A pass over a list whose pages do not fit together."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from rally_pipeline.rally.client import ListPage
from rally_pipeline.rally.passes import EndlessList, ListPass

BEGUN = datetime(2026, 3, 2, 9, tzinfo=UTC)
SIZE = 10


def page(numbers: range, version: int = 1) -> ListPage:
    """Rows of these numbers, as a server shows them that is asked for ten."""
    rows = [msgspec.Raw(json.dumps({"id": f"row {number}", "v": version}).encode()) for number in numbers]
    return ListPage(rows, [f"row {number}" for number in numbers], BEGUN, SIZE)


def test_pages_read_again_after_many_steps_back_are_no_sign_of_a_server_that_ignores_the_offset() -> None:
    """Found by `python -m tests.simulation.soak`: replicas that lag behind made a pass go back by several pages."""
    asked: list[int] = []

    def fetch(offset: int) -> ListPage:
        asked.append(offset)
        stale = 10 <= len(asked) <= 16
        return page(range(offset, min(offset + SIZE, 100)), version=2 if stale else 1)

    received = {
        entity_id for found in ListPass(fetch, overlap=2, prefetch=False).pages() for entity_id in found.ids
    }
    assert len(received) == 100
    assert min(asked[10:18]) < max(asked[:10]) - 5 * SIZE


def test_a_server_that_ignores_the_offset_is_noticed() -> None:
    with pytest.raises(EndlessList):
        list(ListPass(lambda offset: page(range(SIZE)), overlap=2, prefetch=False).pages())
