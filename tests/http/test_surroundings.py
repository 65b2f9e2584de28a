"""Company networks: a proxy is the only way out, and an authority of the house signs the certificates."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rally_pipeline.http.session import SessionTransport
from rally_pipeline.http.transport import Limits, Request, Response, TransportFailure
from rally_pipeline.settings import NETWORK_VARIABLES
from tests.http.certificates import Certificates
from tests.http.raw_server import Connection, Handler, RawServer, always, answer

QUICK = Limits(connect_seconds=1.0, read_seconds=1.0, total_seconds=2.0, max_header_bytes=8_000)
HOST = "https://crm.example.test"
PASSWORD = "pass@word"
LOGIN = "proxyuser:pass%40word"

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the openssl command for certificates"
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NETWORK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def relay_to(port: int, *, greeting: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> Handler:
    """A proxy that connects every CONNECT to a server here, as if only the proxy could reach it."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def handle(connection: Connection) -> None:
        connection.read_request()
        with socket.create_connection(("127.0.0.1", port)) as inner:
            connection.send(greeting)
            back = threading.Thread(target=pump, args=(inner, connection.sock), daemon=True)
            back.start()
            pump(connection.sock, inner)
            back.join(5)

    return handle


@pytest.fixture
def house(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[RawServer, RawServer]]:
    """A server behind a proxy, signed by the authority of the house, and the proxy; the environment says so."""
    with (
        RawServer(always(answer(b"[1]")), tls=certificates.context("good")) as server,
        RawServer(relay_to(server.port)) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{LOGIN}@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificates.authority)
        yield server, proxy


def fetch(url: str = HOST, *, times: int = 1) -> Response:
    transport = SessionTransport(url)
    try:
        for _ in range(times):
            response = transport.send(Request("GET", f"{url}/x", {"X-Api-Key": "test_key"}), QUICK)
        return response
    finally:
        transport.close()


def fail(url: str = HOST) -> TransportFailure:
    with pytest.raises(TransportFailure) as caught:
        fetch(url)
    for shown in (caught.value.reason, caught.value.advice, str(caught.value)):
        assert PASSWORD not in shown
        assert "pass%40word" not in shown
        assert "\n" not in shown
    return caught.value


@pytest.mark.security("4", "5")
@pytest.mark.fault("T14")
def test_the_proxy_connects_to_the_host_and_sees_neither_key_nor_content(
    house: tuple[RawServer, RawServer],
) -> None:
    server, proxy = house
    assert fetch(times=3).body == b"[1]"
    assert len(server.requests) == 3
    (connect,) = proxy.requests  # the tunnel is used again
    assert connect.startswith(b"CONNECT crm.example.test:443 HTTP/1.")
    login = base64.b64encode(f"proxyuser:{PASSWORD}".encode())
    assert b"\r\nProxy-Authorization: Basic " + login + b"\r\n" in connect
    assert b"test_key" not in connect
    assert all(b"proxy-authorization" not in request.lower() for request in server.requests)


