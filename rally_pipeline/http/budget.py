"""How fast requests may go: by the server's own headers, or by rates that are known beforehand."""

from __future__ import annotations

from typing import Protocol

from rally_pipeline.http.header_budget import HeaderBudget
from rally_pipeline.http.token_budget import TokenBudget
from rally_pipeline.http.transport import LimitReached, Response

__all__ = ["Budget", "HeaderBudget", "LimitReached", "TokenBudget"]


class Budget(Protocol):
    """Decides when the next request may be sent. Safe to use from several threads."""

    def acquire(self, give_up_at: float = ...) -> float:
        """Wait until one request may be sent, and count it as under way. Returns the seconds waited.

        Raises:
            LimitReached: none may be sent before the clock's monotonic second `give_up_at`.
        """
        ...

    def observe(self, response: Response | None, sent_at: float, received_at: float) -> None:
        """What came of a request that was acquired: its answer, or None when none came.

        Args:
            sent_at, received_at: the clock's monotonic seconds just before and just after the request.
        """
        ...
