"""Time and transport for tests of the client: nothing sleeps, nothing is sent."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.transport import Limits, Request, Response, TransportFailure

BASE_URL = "https://acme.rallycrm.io/api/v1"
KEY = "test_key_0123456789abcdef"
START = datetime(2026, 3, 3, 10, 0, 0, tzinfo=UTC)
START_SECONDS = START.timestamp()
DATE = "Tue, 03 Mar 2026 10:00:00 GMT"


class FakeClock:
    """Moves only when told, or slept on; remembers every sleep."""

    def __init__(self) -> None:
        self.elapsed = 1000.0
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.elapsed += max(0.0, seconds)


class ScriptedTransport:
    """Plays outcomes in order; the last one for ever."""

    def __init__(
        self, *outcomes: Response | TransportFailure, clock: FakeClock | None = None, takes: float = 0.0
    ) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[Request] = []
        self._clock = clock
        self._takes = takes

    def send(self, request: Request, limits: Limits) -> Response:
        self.requests.append(request)
        if self._clock is not None:
            self._clock.elapsed += self._takes
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, TransportFailure):
            raise outcome
        return Response(outcome.status, outcome.headers, outcome.body, problem=outcome.problem)


class MiddlingRandom(Random):
    """Every draw is the middle: jitter becomes a plain number."""

    def random(self) -> float:
        return 0.5


def respond(status: int = 200, body: bytes = b"[]", headers: dict[str, str] | None = None) -> Response:
    return Response(status, {"Date": DATE, **(headers or {})}, body)


def lost(*, sent: bool = True, lasting: bool = False) -> TransportFailure:
    return TransportFailure("the connection was reset", sent=sent, lasting=lasting)


def client_of(
    *outcomes: Response | TransportFailure, clock: FakeClock | None = None, **options: Any
) -> tuple[HttpClient, ScriptedTransport, FakeClock]:
    """A client of scripted outcomes, its transport, and its clock."""
    clock = clock or FakeClock()
    transport = ScriptedTransport(*outcomes, clock=clock)
    arguments: dict[str, Any] = {
        "transport": transport,
        "random": MiddlingRandom(0),
        "secrets": [KEY],
        "headers": {"X-Api-Key": KEY},
    }
    arguments |= options
    client = HttpClient(system="rally", base_url=BASE_URL, clock=clock, **arguments)
    return client, transport, clock


def statuses(values: Iterable[int]) -> list[Response]:
    return [respond(status) for status in values]
