"""The sandbox over real HTTP/1.1: loopback only, one thread, keep-alive, each plain answer in one write."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from .application import Sandbox
from .delivery import Outlet, deliver
from .http1 import (
    MAX_HEAD_BYTES,
    BadRequestError,
    ChunkedBody,
    RequestHead,
    answer_head,
    has_body,
    parse_head,
)
from .wire import Answer

HOST = "127.0.0.1"
logger = logging.getLogger(__name__)


class SandboxServer:
    """Serves a sandbox on 127.0.0.1, from its own thread, while the `with` block lasts.

    `port` 0 takes a free one. Requests are refused from other than loopback addresses, for another host
    name (a web page that rebinds its name to 127.0.0.1) and from other origins.
    """

    def __init__(self, sandbox: Sandbox, port: int = 0) -> None:
        self.sandbox = sandbox
        self._wanted_port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._listener: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self.port = 0

    def __enter__(self) -> SandboxServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The root, without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The environment variables that point the pipeline at this server."""
        return self.sandbox.environment(self.url)

    def start(self) -> None:
        """Begin to serve. Raises `OSError` if the port is taken."""
        if self._loop is not None:
            raise RuntimeError("the sandbox server is running already")
        listener = _bind(self._wanted_port)
        self.port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox-server", daemon=True)
        self._thread.start()
        self._run(self._listen(listener))

    def stop(self) -> None:
        """Close the port and all connections; a second call does nothing."""
        if self._loop is None or self._thread is None:
            return
        self.refuse_connections()
        self._run(_cancel_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def refuse_connections(self) -> None:
        """Close the port: new connections are refused, open ones are reset."""
        self._run(self._hang_up())

    def accept_connections(self) -> None:
        """Open the same port again."""
        self._run(self._listen(_bind(self.port)))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: _Connection(self.sandbox, self._connections), sock=listener, backlog=512
        )

    async def _hang_up(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in tuple(self._connections):
            connection.reset()
        await asyncio.sleep(0)


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"port {port} on {HOST} cannot be used: {error.strerror}") from None
    return listener


async def _cancel_tasks() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Connection(asyncio.Protocol):
    """One client connection: requests are answered in order, one at a time."""

    def __init__(self, sandbox: Sandbox, connections: set[_Connection]) -> None:
        self._sandbox = sandbox
        self._connections = connections
        self._buffer = bytearray()
        self._head: RequestHead | None = None
        self._chunks: ChunkedBody | None = None
        self._delivery: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._outlet = Outlet(transport)
        self._connections.add(self)
        transport.set_write_buffer_limits(high=0)
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not ipaddress.ip_address(transport.get_extra_info("peername")[0]).is_loopback:
            self._outlet.reset()

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)
        if self._delivery is not None:
            self._delivery.cancel()

    def pause_writing(self) -> None:
        self._outlet.pause()

    def resume_writing(self) -> None:
        self._outlet.resume()

    def reset(self) -> None:
        """Hang up on the client."""
        self._outlet.reset()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._delivery is None:
            self._serve_buffer()

    def _serve_buffer(self) -> None:
        try:
            while self._delivery is None and not self._transport.is_closing() and self._read_request():
                pass
        except BadRequestError as error:
            answer = Answer.json({"error": str(error)}, error.status)
            head = answer_head(answer, length=len(answer.body), extra=(("Connection", "close"),))
            self._transport.write(head + answer.body)
            self._transport.close()

    def _read_request(self) -> bool:
        if self._head is None and not self._read_head():
            return False
        head = self._head
        assert head is not None
        if self._chunks is not None:
            if not self._chunks.feed(self._buffer):
                return False
            body = bytes(self._chunks.body)
        elif len(self._buffer) < head.length:
            return False
        else:
            body = bytes(self._buffer[: head.length])
            del self._buffer[: head.length]
        self._head = self._chunks = None
        self._answer(head, body)
        return True

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD_BYTES:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequestError(431, f"headers of more than {MAX_HEAD_BYTES} bytes")
            return False
        self._head = parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        self._chunks = ChunkedBody() if self._head.chunked else None
        if self._head.headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _answer(self, head: RequestHead, body: bytes) -> None:
        answer = _refuse_foreign(head) or self._ask(head, body)
        if answer.fault is None and answer.stream is None:
            self._write_plainly(head, answer)
        else:
            self._delivery = asyncio.get_running_loop().create_task(self._deliver(head, answer))

    def _ask(self, head: RequestHead, body: bytes) -> Answer:
        try:
            call = self._sandbox.call(head.method, head.target, head.headers, body)
            return self._sandbox.handle(call)
        except (
            Exception
        ) as error:  # a defect or a failing script must not take the connection down in silence
            logger.exception("the sandbox failed at %s %s", head.method, head.target)
            return Answer.json({"error": f"sandbox failed: {type(error).__name__}: {error}"}, 500)

    def _write_plainly(self, head: RequestHead, answer: Answer) -> None:
        with_body = has_body(head.method, answer.status)
        length = len(answer.body) if with_body or head.method == "HEAD" else None
        extra = () if head.keep_alive else (("Connection", "close"),)
        data = answer_head(answer, length=length, extra=extra)
        self._transport.write(data + answer.body if with_body else data)
        if not head.keep_alive:
            self._transport.close()

    async def _deliver(self, head: RequestHead, answer: Answer) -> None:
        goes_on = await deliver(self._outlet, answer)
        self._delivery = None
        if not goes_on or self._transport.is_closing():
            return
        if head.keep_alive:
            self._serve_buffer()
        else:
            self._transport.close()


def _refuse_foreign(head: RequestHead) -> Answer | None:
    origin = head.headers.get("origin")
    names = [urlsplit(f"//{head.headers.get('host', HOST)}").hostname]
    if origin is not None:
        names.append(urlsplit(origin).hostname)
    if all(name in (HOST, "localhost", "::1") for name in names):
        return None
    return Answer.json({"error": "the sandbox answers requests to and from this machine only"}, 403)
