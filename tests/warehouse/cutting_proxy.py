"""A relay between client and PostgreSQL that cuts the line at COMMIT, before or after the server hears of it."""

from __future__ import annotations

import selectors
import socket
import threading
from pathlib import Path
from typing import Literal

SOCKET_NAME = ".s.PGSQL.5432"


class CuttingProxy:
    """Listens on a local socket in `folder`; `cut` arms one cut at the next COMMIT of any connection."""

    def __init__(self, folder: Path, server: Path) -> None:
        self.folder = folder
        self._target = str(server / SOCKET_NAME)
        self._armed: Literal["before", "after"] | None = None
        self.cuts = 0
        self.refusing = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET_NAME))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, when: Literal["before", "after"]) -> None:
        """`before`: the server never sees the COMMIT; `after`: it commits, and the answer is lost."""
        self._armed = when

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target)
        with client, server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            dropping = False
            while True:
                for key, _ in ready.select():
                    source, target = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    chunk = source.recv(65536)
                    if not chunk:
                        return
                    if source is server and dropping:
                        return
                    if source is client and self._armed and chunk == b"Q\0\0\0\x0bCOMMIT\0":
                        before, self._armed = self._armed == "before", None
                        self.cuts += 1
                        if before:
                            return
                        dropping = True
                    target.sendall(chunk)
