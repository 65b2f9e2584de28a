"""`RALLY_PIPELINE_READ_ONLY` is enforced in the one place through which every call goes."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import rally_pipeline
from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.errors import ReadOnly
from rally_pipeline.orchestration.diagnosis import diagnose
from tests.http.fakes import BASE_URL, FakeClock, ScriptedTransport, respond

PACKAGE = Path(rally_pipeline.__file__).parent


def make_client(transport: ScriptedTransport, **options: Any) -> HttpClient:
    options = {"read_only": True, "consuming": ("/v2/sync/",), **options}
    return HttpClient(
        system="sell", base_url=BASE_URL, headers={}, transport=transport, clock=FakeClock(), **options
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "get", "MERGE"])
def test_no_method_but_get_leaves_the_process(method: str) -> None:
    transport = ScriptedTransport(respond())
    with pytest.raises(ReadOnly) as raised:
        make_client(transport).request(method, "/contacts", json={"a": 1}, repeat=True)
    assert transport.requests == []
    found = diagnose(raised.value)
    assert found is not None
    assert found.mistake
    assert "RALLY_PIPELINE_READ_ONLY=true forbids writing" in found.line


def test_a_get_that_takes_something_away_is_refused_too() -> None:
    transport = ScriptedTransport(respond())
    client = make_client(transport)
    with pytest.raises(ReadOnly):
        client.get("/v2/sync/abc/queues/main")
    assert client.get("/v2/contacts").status == 200
    assert len(transport.requests) == 1


def test_what_is_prepared_before_a_write_can_be_stopped_in_words() -> None:
    client = make_client(ScriptedTransport(respond()))
    with pytest.raises(
        ReadOnly, match=r"^sell: RALLY_PIPELINE_READ_ONLY=true forbids writing: nothing goes$"
    ):
        client.check_writable("nothing goes")
    make_client(ScriptedTransport(respond()), read_only=False).check_writable("nothing goes")


def test_without_the_setting_everything_is_sent() -> None:
    transport = ScriptedTransport(respond())
    client = make_client(transport, read_only=False)
    client.post("/contacts", json={})
    client.get("/v2/sync/abc/queues/main")
    assert [request.method for request in transport.requests] == ["POST", "GET"]


def test_every_client_that_the_package_makes_obeys_the_setting() -> None:
    made = [
        (path.relative_to(PACKAGE), {keyword.arg for keyword in call.keywords})
        for path in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "HttpClient"
    ]
    assert made
    assert [path for path, names in made if "read_only" not in names] == []
