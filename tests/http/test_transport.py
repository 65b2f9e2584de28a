"""The transport against a server of raw bytes: what is cut, slow, huge, doubled, or somewhere else."""

from __future__ import annotations

import gzip
import http.client
import io
import os
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rally_pipeline.http.envelope import read_rows
from rally_pipeline.http.errors import BadAnswer
from rally_pipeline.http.session import SessionTransport
from rally_pipeline.http.transport import Limits, Request, Response, TransportFailure
from tests.http.raw_server import Connection, Handler, RawServer, always, answer, once

QUICK = Limits(
    connect_seconds=0.3, read_seconds=0.3, total_seconds=0.8, max_body_bytes=100_000, max_header_bytes=8_000
)


def compressed(body: bytes) -> bytes:
    """Without the time of day, which would give each test process other test names."""
    return gzip.compress(body, mtime=0)


PAGE = b'[{"id": "1", "name": "Zo\xc3\xab, {]}"}, {"id": "2"}]'


def fetch(url: str, *, limits: Limits = QUICK, method: str = "GET", body: bytes | None = None) -> Response:
    transport = SessionTransport(url)
    try:
        return transport.send(Request(method, f"{url}/x", {"X-Api-Key": "test_key"}, body), limits)
    finally:
        transport.close()


def fail(
    handler: Handler, *, limits: Limits = QUICK, method: str = "GET", body: bytes | None = None
) -> TransportFailure:
    with RawServer(handler) as server, pytest.raises(TransportFailure) as caught:
        fetch(server.url, limits=limits, method=method, body=body)
    return caught.value


def test_an_answer_comes_whole() -> None:
    data = answer(PAGE, headers=("Date: Tue, 03 Mar 2026 10:00:00 GMT", "X-One: first", "x-one: second"))
    with RawServer(always(data)) as server:
        response = fetch(server.url)
        request = server.requests[0]
    assert (response.status, response.body, response.framed, response.problem) == (200, PAGE, True, "")
    assert response.headers["X-ONE"] == "first"  # of a repeated header the first one counts
    assert str(response.server_time) == "2026-03-03 10:00:00+00:00"
    assert request.startswith(b"GET /x HTTP/1.1\r\n")
    assert b"\r\nX-Api-Key: test_key\r\n" in request
    assert repr(response) == f"Response(200, {len(PAGE)} bytes)"


