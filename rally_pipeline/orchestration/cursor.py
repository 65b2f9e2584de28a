"""A sensor's cursor: versioned, tolerant of every other content, and only a hint.

It remembers what was asked for last, so that a request whose run failed is repeated with growing pauses instead of
at every tick. (A `run_key` would be remembered for ever and block the repetition.)
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

VERSION = 1
LONGEST_PAUSE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class RequestCursor:
    """`request`: what the last requested run was for; `attempts`: how often in a row; `retry_at`: not before (ISO
    8601); `latest`: newest change seen, for people."""

    version: int = VERSION
    request: str = ""
    attempts: int = 0
    retry_at: str = ""
    latest: str = ""

    @staticmethod
    def read(text: str | None) -> RequestCursor:
        """The stored cursor; an empty one where the text is missing, damaged or of another version."""
        try:
            stored = json.loads(text or "{}")
            cursor = RequestCursor(
                version=int(stored.get("version", 0)),
                request=str(stored.get("request", "")),
                attempts=int(stored.get("attempts", 0)),
                retry_at=str(stored.get("retry_at", "")),
                latest=str(stored.get("latest", "")),
            )
            if cursor.retry_at:
                datetime.fromisoformat(cursor.retry_at)
        except (ValueError, TypeError, AttributeError, RecursionError):
            return RequestCursor()
        return cursor if cursor.version == VERSION else RequestCursor()

    def text(self) -> str:
        """For Dagster's storage."""
        return json.dumps(asdict(self))

    def pause_before(self, request: str, now: datetime) -> datetime | None:
        """Until when `request` must wait because it was made already and its run has not achieved it; None: go."""
        if request != self.request or not self.retry_at:
            return None
        until = datetime.fromisoformat(self.retry_at)
        # A longer pause than any is left from before this machine's clock was set back.
        return until if timedelta(0) < until - now <= LONGEST_PAUSE else None

    def asked(self, request: str, now: datetime, *, interval_seconds: float) -> RequestCursor:
        """The cursor after asking for `request` at `now`; the pause doubles with each attempt."""
        attempts = self.attempts + 1 if request == self.request else 1
        pause = min(timedelta(seconds=interval_seconds * 2 ** min(attempts - 1, 10)), LONGEST_PAUSE)
        return replace(self, request=request, attempts=attempts, retry_at=(now + pause).isoformat())

    def seen(self, latest: datetime | None) -> RequestCursor:
        """The cursor with the newest change noted."""
        return self if latest is None else replace(self, latest=latest.isoformat())
