"""The adapter of `requests` whose connections end at a total deadline and at a header cap.

The time-outs of `requests` and urllib3 bound the wait for each byte, so that a slow drip never ends. Here
every socket operation gets at most what is left of the call's total time, the CONNECT to a proxy included. The bounds
of the call that a thread is making travel in a thread-local, because urllib3 hands nothing else down to its
connections. Everything that overrides urllib3 or http.client stands in this file.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import queue
import re
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import requests.adapters
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from rally_pipeline.http.transport import Limits

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LONGEST_LINE = 65_537
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})\b")
_INTERIM = range(102, 200)  # 100 is skipped by http.client itself; 101 is never asked for and ends the call


class CallBounds:
    """What is left to one call, and how far it got.

    Attributes:
        deadline: the monotonic second at which it ends.
        sending: whether a byte of the request may have left.
        received: header bytes received so far.
        at_proxy: whether a proxy is being spoken to, on the way to a connection with the server.
        proxy_status: with what the proxy refused to connect to the server; 0 where it did not.
    """

    __slots__ = ("at_proxy", "deadline", "limits", "proxy_status", "received", "sending")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.deadline = time.monotonic() + limits.total_seconds
        self.sending = False
        self.received = 0
        self.at_proxy = False
        self.proxy_status = 0

    def remaining(self, at_most: float) -> float:
        """Seconds that the next socket operation may take, positive.

        Raises:
            TimeoutError: the deadline has passed.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the total time of the call is used up")
        return min(left, at_most)

    @property
    def expired(self) -> bool:
        """Whether the total time, rather than a silence, ended the call."""
        return time.monotonic() >= self.deadline

    def count_header(self, size: int) -> None:
        """Add a header line.

        Raises:
            HTTPException: the headers are larger than the cap.
        """
        self.received += size
        if self.received > self.limits.max_header_bytes:
            raise http.client.HTTPException(f"headers larger than {self.limits.max_header_bytes} bytes")


class _Current(threading.local):
    bounds: CallBounds | None = None


_current = _Current()


@contextlib.contextmanager
def bounded(limits: Limits) -> Any:
    """Everything that this thread does on bounded connections inside the block shares one `CallBounds`."""
    _current.bounds = bounds = CallBounds(limits)
    try:
        yield bounds
    finally:
        _current.bounds = None


def _bounds() -> CallBounds:
    if _current.bounds is None:
        raise RuntimeError("a bounded connection is used outside of a call")
    return _current.bounds


class _BoundedSocket(io.RawIOBase):
    """Reads a socket, each time with what is left of the call's time."""

    def __init__(self, sock: socket.socket, bounds: CallBounds) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._bounds = bounds
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if self.ended:
            return 0
        limits = self._bounds.limits
        silence = limits.connect_seconds if self._bounds.at_proxy else limits.read_seconds
        self._sock.settimeout(self._bounds.remaining(silence))
        return self._raw.readinto(buffer)

    def has_pending(self) -> bool:
        """Whether TLS has decrypted bytes that nobody read."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def spoil(self) -> None:
        """Make the connection unfit for another request: it carries bytes that nobody asked for."""
        with contextlib.suppress(OSError):  # the server may have closed it already, which is just as well
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _AnswerReader(io.BufferedReader):
    """Buffers the socket; while the headers are read, their lines are counted."""

    in_headers = True

    def __init__(self, raw: _BoundedSocket, bounds: CallBounds) -> None:
        super().__init__(raw)
        self._source = raw
        self._bounds = bounds

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if self.in_headers:
            self._bounds.count_header(len(line))
        return line

    def end(self) -> None:
        """The answer is complete: bytes beyond it spoil the connection."""
        self._source.ended = True
        if self.peek(1) or self._source.has_pending():
            self._source.spoil()


class _BoundedAnswer(http.client.HTTPResponse):
    """An answer within the bounds; interim (1xx) answers are skipped and count as headers."""

    fp: Any

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        bounds = _bounds()
        self.fp.close()
        self.fp = _AnswerReader(_BoundedSocket(sock, bounds), bounds)

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status not in _INTERIM:
                return version, status, reason
            while self.fp.readline(_LONGEST_LINE) not in (b"\r\n", b"\n", b""):
                pass

    def begin(self) -> None:
        super().begin()
        self.fp.in_headers = False

    def _close_conn(self) -> None:
        if self.headers is not None and not self.will_close:
            self.fp.end()
        super()._close_conn()  # type: ignore[misc]


def _resolve(host: str, port: int, seconds: float) -> list[Any]:
    """Addresses of `host`. The system's resolver knows no time-out: it is waited for in its own thread.

    Raises:
        OSError: the name does not resolve, or not within `seconds`.
    """
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    answers: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)
        except UnicodeError as error:
            answers.put(socket.gaierror(str(error)))

    threading.Thread(target=look_up, name=f"resolve-{host}", daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        raise socket.gaierror(f"no answer from the resolver within {seconds:.0f} s") from None
    if isinstance(found, OSError):
        raise found
    return found


class _BoundedConnection(HTTPConnection):
    """Connects and sends within the bounds of the call."""

    response_class = _BoundedAnswer
    # Another library may switch http.client's debug prints on for the whole process: they would show our tokens.
    debuglevel = 0

    def _new_conn(self) -> socket.socket:
        bounds = _bounds()
        limits = bounds.limits
        bounds.at_proxy = self.proxy_is_tunneling
        try:
            addresses = _resolve(
                self._dns_host.strip("[]"), self.port, bounds.remaining(limits.connect_seconds)
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        problem: OSError = OSError("the name resolves to no address")
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(bounds.remaining(limits.connect_seconds))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect(address)
            except OSError as error:
                sock.close()
                problem = error
            else:
                return sock
        if isinstance(problem, TimeoutError):
            raise ConnectTimeoutError(self, "connect timed out") from problem
        raise NewConnectionError(self, str(problem)) from problem

    def _tunnel(self) -> None:
        """Have the proxy connect to the server; what is sent for that is not the request yet."""
        bounds = _bounds()
        try:
            super()._tunnel()
        except OSError as error:
            if refused := _TUNNEL_REFUSED.match(str(error)):
                bounds.proxy_status = int(refused[1])
            raise
        bounds.at_proxy = False

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        bounds = _bounds()
        # One sendall may take all that is left: a large upload is slower than any silence is allowed to be.
        self.sock.settimeout(bounds.remaining(bounds.limits.total_seconds))
        bounds.sending = not bounds.at_proxy
        super().send(data)


class _BoundedTlsConnection(_BoundedConnection, HTTPSConnection):
    """The same over TLS."""


class _BoundedPool(HTTPConnectionPool):
    """Connection pool for http (loopback only)."""

    ConnectionCls = _BoundedConnection


class _BoundedTlsPool(HTTPSConnectionPool):
    """Connection pool for https."""

    ConnectionCls = _BoundedTlsConnection


class BoundedAdapter(requests.adapters.HTTPAdapter):
    """Sends over bounded connections, directly or through a proxy; repeats nothing. To be used within `bounded`."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS = {"http": _BoundedPool, "https": _BoundedTlsPool}
