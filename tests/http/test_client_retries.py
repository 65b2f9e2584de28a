"""Which calls are repeated, how often, and after which wait. All waits are asserted on a fake clock."""

from __future__ import annotations

import logging

import pytest

from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.envelope import read_rows
from rally_pipeline.http.errors import (
    ApiError,
    BadAnswer,
    Conflict,
    Forbidden,
    NoAnswer,
    NotFound,
    NotTheApi,
    OversizedAnswer,
    Rejected,
    ServerFailed,
    Throttled,
    TooLarge,
    Unauthorized,
)
from rally_pipeline.http.header_budget import HeaderBudget
from rally_pipeline.http.retry import RetryBucket, RetryPolicy
from rally_pipeline.http.shortage import Shortage
from rally_pipeline.http.transport import Response
from tests.http.fakes import KEY, START_SECONDS, FakeClock, client_of, lost, respond


@pytest.mark.fault("H8")
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 408, 425])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_failing_server_is_asked_again(method: str, status: int) -> None:
    client, transport, clock = client_of(respond(status), respond(200))
    assert client.request(method, "/contacts").status == 200
    assert len(transport.requests) == 2
    assert clock.sleeps == [0.375]


@pytest.mark.fault("T4")
@pytest.mark.parametrize("outcome", [respond(500), respond(503), respond(429), lost(), lost(sent=False)])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_may_not_be_repeated_is_sent_once(method: str, outcome: object) -> None:
    client, transport, clock = client_of(outcome, respond(200))  # type: ignore[arg-type]
    with pytest.raises(ApiError):
        client.request(method, "/contacts", json={"name": "x"})
    assert len(transport.requests) == 1
    assert clock.sleeps == []


def test_a_post_declared_harmless_is_repeated() -> None:
    client, transport, _ = client_of(lost(), respond(500), respond(202))
    assert client.post("/ack", json={}, repeat=True).status == 202
    assert len(transport.requests) == 3


def test_a_get_declared_unrepeatable_is_sent_once() -> None:
    client, transport, _ = client_of(respond(500), respond(200))
    with pytest.raises(ServerFailed):
        client.get("/queue", repeat=False)
    assert len(transport.requests) == 1


def test_no_more_than_four_attempts() -> None:
    client, transport, clock = client_of(respond(503))
    with pytest.raises(ServerFailed) as caught:
        client.get("/contacts")
    assert caught.value.status == 503
    assert len(transport.requests) == 4
    assert clock.sleeps == [0.375, 0.75, 1.5]  # equal jitter: three quarters of 0.5, 1, 2
    assert client.usage.retries == 3
    assert client.usage.requests == 4
    assert client.usage.waited_seconds == pytest.approx(2.625)


def test_the_total_time_ends_attempts_too() -> None:
    clock = FakeClock()
    client, transport, _ = client_of(
        respond(503), clock=clock, policy=RetryPolicy(max_attempts=50, total_seconds=10, base_seconds=4)
    )
    start = clock.elapsed
    with pytest.raises(ServerFailed):
        client.get("/contacts")
    assert clock.elapsed - start <= 10
    assert len(transport.requests) == 3  # waits of 3 and 6 seconds, the next one would pass the bound


@pytest.mark.fault("T4")
def test_no_answer_says_whether_the_request_may_have_been_applied() -> None:
    client, _, _ = client_of(lost(sent=False))
    with pytest.raises(NoAnswer) as caught:
        client.get("/contacts")
    assert caught.value.sent is False
    assert str(caught.value) == "rally GET /contacts: the connection was reset"
    client, _, _ = client_of(lost(sent=True), lost(sent=False))
    with pytest.raises(NoAnswer) as caught:
        client.put("/contacts/1", json={})
    assert caught.value.sent is True
    client, _, _ = client_of(respond(500), lost(sent=False))
    with pytest.raises(NoAnswer) as caught:
        client.put("/contacts/1", json={})
    assert caught.value.sent is True


@pytest.mark.fault("T3")
def test_a_refused_certificate_is_final() -> None:
    client, transport, _ = client_of(lost(sent=False, lasting=True))
    with pytest.raises(NoAnswer):
        client.get("/contacts")
    assert len(transport.requests) == 1


@pytest.mark.fault("H19", "H20", "H23", "H24", "H25")
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, NotFound),
        (413, TooLarge),
        (414, TooLarge),
        (418, Rejected),
        (422, Rejected),
        (501, ServerFailed),
        (505, ServerFailed),
    ],
)
def test_final_statuses_are_typed_and_not_repeated(status: int, kind: type[ApiError]) -> None:
    client, transport, _ = client_of(respond(status, b'{"detail": "why it was refused"}'))
    with pytest.raises(kind) as caught:
        client.get("/contacts/7")
    assert type(caught.value) is kind
    assert (caught.value.system, caught.value.method, caught.value.path) == ("rally", "GET", "/contacts/7")
    assert caught.value.status == status
    assert caught.value.excerpt == "why it was refused"
    assert str(caught.value).startswith(f"rally GET /contacts/7: {status}")
    assert len(transport.requests) == 1