@pytest.mark.fault("T14")
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("form", ["http://127.0.0.1:{port}", "127.0.0.1:{port}"])
def test_each_name_of_the_variable_is_understood(
    name: str, form: str, house: tuple[RawServer, RawServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = house
    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.setenv(name, form.format(port=proxy.port))
    assert fetch().body == b"[1]"
    assert len(proxy.requests) == len(server.requests) == 1


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("value", ["crm.example.test", ".example.test", "other.test,example.test", "*"])
def test_a_host_that_needs_no_proxy_is_asked_directly(
    name: str, value: str, house: tuple[RawServer, RawServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_host: str, *_: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv(name, value)
    assert fail().reason == "the host name does not resolve"
    assert house[1].connections == []


def test_the_loopback_interface_is_never_reached_through_a_proxy(house: tuple[RawServer, RawServer]) -> None:
    server, proxy = house
    assert fetch(server.url).body == b"[1]"
    assert proxy.connections == []


@pytest.mark.security("6")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
        ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        ("CURL_CA_BUNDLE", "SSL_CERT_FILE"),
    ],
)
def test_the_authorities_of_the_house_are_trusted_the_first_variable_counts(
    first: str,
    second: str,
    certificates: Certificates,
    house: tuple[RawServer, RawServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, _ = house
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert "certificate is not accepted" in fail(server.url).reason
    monkeypatch.setenv(second, certificates.authority)
    assert fetch(server.url).body == b"[1]"
    monkeypatch.setenv(first, certificates.authority)
    monkeypatch.setenv(second, os.devnull)
    assert fetch(server.url).body == b"[1]"


@pytest.mark.security("6")
def test_an_unknown_authority_says_where_its_certificates_belong(
    house: tuple[RawServer, RawServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, _ = house
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    failure = fail(server.url)
    assert failure.advice.endswith("name its certificates in REQUESTS_CA_BUNDLE")
    import certifi

    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    for url in (server.url, HOST):
        failure = fail(url)
        assert failure.advice == "its authority is not in the file that SSL_CERT_FILE names: add it there"
        assert (failure.sent, failure.lasting) == (False, True)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_bundle_that_cannot_be_used_is_named(
    variable: str, tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    with RawServer(always(answer(b"[1]")), tls=certificates.context("good")) as server:
        for path, problem in (
            (missing, "does not exist"),
            (text, "holds no certificates in PEM form"),
            (Path(os.devnull), "holds no certificates in PEM form"),
        ):
            monkeypatch.setenv(variable, str(path))
            failure = fail(server.url)
            assert failure.reason == f"{variable} names {path}, which {problem}"
            assert failure.advice == f"correct {variable}, or unset it to trust the public authorities"
            assert failure.lasting is True
        assert server.connections == []


@pytest.mark.fault("T14")
@pytest.mark.parametrize(
    ("status", "login", "problem", "advice", "lasting"),
    [
        (
            "407 Proxy Authentication Required",
            "",
            "wants a password (407)",
            "set HTTPS_PROXY=http://USER:",
            True,
        ),
        (
            "407 Authenticate",
            LOGIN,
            "refuses the user and password in HTTPS_PROXY (407)",
            "percent-encoded",
            True,
        ),
        (
            "403 Forbidden pass@word",
            LOGIN,
            "refuses to connect to the host (403)",
            "have the host allowed",
            True,
        ),
        ("429 Too Many", "", "refuses to connect to the host (429)", "have the host allowed", False),
        ("502 Bad Gateway", "", "could not connect to the host (502)", "check HTTPS_PROXY", False),
        ("504 Gateway Timeout", "", "could not connect to the host (504)", "check HTTPS_PROXY", False),
    ],
)
def test_a_proxy_that_refuses_is_named_and_what_to_do(
    status: str,
    login: str,
    problem: str,
    advice: str,
    lasting: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with RawServer(always(answer(b"<html>", status=status))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{login}{'@' if login else ''}127.0.0.1:{proxy.port}")
        failure = fail()
    assert failure.reason == f"the proxy 127.0.0.1:{proxy.port} {problem}"
    assert advice in failure.advice
    assert (failure.sent, failure.lasting) == (False, lasting)


@pytest.mark.fault("T14")
def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://{LOGIN}@127.0.0.1:{port}")
        failure = fail()
    assert failure.reason == f"the proxy 127.0.0.1:{port} cannot be used: connection refused"
    assert failure.advice == "check HTTPS_PROXY; a host that needs no proxy is named in NO_PROXY"
    assert (failure.sent, failure.lasting) == (False, False)


def test_a_proxy_whose_name_does_not_resolve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_host: str, *_: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HTTPS_PROXY", f"http://{LOGIN}@proxy.example.test:3128")
    assert fail().reason == "the proxy proxy.example.test:3128 cannot be reached: its name does not resolve"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("socks5://127.0.0.1:1080", "names a proxy of the kind socks5://, which is not supported"),
        (f"https://{LOGIN}@127.0.0.1:3128", "names a proxy of the kind https://, which is not supported"),
        ("http://", "is not the URL of a proxy"),
        (f"http://{LOGIN}@127.0.0.1:port", "is not the URL of a proxy"),
        (f"http://{LOGIN}@127.0.0.1:99999", "is not the URL of a proxy"),
    ],
)
def test_a_variable_that_names_no_proxy_of_use_is_named(
    value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    failure = fail()
    assert failure.reason == f"HTTPS_PROXY {problem}"
    assert failure.advice.startswith("name one as http://proxy.example:3128")
    assert (failure.sent, failure.lasting) == (False, True)


def silent(connection: Connection) -> None:
    connection.read_request()
    time.sleep(2.5)


def closing(connection: Connection) -> None:
    connection.read_request()


def dripping(connection: Connection) -> None:
    connection.read_request()
    connection.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(100):
        connection.send(b"a")
        time.sleep(0.1)


def endless(connection: Connection) -> None:
    connection.read_request()
    connection.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.send(b"X-More: " + b"a" * 500 + b"\r\n")


@pytest.mark.security("9")
@pytest.mark.fault("T10", "T11")
@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (silent, "gave no answer within 1 s"),
        (closing, "cannot be used: the connection was closed before an answer"),
        (dripping, "gave no answer within 2 s"),
        (endless, "cannot be used: HTTPException headers larger than 8000 bytes"),
    ],
)
def test_a_proxy_is_held_to_the_bounds_of_the_call(
    handler: Handler, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(handler) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        failure = fail()
    assert failure.reason == f"the proxy 127.0.0.1:{proxy.port} {problem}"
    assert failure.sent is False


@pytest.mark.security("9")
@pytest.mark.fault("T10")
def test_a_drip_through_a_proxy_ends_at_the_total_time(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            connection.send(b"a")
            time.sleep(0.1)

    monkeypatch.setenv("SSL_CERT_FILE", certificates.authority)
    with (
        RawServer(drip, tls=certificates.context("good")) as server,
        RawServer(relay_to(server.port)) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        failure = fail()
    assert failure.reason == "no complete answer within 2 s"
    assert failure.sent is True


def test_a_certificate_of_another_name_is_refused_behind_a_proxy(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificates.authority)
    with (
        RawServer(always(answer(b"[1]")), tls=certificates.context("wrong")) as server,
        RawServer(relay_to(server.port)) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        failure = fail()
        assert server.requests == []
    assert failure.reason.startswith("the certificate is not accepted: Hostname mismatch")
    assert failure.sent is False
