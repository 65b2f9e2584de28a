"""TLS: the certificate is always checked, a failure is final, and the bounds hold below it too."""

from __future__ import annotations

import shutil
import ssl
import time

import pytest

from rally_pipeline.http.session import SessionTransport
from rally_pipeline.http.transport import Limits, Request, TransportFailure
from tests.http.certificates import Certificates
from tests.http.raw_server import Connection, RawServer, always, answer

QUICK = Limits(connect_seconds=0.5, read_seconds=0.4, total_seconds=1.0)

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the openssl command for certificates"
)


def test_a_trusted_server_is_spoken_to(certificates: Certificates) -> None:
    with RawServer(always(answer(b"[1]")), tls=certificates.context("good")) as server:
        transport = SessionTransport(server.url, ca_bundle=certificates.authority)
        for _ in range(3):
            assert transport.send(Request("GET", f"{server.url}/x", {}), QUICK).body == b"[1]"
        transport.close()
        assert len(server.connections) == 1


@pytest.mark.security("6")
@pytest.mark.fault("T3")
@pytest.mark.parametrize("certificate", ["expired", "wrong", "self_signed"])
def test_a_bad_certificate_is_refused_for_good_before_anything_is_sent(
    certificates: Certificates, certificate: str
) -> None:
    with RawServer(always(answer(b"[1]")), tls=certificates.context(certificate)) as server:
        transport = SessionTransport(server.url, ca_bundle=certificates.authority)
        with pytest.raises(TransportFailure, match="certificate is not accepted") as caught:
            transport.send(Request("GET", f"{server.url}/x", {"X-Api-Key": "test_key"}), QUICK)
        transport.close()
        assert (caught.value.sent, caught.value.lasting) == (False, True)
        assert server.requests == []


@pytest.mark.security("6")
@pytest.mark.fault("T3")
def test_an_unknown_authority_is_refused(certificates: Certificates) -> None:
    with (
        RawServer(always(answer(b"[1]")), tls=certificates.context("good")) as server,
        pytest.raises(TransportFailure, match="certificate is not accepted"),
    ):
        SessionTransport(server.url).send(Request("GET", f"{server.url}/x", {}), QUICK)


@pytest.mark.security("6")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_12_and_13_are_spoken(certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = certificates.context("good")
    context.maximum_version = context.minimum_version = version
    with RawServer(always(answer(b"[1]")), tls=context) as server:
        transport = SessionTransport(server.url, ca_bundle=certificates.authority)
        assert transport.send(Request("GET", f"{server.url}/x", {}), QUICK).status == 200
        transport.close()


@pytest.mark.fault("T16")
def test_a_second_answer_in_the_same_record_is_thrown_away(certificates: Certificates) -> None:
    smuggled = answer(b'[{"id": "smuggled"}]' + b" " * 12_000)
    with RawServer(always(answer(b"[1]") + smuggled), tls=certificates.context("good")) as server:
        transport = SessionTransport(server.url, ca_bundle=certificates.authority)
        for number in (1, 2, 3):
            assert transport.send(Request("GET", f"{server.url}/x", {}), QUICK).body == b"[1]"
            assert len(server.connections) == number
        transport.close()


@pytest.mark.fault("T10")
def test_a_drip_over_tls_ends_at_the_total_time(certificates: Certificates) -> None:
    def handle(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(20):
            connection.send(b"a")
            time.sleep(0.1)

    with (
        RawServer(handle, tls=certificates.context("good")) as server,
        pytest.raises(TransportFailure, match="no complete answer within 1 s"),
    ):
        SessionTransport(server.url, ca_bundle=certificates.authority).send(
            Request("GET", f"{server.url}/x", {}), QUICK
        )


def test_a_handshake_that_never_comes_ends_at_the_connect_timeout(certificates: Certificates) -> None:
    with RawServer(lambda connection: time.sleep(1.5)) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(TransportFailure) as caught:
            SessionTransport(url).send(Request("GET", f"{url}/x", {}), QUICK)
        assert caught.value.reason == "no connection within 0.5 s"
        assert caught.value.sent is False
        assert caught.value.lasting is False