@pytest.mark.security("11")
@pytest.mark.parametrize("port_class", [http.client.HTTPConnection, http.client.HTTPSConnection])
def test_debug_prints_switched_on_elsewhere_do_not_show_our_headers(
    port_class: type, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(port_class, "debuglevel", 1)
    with RawServer(always(answer(PAGE))) as server:
        assert fetch(server.url).body == PAGE
    assert capfd.readouterr() == ("", "")


def test_connections_are_used_again() -> None:
    with RawServer(always(answer(PAGE))) as server:
        transport = SessionTransport(server.url)
        for _ in range(20):
            transport.send(Request("GET", f"{server.url}/x", {}), QUICK)
        transport.close()
        assert len(server.connections) == 1


@pytest.mark.parametrize("reply", [answer(b"", status="204 No Content", length=None), answer(b"")])
def test_connections_are_used_again_after_an_empty_answer(reply: bytes) -> None:
    with RawServer(always(reply)) as server:
        transport = SessionTransport(server.url)
        for _ in range(3):
            assert transport.send(Request("DELETE", f"{server.url}/x", {}), QUICK).body == b""
        transport.close()
        assert len(server.connections) == 1


def test_threads_share_one_transport() -> None:
    with RawServer(always(answer(PAGE))) as server:
        transport = SessionTransport(server.url)
        bodies: list[bytes] = []

        def send() -> None:
            request = Request("GET", f"{server.url}/x", {})
            bodies.extend(transport.send(request, QUICK).body for _ in range(25))

        threads = [threading.Thread(target=send) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        transport.close()
        assert bodies == [PAGE] * 150
        assert len(server.connections) <= 6


@pytest.mark.fault("T1")
def test_connection_refused_was_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TransportFailure, match="connection refused") as caught:
            fetch(url, method="POST", body=b"{}")
    assert caught.value.sent is False
    assert "127.0.0.1" not in caught.value.reason


@pytest.mark.fault("T2")
def test_a_name_that_does_not_resolve_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, *_: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(TransportFailure, match="host name does not resolve") as caught:
        fetch("https://no-such-host.example")
    assert caught.value.sent is False


def test_a_resolver_that_hangs_does_not_hold_up_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(host: str, port: int, *rest: int) -> list[object]:
        if rest[-1:] == (socket.AI_NUMERICHOST,):
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        release.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    with pytest.raises(TransportFailure) as caught:
        fetch("https://slow-resolver.example")
    release.set()
    assert time.monotonic() - start < 9  # the resolver itself takes ten
    assert caught.value.sent is False


@pytest.mark.fault("T8")
def test_a_host_that_does_not_accept_ends_at_the_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        with pytest.raises(TransportFailure, match=r"no connection within 0\.3 s") as caught:
            fetch(f"http://127.0.0.1:{full.getsockname()[1]}")
        assert caught.value.sent is False
        for filler in fillers:
            filler.close()


@pytest.mark.fault("T17")
def test_every_address_of_a_host_is_tried() -> None:
    with RawServer(always(answer(PAGE))) as server:
        # localhost may resolve to ::1 first, where nothing listens
        assert fetch(f"http://localhost:{server.port}").body == PAGE


@pytest.mark.fault("T17")
def test_ipv6_only_host() -> None:
    try:
        server = RawServer(always(answer(PAGE)), host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with server:
        assert fetch(server.url).body == PAGE


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://[::1]", ("::1", 80)),
        ("https://[2001:db8::17]/api", ("2001:db8::17", 443)),
        ("https://api.example", ("api.example", 443)),
        ("https://api.example:8443", ("api.example", 8443)),
    ],
)
def test_a_url_without_a_port_means_the_port_of_its_scheme(
    url: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int, _seconds: float) -> list[object]:
        asked.append((host, port))
        raise socket.gaierror("not in this test")

    monkeypatch.setattr("rally_pipeline.http.wire._resolve", resolve)
    with pytest.raises(TransportFailure, match="does not resolve"):
        fetch(url)
    assert asked == [address]


@pytest.mark.fault("T4")
def test_reset_before_headers() -> None:
    def handle(connection: Connection) -> None:
        connection.read_request()
        connection.reset()

    failure = fail(handle, method="POST", body=b"{}")
    assert failure.reason == "connection reset by peer"
    assert failure.sent is True


def test_closed_before_headers() -> None:
    failure = fail(once(b""))
    assert failure.reason == "the connection was closed before an answer"
    assert failure.sent is True


@pytest.mark.fault("T5")
@pytest.mark.parametrize("cut", range(0, len(PAGE), 3))
def test_body_cut_with_length_is_no_answer(cut: int) -> None:
    failure = fail(once(answer(PAGE[:cut], length=len(PAGE))))
    assert failure.reason == "the answer was cut"


def chunked(body: bytes, size: int = 7, *, end: bool = True) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return data + (b"0\r\n\r\n" if end else b"")


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_chunked_body_comes_whole() -> None:
    with RawServer(always(CHUNKED_HEAD + chunked(PAGE))) as server:
        response = fetch(server.url)
    assert response.body == PAGE
    assert response.framed


@pytest.mark.fault("T6")
@pytest.mark.parametrize("cut", range(1, len(chunked(PAGE)) - 4, 5))
def test_chunked_body_cut_anywhere_is_no_answer(cut: int) -> None:
    failure = fail(once(CHUNKED_HEAD + chunked(PAGE)[:cut]))
    assert failure.sent is True


