"""HTTP/1.1 as bytes: reading requests from a buffer, writing the head of an answer. Strict where smuggling
begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

from .wire import Answer

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024
_PHRASES = {int(status): status.phrase for status in HTTPStatus}


class BadRequestError(Exception):
    """The bytes are no request that this server takes; `status` is what to answer before closing."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class RequestHead:
    """A request line with its headers (names in lower case; a repeated header is joined by commas)."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    keep_alive: bool = True
    chunked: bool = False
    length: int = 0


def parse_head(data: bytes) -> RequestHead:
    """Parse the bytes before the empty line. Raises `BadRequestError`."""
    lines = data.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0") or not parts[1].startswith("/"):
        raise BadRequestError(400, "not an HTTP/1.1 request line with an absolute path")
    head = RequestHead(parts[0], parts[1])
    headers = head.headers
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequestError(400, "not a header line")
        key = name.lower()
        headers[key] = f"{headers[key]},{value.strip()}" if key in headers else value.strip()
    connection = headers.get("connection", "").lower()
    head.keep_alive = connection != "close" if parts[2] == "HTTP/1.1" else connection == "keep-alive"
    _measure_body(head)
    return head


def _measure_body(head: RequestHead) -> None:
    coding, length = head.headers.get("transfer-encoding"), head.headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise BadRequestError(400, "a body is either chunked or has a Content-Length")
        head.chunked = True
    elif length is not None:
        if not (length.isascii() and length.isdigit()):
            raise BadRequestError(400, "Content-Length is not a number")
        head.length = int(length)
        if head.length > MAX_BODY_BYTES:
            raise BadRequestError(413, f"a body of more than {MAX_BODY_BYTES} bytes")


class ChunkedBody:
    """Collects a chunked request body."""

    def __init__(self) -> None:
        self.body = bytearray()

    def feed(self, buffer: bytearray) -> bool:
        """Take whole chunks off the front of `buffer`; True once the last one was met. Raises
        `BadRequestError`.
        """
        while True:
            line_end = buffer.find(b"\r\n")
            if line_end < 0:
                return False
            try:
                size = int(bytes(buffer[:line_end]).split(b";")[0], 16)
            except ValueError:
                raise BadRequestError(400, "not a chunk size") from None
            if size == 0:
                trailer_end = buffer.find(b"\r\n\r\n", line_end)
                if trailer_end < 0:
                    return False
                del buffer[: trailer_end + 4]
                return True
            if len(self.body) + size > MAX_BODY_BYTES:
                raise BadRequestError(413, f"a body of more than {MAX_BODY_BYTES} bytes")
            data_start = line_end + 2
            if len(buffer) < data_start + size + 2:
                return False
            self.body += buffer[data_start : data_start + size]
            del buffer[: data_start + size + 2]


def answer_head(answer: Answer, *, length: int | None, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Status line and headers, to the empty line; `length` None leaves out Content-Length."""
    lines = [f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, 'Unknown')}"]
    lines.extend(f"{name}: {value}" for name, value in answer.headers.items())
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines.extend(f"{name}: {value}" for name, value in extra)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def has_body(method: str, status: int) -> bool:
    """Whether an answer to this method with this status carries a body at all."""
    return method != "HEAD" and status >= 200 and status not in (204, 304)