def test_gone_is_told_from_not_found() -> None:
    for status, gone in ((404, False), (410, True)):
        client, _, _ = client_of(respond(status))
        with pytest.raises(NotFound) as caught:
            client.get("/contacts/7")
        assert caught.value.gone is gone


@pytest.mark.fault("H24")
def test_conflict_on_a_get_is_repeated_where_the_system_throttles_with_it() -> None:
    policy = RetryPolicy(also_retry=frozenset({409}))
    client, transport, _ = client_of(respond(409), respond(200), policy=policy)
    assert client.get("/deals").status == 200
    client, transport, _ = client_of(respond(409), respond(200), policy=policy)
    with pytest.raises(Conflict):
        client.put("/deals/1", json={})
    assert len(transport.requests) == 1


@pytest.mark.fault("H1", "H2", "H3", "H4", "H5")
@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 8),
        ({"Retry-After": "0"}, 1, 2),
        ({"Retry-After": "1e9"}, 90, 91),
        ({"Retry-After": "Tue, 03 Mar 2026 10:00:20 GMT"}, 20, 21),
        ({"Retry-After": "Tue, 03 Mar 2026 09:00:00 GMT"}, 1, 2),
        ({"Retry-After": "-5"}, 1, 2),
        ({"Retry-After": "abc"}, 1, 2),
        ({"Retry-After": "nan"}, 1, 2),
        ({"X-RateLimit-Reset": f"{START_SECONDS + 33:.0f}"}, 33, 34),
        ({"X-RateLimit-Reset": f"{(START_SECONDS + 33) * 1000:.0f}"}, 33, 34),
        ({"X-RateLimit-Reset": "12"}, 12, 13.2),
        ({"X-RateLimit-Reset": f"{START_SECONDS - 500:.0f}"}, 1, 2),
        ({"X-RateLimit-Reset": "soon"}, 1, 2),
        ({"X-RateLimit-Reset": f"{START_SECONDS + 80_000:.0f}"}, 90, 91),
        ({"Retry-After": "5", "X-RateLimit-Reset": f"{START_SECONDS + 33:.0f}"}, 5, 6),
        ({"Retry-After": "abc", "X-RateLimit-Reset": f"{START_SECONDS + 33:.0f}"}, 33, 34),
        ({}, 1, 2),
    ],
)
def test_wait_after_429(headers: dict[str, str], least: float, most: float) -> None:
    client, transport, clock = client_of(respond(429, headers=headers), respond(200))
    assert client.get("/contacts").status == 200
    assert len(clock.sleeps) == 1
    assert least <= clock.sleeps[0] <= most
    assert client.usage.throttled == 1
    assert len(transport.requests) == 2


def test_waits_after_429_do_not_count_as_attempts() -> None:
    client, transport, _ = client_of(*[respond(429, headers={"Retry-After": "2"})] * 20, respond(200))
    assert client.get("/contacts").status == 200
    assert len(transport.requests) == 21


@pytest.mark.fault("H6")
def test_429_for_ever_ends_as_throttled_when_the_time_is_used_up() -> None:
    client, transport, clock = client_of(respond(429, headers={"Retry-After": "60"}))
    start = clock.elapsed
    with pytest.raises(Throttled) as caught:
        client.get("/contacts")
    assert 1700 <= clock.elapsed - start <= 1800
    assert len(transport.requests) == 30
    assert (caught.value.wait_seconds, caught.value.given_up) == (60, True)
    assert "429 Too Many Requests" in str(caught.value)


@pytest.mark.fault("H6")
def test_a_limit_that_lasts_is_waited_for_once_and_not_by_every_call() -> None:
    client, transport, clock = client_of(respond(429, headers={"Retry-After": "60"}))
    for _ in range(3):
        with pytest.raises(Throttled):
            client.get("/contacts")
    assert clock.elapsed - 1000 <= 1800
    assert len(transport.requests) == 30 + 2  # each later call asks once
    transport.outcomes = [respond(429, headers={"Retry-After": "60"}), respond(200)]
    with pytest.raises(Throttled):
        client.get("/contacts")
    client.get("/contacts")
    transport.outcomes = [respond(429, headers={"Retry-After": "60"}), respond(200)]
    assert client.get("/contacts").status == 200  # another limit is waited for anew


