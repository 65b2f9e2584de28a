"""Links in answers are data: whatever an answer points at, requests go to the configured place only."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.errors import ApiError
from rally_pipeline.http.transport import Limits, Request, Response
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.endpoints import FileEndpoints
from rally_pipeline.sell.client import SellClient
from rally_pipeline.sell.entities import Entity as SellEntity
from rally_pipeline.signalsmith.client import SignalSmithClient
from tests.http.fakes import DATE, FakeClock

BASE = "https://api.example.com/api/v1"
EVIL = "https://evil.example/steal"
RECORD = {
    "id": "1",
    "self": EVIL,
    "links": {"self": EVIL, "next": EVIL},
    "meta": {
        "links": {"self": EVIL, "next_page": EVIL},
        "type": "lead",
        "sync": {"ack_key": "k", "event_type": "x"},
    },
}
ENVELOPE = {
    "data": [RECORD],
    "items": [RECORD],
    "results": [RECORD],
    "links": {"next": EVIL, "self": EVIL},
    "next_page": EVIL,
    "next": EVIL,
    "meta": {"links": {"next_page": EVIL, "self": EVIL}, "type": "collection", "count": 1},
    "download_url": EVIL,
}


class Tempter:
    """Answers everything with links that lead away, in the body and in headers."""

    def __init__(self, body: Any) -> None:
        self.urls: list[str] = []
        self._body = json.dumps(body).encode()

    def send(self, request: Request, limits: Limits) -> Response:
        self.urls.append(request.url)
        headers = {"Date": DATE, "Location": EVIL, "Link": f'<{EVIL}>; rel="next"', "Content-Location": EVIL}
        return Response(200, headers, self._body)


SINCE = datetime(2026, 1, 1, tzinfo=UTC)
CALLS: dict[str, Callable[[HttpClient, Any], object]] = {
    "rally list": lambda http, clock: RallyClient(http, clock=clock).list_page(
        Entity.CONTACTS, offset=0, limit=2
    ),
    "rally record": lambda http, clock: RallyClient(http, clock=clock).get_record(Entity.CONTACTS, "1"),
    "rally feed": lambda http, clock: RallyClient(http, clock=clock).changes(SINCE, limit=2),
    "rally pipelines": lambda http, clock: FileEndpoints(http).read_pipelines(),
    "sell queue": lambda http, clock: SellClient(http, device_uuid="u", clock=clock).fetch("s"),
    "sell record": lambda http, clock: SellClient(http, device_uuid="u", clock=clock).read_one(
        SellEntity.LEADS, "1"
    ),
    "sell list": lambda http, clock: SellClient(http, device_uuid="u", clock=clock).read_many(
        SellEntity.LEADS, ["1", "2"]
    ),
    "sell associated": lambda http, clock: SellClient(http, device_uuid="u", clock=clock).read_associated(
        "1"
    ),
    "signalsmith syncs": lambda http, clock: SignalSmithClient(http, "w").list_syncs(),
    "signalsmith runs": lambda http, clock: SignalSmithClient(http, "w").list_runs("s"),
}


@pytest.mark.security("2")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("body", [ENVELOPE, RECORD, [RECORD]], ids=["envelope", "record", "list"])
def test_no_link_of_an_answer_is_followed(name: str, body: Any) -> None:
    transport, clock = Tempter(body), FakeClock()
    http = HttpClient(system="any", base_url=BASE, headers={}, transport=transport, clock=clock)
    try:
        CALLS[name](http, clock)
    except (ApiError, ValueError):
        assert transport.urls  # what does not fit is refused, after it was asked for in the right place
    assert transport.urls
    assert len(transport.urls) <= 500
    assert [url for url in transport.urls if not url.startswith(f"{BASE}/")] == []
