"""The transport over real sockets: a `requests` session that obeys its arguments, and the proxy that a person names."""

from __future__ import annotations

import http.client
import ssl
import threading
import zlib
from collections.abc import Iterator, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
import requests.hooks
import requests.structures
import urllib3
from urllib3.exceptions import NameResolutionError

from rally_pipeline.http.redaction import escape
from rally_pipeline.http.surroundings import Authorities, Proxy, find_authorities, find_proxy
from rally_pipeline.http.transport import OVERSIZED, Limits, Request, Response, TransportFailure
from rally_pipeline.http.urls import origin
from rally_pipeline.http.wire import BoundedAdapter, CallBounds, bounded

ACCEPTED_ENCODINGS = "gzip, deflate"
_CHUNK = 256 * 1024
_POOL_SIZE = 16
_PASSING = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
"""OpenSSL's codes for a certificate that leads to no authority that is trusted."""
_MEMBERS = 16


class _Session(requests.Session):
    """A session without netrc, cookies and redirects; proxy and authorities are told to it with each request."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = BoundedAdapter(pool_connections=1, pool_maxsize=_POOL_SIZE, max_retries=0)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def get_redirect_target(self, resp: object) -> None:
        """Nothing is a redirect; else `requests` would read the body without bound to prepare a next request."""


class _SinkError(Exception):
    """The file that takes the body failed (disk full): no failure of the network, so it is not repeated."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class SessionTransport:
    """Sends over one `requests` session with connection reuse, to one origin only; safe to use from threads.

    Args:
        base_url: only requests to its scheme, host and port are sent.
        ca_bundle: path of a file with the certificate authorities to trust instead of those of the environment.
    """

    def __init__(self, base_url: str, *, ca_bundle: str | None = None) -> None:
        origin(base_url)
        parts = urlsplit(base_url)
        self._root = f"{parts.scheme}://{parts.netloc}"
        self._below_root = (f"{self._root}/", f"{self._root}?")
        self._authorities = Authorities(ca_bundle) if ca_bundle else find_authorities()
        self._proxy: Proxy | None = None
        self._ready = False
        self._lock = threading.Lock()
        self._session = _Session()

    def __repr__(self) -> str:
        return f"SessionTransport({self._root})"

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def send(self, request: Request, limits: Limits) -> Response:
        """See `Transport.send`; any other scheme, host or port than the configured one is refused."""
        if not request.url.startswith(self._below_root) and request.url != self._root:
            raise TransportFailure("the host is not the configured one", sent=False, lasting=True)
        self._prepare()
        proxy = self._proxy
        with bounded(limits) as bounds:
            try:
                answer = self._session.send(
                    _prepared(request),
                    stream=True,
                    timeout=(limits.connect_seconds, limits.read_seconds),
                    verify=self._authorities.path,
                    cert=None,
                    proxies={"https": proxy.url} if proxy is not None else {},
                    allow_redirects=False,
                )
                try:
                    return _read(answer.raw, limits, request.sink)
                finally:
                    # Read to the end, the connection is back in the pool by now; otherwise it is unusable.
                    answer.raw.close()
            except _SinkError as error:
                raise error.cause from None
            except (OSError, ValueError, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
                raise _failure(error, bounds, proxy, self._authorities) from None

    def _prepare(self) -> None:
        """Find the way out before the first request.

        Raises:
            TransportFailure: the environment names a proxy or a bundle that cannot be used.
        """
        with self._lock:
            if self._ready:
                return
            self._proxy = find_proxy(self._root)
            if self._root.startswith("https:"):
                self._authorities.check()
            self._ready = True


def _prepared(request: Request) -> requests.PreparedRequest:
    """Built by hand: nothing of the environment, no cookie and no re-quoting of the URL comes in."""
    prepared = requests.PreparedRequest()
    prepared.method, prepared.url, prepared.body = request.method, request.url, request.body
    headers = {"Accept-Encoding": ACCEPTED_ENCODINGS, **request.headers}
    if request.body is not None or request.method in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = str(len(request.body or b""))
    prepared.headers = requests.structures.CaseInsensitiveDict(headers)
    prepared.hooks = requests.hooks.default_hooks()
    return prepared


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


def _failure(
    error: BaseException, bounds: CallBounds, proxy: Proxy | None, authorities: Authorities
) -> TransportFailure:
    """What happened in one line, without URL and headers (which the libraries' own texts may quote)."""
    limits = bounds.limits
    causes = list(_causes(error))
    if proxy is not None and bounds.at_proxy:
        return _proxy_failure(causes, bounds, proxy)
    if bounds.expired:
        return TransportFailure(f"no complete answer within {limits.total_seconds:g} s", sent=bounds.sending)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate_failure(cause, authorities)
        if isinstance(cause, NameResolutionError):
            return TransportFailure("the host name does not resolve", sent=False)
        if isinstance(cause, urllib3.exceptions.IncompleteRead | http.client.IncompleteRead):
            return TransportFailure("the answer was cut", sent=True)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        if bounds.sending:
            return TransportFailure(f"the server was silent for {limits.read_seconds:g} s", sent=True)
        return TransportFailure(f"no connection within {limits.connect_seconds:g} s", sent=False)
    return TransportFailure(_reason(causes), sent=bounds.sending)


def _reason(causes: Sequence[BaseException]) -> str:
    """What the innermost cause says that is safe to show."""
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    if any(isinstance(cause, http.client.RemoteDisconnected) for cause in causes):
        return "the connection was closed before an answer"
    innermost = causes[-1]
    text = escape(str(innermost))[:120] if isinstance(innermost, http.client.HTTPException) else ""
    return f"{type(innermost).__name__} {text}".strip()


def _certificate_failure(cause: ssl.SSLCertVerificationError, authorities: Authorities) -> TransportFailure:
    reason = f"the certificate is not accepted: {escape(cause.verify_message)}"
    advice = ""
    if cause.verify_code in _UNKNOWN_AUTHORITY:
        advice = (
            f"its authority is not in the file that {authorities.variable} names: add it there"
            if authorities.variable
            else "where the network has an authority of its own, name its certificates in REQUESTS_CA_BUNDLE"
        )
    return TransportFailure(reason, sent=False, lasting=True, advice=advice)


def _proxy_failure(causes: Sequence[BaseException], bounds: CallBounds, proxy: Proxy) -> TransportFailure:
    """Nothing has reached the server: the proxy did not connect to it. Never shows what the proxy said."""
    status = bounds.proxy_status
    advice = f"check {proxy.variable}; a host that needs no proxy is named in NO_PROXY"
    lasting = False
    if status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        lasting = True
        problem = (
            f"refuses the user and password in {proxy.variable}" if proxy.has_login else "wants a password"
        )
        problem = f"{problem} ({status})"
        advice = f"set {proxy.variable}=http://USER:PASSWORD@{proxy.name}, special characters percent-encoded"
    elif http.HTTPStatus.BAD_REQUEST <= status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
        lasting = status not in _PASSING
        problem = f"refuses to connect to the host ({status})"
        advice = "have the host allowed there, or name it in NO_PROXY"
    elif status:
        problem = f"could not connect to the host ({status})"
    elif any(isinstance(cause, NameResolutionError) for cause in causes):
        problem = "cannot be reached: its name does not resolve"
    elif any(isinstance(cause, TimeoutError) for cause in causes):
        limits = bounds.limits
        seconds = limits.total_seconds if bounds.expired else limits.connect_seconds
        problem = f"gave no answer within {seconds:g} s"
    else:
        problem = f"cannot be used: {_reason(causes)}"
    return TransportFailure(f"the proxy {proxy.name} {problem}", sent=False, lasting=lasting, advice=advice)