@pytest.mark.fault("H6")
def test_what_one_client_waited_for_in_vain_the_next_one_of_the_account_does_not() -> None:
    clock, refusals = FakeClock(), Shortage()
    answers = respond(429, headers={"Retry-After": "60"})
    for calls in (30, 1):
        client, transport, _ = client_of(answers, clock=clock, bucket=RetryBucket(refusals=refusals))
        with pytest.raises(Throttled):
            client.get("/contacts")
        assert len(transport.requests) == calls
    clock.elapsed += 3600  # long ago, so it says nothing any more
    client, _, _ = client_of(answers, respond(200), clock=clock, bucket=RetryBucket(refusals=refusals))
    assert client.get("/contacts").status == 200


@pytest.mark.fault("H1")
def test_a_caller_with_little_time_does_not_wait_for_a_limit_and_may_come_again() -> None:
    policy = RetryPolicy(total_seconds=10)
    client, transport, clock = client_of(respond(429, headers={"Retry-After": "60"}), policy=policy)
    with pytest.raises(Throttled) as caught:
        client.get("/contacts")
    assert caught.value.given_up is False
    assert clock.sleeps == []
    headers = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "3"}
    headers["X-RateLimit-Reset"] = f"{START_SECONDS + 42:.0f}"
    client, transport, _ = client_of(
        respond(200, headers=headers), policy=policy, clock=clock, budget=HeaderBudget(clock=clock)
    )
    client.get("/contacts")
    with pytest.raises(
        Throttled, match="not sent: 3 of 1,000 requests are left until 2026-03-03 10:00:42"
    ) as caught:
        client.get("/contacts")
    assert caught.value.given_up is False
    assert len(transport.requests) == 1


