"""Faults of the connection as one client over a real transport meets them."""

from __future__ import annotations

import socket

import pytest

from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.errors import NoAnswer
from rally_pipeline.http.session import SessionTransport
from rally_pipeline.http.transport import Limits
from tests.http.fakes import BASE_URL, KEY, FakeClock, MiddlingRandom
from tests.http.raw_server import Connection, RawServer, answer

QUICK = Limits(connect_seconds=0.5, read_seconds=0.5, total_seconds=1)


def client_over(url: str, clock: FakeClock) -> HttpClient:
    return HttpClient(
        system="rally",
        base_url=url,
        headers={"X-Api-Key": KEY},
        secrets=[KEY],
        transport=SessionTransport(url),
        limits=QUICK,
        clock=clock,
        random=MiddlingRandom(0),
    )


@pytest.mark.fault("T2")
def test_a_name_that_does_not_resolve_is_asked_for_a_few_times_and_the_key_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def refuse(host: str, *_: object) -> list[object]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    clock = FakeClock()
    client = client_over(BASE_URL, clock)
    with pytest.raises(NoAnswer, match=r"rally GET /contacts: the host name does not resolve") as caught:
        client.get("/contacts")
    assert KEY not in str(caught.value)
    assert caught.value.sent is False
    assert client.usage.requests == 4
    assert clock.sleeps == [0.375, 0.75, 1.5]
    assert set(asked) == {"acme.rallycrm.io"}


def closes_on_the_second(connection: Connection) -> None:
    """Answers one request on a connection and closes it when the next one has arrived."""
    connection.read_request()
    connection.send(answer(b"[]"))
    connection.read_request()


@pytest.mark.fault("T12")
def test_of_requests_that_meet_a_closing_connection_only_reads_are_repeated() -> None:
    with RawServer(closes_on_the_second) as server:
        clock = FakeClock()
        client = client_over(server.url, clock)
        assert client.get("/contacts").status == 200
        assert client.get("/contacts").status == 200
        assert (client.usage.requests, client.usage.retries) == (3, 1)
        assert clock.sleeps == [0.375]
        for path in ("/syncs/1/trigger", "/contacts/import", "/v2/sync/start"):
            client.get("/contacts")
            before = len(server.requests)
            with pytest.raises(NoAnswer, match="closed before an answer") as caught:
                client.post(path, json={})
            assert caught.value.sent is True
            assert len(server.requests) == before + 1
