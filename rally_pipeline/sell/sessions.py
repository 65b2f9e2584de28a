"""The synchronization session that is open on the server, remembered so that a crash does not leave it behind.

No call closes a session and only 100 may be open, so a run continues the session that the last one left. A page
that was on its way when a run died is gone for that session: it comes again in a later one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rally_pipeline.sell.device import SESSION_STREAM
from rally_pipeline.warehouse import Transaction
from rally_pipeline.warehouse.values import instant_text, parse_instant


@dataclass(slots=True)
class Session:
    """One session and what a run knows of it."""

    id: str
    started_at: datetime
    """Server time of the answer that opened it."""
    fresh: bool
    """Whether this run opened it."""
    short: bool = False
    """Whether a page of it may have been lost, so that another session has to follow."""
    news: bool = False
    """Whether it brought anything that was not stored."""


def read_session(tx: Transaction) -> Session | None:
    """The session that an earlier run left open."""
    state = tx.state(SESSION_STREAM)
    if not state or not state.get("id"):
        return None
    orderly = bool(state.get("orderly"))
    return Session(str(state["id"]), parse_instant(state["started_at"]), fresh=False, short=not orderly)


def save_session(tx: Transaction, session: Session | None, *, orderly: bool = False) -> None:
    """Remember the session, or that there is none. `orderly`: every page handed out is committed."""
    if session is None:
        tx.set_state(SESSION_STREAM, {})
        return
    started_at = instant_text(session.started_at)
    tx.set_state(SESSION_STREAM, {"id": session.id, "started_at": started_at, "orderly": orderly})
