"""What was asked of the sandbox, in order: the evidence for tests of request counts, pacing and query
encoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from typing import NamedTuple


class LogEntry(NamedTuple):
    """One request. `status` is the status that the server decided on, even where the answer was lost on the
    way; `fault` names the fault that was played, or is empty.
    """

    no: int
    api: str
    method: str
    path: str
    query: dict[str, list[str]]
    status: int
    at: datetime
    fault: str = ""

    def as_dict(self) -> dict[str, object]:
        """The entry for JSON."""
        return {**self._asdict(), "at": self.at.isoformat()}


class RequestLog:
    """The requests to all APIs, numbered from 1; control requests are not in it. Keeps the last `limit`
    (None: all).
    """

    def __init__(self, limit: int | None = None) -> None:
        self._entries: deque[LogEntry] = deque(maxlen=limit)
        self.total = 0

    def append(self, entry: LogEntry) -> None:
        self._entries.append(entry)

    def next_number(self) -> int:
        """The number of the request that arrives now."""
        self.total += 1
        return self.total

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LogEntry]:
        return iter(tuple(self._entries))

    def __getitem__(self, index: int) -> LogEntry:
        return self._entries[index]

    def clear(self) -> None:
        """Forget the entries; numbering goes on."""
        self._entries.clear()

    def matching(
        self,
        *,
        api: str | None = None,
        method: str | None = None,
        path: str | None = None,
        status: int | None = None,
        after: int = 0,
    ) -> list[LogEntry]:
        """Entries that fit all that is given; `path` is a glob that may leave out the front (`/contacts`)."""
        pattern = None if path is None else path_pattern(path)
        return [
            entry
            for entry in self._entries
            if entry.no > after
            and (api is None or entry.api == api)
            and (method is None or entry.method == method)
            and (status is None or entry.status == status)
            and (pattern is None or fnmatchcase(entry.path, pattern))
        ]


def path_pattern(path: str) -> str:
    """The glob for a whole path: `/contacts` means any path that ends so, `/contacts/*` all below it."""
    return path if path.startswith("*") else f"*{path}"
