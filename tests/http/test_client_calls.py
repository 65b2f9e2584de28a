"""What goes out with a call, and what its answer becomes."""

from __future__ import annotations

import io
import logging
import threading
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from rally_pipeline.http.client import HttpClient, quote_segment
from rally_pipeline.http.errors import ApiError, BadAnswer, Redirected, ServerFailed, Throttled, Unauthorized
from rally_pipeline.http.transport import Limits, Request, Response, TransportFailure
from tests.http.fakes import BASE_URL, DATE, KEY, client_of, respond


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.rallycrm.io/api/v1",
        "https://acme.rallycrm.io/api/v1/",
        "https://acme.rallycrm.io:8443",
        "http://127.0.0.1:8000/rally/api/v1",
        "http://localhost:8000",
        "http://[::1]:8000/x",
    ],
)
def test_base_urls_that_are_used(url: str) -> None:
    assert repr(HttpClient(system="rally", base_url=url, headers={})) == (
        f"HttpClient(system='rally', base_url='{url.rstrip('/')}')"
    )


@pytest.mark.security("3", "7")
@pytest.mark.parametrize(
    "url",
    [
        "http://acme.rallycrm.io/api/v1",
        "http://169.254.169.254/latest",
        "http://127.0.0.1.evil.example/",
        "http://2130706433/",
        "http://0.0.0.0:80",
        "ftp://acme.rallycrm.io",
        "file:///etc/passwd",
        "acme.rallycrm.io/api/v1",
        "https://",
        "",
        "https://user:password@acme.rallycrm.io/",
        "https://acme.rallycrm.io/api?x=1",
        "https://acme.rallycrm.io/api#x",
        "https://acme.rallycrm.io/a b",
        "https://acme.rallycrm.io/../x",
        "https://acme.rallycrm.io:99999/",
    ],
)
def test_base_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        HttpClient(system="rally", base_url=url, headers={})
    assert "password" not in str(caught.value)


@pytest.mark.security("12")
@pytest.mark.parametrize(
    "value", ["line\nbreak", "carriage\rreturn", "nul\0", "snow\u2603", "", " padded", "padded ", "\x7f"]
)
def test_a_header_that_cannot_be_sent_is_refused_without_showing_it(value: str) -> None:
    for make in (
        lambda: HttpClient(system="rally", base_url=BASE_URL, headers={"X-Api-Key": value}),
        lambda: client_of(respond())[0].get("/x", headers={"X-Api-Key": value}),
    ):
        with pytest.raises(ValueError, match="header X-Api-Key") as caught:
            make()
        assert not value.strip() or value.strip() not in str(caught.value)


@pytest.mark.security("3")
@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("7f3c", "7f3c"),
        (42, "42"),
        ("../../x", "..%2F..%2Fx"),
        ("?a=b", "%3Fa%3Db"),
        ("http://h", "http%3A%2F%2Fh"),
        ("a/b#c", "a%2Fb%23c"),
        ("%2e%2e", "%252e%252e"),
        ("a b+c", "a%20b%2Bc"),
        ("Zoë", "Zo%C3%AB"),
        ("\n\0", "%0A%00"),
        ("...", "..."),
    ],
)
def test_an_id_stays_one_segment_of_the_path(value: str | int, quoted: str) -> None:
    assert quote_segment(value) == quoted
    client, transport, _ = client_of(respond())
    client.get(f"/contacts/{quote_segment(value)}")
    assert transport.requests[0].url == f"{BASE_URL}/contacts/{quoted}"


@pytest.mark.parametrize("value", ["", ".", "..", "\ud800"])
def test_an_id_that_no_server_can_be_asked_for_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        quote_segment(value)


@pytest.mark.security("3")
@pytest.mark.parametrize(
    "path",
    [
        "",
        "contacts",
        "/contacts/../x",
        "/./x",
        "/..",
        "/contacts?x=1",
        "/x#y",
        "/a b",
        "/a\nb",
        "//evil.example\\x",
        "/ä",
    ],
)
def test_a_path_that_leaves_its_place_is_refused(path: str) -> None:
    client, transport, _ = client_of(respond())
    with pytest.raises(ValueError, match="a path must"):
        client.get(path)
    assert transport.requests == []


@pytest.mark.fault("C4")
def test_query_values_are_encoded() -> None:
    client, transport, _ = client_of(respond())
    client.get("/changes", params={"since": "2026-01-01T00:00:00+00:00", "limit": 1000, "q": "a&b=c d/é"})
    assert transport.requests[0].url == (
        f"{BASE_URL}/changes?since=2026-01-01T00%3A00%3A00%2B00%3A00&limit=1000&q=a%26b%3Dc%20d%2F%C3%A9"
    )
    client.get("/changes", params={})
    assert transport.requests[1].url == f"{BASE_URL}/changes"


def test_headers_of_client_and_call_go_out_together() -> None:
    client, transport, _ = client_of(respond())
    client.get("/x", headers={"X-Device": "d", "Accept": "text/csv"})
    client.get("/x")
    first, second = (request.headers for request in transport.requests)
    assert first["X-Api-Key"] == KEY
    assert (first["X-Device"], first["Accept"], first["User-Agent"]) == ("d", "text/csv", "rally-pipeline")
    assert "X-Device" not in second
    assert second["Accept"] == "application/json"