@pytest.mark.fault("T7")
def test_body_cut_without_length_shows_in_the_envelope() -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    cut = 0

    def handle(connection: Connection) -> None:
        connection.read_request()
        connection.send(head + PAGE[:cut])

    with RawServer(handle) as server:
        for cut in range(len(PAGE)):
            response = fetch(server.url)
            assert response.framed is False
            assert response.body == PAGE[:cut]
            with pytest.raises(BadAnswer):
                read_rows(response)
        cut = len(PAGE)
        assert len(read_rows(fetch(server.url))) == 2


def stay_silent(connection: Connection) -> None:
    connection.read_request()
    time.sleep(0.6)


@pytest.mark.fault("T9")
def test_silence_ends_at_the_read_timeout() -> None:
    failure = fail(stay_silent)
    assert failure.reason == "the server was silent for 0.3 s"
    assert failure.sent is True


def drip(data: bytes) -> Handler:
    def handle(connection: Connection) -> None:
        connection.read_request()
        for byte in data:
            connection.send(bytes([byte]))
            time.sleep(0.1)

    return handle


@pytest.mark.security("9")
@pytest.mark.fault("T11")
@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: aaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n",
    ],
)
def test_a_drip_in_the_headers_ends_at_the_total_time(data: bytes) -> None:
    failure = fail(drip(data))
    assert failure.reason == "no complete answer within 0.8 s"


