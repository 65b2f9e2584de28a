"""What the warehouse remembers of a trigger before, while and after it is sent (table `signalsmith_intents`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import select

from rally_pipeline.clock import Clock
from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.signalsmith import tables
from rally_pipeline.warehouse.values import instant_text, json_text

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

MOST_NOTED = 200
MOST_UNANSWERED = 3
"""Lost triggers of other requests that one decision looks after."""


def stream_of(sync_id: str) -> str:
    """The lease under which is decided about a sync."""
    return f"signalsmith.{sync_id}"


class State(StrEnum):
    """How far a request has come."""

    SENDING = "sending"
    """A trigger may have been sent: look before sending another."""
    BOUND = "bound"
    """Its run is known."""
    REFUSED = "refused"
    """SignalSmith gave a definite no."""
    UNKNOWN = "unknown"
    """It cannot be told which run is ours: a person must look."""


@dataclass(frozen=True, slots=True)
class Intent:
    """One request (a tick, or a Dagster run) for one run of a sync."""

    sync_id: str
    request: str
    state: State
    attempts: int
    noted_at: datetime
    noted_runs: tuple[str, ...]
    run_id: str | None = None
    origin: str | None = None
    dagster_run_id: str | None = None

    def sending(self) -> Intent:
        return replace(self, state=State.SENDING, attempts=self.attempts + 1)

    def bound(self, run_id: str, origin: str) -> Intent:
        return replace(self, state=State.BOUND, run_id=run_id, origin=origin)


class Intents:
    """Reads and writes intents; every write is one transaction under the sync's lease."""

    def __init__(self, warehouse: Warehouse, clock: Clock) -> None:
        self._warehouse = warehouse
        self._clock = clock

    def read(self, sync_id: str, request: str) -> Intent | None:
        """The intent of this request."""
        table = tables.intents
        query = select(
            table.c.state,
            table.c.attempts,
            table.c.noted_at,
            table.c.noted_runs,
            table.c.run_id,
            table.c.origin,
            table.c.dagster_run_id,
        ).where(table.c.sync_id == sync_id, table.c.request == request)
        with self._warehouse.reading() as transaction:
            rows = transaction.rows(query)
        if not rows:
            return None
        state, attempts, noted_at, noted_runs, run_id, origin, dagster_run_id = rows[0]
        return Intent(
            sync_id,
            request,
            State(state),
            attempts,
            noted_at,
            tuple(noted_runs),
            run_id,
            origin,
            dagster_run_id,
        )

    def write(self, intent: Intent, lease: Lease) -> Intent:
        """Store the intent; it is durable when this returns.

        Raises:
            FenceLost: somebody else decides for this sync now; nothing was written.
            InvariantViolation: RE1, RE5 or RE6; nothing was written.
        """
        if lease.stream != stream_of(intent.sync_id):
            raise InvariantViolation(
                "RE5", f"an intent of sync {intent.sync_id} under lease '{lease.stream}'"
            )
        if (intent.state is State.BOUND) != (intent.run_id is not None):
            raise InvariantViolation(
                "RE1", f"the intent is {intent.state} with run {intent.run_id or 'none'}"
            )
        with self._warehouse.transaction(f"signalsmith.intent.{intent.state}", lease) as transaction:
            bound = self._bound_run(transaction, intent)
            if bound is not None and bound != intent.run_id:
                raise InvariantViolation(
                    "RE6",
                    f"request {intent.request} has run {bound} and would get {intent.run_id or 'another'}",
                )
            self._upsert(transaction, intent)
        return intent

    def _bound_run(self, transaction: Transaction, intent: Intent) -> str | None:
        table = tables.intents
        query = select(table.c.run_id).where(
            table.c.sync_id == intent.sync_id, table.c.request == intent.request
        )
        found: str | None = transaction.scalar(query)
        return found

    def claimed(self, sync_id: str, *, besides: str, origins: Sequence[str] = ()) -> set[str]:
        """Runs that belong to other requests; with `origins`, only those that they came to in these ways."""
        table = tables.intents
        query = select(table.c.run_id).where(
            table.c.sync_id == sync_id, table.c.run_id.is_not(None), table.c.request != besides
        )
        if origins:
            query = query.where(table.c.origin.in_(origins))
        with self._warehouse.reading() as transaction:
            return {str(run_id) for (run_id,) in transaction.rows(query)}

    def unanswered(self, sync_id: str, *, besides: str, since: datetime) -> list[Intent]:
        """Intents of other requests since that server time whose trigger was sent and not answered, newest first."""
        table = tables.intents
        query = (
            select(table.c.request)
            .where(
                table.c.sync_id == sync_id,
                table.c.state == State.SENDING.value,
                table.c.noted_at >= since,
                table.c.request != besides,
            )
            .order_by(table.c.noted_at.desc())
            .limit(MOST_UNANSWERED)
        )
        with self._warehouse.reading() as transaction:
            requests = [str(request) for (request,) in transaction.rows(query)]
        found = [self.read(sync_id, request) for request in requests]
        return [intent for intent in found if intent is not None]

    def newest_run(self, sync_id: str, *, since: datetime) -> str | None:
        """The run that the latest request since that server time got."""
        table = tables.intents
        query = (
            select(table.c.run_id)
            .where(table.c.sync_id == sync_id, table.c.run_id.is_not(None), table.c.noted_at >= since)
            .order_by(table.c.noted_at.desc(), table.c.updated_at.desc())
            .limit(1)
        )
        with self._warehouse.reading() as transaction:
            found = transaction.scalar(query)
        return None if found is None else str(found)

    def _upsert(self, transaction: Transaction, intent: Intent) -> None:
        columns = (
            "sync_id", "request", "state", "attempts", "noted_at", "noted_runs", "run_id", "origin",
            "dagster_run_id", "updated_at",
        )  # fmt: skip
        row = (
            intent.sync_id,
            intent.request,
            intent.state.value,
            intent.attempts,
            instant_text(intent.noted_at),
            json_text(_noted(intent.noted_runs)),
            intent.run_id,
            intent.origin,
            intent.dagster_run_id,
            instant_text(self._clock.now()),
        )
        transaction.upsert(tables.intents, columns, [row])


def _noted(run_ids: Sequence[str]) -> list[str]:
    """The newest ones are enough: an older run cannot be taken for a new one, its time tells."""
    return list(run_ids[:MOST_NOTED])
