"""Made-up records never reach a production warehouse, and a sandbox's commands never reach a real system."""

from __future__ import annotations

from typing import Any

import pytest

from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.errors import BadAnswer
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.transport import SandboxTransport
from rally_pipeline.settings import Settings, load_settings
from tests.http.fakes import FakeClock, ScriptedTransport, respond

LOOPBACK, PRODUCTION = "http://127.0.0.1:8765/rally/api/v1", "https://acme.rallycrm.io/api/v1"
MARKED, PLAIN = {"X-Sandbox": "1"}, dict[str, str]()


def get(url: str, headers: dict[str, str], sandbox: bool | None) -> Any:
    client = HttpClient(
        system="rally",
        base_url=url,
        headers={},
        transport=ScriptedTransport(respond(headers=headers)),
        clock=FakeClock(),
        sandbox=sandbox,
    )
    return client.get("/contacts")


@pytest.mark.security("34")
@pytest.mark.parametrize(
    ("url", "headers", "sandbox"),
    [(PRODUCTION, MARKED, None), (PRODUCTION, MARKED, False), (LOOPBACK, MARKED, False)],
)
def test_the_sandboxs_answers_are_refused_in_production(
    url: str, headers: dict[str, str], sandbox: bool | None
) -> None:
    with pytest.raises(BadAnswer, match="comes from a sandbox"):
        get(url, headers, sandbox)


@pytest.mark.security("34")
@pytest.mark.parametrize("url", [PRODUCTION, LOOPBACK])
def test_real_answers_are_refused_where_the_sandbox_is_meant(url: str) -> None:
    with pytest.raises(BadAnswer, match="does not come from the sandbox"):
        get(url, PLAIN, True)


@pytest.mark.parametrize(
    ("url", "headers", "sandbox"),
    [
        (PRODUCTION, PLAIN, None),
        (PRODUCTION, PLAIN, False),
        (LOOPBACK, PLAIN, None),
        (LOOPBACK, MARKED, None),
        (LOOPBACK, MARKED, True),
    ],
)
def test_answers_of_the_system_that_is_meant_are_taken(
    url: str, headers: dict[str, str], sandbox: bool | None
) -> None:
    assert get(url, headers, sandbox).status == 200


@pytest.mark.security("34")
@pytest.mark.parametrize("room", ["rally", "sell", "signalsmith"])
def test_every_system_obeys_the_setting(room: str) -> None:
    sandbox = Sandbox(seed=1, records=10, apis=[room])
    variables = {name.lower(): value for name, value in sandbox.environment("http://127.0.0.1").items()}
    assert variables["rally_pipeline_sandbox"] == "true"
    transport = SandboxTransport(sandbox)
    client = connect(room, load_settings(**variables), transport)
    assert client.get(PATHS[room]).status in (200, 204)
    sandbox.faults.add("unmarked")
    with pytest.raises(BadAnswer, match="does not come from the sandbox"):
        client.get(PATHS[room])
    sandbox.faults.clear()
    production = connect(room, load_settings(**{**variables, "rally_pipeline_sandbox": False}), transport)
    with pytest.raises(BadAnswer, match="comes from a sandbox"):
        production.get(PATHS[room])


PATHS = {"rally": "/contacts", "sell": "/v2/accounts/self", "signalsmith": "/workspaces"}


def connect(room: str, settings: Settings, transport: SandboxTransport) -> HttpClient:
    from rally_pipeline.rally.client import connect as rally
    from rally_pipeline.sell.client import connect as sell
    from rally_pipeline.signalsmith.client import connect as signalsmith

    clock = transport_clock(transport)
    made = {"rally": rally, "sell": sell, "signalsmith": signalsmith}[room]
    http: HttpClient = made(settings, transport=transport, clock=clock).http  # type: ignore[operator]
    return http


def transport_clock(transport: SandboxTransport) -> Any:
    return transport.sandbox.clock
