"""Raw HTTP over a socket: sees what a library would hide."""

from __future__ import annotations

import socket
from typing import NamedTuple

from rally_pipeline.sandbox import SandboxServer
from tests.sandbox.talk import BASE


class Heard(NamedTuple):
    """All bytes until the end of the connection (or of patience), and how it ended: closed, reset, or silent."""

    data: bytes
    end: str

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1])

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]


class Line:
    """One connection to the server."""

    def __init__(self, server: SandboxServer, key: str) -> None:
        self._key = key
        self.port = server.port
        self._ahead = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=5)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, path: str, method: str = "GET", headers: str = "", body: bytes = b"") -> None:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {BASE}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {self._key}\r\n{headers}{length}\r\n"
        self.socket.sendall(head.encode() + body)

    def hear(self, patience: float = 0.3) -> Heard:
        """Everything until the connection ends or nothing comes for `patience` seconds."""
        self.socket.settimeout(patience)
        data = bytearray()
        while True:
            try:
                part = self.socket.recv(1 << 20)
            except TimeoutError:
                return Heard(bytes(data), "silent")
            except ConnectionResetError:
                return Heard(bytes(data), "reset")
            if not part:
                return Heard(bytes(data), "closed")
            data += part

    def answer(self) -> Heard:
        """One whole answer with a Content-Length; the connection stays open, what follows is kept for later."""
        self.socket.settimeout(5)
        while b"\r\n\r\n" not in self._ahead:
            self._receive()
        head, _, _ = bytes(self._ahead).partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        size = len(head) + 4 + (int(lengths[0].split(b":")[1]) if lengths else 0)
        while len(self._ahead) < size:
            self._receive()
        data = bytes(self._ahead[:size])
        del self._ahead[:size]
        return Heard(data, "open")

    def _receive(self) -> None:
        part = self.socket.recv(1 << 20)
        if not part:
            raise ConnectionError("the server closed the connection")
        self._ahead += part
