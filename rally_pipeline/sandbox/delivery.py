"""Writing an answer with a wire fault, or as a stream: slowly, in part, in pieces, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from .http1 import answer_head
from .wire import Answer, Delivery, WireFault

BLOCK = 64 * 1024


class Outlet:
    """The sending half of a connection with flow control: `send` returns when the bytes have left for the
    kernel.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._drained = asyncio.Event()
        self._drained.set()

    def pause(self) -> None:
        self._drained.clear()

    def resume(self) -> None:
        self._drained.set()

    async def send(self, data: bytes) -> None:
        self._transport.write(data)
        await self._drained.wait()

    async def drip(self, data: bytes, seconds: float) -> None:
        """One byte at a time, with a pause after each."""
        for position in range(len(data)):
            await self.send(data[position : position + 1])
            await asyncio.sleep(seconds)

    def close(self) -> None:
        """Close after what was written."""
        self._transport.close()

    def reset(self) -> None:
        """Close so that the other side sees a reset, not an end."""
        connection: socket.socket | None = self._transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


async def deliver(outlet: Outlet, answer: Answer) -> bool:
    """Write the answer as its fault (or its stream) demands; True if the connection may go on."""
    if answer.stream is not None:
        return await _stream(outlet, answer)
    fault = answer.fault
    if fault is None:
        await outlet.send(answer_head(answer, length=len(answer.body)) + answer.body)
        return True
    return await _DELIVERIES[fault.delivery](outlet, answer, fault)


def cut_point(answer: Answer, fault: WireFault) -> int:
    """How many bytes of the body are sent before the fault."""
    return len(answer.body) // 2 if fault.at is None else min(fault.at, len(answer.body))


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def huge_blocks(size: int) -> Callable[[], bytes]:
    """The bytes of a JSON array with one string, `size` bytes in all, block after block; empty at the end."""
    left = size

    def next_block() -> bytes:
        nonlocal left
        if left <= 0:
            return b""
        block = b"a" * min(left, BLOCK)
        if left == size:
            block = b'["' + block[2:]
        left -= len(block)
        return block if left else block[:-2] + b'"]'

    return next_block


async def _stream(outlet: Outlet, answer: Answer) -> bool:
    await outlet.send(answer_head(answer, length=None, extra=(("Transfer-Encoding", "chunked"),)))
    gathered = bytearray()
    for piece in answer.stream or ():
        gathered += piece
        if len(gathered) >= BLOCK:
            await outlet.send(chunk(bytes(gathered)))
            gathered.clear()
    if gathered:
        await outlet.send(chunk(bytes(gathered)))
    await outlet.send(b"0\r\n\r\n")
    return True


async def _reset_before_headers(outlet: Outlet, _answer: Answer, _fault: WireFault) -> bool:
    outlet.reset()
    return False


async def _close_before_headers(outlet: Outlet, _answer: Answer, _fault: WireFault) -> bool:
    outlet.close()
    return False


