"""The sandbox over real sockets: HTTP/1.1, its refusals, and every wire fault as it looks on the wire."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rally_pipeline.sandbox import Sandbox, SandboxServer
from rally_pipeline.sandbox.wire import Delivery
from tests.sandbox.sockets import Line
from tests.sandbox.talk import BASE, Talk, new_contact

PATH = "/contacts?limit=2"


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    sandbox = Sandbox(seed=3, records=60, apis=["rally"], limit_per_minute=None)
    with SandboxServer(sandbox) as served:
        yield served


@pytest.fixture
def talk(server: SandboxServer) -> Iterator[Talk]:
    server.sandbox.faults.clear()
    server.sandbox.clear_scripts()
    yield Talk(server.sandbox)
    server.sandbox.faults.clear()


@pytest.fixture
def line(server: SandboxServer, talk: Talk) -> Iterator[Line]:
    with Line(server, talk.headers["X-Api-Key"]) as opened:
        yield opened


@pytest.fixture
def whole(talk: Talk) -> bytes:
    """The body that the faults damage."""
    return talk.get(PATH).body


def meet(line: Line, talk: Talk, fault: str, path: str = PATH, **parameters: Any) -> Any:
    talk.sandbox.faults.add(fault, **parameters)
    line.request(path)
    return line.hear()


# -- HTTP -------------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_sandbox_in_process(line: Line, whole: bytes) -> None:
    line.request(PATH)
    heard = line.answer()
    assert heard.status == 200
    assert heard.body == whole
    for header in (b"Date: Mon, 02 Mar 2026 08:00:00 GMT", b"X-Sandbox: rally_pipeline"):
        assert header in heard.head


def test_connection_is_kept_and_requests_are_answered_in_order(line: Line, whole: bytes) -> None:
    line.request("/pipelines")
    line.request(PATH)
    assert b'"Sales"' in line.answer().body
    assert line.answer().body == whole


def test_connection_is_closed_when_the_client_says_so(line: Line) -> None:
    line.request(PATH, headers="Connection: close\r\n")
    heard = line.hear()
    assert heard.end == "closed"
    assert b"Connection: close" in heard.head


def test_http_1_0_is_answered_and_closed(server: SandboxServer, talk: Talk) -> None:
    with Line(server, "") as line:
        key = talk.headers["X-Api-Key"]
        line.socket.sendall(
            f"GET {BASE}{PATH} HTTP/1.0\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n".encode()
        )
        heard = line.hear()
    assert (heard.status, heard.end) == (200, "closed")


def test_request_body_may_come_slowly_and_in_chunks(line: Line, talk: Talk) -> None:
    body = json.dumps(new_contact(email="chunks@example.org")).encode()
    line.request("/contacts", "POST", "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n")
    for start in range(0, len(body), 20):
        part = body[start : start + 20]
        line.socket.sendall(b"%x;x=y\r\n%b\r\n" % (len(part), part))
    line.socket.sendall(b"0\r\n\r\n")
    heard = line.answer()
    assert heard.status == 201
    assert json.loads(heard.body)["email"] == "chunks@example.org"


def test_client_that_waits_for_100_continue_gets_it(line: Line) -> None:
    body = json.dumps(new_contact(email="patient@example.org")).encode()
    line.request(
        "/contacts",
        "POST",
        f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n",
    )
    assert line.answer().data == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.socket.sendall(body)
    assert line.answer().status == 201


def test_head_of_204_has_no_length_and_no_body(line: Line, talk: Talk) -> None:
    line.request(f"/contacts/{talk.rally.ids('contacts')[0]}", "DELETE")
    heard = line.hear()
    assert heard.status == 204
    assert b"content-length" not in heard.head.lower()
    assert heard.body == b""


def test_head_request_gets_no_body(line: Line) -> None:
    line.request(PATH, "HEAD")
    heard = line.hear()
    assert heard.status == 405
    assert heard.body == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", 413),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(
    server: SandboxServer, data: bytes, status: int
) -> None:
    with Line(server, "") as line:
        line.socket.sendall(data)
        heard = line.hear()
    assert (heard.status, heard.end) == (status, "closed")


@pytest.mark.security("33")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: 127.0.0.1:1234", 200),
        ("Host: localhost", 200),
        ("Host: [::1]:80", 200),
        ("Host: evil.example", 403),
        ("Host: 127.0.0.1.evil.example", 403),
        ("Host: localhost\r\nOrigin: https://evil.example", 403),
        ("Host: localhost\r\nOrigin: null", 403),
        ("Host: localhost\r\nOrigin: http://localhost:3000", 200),
    ],
)
def test_other_hosts_and_origins_are_refused(server: SandboxServer, headers: str, status: int) -> None:
    with Line(server, "") as line:
        line.socket.sendall(f"GET /_sandbox/ HTTP/1.1\r\n{headers}\r\n\r\n".encode())
        assert line.answer().status == status


@pytest.mark.security("33")
def test_server_listens_on_loopback_only(server: SandboxServer) -> None:
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1"}:
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection((address, server.port), timeout=1),
        ):
            pass
    assert server.url == f"http://127.0.0.1:{server.port}"


def test_environment_points_at_the_server(server: SandboxServer) -> None:
    environment = server.environment()
    assert environment["RALLY_API_URL"] == f"{server.url}/rally/api/v1"
    assert environment["RALLY_API_KEY"].startswith("rk_live_sandbox_")


def test_port_can_be_closed_and_opened_again() -> None:
    sandbox = Sandbox(seed=3, records=10, apis=["rally"])
    with SandboxServer(sandbox) as server:
        port = server.port
        with Line(server, "") as line:
            line.request("/pipelines")
            line.answer()
            server.refuse_connections()
            assert line.hear().end == "reset"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
        server.accept_connections()
        with Line(server, "") as line:
            line.request("/pipelines")
            assert line.answer().status == 401


def test_taken_port_is_named_in_one_line(server: SandboxServer) -> None:
    with pytest.raises(OSError, match=f"port {server.port} on .* cannot be used"):
        SandboxServer(server.sandbox, port=server.port).start()


def test_server_starts_once_and_stops_twice() -> None:
    server = SandboxServer(Sandbox(seed=3, records=0, apis=["rally"]))
    server.start()
    with pytest.raises(RuntimeError, match="running already"):
        server.start()
    server.stop()
    server.stop()


def test_failing_script_fails_its_request_and_nothing_else(
    line: Line, talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    def explode() -> None:
        raise ZeroDivisionError("no such luck")

    talk.sandbox.before(1, explode)
    line.request(PATH)
    heard = line.answer()
    assert heard.status == 500
    assert b"ZeroDivisionError: no such luck" in heard.body
    assert "the sandbox failed at GET" in caplog.text
    line.request(PATH)
    assert line.answer().status == 200


def test_many_clients_at_once_get_their_own_answers(server: SandboxServer, talk: Talk) -> None:
    ids = talk.rally.ids("activities")
    wrong: list[str] = []

    def ask(part: list[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for record_id in part:
            connection.request("GET", f"{BASE}/activities/{record_id}", headers=talk.headers)
            if json.loads(connection.getresponse().read())["id"] != record_id:
                wrong.append(record_id)
        connection.close()

    threads = [threading.Thread(target=ask, args=(ids[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- faults on the wire -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["reset_before_headers", "lost_answer"])
def test_reset_before_headers(line: Line, talk: Talk, fault: str) -> None:
    assert meet(line, talk, fault) == (b"", "reset")


def test_answer_is_lost_after_the_request_was_applied(line: Line, talk: Talk) -> None:
    before = talk.rally.counts()["contacts"]
    talk.sandbox.faults.add("lost_answer")
    body = json.dumps(new_contact(email="lost@example.org")).encode()
    line.request("/contacts", "POST", "Content-Type: application/json\r\n", body)
    assert line.hear() == (b"", "reset")
    assert talk.rally.counts()["contacts"] == before + 1
    assert talk.sandbox.log[-1].status == 201


def test_close_before_headers(line: Line, talk: Talk) -> None:
    assert meet(line, talk, "close_before_headers") == (b"", "closed")


def test_cut_headers(line: Line, talk: Talk) -> None:
    heard = meet(line, talk, "cut_headers")
    assert heard.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in heard.data
    assert heard.end == "closed"


@pytest.mark.parametrize("at", [0, 1, 300])
@pytest.mark.parametrize(("fault", "end"), [("reset_in_body", "reset"), ("cut_body", "closed")])
def test_body_with_a_length_is_cut(
    line: Line, talk: Talk, whole: bytes, fault: str, end: str, at: int
) -> None:
    heard = meet(line, talk, fault, at=at)
    assert b"Content-Length: %d" % len(whole) in heard.head
    assert (heard.body, heard.end) == (whole[:at], end)


def test_chunked_body_is_cut(line: Line, talk: Talk, whole: bytes) -> None:
    heard = meet(line, talk, "cut_chunked", at=10)
    assert b"Transfer-Encoding: chunked" in heard.head
    assert (heard.body, heard.end) == (b"a\r\n" + whole[:10] + b"\r\n", "closed")
    assert meet_again(line, talk, "cut_chunked", at=0).body == b""


def meet_again(line: Line, talk: Talk, fault: str, **parameters: Any) -> Any:
    line.socket.close()
    line.socket = socket.create_connection(("127.0.0.1", line.port), timeout=5)
    return meet(line, talk, fault, **parameters)


def test_body_without_a_length_is_cut_unnoticed(line: Line, talk: Talk, whole: bytes) -> None:
    heard = meet(line, talk, "cut_close_delimited")
    assert b"content-length" not in heard.head.lower()
    assert (heard.body, heard.end) == (whole[: len(whole) // 2], "closed")


def test_whole_bodies_in_chunks_and_without_a_length(line: Line, talk: Talk, whole: bytes) -> None:
    heard = meet(line, talk, "chunked")
    assert heard.end == "silent"
    sizes_and_parts = heard.body.split(b"\r\n")
    assert b"".join(sizes_and_parts[1::2]) == whole
    assert heard.body.endswith(b"0\r\n\r\n")
    heard = meet(line, talk, "close_delimited")
    assert (heard.body, heard.end) == (whole, "closed")


def test_stall_is_silence_and_then_the_answer(line: Line, talk: Talk, whole: bytes) -> None:
    talk.sandbox.faults.add("stall", seconds=0.3)
    started = time.monotonic()
    line.request(PATH)
    assert line.hear(0.1) == (b"", "silent")
    assert line.answer().body == whole
    assert time.monotonic() - started >= 0.3


def test_stall_without_an_answer_ends_with_a_close(line: Line, talk: Talk) -> None:
    assert meet(line, talk, "stall", seconds=0.1, applied=False) == (b"", "closed")


def test_stall_in_the_body(line: Line, talk: Talk, whole: bytes) -> None:
    talk.sandbox.faults.add("stall_body", seconds=0.3, at=7)
    line.request(PATH)
    assert line.hear(0.1).body == whole[:7]
    assert line.hear(0.5).data == whole[7:]


@pytest.mark.parametrize("fault", ["drip_headers", "drip_body"])
def test_drip_sends_byte_by_byte_until_the_client_gives_up(line: Line, talk: Talk, fault: str) -> None:
    talk.sandbox.faults.add(fault, seconds=0.01)
    line.request(PATH)
    line.socket.settimeout(1)
    parts = [line.socket.recv(1 << 16) for _ in range(12)]
    assert all(len(part) < 20 for part in parts[1:])


def test_quick_drip_arrives_whole(line: Line, talk: Talk, whole: bytes) -> None:
    talk.sandbox.faults.add("drip_headers", seconds=0)
    talk.sandbox.faults.add("drip_body", seconds=0)
    for _ in range(2):
        line.request(PATH)
        assert line.answer().body == whole


def test_keep_alive_connection_is_closed_unannounced(line: Line, talk: Talk, whole: bytes) -> None:
    heard = meet(line, talk, "close_after")
    assert b"connection: close" not in heard.head.lower()
    assert (heard.body, heard.end) == (whole, "closed")


def test_interim_answers_come_first(line: Line, talk: Talk, whole: bytes) -> None:
    heard = meet(line, talk, "interim")
    assert heard.data.startswith(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n")
    assert heard.data.endswith(whole)


def test_bytes_nobody_asked_for_follow(line: Line, talk: Talk, whole: bytes) -> None:
    assert meet(line, talk, "second_answer").data.endswith(b'["smuggled!"]')
    heard = meet(line, talk, "unsolicited")
    assert heard.body == whole + b"\x00\x01 not HTTP\r\n"


def test_headers_come_twice(line: Line, talk: Talk) -> None:
    head = meet(line, talk, "duplicate_headers").head.lower()
    assert head.count(b"\r\ndate:") == 2
    assert head.count(b"\r\ncontent-type:") == 2
    assert head.count(b"\r\ncontent-length:") == 1


def test_headers_do_not_end(line: Line, talk: Talk, whole: bytes) -> None:
    heard = meet(line, talk, "endless_headers", size=300_000)
    assert len(heard.head) > 300_000
    assert heard.body == whole


def test_huge_body_is_sent_without_being_held(line: Line, talk: Talk) -> None:
    talk.sandbox.faults.add("huge_body", size=3_000_000)
    line.request(PATH)
    body = line.answer().body
    assert len(body) == 3_000_000
    assert len(json.loads(body)[0]) == 3_000_000 - 4


def test_client_that_hangs_up_on_a_slow_answer_does_no_harm(
    line: Line, talk: Talk, server: SandboxServer
) -> None:
    talk.sandbox.faults.add("drip_body", seconds=0.01)
    line.request(PATH)
    assert line.socket.recv(10)
    line.socket.close()
    with Line(server, talk.headers["X-Api-Key"]) as next_line:
        next_line.request(PATH)
        assert next_line.answer().status == 200


def test_every_delivery_is_tried_in_this_file() -> None:
    text = Path(__file__).read_text()
    assert [kind for kind in Delivery if kind.value not in text] == []
