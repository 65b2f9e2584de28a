"""The transport over real sockets: urllib3's connection pool for one origin, which obeys nothing but its arguments.

Beneath `requests`, which reads the environment, follows redirects, keeps cookies and costs as much again per call.
"""

from __future__ import annotations

import http.client
import ssl
import zlib
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import urlsplit

import certifi
import urllib3
from urllib3.exceptions import NameResolutionError

from rally_pipeline.http.redaction import escape
from rally_pipeline.http.transport import OVERSIZED, Limits, Request, Response, TransportFailure
from rally_pipeline.http.urls import origin
from rally_pipeline.http.wire import BoundedPool, BoundedTlsPool, CallBounds, bounded

ACCEPTED_ENCODINGS = "gzip, deflate"
_CHUNK = 256 * 1024
_POOL_SIZE = 16
_PORT, _TLS_PORT = 80, 443
_MEMBERS = 16


class _SinkError(Exception):
    """The file that takes the body failed (disk full): no failure of the network, so it is not repeated."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class PoolTransport:
    """Sends over reused connections, to one origin only; safe to use from threads.

    No proxy, cookie, netrc or redirect: what urllib3 does only when it is told to.

    Args:
        base_url: only requests to its scheme, host and port are sent.
        ca_bundle: path of a file with the certificate authorities to trust instead of the public ones.
    """

    def __init__(self, base_url: str, *, ca_bundle: str | None = None) -> None:
        origin(base_url)
        parts = urlsplit(base_url)
        self._root = f"{parts.scheme}://{parts.netloc}"
        # The port is always told: without one, http.client looks for it behind the last colon of an IPv6 address.
        is_tls = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (_TLS_PORT if is_tls else _PORT)
        self._pool: BoundedPool | BoundedTlsPool
        if is_tls:
            authorities = ca_bundle or certifi.where()
            self._pool = BoundedTlsPool(
                host, port, maxsize=_POOL_SIZE, cert_reqs=ssl.CERT_REQUIRED, ca_certs=authorities
            )
        else:
            self._pool = BoundedPool(host, port, maxsize=_POOL_SIZE)

    def __repr__(self) -> str:
        return f"PoolTransport({self._root})"

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def send(self, request: Request, limits: Limits) -> Response:
        """See `Transport.send`; any other scheme, host or port than the configured one is refused."""
        target = request.url.removeprefix(self._root)
        if target == request.url or target[:1] not in ("", "/", "?"):
            raise TransportFailure("the host is not the configured one", sent=False, lasting=True)
        with bounded(limits) as bounds:
            try:
                answer = self._pool.urlopen(
                    request.method,
                    target if target.startswith("/") else f"/{target}",
                    body=request.body,
                    headers=_headers_of(request),
                    retries=False,
                    redirect=False,
                    timeout=urllib3.Timeout(connect=limits.connect_seconds, read=limits.read_seconds),
                    preload_content=False,
                    decode_content=False,
                )
                try:
                    return _read(answer, limits, request.sink)
                finally:
                    # Read to the end, the connection is back in the pool by now; otherwise it is unusable.
                    answer.close()
            except _SinkError as error:
                raise error.cause from None
            except (OSError, ValueError, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
                raise _failure(error, bounds) from None


def _headers_of(request: Request) -> dict[str, str]:
    headers = {"Accept-Encoding": ACCEPTED_ENCODINGS, **request.headers}
    if request.body is not None or request.method in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = str(len(request.body or b""))
    return headers


def _read(raw: urllib3.BaseHTTPResponse, limits: Limits, sink: BinaryIO | None) -> Response:
    """Read the body up to the cap and undo its encoding; with a sink, pass a 200 on as it comes in."""
    headers = list(raw.headers.iteritems())
    announced = raw.length_remaining
    framed = announced is not None or raw.chunked
    cap = limits.max_body_bytes
    pieces: list[bytes] = []
    streamed = sink if raw.status == http.client.OK else None
    size = announced if announced is not None and announced > cap else 0
    # In one piece where its length is known: nothing is copied then.
    at_once = _CHUNK if streamed is not None or announced is None else max(announced, 1)
    while size <= cap and (piece := raw.read(at_once, decode_content=False)):
        if streamed is None:
            pieces.append(piece)
        else:
            _pass_on(piece, streamed)
        size += len(piece)
    problem = ""
    if size > cap:
        problem = f"{OVERSIZED} {cap} bytes"
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if raw.headers.get("transfer-encoding", "chunked").lower() != "chunked":
        problem = problem or "unknown transfer encoding"
    encoding = raw.headers.get("content-encoding", "").strip().lower()
    if streamed is not None and encoding not in ("", "identity"):
        problem = problem or f"the encoding {escape(encoding[:40])} was not asked for"
    elif body and not problem and encoding not in ("", "identity"):
        body, problem = _decode(body, encoding, cap)
    return Response(raw.status, headers, body, framed=framed, problem=problem)


def _pass_on(piece: bytes, sink: BinaryIO) -> None:
    try:
        sink.write(piece)
    except OSError as error:
        raise _SinkError(error) from error


def _decode(body: bytes, encoding: str, cap: int) -> tuple[bytes, str]:
    """The decoded body, or why it cannot be decoded; never holds more than `cap` decoded bytes."""
    if encoding in ("gzip", "x-gzip"):
        windows = [31]
    elif encoding == "deflate":
        windows = [
            zlib.MAX_WBITS,
            -zlib.MAX_WBITS,
        ]  # with and, as some servers send it, without zlib's header
    else:
        return b"", f"the encoding {escape(encoding[:40])} was not asked for"
    problem = ""
    for window in windows:
        try:
            return _inflate(body, window, cap)
        except zlib.error as error:
            problem = f"the {encoding} encoding is broken: {escape(str(error))}"
    return b"", problem


def _inflate(data: bytes, window: int, cap: int) -> tuple[bytes, str]:
    pieces: list[bytes] = []
    size = 0
    for _ in range(_MEMBERS):
        stream = zlib.decompressobj(window)
        pieces.append(stream.decompress(data, cap + 1 - size))
        size += len(pieces[-1])
        if size > cap:
            return b"", f"{OVERSIZED} {cap} bytes once decoded"
        if not stream.eof:
            return b"", "the compressed body is cut"
        data = stream.unused_data
        if not data:
            return b"".join(pieces), ""
    return b"", f"the compressed body has more than {_MEMBERS} members"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it was made from, outermost first."""
    waiting, seen = [error], set()
    while waiting:
        error = waiting.pop(0)
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        inner = [getattr(error, "reason", None), *error.args, error.__cause__, error.__context__]
        waiting += [cause for cause in inner if isinstance(cause, BaseException)]


