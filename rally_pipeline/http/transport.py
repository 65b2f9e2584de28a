"""What a call is made of, and the one operation that carries it out. No network library is imported here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import BinaryIO, Protocol, TypeVar, overload

_T = TypeVar("_T")
OVERSIZED = "the body is larger than"
"""How the `problem` of an answer beyond the cap begins."""


class Headers(Mapping[str, str]):
    """Headers of an answer: names in any case; of a repeated header the first one counts."""

    __slots__ = ("_values",)

    def __init__(self, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, str] = {}
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            self._values.setdefault(name.lower(), value)

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | _T) -> str | _T: ...
    def get(self, name: str, /, default: object = None) -> object:
        return self._values.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._values)})"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as it goes out; `url` is absolute, `headers` are complete.

    `sink`: where the body of a 200 goes instead of into memory, for files; the caller asks for no content encoding.
    """

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None = None
    sink: BinaryIO | None = None

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url.partition('?')[0]})"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked: what an error about an answer needs to say. `secrets` are the spellings to mask in it."""

    system: str = "http"
    method: str = "GET"
    path: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Response:
    """One HTTP answer, read to its end.

    Attributes:
        status: HTTP status code.
        headers: names in any case.
        body: decoded content (gzip and deflate are undone).
        framed: False when only the end of the connection marked the end of the body, so that a cut body
            cannot be told from a whole one (JSON shows a cut by itself; CSV does not).
        problem: why the body cannot be used (too large, broken encoding); empty when it is whole.
        caller: the call that it answers; set by `HttpClient`.
        received_at: the local monotonic clock when the answer was there; set by `HttpClient`.
    """

    __slots__ = ("body", "caller", "framed", "headers", "problem", "received_at", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        framed: bool = True,
        problem: str = "",
    ) -> None:
        self.status = status
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.body = body
        self.framed = framed
        self.problem = problem
        self.caller = Caller()
        self.received_at = float("inf")

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"

    @property
    def is_oversized(self) -> bool:
        """Whether the body is unusable because it is larger than the cap."""
        return self.problem.startswith(OVERSIZED)

    @property
    def server_time(self) -> datetime | None:
        """The `Date` header as an aware UTC instant in whole seconds; None if absent or garbage."""
        return parse_http_date(self.headers.get("date"))


@lru_cache(maxsize=256)
def parse_http_date(text: str | None) -> datetime | None:
    """An HTTP date (RFC 9110, section 5.6.7) as an aware UTC instant; None if absent or garbage."""
    if not text:
        return None
    try:
        parsed = parsedate_to_datetime(text[:64])
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one call; library time-outs alone do not end a slow drip.

    Attributes:
        connect_seconds: for the TCP handshake, a proxy's answer, and the TLS handshake, each.
        read_seconds: longest silence of the server.
        total_seconds: from the first name look-up to the last byte of the body.
        max_body_bytes: of the body, both on the wire and decoded.
        max_header_bytes: status line and headers, interim (1xx) answers included.
    """

    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    total_seconds: float = 180.0
    max_body_bytes: int = 64 * 1024 * 1024
    max_header_bytes: int = 64 * 1024


class TransportFailure(Exception):
    """No usable answer came.

    Attributes:
        reason: one line without URL or secret.
        sent: whether bytes of the request may have reached the server.
        lasting: True when repeating cannot help (certificate refused, host not allowed).
        advice: what a person can do about it, where that is known.
    """

    def __init__(self, reason: str, *, sent: bool, lasting: bool = False, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.lasting = lasting
        self.advice = advice


class LimitReached(Exception):
    """So few requests are left that none is sent; the text says until when."""


class Transport(Protocol):
    """Carries one request out. Safe to use from several threads."""

    def send(self, request: Request, limits: Limits) -> Response:
        """Send once and read the whole answer within `limits`; never follows a redirect, never retries.

        Raises:
            TransportFailure: there is no usable answer.
        """
        ...
