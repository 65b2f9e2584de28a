"""How often a writer found that its stream had been taken over: the monitor of "one writer per stream"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rally_pipeline.warehouse.values import instant_text, parse_instant

if TYPE_CHECKING:
    from rally_pipeline.warehouse.transaction import Transaction

STREAM = "warehouse.fences"


@dataclass(frozen=True, slots=True)
class FenceViolations:
    """Transactions that the fence refused; each means that two processes worked on a stream at once."""

    count: int
    last: datetime | None


def count_violation(tx: Transaction, stream: str, at: datetime) -> None:
    """Note one refused transaction of `stream`. Needs no lease: its writer has just lost one."""
    state = tx.state(STREAM) or {}
    count = int(state.get(stream, {}).get("count", 0)) + 1
    tx.set_state(STREAM, {**state, stream: {"count": count, "last": instant_text(at)}})


def read_violations(tx: Transaction, streams: Iterable[str]) -> FenceViolations:
    """The sum over `streams`."""
    state = tx.state(STREAM) or {}
    found = [state[stream] for stream in streams if stream in state]
    last = max((parse_instant(entry["last"]) for entry in found), default=None)
    return FenceViolations(sum(int(entry["count"]) for entry in found), last)