def _failure(error: BaseException, bounds: CallBounds) -> TransportFailure:
    """What happened in one line, without URL and headers (which the libraries' own texts may quote)."""
    limits = bounds.limits
    causes = list(_causes(error))
    if bounds.expired:
        return TransportFailure(f"no complete answer within {limits.total_seconds:g} s", sent=bounds.sending)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = f"the certificate is not accepted: {escape(cause.verify_message)}"
            return TransportFailure(reason, sent=False, lasting=True)
        if isinstance(cause, NameResolutionError):
            return TransportFailure("the host name does not resolve", sent=False)
        if isinstance(cause, urllib3.exceptions.IncompleteRead | http.client.IncompleteRead):
            return TransportFailure("the answer was cut", sent=True)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        if bounds.sending:
            return TransportFailure(f"the server was silent for {limits.read_seconds:g} s", sent=True)
        return TransportFailure(f"no connection within {limits.connect_seconds:g} s", sent=False)
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return TransportFailure(cause.strerror.lower(), sent=bounds.sending)
    if any(isinstance(cause, http.client.RemoteDisconnected) for cause in causes):
        return TransportFailure("the connection was closed before an answer", sent=bounds.sending)
    innermost = causes[-1]
    text = escape(str(innermost))[:120] if isinstance(innermost, http.client.HTTPException) else ""
    return TransportFailure(f"{type(innermost).__name__} {text}".strip(), sent=bounds.sending)
