"""The sandbox as a transport in process: wire faults without a socket, time-outs without waiting."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from rally_pipeline.http.transport import Limits, Request, Response, TransportFailure
from rally_pipeline.sandbox import Sandbox, SandboxClock, SandboxTransport
from rally_pipeline.sandbox.wire_faults import WIRE_FAULTS
from tests.sandbox.talk import BASE, Talk, small

LIMITS = Limits(read_seconds=10, total_seconds=30, max_body_bytes=1_000_000, max_header_bytes=10_000)
PATH = "/contacts?limit=2"


def send(talk: Talk, path: str = PATH) -> Response:
    request = Request("GET", f"http://127.0.0.1{BASE}{path}", dict(talk.headers))
    return SandboxTransport(talk.sandbox).send(request, LIMITS)


def faulty(fault: str, **parameters: Any) -> Talk:
    talk = small()
    talk.sandbox.faults.add(fault, **parameters)
    return talk


def test_plain_answer_arrives_with_its_headers() -> None:
    response = send(small())
    assert response.status == 200
    assert response.headers["x-sandbox"] == "rally_pipeline"
    assert response.framed
    assert response.body == small().get(PATH).body


@pytest.mark.parametrize(
    "fault",
    [
        "reset_before_headers",
        "close_before_headers",
        "lost_answer",
        "cut_headers",
        "reset_in_body",
        "cut_body",
        "cut_chunked",
        "endless_headers",
    ],
)
def test_lost_answer_fails_after_the_request_was_sent(fault: str) -> None:
    with pytest.raises(TransportFailure) as caught:
        send(faulty(fault))
    assert caught.value.sent


@pytest.mark.parametrize(
    ("fault", "parameters", "seconds"),
    [
        ("stall", {"seconds": 60}, 10),
        ("stall", {"seconds": 5, "applied": False}, 5),
        ("stall_body", {"seconds": 60}, 10),
        ("drip_body", {"seconds": 1}, 30),
        ("drip_headers", {"seconds": 1}, 30),
        ("drip_body", {"seconds": 20}, 10),
    ],
)
def test_slow_answer_fails_when_its_time_is_up_on_the_sandbox_clock(
    fault: str, parameters: dict[str, Any], seconds: float
) -> None:
    talk = faulty(fault, **parameters)
    with pytest.raises(TransportFailure):
        send(talk)
    assert talk.sandbox.clock.monotonic() == seconds


def test_answer_that_is_slow_within_bounds_arrives_later() -> None:
    talk = faulty("stall", seconds=9)
    assert send(talk).status == 200
    assert talk.sandbox.clock.monotonic() == 9


@pytest.mark.parametrize(
    "fault",
    ["chunked", "close_after", "interim", "second_answer", "unsolicited", "duplicate_headers", "gzip_body"],
)
def test_odd_but_whole_answer_arrives_whole(fault: str) -> None:
    response = send(faulty(fault))
    assert (response.body, response.problem) == (small().get(PATH).body, "")
    assert response.framed


def test_body_without_length_is_not_framed() -> None:
    whole = small().get(PATH).body
    response = send(faulty("close_delimited"))
    assert (response.body, response.framed) == (whole, False)
    response = send(faulty("cut_close_delimited", at=5))
    assert (response.body, response.framed) == (whole[:5], False)


@pytest.mark.parametrize("fault", ["huge_body", "gzip_bomb", "wrong_gzip", "cut_gzip"])
def test_unusable_body_is_a_problem_of_the_response(fault: str) -> None:
    parameters = {} if fault.endswith("gzip") else {"size": 2_000_000}
    response = send(faulty(fault, **parameters))
    assert response.problem
    assert response.body == b""


def test_large_body_within_bounds_arrives() -> None:
    body = send(faulty("huge_body", size=200_000)).body
    assert len(body) == 200_000
    assert body.startswith(b'["a')
    assert body.endswith(b'a"]')


def test_refused_connection_is_neither_sent_nor_logged() -> None:
    talk = small()
    transport = SandboxTransport(talk.sandbox)
    transport.refusing = True
    with pytest.raises(TransportFailure) as caught:
        transport.send(Request("GET", f"http://127.0.0.1{BASE}{PATH}", {}), LIMITS)
    assert not caught.value.sent
    assert len(talk.sandbox.log) == 0


def test_truth_can_be_read_through_the_transport() -> None:
    talk = small()
    request = Request("GET", "http://127.0.0.1/_sandbox/truth/rally/deals", {})
    body = SandboxTransport(talk.sandbox).send(request, LIMITS).body
    assert body.count(b"\n") == talk.rally.counts()["deals"]


@pytest.mark.parametrize("fault", sorted(WIRE_FAULTS))
def test_every_wire_fault_is_played_on_a_running_clock_too(fault: str) -> None:
    clock = SandboxClock.running(speed=10_000)
    sandbox = Sandbox(seed=1, records=20, apis=["rally"], limit_per_minute=None, clock=clock)
    parameters = {"size": 100_000} if fault in ("huge_body", "endless_headers") else {}
    sandbox.faults.add(fault, **parameters)
    with contextlib.suppress(TransportFailure):
        assert send(Talk(sandbox)).status == 200
    assert sandbox.log[0].fault == fault