@pytest.mark.security("9")
@pytest.mark.fault("T10")
@pytest.mark.parametrize(
    "head", [b"Content-Length: 5000", b"Transfer-Encoding: chunked", b"Connection: close"]
)
def test_a_drip_in_the_body_ends_at_the_total_time(head: bytes) -> None:
    def handle(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n", head, b"\r\n\r\n")
        for _ in range(20):
            connection.send(b"1\r\na\r\n" if b"chunked" in head else b"a")
            time.sleep(0.1)

    failure = fail(handle)
    assert failure.reason == "no complete answer within 0.8 s"


def test_a_server_that_does_not_read_ends_at_the_total_time() -> None:
    def handle(connection: Connection) -> None:
        time.sleep(1.2)

    failure = fail(handle, method="POST", body=b"x" * 30_000_000)
    assert failure.reason == "no complete answer within 0.8 s"
    assert failure.sent is True


def test_a_large_upload_may_take_longer_than_any_silence() -> None:
    received = []

    def handle(connection: Connection) -> None:
        size = 0
        while size < 16_000_000:
            size += len(connection.sock.recv(65_536))
            time.sleep(0.003)
        received.append(size)
        connection.send(answer(b"{}"))

    limits = Limits(connect_seconds=0.05, read_seconds=0.3, total_seconds=20)
    with RawServer(handle) as server:
        assert fetch(server.url, method="POST", body=b"x" * 16_000_000, limits=limits).status == 200
    assert received[0] >= 16_000_000


def test_an_early_refusal_of_a_large_upload_is_heard() -> None:
    def handle(connection: Connection) -> None:
        connection.sock.recv(1000)
        connection.send(answer(b"too large", status="413 Content Too Large", headers=("Connection: close",)))
        connection.sock.shutdown(socket.SHUT_WR)
        while connection.sock.recv(1_000_000):
            pass

    with RawServer(handle) as server:
        assert fetch(server.url, method="POST", body=b"x" * 5_000_000).status == 413


def close_after_first(connection: Connection) -> None:
    connection.read_request()
    connection.send(answer(PAGE))


@pytest.mark.fault("T12")
def test_a_connection_closed_between_requests_is_replaced() -> None:
    with RawServer(close_after_first) as server:
        transport = SessionTransport(server.url)
        for number in range(1, 4):
            assert transport.send(Request("POST", f"{server.url}/x", {}, b"{}"), QUICK).body == PAGE
            assert len(server.connections) == number
            time.sleep(0.05)
        transport.close()


@pytest.mark.security("9")
def test_endless_headers_are_stopped() -> None:
    def handle(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.send(b"X-More: " + b"a" * 500 + b"\r\n")

    failure = fail(handle)
    assert "headers larger than 8000 bytes" in failure.reason


def test_too_many_headers_are_stopped() -> None:
    failure = fail(once(answer(headers=tuple(f"X-{n}: 1" for n in range(200)))))
    assert failure.sent is True


def test_a_header_without_end_is_stopped() -> None:
    failure = fail(once(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200_000))
    assert failure.sent is True


@pytest.mark.fault("T15")
@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_interim_answers_are_not_the_answer(interim: str) -> None:
    early = f"HTTP/1.1 {interim}\r\nX-Early: yes\r\n\r\n".encode()
    with RawServer(once(early * 3 + answer(PAGE, status="201 Created"))) as server:
        response = fetch(server.url)
    assert response.status == 201
    assert response.body == PAGE
    assert "x-early" not in response.headers


@pytest.mark.fault("T15")
@pytest.mark.parametrize("interim", ["100 Continue", "103 Early Hints"])
def test_endless_interim_answers_are_stopped(interim: str) -> None:
    def handle(connection: Connection) -> None:
        connection.read_request()
        while True:
            connection.send(f"HTTP/1.1 {interim}\r\nX-Early: yes\r\n\r\n".encode())

    assert fail(handle).sent is True


@pytest.mark.fault("T15", "T16")
def test_bytes_nobody_asked_for_are_not_the_answer() -> None:
    def handle(connection: Connection) -> None:
        connection.read_request()
        connection.send(answer(PAGE))
        time.sleep(0.1)
        connection.send(answer(b'[{"id": "smuggled"}]'))
        while connection.read_request():
            connection.send(answer(b'[{"id": "late"}]'))

    with RawServer(handle) as server:
        transport = SessionTransport(server.url)
        for _ in range(2):
            assert transport.send(Request("GET", f"{server.url}/x", {}), QUICK).body == PAGE
            time.sleep(0.2)
        transport.close()
        assert len(server.connections) == 2


@pytest.mark.fault("T16")
@pytest.mark.parametrize("extra", [answer(b'[{"id": "smuggled"}]'), b"x"])
@pytest.mark.parametrize(
    "reply", [answer(PAGE), answer(b"", status="204 No Content", length=None), CHUNKED_HEAD + chunked(PAGE)]
)
def test_a_second_answer_in_the_same_packet_is_thrown_away(reply: bytes, extra: bytes) -> None:
    with RawServer(always(reply + extra)) as server:
        transport = SessionTransport(server.url)
        for number in (1, 2, 3):
            response = transport.send(Request("GET", f"{server.url}/x", {}), QUICK)
            assert b"smuggled" not in response.body
            assert len(server.connections) == number  # never again on the connection that lied
        transport.close()


@pytest.mark.fault("H27")
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n[][][]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 7\r\n\r\n[][][]",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"SMTP ready\r\n\r\n",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ],
)
def test_nonsense_is_no_answer(head: bytes) -> None:
    failure = fail(once(head))
    assert failure.sent is True
    assert "\n" not in failure.reason


@pytest.mark.fault("H27")
def test_conflicting_headers_do_not_crash() -> None:
    reply = b"HTTP/1.1 200 OK\r\nDate: nonsense\r\nDate: Tue, 03 Mar 2026 10:00:00 GMT\r\nno colon here\r\n"
    reply += b"X-RateLimit-Remaining: a\r\nX-RateLimit-Remaining: 5\r\nContent-Length: 2\r\n\r\n[]"
    with RawServer(once(reply)) as server:
        response = fetch(server.url)
    assert response.status == 200
    assert response.server_time is None


@pytest.mark.fault("H28")
def test_gzip_and_deflate_are_undone() -> None:
    raw_deflate = zlib.compressobj(wbits=-15)
    encodings = {
        "gzip": compressed(PAGE),
        "x-gzip": compressed(PAGE[:9]) + compressed(PAGE[9:]),
        "deflate": zlib.compress(PAGE),
        "Deflate": raw_deflate.compress(PAGE) + raw_deflate.flush(),
        "identity": PAGE,
    }
    for encoding, data in encodings.items():
        with RawServer(once(answer(data, headers=(f"Content-Encoding: {encoding}",)))) as server:
            response = fetch(server.url)
            assert (response.body, response.problem) == (PAGE, ""), encoding
            assert b"\r\nAccept-Encoding: gzip, deflate\r\n" in server.requests[0]


@pytest.mark.fault("H28")
@pytest.mark.parametrize(
    ("encoding", "data", "problem"),
    [
        ("gzip", PAGE, "the gzip encoding is broken"),
        ("gzip", compressed(PAGE)[:-9], "the compressed body is cut"),
        ("gzip", compressed(b"") * 1000, "more than 16 members"),
        ("deflate", b"\x78\x9cnonsense", "the deflate encoding is broken"),
        ("br", b"\x0b\x02\x80", "the encoding br was not asked for"),
        ("gzip, gzip", compressed(compressed(PAGE)), "the encoding gzip, gzip was not asked for"),
        ("gzip", compressed(b"x" * 200_000), "larger than 100000 bytes once decoded"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_a_problem_not_content(
    encoding: str, data: bytes, problem: str
) -> None:
    with RawServer(once(answer(data, headers=(f"Content-Encoding: {encoding}",)))) as server:
        response = fetch(server.url)
    assert problem in response.problem
    assert response.body == b""
    assert response.status == 200


@pytest.mark.security("8")
@pytest.mark.fault("H28")
def test_a_gzip_bomb_does_not_fill_the_memory() -> None:
    bomb = compressed(b"\0" * 50_000_000)
    assert len(bomb) < 100_000
    limits = Limits(total_seconds=20, max_body_bytes=1_000_000)
    with RawServer(once(answer(bomb, headers=("Content-Encoding: gzip",)))) as server:
        tracemalloc.start()
        response = fetch(server.url, limits=limits)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "larger than 1000000 bytes" in response.problem
    assert peak < 8_000_000


@pytest.mark.security("9")
@pytest.mark.fault("H29")
@pytest.mark.parametrize(
    "head", [b"Content-Length: 200000000", b"Transfer-Encoding: chunked", b"Connection: close"]
)
def test_a_huge_body_is_stopped_at_the_cap(head: bytes) -> None:
    sent = 0

    def handle(connection: Connection) -> None:
        nonlocal sent
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n", head, b"\r\n\r\n")
        block = b"a" * 100_000
        for _ in range(2_000):
            connection.send(b"186a0\r\n%b\r\n" % block if b"chunked" in head else block)
            sent += len(block)

    limits = Limits(total_seconds=20, max_body_bytes=1_000_000)
    with RawServer(handle) as server:
        tracemalloc.start()
        response = fetch(server.url, limits=limits)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert response.problem == "the body is larger than 1000000 bytes"
    assert peak < 10_000_000
    assert sent < 50_000_000


def test_an_unknown_transfer_encoding_is_a_problem() -> None:
    with RawServer(
        once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n[]")
    ) as server:
        assert fetch(server.url).problem == "unknown transfer encoding"


def test_a_download_goes_to_its_file_and_not_into_memory() -> None:
    def handle(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
        for _ in range(200):
            connection.send(b"b" * 100_000)

    class Counter(io.RawIOBase):
        size = 0

        def write(self, data: object) -> int:
            self.size += len(data)  # type: ignore[arg-type]
            return len(data)  # type: ignore[arg-type]

    counter = Counter()
    with RawServer(handle) as server:
        tracemalloc.start()
        request = Request("GET", f"{server.url}/x", {"Accept-Encoding": "identity"}, None, counter)  # type: ignore[arg-type]
        response = SessionTransport(server.url).send(request, Limits())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (counter.size, response.body) == (20_000_000, b"")
    assert peak < 5_000_000


def test_a_full_disk_is_no_failure_of_the_network() -> None:
    with (
        RawServer(always(answer(b"x" * 50_000))) as server,
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        request = Request("GET", f"{server.url}/x", {}, None, full)
        with pytest.raises(OSError, match="No space left"):
            SessionTransport(server.url).send(request, QUICK)


@pytest.mark.security("1")
@pytest.mark.fault("H18")
@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_redirects_are_not_followed_and_nothing_is_sent_there(status: str) -> None:
    with RawServer(always(answer(PAGE))) as other:
        reply = answer(b"", status=status, headers=(f"Location: {other.url}/y",))
        with RawServer(always(reply)) as server:
            response = fetch(server.url)
            assert response.status == int(status[:3])
            assert len(server.requests) == 1
        assert other.connections == []


def test_the_body_of_a_redirect_is_read_within_bounds() -> None:
    def handle(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 900000000\r\n\r\n")
        while True:
            connection.send(b"a" * 10_000)

    with RawServer(handle) as server:
        response = fetch(server.url)
    assert response.status == 302
    assert "larger than" in response.problem


@pytest.mark.security("2", "3")
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x",
        "http://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/x",
        "file:///etc/passwd",
        "{root}.evil.example/x",
        "{root}@evil.example/x",
        "//evil.example/x",
    ],
)
def test_only_the_configured_host_is_spoken_to(url: str) -> None:
    with RawServer(always(answer(PAGE))) as server:
        transport = SessionTransport(f"{server.url}/api/v1")
        request = Request("GET", url.format(root=server.url), {"X-Api-Key": "test_key"})
        with pytest.raises(TransportFailure, match="not the configured one") as caught:
            transport.send(request, QUICK)
        assert (caught.value.sent, caught.value.lasting) == (False, True)
        assert server.connections == []


@pytest.fixture
def hostile_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """A proxy and a netrc file that would take over, were they obeyed."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password stolen\ndefault login thief password stolen\n")
    with RawServer(always(answer(b"[]", status="502 Proxied"))) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.devnull)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        yield proxy


@pytest.mark.security("4", "5")
@pytest.mark.fault("T14")
def test_on_the_loopback_interface_no_proxy_and_no_netrc_is_asked(hostile_environment: RawServer) -> None:
    with RawServer(always(answer(PAGE))) as server:
        assert fetch(server.url).body == PAGE
        assert b"authorization" not in server.requests[0].lower()
    assert hostile_environment.connections == []


def test_cookies_are_not_kept() -> None:
    with RawServer(always(answer(PAGE, headers=("Set-Cookie: session=abc; Path=/",)))) as server:
        transport = SessionTransport(server.url)
        for _ in range(2):
            transport.send(Request("GET", f"{server.url}/x", {}), QUICK)
        transport.close()
        assert all(b"cookie" not in request.lower() for request in server.requests)


def test_a_path_goes_out_as_it_was_built() -> None:
    with RawServer(always(answer(PAGE))) as server:
        transport = SessionTransport(server.url)
        url = f"{server.url}/contacts/..%2F..%2Fx?since=2026-01-01T00%3A00%3A00%2B00%3A00"
        transport.send(Request("GET", url, {}), QUICK)
        transport.close()
        assert server.requests[0].startswith(
            b"GET /contacts/..%2F..%2Fx?since=2026-01-01T00%3A00%3A00%2B00%3A00 HTTP/1.1\r\n"
        )


def test_an_empty_post_has_a_length() -> None:
    with RawServer(always(answer(PAGE))) as server:
        fetch(server.url, method="POST")
        assert b"\r\nContent-Length: 0\r\n" in server.requests[0]
