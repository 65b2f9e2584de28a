"""A loopback server that answers in Rally's envelope and costs next to nothing: bytes made once, sent as they are.

`python -m benchmarks.source.server ROWS` prints its port and serves until its standard input ends. Beside the API's
own paths below `/api/v1` it has `/-/reset`, `/-/change?count=N&entries=M` and `/-/requests` for the benchmark itself.
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import accumulate
from urllib.parse import parse_qs, urlsplit

from benchmarks.source.contacts import FIRST_UPDATE, contact, guid, serialise

_PLENTY = b"X-RateLimit-Limit: 1000000\r\nX-RateLimit-Remaining: 999000\r\nX-RateLimit-Reset: %d\r\n"
_LARGEST_PAGE = 10_000
_EMPTY_LISTS = ("/companies", "/deals", "/activities")


class Listing:
    """Records in list order, as one text from which any page can be cut."""

    def __init__(self, records: list[bytes]) -> None:
        self._text = memoryview(b",".join(records))
        self._ends = [0, *accumulate(len(record) + 1 for record in records)]
        self.size = len(records)

    def page(self, offset: int, limit: int) -> list[bytes | memoryview]:
        """The parts of a JSON array."""
        last = min(offset + min(limit, _LARGEST_PAGE), self.size)
        if offset >= last:
            return [b"[]"]
        return [b"[", self._text[self._ends[offset] : self._ends[last] - 1], b"]"]


class Source:
    """All that the server knows: the records, what has changed, and how often it was asked."""

    def __init__(self, rows: int) -> None:
        self._first = [serialise(contact(number)) for number in range(rows)]
        self._newest = FIRST_UPDATE + timedelta(minutes=rows - 1)
        self._lock = threading.Lock()
        self.requests: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        """The records as they were at first, no change, no request counted."""
        self._records = list(self._first)
        self._listing = Listing(self._records)
        self._updated = Listing([])
        self._asked_since: datetime | None = None
        self._moments: dict[int, datetime] = {}
        self.sent = 0
        self._feed: list[tuple[str, bytes]] = []
        self._places: dict[bytes, int] | None = None
        self.requests = {}

    def change(self, count: int, entries: int) -> None:
        """Change `count` records, spread evenly, with `entries` (at least as many) entries in the feed, just now."""
        step = max(1, len(self._records) // count)
        numbers = range(0, len(self._records), step)[:count]
        # A millisecond apart, so that no page of the feed is full of one instant.
        began = datetime.now(UTC).replace(microsecond=0) - timedelta(milliseconds=entries)
        moments = [began + timedelta(milliseconds=place) for place in range(entries)]
        for place, moment in enumerate(moments):
            number = numbers[place % count]
            self._moments[number] = moment
            changed_at = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            entry = {
                "id": place + 1,
                "entityType": "contact",
                "entityId": guid(number),
                "action": "updated",
                "changedAt": changed_at,
                "changedBy": "maya@example.org",
            }
            self._feed.append((changed_at, json.dumps(entry).encode()))
        for number, moment in self._moments.items():
            self._records[number] = serialise(contact(number, moment, revision=1))
        self._listing = Listing(self._records)

    def answer(self, path: str, query: dict[str, list[str]]) -> list[bytes | memoryview] | None:
        """The parts of the body; None for a path that is not known."""
        with self._lock:
            self.requests[path] = self.requests.get(path, 0) + 1
        limit, offset = int(query.get("limit", ["100"])[0]), int(query.get("offset", ["0"])[0])
        if path == "/contacts":
            since = datetime.fromisoformat(query.get("updatedSince", ["2000-01-01T00:00:00Z"])[0])
            return self._since(since).page(offset, limit)
        if path == "/sync/changes":
            return self._changes(_comparable(query["since"][0]), limit)
        if path.startswith("/contacts/"):
            return self._single(path.removeprefix("/contacts/").encode())
        return [b"[]"] if path in _EMPTY_LISTS else None

    def _since(self, since: datetime) -> Listing:
        """In list order. Who has seen the newest of the first records asks for changed ones."""
        if since < self._newest:
            return self._listing
        if since != self._asked_since:
            self._asked_since = since
            found = sorted(number for number, moment in self._moments.items() if moment >= since)
            self._updated = Listing([self._records[number] for number in found])
        return self._updated

    def _changes(self, since: str, limit: int) -> list[bytes | memoryview]:
        first = bisect_right(self._feed, since, key=lambda entry: entry[0])
        return [b"[", b",".join(entry for _, entry in self._feed[first : first + limit]), b"]"]

    def _single(self, wanted: bytes) -> list[bytes | memoryview] | None:
        if self._places is None:
            self._places = {record[7:43]: place for place, record in enumerate(self._records)}
        place = self._places.get(wanted)
        return None if place is None else [self._records[place]]


def _comparable(since: str) -> str:
    """As feed entries write their times, so that texts compare as moments."""
    moment = datetime.fromisoformat(since)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Connection(socketserver.BaseRequestHandler):
    """One kept-alive connection."""

    server: _Server

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = self.request.makefile("rb", buffering=65_536)
        while line := reader.readline():
            while reader.readline() not in (b"\r\n", b""):
                pass
            self._answer(line.split(b" ")[1].decode())

    def _answer(self, target: str) -> None:
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        body: list[bytes | memoryview] | None
        if parts.path.startswith("/-/"):
            body = [self.server.control(parts.path, query)]
        else:
            body = self.server.source.answer(parts.path.removeprefix("/api/v1"), query)
        now = datetime.now(UTC)
        status = b"200 OK" if body is not None else b"404 Not Found"
        body = body if body is not None else [b'{"error":"not found"}']
        head = b"".join(
            (
                b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n" % status,
                f"Date: {format_datetime(now, usegmt=True)}\r\n".encode(),
                _PLENTY % (int(now.timestamp()) // 60 * 60 + 60),
                b"Content-Length: %d\r\n\r\n" % sum(len(part) for part in body),
            )
        )
        if not parts.path.startswith("/-/"):
            self.server.source.sent += len(head) + sum(len(part) for part in body)
        _send_all(self.request, [head, *body])


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, source: Source) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.source = source

    def control(self, path: str, query: dict[str, list[str]]) -> bytes:
        """What the benchmark itself asks for."""
        if path == "/-/reset":
            self.source.reset()
        elif path == "/-/change":
            self.source.change(int(query["count"][0]), int(query["entries"][0]))
        return json.dumps({"requests": self.source.requests, "sent": self.source.sent}).encode()


def _send_all(sock: socket.socket, parts: list[bytes | memoryview]) -> None:
    """One system call where the socket takes it all, without joining the parts."""
    waiting = [memoryview(part) for part in parts if len(part)]
    while waiting:
        sent = sock.sendmsg(waiting)
        while waiting and sent >= len(waiting[0]):
            sent -= len(waiting.pop(0))
        if sent:
            waiting[0] = waiting[0][sent:]


def main(rows: int) -> None:
    """Serve until the one who started this process is gone."""
    with _Server(Source(rows)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
