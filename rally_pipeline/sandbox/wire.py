"""One request and one answer as plain values, between the HTTP server (or the in-process transport) and the
APIs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

JSON_TYPE = "application/json; charset=utf-8"
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class MalformedBodyError(Exception):
    """The body of a call is not JSON (or has NaN, a number too long, or nesting too deep); the text says
    what is wrong.
    """


@dataclass(slots=True)
class Call:
    """A request as it arrived.

    `path` is still percent-encoded and has no query; `query` is decoded (a bare `+` is a space, as servers
    read it); `headers` have lower-case names; `at` is the sandbox's wall clock when the request arrived.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    at: datetime

    @classmethod
    def of(
        cls,
        method: str,
        target: str,
        at: datetime,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Call:
        """Build a call from a request target such as `/rally/api/v1/contacts?limit=10`."""
        path, _, query_text = target.partition("?")
        query: dict[str, list[str]] = {}
        if query_text:
            for name, value in parse_qsl(query_text, keep_blank_values=True):
                query.setdefault(name, []).append(value)
        lowered = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(method, path, query, lowered, body, at)

    def first(self, name: str) -> str | None:
        """The first value of a query parameter, or None where it is absent."""
        values = self.query.get(name)
        return values[0] if values else None

    def segments(self, prefix: str = "") -> list[str]:
        """The decoded path segments below `prefix`, without empty ones."""
        return [unquote(part) for part in self.path.removeprefix(prefix).split("/") if part]

    def json(self) -> Any:
        """The decoded body; numbers with a fraction are `Decimal`. Raises `MalformedBodyError`."""
        try:
            return json.loads(self.body, parse_float=Decimal, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise MalformedBodyError(str(error)) from None

    def query_pairs(self) -> list[tuple[str, str]]:
        """The query as pairs, in the order in which the names first appeared."""
        return [(name, value) for name, values in self.query.items() for value in values]


class Delivery(StrEnum):
    """How the bytes of an answer leave the server, where it is not plainly."""

    RESET_BEFORE_HEADERS = "reset_before_headers"
    CLOSE_BEFORE_HEADERS = "close_before_headers"
    CUT_HEADERS = "cut_headers"
    RESET_IN_BODY = "reset_in_body"
    CUT_BODY = "cut_body"
    CUT_CHUNKED = "cut_chunked"
    CUT_CLOSE_DELIMITED = "cut_close_delimited"
    CHUNKED = "chunked"
    CLOSE_DELIMITED = "close_delimited"
    STALL = "stall"
    STALL_BODY = "stall_body"
    DRIP_HEADERS = "drip_headers"
    DRIP_BODY = "drip_body"
    CLOSE_AFTER = "close_after"
    INTERIM = "interim"
    SECOND_ANSWER = "second_answer"
    UNSOLICITED = "unsolicited"
    DUPLICATE_HEADERS = "duplicate_headers"
    ENDLESS_HEADERS = "endless_headers"
    HUGE_BODY = "huge_body"


@dataclass(frozen=True, slots=True)
class WireFault:
    """A fault in the delivery of an answer.

    `at` is the number of body bytes sent before a cut, reset or stall (None: half of them); `seconds` is
    the length of a stall, or the pause between two bytes of a drip (real seconds over sockets, sandbox
    seconds in process); `size` is the number of bytes of a huge body or of endless headers.
    """

    delivery: Delivery
    at: int | None = None
    seconds: float = 0.0
    size: int = 0


@dataclass(slots=True)
class Answer:
    """A response before it is written.

    `stream`, where given, replaces `body` (control routes only: large truths). Status 0 means that no
    answer was decided on, because the fault came before the request was applied. Headers named in `without`
    are not added by the sandbox.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: WireFault | None = None
    stream: Iterator[bytes] | None = None
    without: frozenset[str] = frozenset()

    @classmethod
    def json(cls, value: object, status: int = 200) -> Answer:
        """An answer with `value` as JSON."""
        return cls(status, {"Content-Type": JSON_TYPE}, _ENCODER.encode(value))

    @classmethod
    def raw_json(cls, body: bytes, status: int = 200) -> Answer:
        """An answer whose JSON text exists already."""
        return cls(status, {"Content-Type": JSON_TYPE}, body)

    @classmethod
    def text(cls, text: str, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> Answer:
        return cls(status, {"Content-Type": content_type}, text.encode())

    @classmethod
    def empty(cls, status: int = 204) -> Answer:
        return cls(status)

    def decoded(self) -> Any:
        """The JSON value of the body, for tests."""
        return json.loads(self.body)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")
