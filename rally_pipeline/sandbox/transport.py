"""The sandbox as a transport of the HTTP client, in process: no socket, and on a virtual clock no waiting
either.
"""

from __future__ import annotations

import zlib
from http import HTTPStatus
from urllib.parse import urlsplit

from rally_pipeline.http.transport import Limits, Request, Response, TransportFailure

from .application import Sandbox
from .delivery import cut_point, huge_blocks
from .wire import Answer, Delivery, WireFault

_LOST = {
    Delivery.RESET_BEFORE_HEADERS: "the connection was reset before an answer",
    Delivery.CLOSE_BEFORE_HEADERS: "the connection was closed before an answer",
    Delivery.CUT_HEADERS: "the connection was closed within the headers",
    Delivery.RESET_IN_BODY: "the connection was reset within the body",
    Delivery.CUT_BODY: "the body is shorter than its Content-Length",
    Delivery.CUT_CHUNKED: "the connection was closed within a chunked body",
}
_HEAD_BYTES = 400
"""About what the head of an answer measures; how long a drip of headers takes follows from it."""


class SandboxTransport:
    """Implements `rally_pipeline.http.transport.Transport` for an engine under test.

    Wire faults become what a good transport makes of them: `TransportFailure`, a body cut without notice
    (`framed` False), or a `Response` with a `problem`. Time-outs and drips let sandbox time pass instead of
    real time. While `refusing` is set, every request fails as at a closed port, unsent and unlogged. Any
    host will do in the URL; the path chooses the API.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.refusing = False

    def send(self, request: Request, limits: Limits) -> Response:
        """Hand the request to the sandbox and play what its answer meets on the way. Raises
        `TransportFailure`.
        """
        if self.refusing:
            raise TransportFailure("connection refused", sent=False)
        parts = urlsplit(request.url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        call = self.sandbox.call(request.method, target, request.headers, request.body or b"")
        answer = self.sandbox.handle(call)
        if answer.stream is not None:
            answer.body = b"".join(answer.stream)
        if answer.fault is None:
            response = _read(answer, answer.body, limits)
        else:
            response = self._suffer(answer, answer.fault, limits)
        if request.sink is not None and response.status == HTTPStatus.OK:
            request.sink.write(response.body)
            response.body = b""
        return response

    def _suffer(self, answer: Answer, fault: WireFault, limits: Limits) -> Response:
        kind = fault.delivery
        if kind in _LOST:
            raise TransportFailure(_LOST[kind], sent=True)
        if kind is Delivery.ENDLESS_HEADERS and fault.size > limits.max_header_bytes:
            raise TransportFailure(f"more than {limits.max_header_bytes} bytes of headers", sent=True)
        if kind is Delivery.HUGE_BODY:
            return _read_huge(answer, fault.size, limits)
        if kind in (Delivery.STALL, Delivery.STALL_BODY):
            self._wait(fault.seconds, fault.seconds, limits)
        elif kind is Delivery.DRIP_HEADERS:
            self._wait(fault.seconds, fault.seconds * _HEAD_BYTES, limits)
        elif kind is Delivery.DRIP_BODY:
            self._wait(fault.seconds, fault.seconds * len(answer.body), limits)
        if answer.status == 0:
            raise TransportFailure(_LOST[Delivery.CLOSE_BEFORE_HEADERS], sent=True)
        if kind in (Delivery.CLOSE_DELIMITED, Delivery.CUT_CLOSE_DELIMITED):
            whole = kind is Delivery.CLOSE_DELIMITED
            body = answer.body if whole else answer.body[: cut_point(answer, fault)]
            return _read(answer, body, limits, framed=False)
        return _read(answer, answer.body, limits)

    def _wait(self, silence: float, total: float, limits: Limits) -> None:
        """Let `total` seconds pass, of which the longest without a byte are `silence`."""
        clock = self.sandbox.clock
        if silence > limits.read_seconds:
            clock.sleep(min(limits.read_seconds, limits.total_seconds))
            raise TransportFailure(f"no byte for {limits.read_seconds:g} s", sent=True)
        if total > limits.total_seconds:
            clock.sleep(limits.total_seconds)
            raise TransportFailure(f"no whole answer within {limits.total_seconds:g} s", sent=True)
        clock.sleep(total)


def _read(answer: Answer, body: bytes, limits: Limits, *, framed: bool = True) -> Response:
    problem = ""
    if len(body) > limits.max_body_bytes:
        body, problem = b"", f"the body is larger than {limits.max_body_bytes} bytes"
    elif answer.headers.get("Content-Encoding") == "gzip":
        body, problem = _unpack(body, limits.max_body_bytes)
    return Response(answer.status, answer.headers, body, framed=framed, problem=problem)


def _unpack(body: bytes, cap: int) -> tuple[bytes, str]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        plain = unpacker.decompress(body, cap + 1)
    except zlib.error:
        return b"", "the body is not the gzip that its header promises"
    if len(plain) > cap:
        return b"", f"the body is larger than {cap} bytes when unpacked"
    return (plain, "") if unpacker.eof else (b"", "the gzip body is cut")


def _read_huge(answer: Answer, size: int, limits: Limits) -> Response:
    if size > limits.max_body_bytes:
        problem = f"the body is larger than {limits.max_body_bytes} bytes"
        return Response(answer.status, answer.headers, b"", problem=problem)
    next_block = huge_blocks(size)
    return Response(answer.status, answer.headers, b"".join(iter(next_block, b"")))
