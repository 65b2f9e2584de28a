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


def test_pages_of_known_rows_alone_are_no_sign_of_a_server_that_ignores_the_offset() -> None:
    """Found by `python -m tests.simulation.soak`: rows that came in ahead moved the list on by more than five pages."""
    asked: list[int] = []

    def fetch(offset: int) -> ListPage:
        asked.append(offset)
        ahead = 0 if len(asked) <= 9 else 60
        return page(range(offset - ahead, min(offset - ahead + SIZE, 120)))

    found = [entity for one in ListPass(fetch, overlap=2).pages() for entity in one.ids]
    assert len(set(found)) == 120
    assert len(found) > len(set(found)) + 5 * SIZE


def test_a_server_that_ignores_the_offset_is_noticed() -> None:
    with pytest.raises(EndlessList):
        list(ListPass(lambda offset: page(range(SIZE)), overlap=2).pages())
