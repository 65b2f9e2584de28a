"""How long more requests are waited for in all, over all calls and runs of a process."""

from __future__ import annotations

from functools import lru_cache

LONGEST_SHORTAGE = 1800.0
"""Seconds; a shortage that was not heard of for as long is over."""


class Shortage:
    """Since when a server gives too few requests, in monotonic seconds."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._heard_at = 0.0

    def note(self, now: float) -> float:
        """There is one now; returns the second at which it began."""
        since = self.since(now)
        self._since, self._heard_at = now if since is None else since, now
        return self._since

    def end(self) -> None:
        """There are enough again."""
        self._since = None

    def since(self, now: float) -> float | None:
        """When it began; None where there is none now."""
        return self._since if now - self._heard_at <= LONGEST_SHORTAGE else None


@lru_cache(maxsize=64)
def shared_shortages(base_url: str, key: str) -> tuple[Shortage, Shortage]:
    """Few requests left, and refusals (429), of one account in this process.

    Each run has a client of its own; it does not wait again for what the run before it has waited for in vain.
    """
    del base_url, key
    return Shortage(), Shortage()
