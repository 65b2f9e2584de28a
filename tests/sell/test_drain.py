"""The queue drained: what arrives, what is acknowledged, what it costs."""

from __future__ import annotations

import pytest

from rally_pipeline.sell.results import StoppedReason
from tests.sell.conftest import MakeWorld


def test_first_drain_makes_the_warehouse_equal_to_the_account(make_world: MakeWorld) -> None:
    world = make_world(records=120)
    result = world.catch_up()
    assert result.stopped_reason is StoppedReason.DRAINED
    assert world.differences() == []
    assert world.unsettled() == []


@pytest.mark.fault("H16")
def test_one_acknowledgement_a_page_and_two_requests_besides(make_world: MakeWorld) -> None:
    world = make_world(records=120, page_size=10)
    result = world.drain()
    assert result.pages == 13
    assert result.acks == result.pages
    assert result.cost.requests == result.pages + result.acks + 2