def test_bodies() -> None:
    client, transport, _ = client_of(respond(201))
    client.post("/contacts", json={"name": "Zoë", "none": None})
    client.post("/raw", content=b"a,b\n", headers={"Content-Type": "text/csv"})
    client.post("/none")
    first, second, third = transport.requests
    assert msgspec.json.decode(first.body or b"") == {"name": "Zoë", "none": None}
    assert first.headers["Content-Type"] == "application/json"
    assert (second.body, second.headers["Content-Type"]) == (b"a,b\n", "text/csv")
    assert third.body is None
    with pytest.raises(ValueError, match="one body"):
        client.post("/x", json={}, content=b"x")


def test_a_file_goes_out_as_multipart_with_a_seeded_boundary() -> None:
    sent = []
    for _ in range(2):
        client, transport, _ = client_of(respond())
        client.post("/import", files=("file", 'con"tacts.csv', b"email\r\na@b.c\r\n", "text/csv"))
        sent.append((transport.requests[0].body, transport.requests[0].headers["Content-Type"]))
    assert sent[0] == sent[1]
    body, kind = sent[0]
    boundary = kind.removeprefix("multipart/form-data; boundary=")
    assert len(boundary) == 32
    assert (
        body
        == (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="con%22tacts.csv"\r\n'
            f"Content-Type: text/csv\r\n\r\nemail\r\na@b.c\r\n\r\n--{boundary}--\r\n"
        ).encode()
    )


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_complete_answers_are_returned(status: int) -> None:
    client, _, _ = client_of(respond(status, b"{}"))
    response = client.get("/x")
    assert response.status == status
    assert response.caller.path == "/x"


@pytest.mark.fault("H17")
@pytest.mark.parametrize("status", [203, 205, 206, 207, 226, 101])
def test_partial_and_altered_answers_are_refused(status: int) -> None:
    client, transport, _ = client_of(respond(status, b"[]"))
    with pytest.raises(BadAnswer, match=f"{status}: not a complete answer"):
        client.get("/x")
    assert len(transport.requests) == (1 if status < 200 else 4)


def test_a_body_with_a_problem_is_refused() -> None:
    client, transport, _ = client_of(Response(200, {}, b"", problem="the body is larger than 5 bytes"))
    with pytest.raises(BadAnswer, match="larger than 5 bytes"):
        client.get("/x")
    assert len(transport.requests) == 1