async def _cut_headers(outlet: Outlet, answer: Answer, _fault: WireFault) -> bool:
    head = answer_head(answer, length=len(answer.body))
    await outlet.send(head[: len(head) // 2])
    outlet.close()
    return False


async def _reset_in_body(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    await outlet.send(answer_head(answer, length=len(answer.body)) + answer.body[: cut_point(answer, fault)])
    outlet.reset()
    return False


async def _cut_body(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    await outlet.send(answer_head(answer, length=len(answer.body)) + answer.body[: cut_point(answer, fault)])
    outlet.close()
    return False


async def _cut_chunked(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    await outlet.send(answer_head(answer, length=None, extra=(("Transfer-Encoding", "chunked"),)))
    sent = answer.body[: cut_point(answer, fault)]
    if sent:
        await outlet.send(chunk(sent))
    outlet.close()
    return False


async def _cut_close_delimited(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    head = answer_head(answer, length=None, extra=(("Connection", "close"),))
    await outlet.send(head + answer.body[: cut_point(answer, fault)])
    outlet.close()
    return False


async def _chunked(outlet: Outlet, answer: Answer, _fault: WireFault) -> bool:
    await outlet.send(answer_head(answer, length=None, extra=(("Transfer-Encoding", "chunked"),)))
    step = max(1, len(answer.body) // 3)
    for start in range(0, len(answer.body), step):
        await outlet.send(chunk(answer.body[start : start + step]))
    await outlet.send(b"0\r\n\r\n")
    return True


async def _close_delimited(outlet: Outlet, answer: Answer, _fault: WireFault) -> bool:
    await outlet.send(answer_head(answer, length=None, extra=(("Connection", "close"),)) + answer.body)
    outlet.close()
    return False


async def _stall(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    await asyncio.sleep(fault.seconds)
    if answer.status == 0:
        outlet.close()
        return False
    await outlet.send(answer_head(answer, length=len(answer.body)) + answer.body)
    return True


async def _stall_body(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    at = cut_point(answer, fault)
    await outlet.send(answer_head(answer, length=len(answer.body)) + answer.body[:at])
    await asyncio.sleep(fault.seconds)
    await outlet.send(answer.body[at:])
    return True


async def _drip_headers(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    await outlet.drip(answer_head(answer, length=len(answer.body)), fault.seconds)
    await outlet.send(answer.body)
    return True


async def _drip_body(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    await outlet.send(answer_head(answer, length=len(answer.body)))
    await outlet.drip(answer.body, fault.seconds)
    return True


async def _close_after(outlet: Outlet, answer: Answer, _fault: WireFault) -> bool:
    await outlet.send(answer_head(answer, length=len(answer.body)) + answer.body)
    outlet.close()
    return False


async def _interim(outlet: Outlet, answer: Answer, _fault: WireFault) -> bool:
    early = (
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    )
    await outlet.send(early + answer_head(answer, length=len(answer.body)) + answer.body)
    return True


async def _second_answer(outlet: Outlet, answer: Answer, _fault: WireFault) -> bool:
    first = answer_head(answer, length=len(answer.body)) + answer.body
    smuggled = Answer(200, {"Content-Type": "application/json"})
    await outlet.send(first + answer_head(smuggled, length=13) + b'["smuggled!"]')
    return True


async def _unsolicited(outlet: Outlet, answer: Answer, _fault: WireFault) -> bool:
    await outlet.send(answer_head(answer, length=len(answer.body)) + answer.body + b"\x00\x01 not HTTP\r\n")
    return True


async def _duplicate_headers(outlet: Outlet, answer: Answer, _fault: WireFault) -> bool:
    again = (
        ("Content-Type", "text/html"),
        ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("X-RateLimit-Remaining", "0"),
    )
    await outlet.send(answer_head(answer, length=len(answer.body), extra=again) + answer.body)
    return True


async def _endless_headers(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    head = answer_head(answer, length=len(answer.body))[:-2]
    await outlet.send(head)
    line = b"X-Filler: " + b"a" * 1014 + b"\r\n"
    for _ in range(fault.size // len(line) + 1):
        await outlet.send(line)
    await outlet.send(b"\r\n" + answer.body)
    return True


async def _huge_body(outlet: Outlet, answer: Answer, fault: WireFault) -> bool:
    await outlet.send(answer_head(answer, length=fault.size))
    next_block = huge_blocks(fault.size)
    while block := next_block():
        await outlet.send(block)
    return True


_DELIVERIES: dict[Delivery, Callable[[Outlet, Answer, WireFault], Awaitable[bool]]] = {
    Delivery.RESET_BEFORE_HEADERS: _reset_before_headers,
    Delivery.CLOSE_BEFORE_HEADERS: _close_before_headers,
    Delivery.CUT_HEADERS: _cut_headers,
    Delivery.RESET_IN_BODY: _reset_in_body,
    Delivery.CUT_BODY: _cut_body,
    Delivery.CUT_CHUNKED: _cut_chunked,
    Delivery.CUT_CLOSE_DELIMITED: _cut_close_delimited,
    Delivery.CHUNKED: _chunked,
    Delivery.CLOSE_DELIMITED: _close_delimited,
    Delivery.STALL: _stall,
    Delivery.STALL_BODY: _stall_body,
    Delivery.DRIP_HEADERS: _drip_headers,
    Delivery.DRIP_BODY: _drip_body,
    Delivery.CLOSE_AFTER: _close_after,
    Delivery.INTERIM: _interim,
    Delivery.SECOND_ANSWER: _second_answer,
    Delivery.UNSOLICITED: _unsolicited,
    Delivery.DUPLICATE_HEADERS: _duplicate_headers,
    Delivery.ENDLESS_HEADERS: _endless_headers,
    Delivery.HUGE_BODY: _huge_body,
}