@pytest.mark.fault("H4", "H6")
@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "50400"},
        {"X-RateLimit-Reset": f"{START_SECONDS + 50_400:.0f}"},
        {"X-RateLimit-Reset": "50400"},
    ],
)
def test_a_429_for_hours_is_asked_again_every_90_seconds_and_ends_with_the_time(
    headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    client, _, clock = client_of(respond(429, headers=headers))
    with caplog.at_level(logging.INFO, logger="rally_pipeline.http"), pytest.raises(Throttled) as caught:
        client.get("/contacts")
    assert all(90 <= wait <= 91 for wait in clock.sleeps)
    assert len(clock.sleeps) == 19
    assert "429 Too Many Requests, requests are taken again at 2026-03-04 00:00:00 UTC" in str(caught.value)
    assert caplog.messages[0].startswith("rally: waiting 90 s, until 10:18:10 UTC: rally GET /contacts: 429")
    assert len(caplog.messages) == 19


@pytest.mark.fault("H11", "H12", "H13")
@pytest.mark.parametrize(
    "outcome",
    [
        respond(200, b""),
        respond(200, b"<html>maintenance</html>"),
        respond(200, b'[{"id": "1"}, {"i'),
        respond(200, b'{"error": "busy"}'),
        respond(200, b"busy"),
        respond(206, b"[]"),
        respond(204, b""),
        Response(200, {}, b"", problem="the compressed body is cut"),
    ],
)
def test_a_read_whose_answer_cannot_be_used_is_repeated_like_a_failure(outcome: Response) -> None:
    client, transport, clock = client_of(outcome, respond(200, b'[{"id": "1"}]'))
    assert len(client.read("/contacts", read_rows)[1]) == 1
    assert clock.sleeps == [0.375]
    assert client.usage.retries == 1
    client, transport, clock = client_of(outcome)
    with pytest.raises(BadAnswer):
        client.read("/contacts", read_rows)
    assert clock.sleeps == [0.375, 0.75, 1.5]
    assert len(transport.requests) == 4


def test_a_read_that_is_too_large_is_not_repeated() -> None:
    client, transport, _ = client_of(Response(200, {}, b"", problem="the body is larger than 5 bytes"))
    with pytest.raises(OversizedAnswer):
        client.read("/contacts", read_rows)
    assert len(transport.requests) == 1


@pytest.mark.parametrize(("method", "repeat"), [("POST", None), ("POST", True), ("PUT", None)])
def test_a_write_whose_answer_cannot_be_used_is_not_repeated(method: str, repeat: bool | None) -> None:
    client, transport, _ = client_of(respond(200, b"<html>"), respond(200, b"[]"))
    with pytest.raises(BadAnswer):
        client.read("/sync/start", read_rows, method=method, repeat=repeat)
    assert len(transport.requests) == 1


@pytest.mark.fault("H11")
def test_only_a_page_before_any_other_answer_speaks_of_the_address() -> None:
    page, rows = respond(200, b"\xef\xbb\xbf \n<html><title>Sign in</title>"), respond(200, b"[]")
    client, transport, _ = client_of(page)
    with pytest.raises(NotTheApi, match="HTML: Sign in"):
        client.read("/contacts", read_rows)
    transport.outcomes = [page, rows, page]
    client.read("/contacts", read_rows)
    with pytest.raises(BadAnswer) as caught:
        client.read("/contacts", read_rows)
    assert type(caught.value) is BadAnswer
    client, _, _ = client_of(respond(200, b""))
    with pytest.raises(BadAnswer) as caught:
        client.read("/contacts", read_rows)
    assert type(caught.value) is BadAnswer


@pytest.mark.fault("H26")
def test_unusable_answers_do_not_storm_a_server_either() -> None:
    client, transport, clock = client_of(respond(200, b"<html>"))
    for _ in range(300):
        with pytest.raises(BadAnswer):
            client.read("/contacts", read_rows)
        clock.elapsed += 1
    assert len(transport.requests) <= 1.1 * 300 + 10


@pytest.mark.fault("H5")
def test_429_without_a_word_backs_off_further_each_time() -> None:
    client, _, clock = client_of(respond(429))
    with pytest.raises(Throttled):
        client.get("/contacts")
    assert clock.sleeps[:6] == [1.5, 3, 6, 12, 24, 48]
    assert max(clock.sleeps) <= 90


def test_429_of_a_post_tells_the_wait_and_does_not_repeat() -> None:
    client, transport, clock = client_of(respond(429, headers={"Retry-After": "9"}))
    with pytest.raises(Throttled) as caught:
        client.post("/syncs/1/trigger")
    assert caught.value.wait_seconds == 9
    assert len(transport.requests) == 1
    assert clock.sleeps == []


def test_a_retry_after_of_a_503_is_waited_for() -> None:
    client, _, clock = client_of(respond(503, headers={"Retry-After": "11"}), respond(200))
    client.get("/contacts")
    assert clock.sleeps == [11.375]


@pytest.mark.parametrize("first", [respond(503), respond(200, b"<html>")])
def test_the_end_of_the_window_is_not_waited_for_where_the_limit_is_not_the_trouble(first: Response) -> None:
    headers = {**first.headers, "X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "900"}
    headers["X-RateLimit-Reset"] = f"{START_SECONDS + 55:.0f}"
    client, _, clock = client_of(Response(first.status, headers, first.body), respond(200))
    client.read("/contacts", read_rows)
    assert clock.sleeps == [0.375]


def outage(client: HttpClient, clock: FakeClock, *, seconds: float, every: float) -> int:
    """Calls made while the server is down, one each `every` seconds."""
    calls = 0
    end = clock.elapsed + seconds
    while clock.elapsed < end:
        calls += 1
        with pytest.raises((ServerFailed, NoAnswer)):
            client.get("/contacts")
        clock.elapsed += every
    return calls


@pytest.mark.fault("H26")
@pytest.mark.parametrize("outcome", [respond(503), lost(sent=False)])
@pytest.mark.parametrize("every", [0.1, 1.0, 20.0])
def test_a_server_that_is_down_is_not_stormed(outcome: object, every: float) -> None:
    client, transport, clock = client_of(outcome)  # type: ignore[arg-type]
    calls = outage(client, clock, seconds=600, every=every)
    assert len(transport.requests) <= 1.1 * calls + 10
    assert len(transport.requests) <= 600 / 5 + 15  # when it is surely down: one probe per five seconds


def test_a_call_that_is_not_sent_says_so() -> None:
    client, transport, clock = client_of(respond(503))
    outage(client, clock, seconds=30, every=1)
    before = len(transport.requests)
    with pytest.raises(NoAnswer, match="not sent: the server keeps failing") as caught:
        client.post("/contacts", json={})
    assert caught.value.sent is False
    assert len(transport.requests) == before


@pytest.mark.fault("H26")
def test_a_server_that_comes_back_is_used_at_once() -> None:
    client, transport, clock = client_of(respond(503))
    outage(client, clock, seconds=60, every=1)
    transport.outcomes = [respond(200)]
    clock.elapsed += 5
    for _ in range(100):
        assert client.get("/contacts").status == 200


def test_a_few_failures_among_many_calls_are_all_repeated() -> None:
    outcomes = [respond(503 if n % 20 == 0 else 200) for n in range(2000)] + [respond(200)]
    client, _, _ = client_of(*outcomes)
    for _ in range(1900):
        assert client.get("/contacts").status == 200


@pytest.mark.security("12")
def test_the_key_goes_out_with_every_attempt_and_into_no_message() -> None:
    client, transport, _ = client_of(respond(500, f"bad key {KEY}".encode()))
    with pytest.raises(ServerFailed) as caught:
        client.get("/contacts")
    assert all(request.headers["X-Api-Key"] == KEY for request in transport.requests)
    assert KEY not in str(caught.value)
    assert "bad key ***" in str(caught.value)
    for shown in (repr(client), repr(transport.requests[0]), repr(caught.value)):
        assert KEY not in shown