@pytest.mark.security("1")
@pytest.mark.fault("H18")
@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("https://evil.example/steal?key=1", "redirect to evil.example, not followed"),
        ("http://acme.rallycrm.io/api/v1/x", "redirect to acme.rallycrm.io, not followed"),
        ("/login?next=secret", "redirect to the same host, not followed"),
        ("https://user:pw@evil.example/", "redirect to evil.example,"),
        ("https://[broken", "an unreadable address"),
        (f"https://{KEY}.evil.example/", "redirect to ***.evil.example"),
        (None, "redirect to nowhere"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_error_that_names_only_the_target_host(
    location: str | None, text: str, status: int
) -> None:
    headers = {"Location": location} if location else {}
    client, transport, _ = client_of(respond(status, b"<a href=secret>moved</a>", headers))
    with pytest.raises(Redirected) as caught:
        client.get("/x")
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "steal" not in str(caught.value)
    assert len(transport.requests) == 1


@pytest.mark.fault("H9")
@pytest.mark.parametrize(
    ("body", "excerpt"),
    [
        (b'{"error": "sync not found"}', "sync not found"),
        (
            b'{"errors": [{"error": {"code": "c", "message": "bad token"}, "meta": {"type": "t"}}], "meta": {}}',
            "bad token",
        ),
        (
            b'{"title": "One or more errors", "errors": {"email": ["is invalid", "is taken"]}}',
            "One or more errors; email: is invalid; email: is taken",
        ),
        (b'{"message": "a", "error": "a"}', "a"),
        (b'{"code": 17}', '{"code": 17}'),
        (b"<html><head><TITLE>502 Bad\n Gateway</TITLE></head>", "HTML: 502 Bad Gateway"),
        (b"<p>" + b"x" * 9000, "HTML without a title"),
        (b"plain\r\n\x1b[31mred\x00", r"plain \x1b[31mred\x00"),
        (b"x" * 1000, "x" * 199 + "…"),
        (b'{"error": "' + b"y" * 1000 + b'"}', "y" * 199 + "…"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", ""),
        (b'{"error": ' + b"[" * 5000 + b"]" * 5000 + b"}", None),
    ],
)
def test_the_excerpt_is_short_and_clean(body: bytes, excerpt: str | None) -> None:
    client, _, _ = client_of(respond(400, body))
    with pytest.raises(ApiError) as caught:
        client.get("/x")
    assert len(caught.value.excerpt) <= 200
    assert "\n" not in str(caught.value)
    if excerpt is not None:
        assert caught.value.excerpt.replace('\\"', '"') == excerpt


def test_the_message_is_one_clear_line() -> None:
    client, _, _ = client_of(respond(401, b'{"error": "API key revoked"}'))
    with pytest.raises(Unauthorized) as caught:
        client.get("/contacts", params={"email": "ada@example.org"})
    assert str(caught.value) == "rally GET /contacts: 401 Unauthorized: API key revoked"


def test_server_time_is_the_last_date_seen() -> None:
    client, transport, _ = client_of(
        respond(), respond(headers={"Date": "Tue, 03 Mar 2026 10:00:09 GMT"}), respond(headers={"Date": "?"})
    )
    assert client.server_time is None
    client.get("/x")
    assert client.server_time == datetime(2026, 3, 3, 10, 0, 0, tzinfo=UTC)
    client.get("/x")
    client.get("/x")
    assert client.server_time == datetime(2026, 3, 3, 10, 0, 9, tzinfo=UTC)
    assert len(transport.requests) == 3


def test_usage_is_counted_and_can_be_subtracted() -> None:
    client, _, _ = client_of(respond(200, b"12345"), respond(429), respond(503), respond(200, b"123"))
    client.get("/x")
    before = client.usage
    client.get("/x")
    spent = client.usage - before
    assert (spent.requests, spent.retries, spent.throttled, spent.bytes_received) == (3, 2, 1, 7)
    assert spent.waited_seconds == pytest.approx(1.5 + 0.375)
    assert client.usage.requests == 4


def test_usage_is_right_with_many_threads() -> None:
    class Always:
        def send(self, request: Request, limits: Limits) -> Response:
            return Response(200, {"Date": DATE}, b"ab")

    client = HttpClient(system="rally", base_url=BASE_URL, headers={}, transport=Always())

    def call() -> None:
        for _ in range(300):
            client.get("/x")

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (client.usage.requests, client.usage.bytes_received) == (2400, 4800)


def test_steps_frame_every_request() -> None:
    steps: list[str] = []
    client, _, _ = client_of(respond(503), respond(200), step=steps.append)
    client.get("/contacts")
    assert steps == ["rally:GET /contacts:before", "rally:GET /contacts:after"] * 2


def test_a_crash_in_a_step_leaves_the_budget_free() -> None:
    class OneAtATime:
        free = True

        def acquire(self, give_up_at: float = 0.0) -> float:
            assert self.free
            self.free = False
            return 0.0

        def observe(self, response: Response | None, sent_at: float, received_at: float) -> None:
            self.free = True

    def crash(name: str) -> None:
        raise KeyboardInterrupt

    budget = OneAtATime()
    client, transport, _ = client_of(respond(), step=crash, budget=budget)
    with pytest.raises(KeyboardInterrupt):
        client.get("/x")
    assert budget.free
    assert transport.requests == []


def test_a_download_starts_anew_with_every_attempt() -> None:
    class Partial:
        calls = 0

        def send(self, request: Request, limits: Limits) -> Response:
            assert request.sink is not None
            assert request.headers["Accept-Encoding"] == "identity"
            self.calls += 1
            request.sink.write(b"whole file" if self.calls == 2 else b"half of something longer")
            if self.calls == 1:
                raise TransportFailure("cut", sent=True)
            return Response(200)

    file = io.BytesIO(b"old content")
    client, _, _ = client_of(respond(), transport=Partial())
    client.get("/export", sink=file)
    assert file.getvalue() == b"whole file"
    assert client.usage.bytes_received == 10


@pytest.mark.security("11")
def test_repeats_are_logged_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    client, _, _ = client_of(respond(503, f"token {KEY} <b>".encode()), respond(200))
    with caplog.at_level(logging.INFO, logger="rally_pipeline.http"):
        client.get("/contacts", params={"email": "ada@example.org"})
    assert caplog.messages == ["rally GET /contacts: 503 Service Unavailable: token *** <b>; again in 0.4 s"]


def test_errors_survive_pickling() -> None:
    import pickle

    client, _, _ = client_of(respond(429, b"slow down", {"Retry-After": "9"}))
    with pytest.raises(Throttled) as caught:
        client.post("/x")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (type(error), str(error), error.wait_seconds) == (Throttled, str(caught.value), 9)


def test_the_limits_of_a_call_replace_those_of_the_client() -> None:
    seen: list[Limits] = []

    class Noting:
        def send(self, request: Request, limits: Limits) -> Response:
            seen.append(limits)
            return Response(200)

    client, _, _ = client_of(respond(), transport=Noting(), limits=Limits(read_seconds=1))
    client.get("/x")
    client.get("/x", limits=Limits(read_seconds=2))
    assert [limits.read_seconds for limits in seen] == [1, 2]


@pytest.mark.security("12")
@pytest.mark.parametrize("failing", [TransportFailure("gone", sent=True), respond(500, KEY.encode())])
def test_tracebacks_hold_no_secret(failing: Any) -> None:
    import traceback

    client, _, _ = client_of(failing)
    try:
        client.get("/contacts")
    except (ApiError, ServerFailed) as error:
        text = "".join(traceback.format_exception(error))
    assert KEY not in text
