"""The Rally mirror as one object: what the command line and Dagster call.

Contract: every method may be called at any time, in any order, again and again, by several processes. One process
works on a stream at a time (lease and fence); a killed one loses at most the page it was working on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.garbage import searched_rarely
from rally_pipeline.rally import deletes, marks
from rally_pipeline.rally.changes import ChangeReader
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.extract import Extract, is_filled
from rally_pipeline.rally.feed_state import FEED_STREAM, FeedState, requirements
from rally_pipeline.rally.looks import Settler
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.poll import Poll
from rally_pipeline.rally.results import (
    ChangePoll,
    ChangesResult,
    Comparison,
    Coverage,
    ExtractResult,
    MirrorStatus,
    ReplayResult,
    RequiredExtract,
    SettleResult,
    TableStatus,
)
from rally_pipeline.rally.retention import SnapshotRequired
from rally_pipeline.rally.spending import Meter
from rally_pipeline.rally.table_comparison import verify_stream
from rally_pipeline.rally.tables import ENTITY_TABLES, changes, dirty, metadata
from rally_pipeline.rally.updated import UpdatedReader
from rally_pipeline.rally.verify import Verification
from rally_pipeline.rally.windows import closed_starts, find_gaps, floor_hour, hours

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

Progress = Callable[[str, int, int | None], None]
"""Called with a stream, how much is done, and of how much (None where nobody knows)."""


def no_progress(stream: str, done: int, total: int | None) -> None:
    """Reports nothing."""


class RallyMirror:
    """One tenant's mirror in one warehouse.

    `patience_seconds`: how long to wait for another process that works on the same stream before `LeaseHeld`.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        client: RallyClient,
        policy: MirrorPolicy,
        *,
        clock: Clock | None = None,
        progress: Progress = no_progress,
        patience_seconds: float = 0.0,
    ) -> None:
        self.warehouse = warehouse
        self.client = client
        self.policy = policy
        self._clock = clock or SystemClock()
        self._progress = progress
        self._patience = patience_seconds

    def _lease(self, stream: str) -> AbstractContextManager[Lease]:
        return self.warehouse.lease(stream, wait_seconds=self._patience)

    def prepare(self) -> None:
        """Create the tables, or add what a newer version of the package added."""
        self.warehouse.create_tables(metadata)

    @searched_rarely()
    def extract(self, entity: Entity, *, restart: bool = False) -> ExtractResult:
        """One full pass; goes on with an interrupted one unless `restart`."""
        meter = Meter(self.client, self._clock)
        with self._lease(entity.stream) as lease:
            run = Extract(self.warehouse, self.client, self.policy, entity, lease, progress=self._progress)
            return run.run(meter, restart=restart)

    @searched_rarely()
    def extract_updated(self, entity: Entity) -> ExtractResult:
        """The simple way of the API page: rows updated since the last time, without deletes."""
        meter = Meter(self.client, self._clock)
        with self._lease(entity.stream) as lease:
            reader = UpdatedReader(
                self.warehouse, self.client, self.policy, entity, lease, progress=self._progress
            )
            return reader.run(meter)

    @searched_rarely()
    def read_changes(self, start: datetime | None = None, end: datetime | None = None) -> ChangesResult:
        """Make the log complete from the cursor to the present, and the part of the half-open window behind the cursor.

        Which windows are asked for rests on the clock of this machine, which may be hours behind; so what is new is
        read whatever the window is, and no gap can arise.

        Raises:
            SnapshotRequired: a window behind the cursor is older than what the feed still has.
        """
        meter = Meter(self.client, self._clock)
        with self._lease(FEED_STREAM) as lease:
            reader = ChangeReader(self.warehouse, self.client, self.policy, lease, progress=self._progress)
            state = self._feed_state()
            cursor = datetime.fromisoformat(state.cursor) if state.cursor else None
            if start is not None and end is not None and cursor is not None and start < cursor:
                reader.read_window(start, min(end, cursor))
            state = reader.read_on(base=start)
            tally = reader.tally
            return ChangesResult(
                pages=tally.pages,
                received=tally.received,
                recorded=tally.recorded,
                inserted=tally.actions["inserted"],
                updated=tally.actions["updated"],
                deleted=tally.actions["deleted"],
                marked=tally.marked,
                parked=tally.parked,
                late_seconds=tally.late_seconds,
                lateness=tally.lateness_table(),
                capacity=state.capacity,
                cut_at=tally.cut_at,
                cursor=datetime.fromisoformat(state.cursor or ""),
                windows_closed=tally.windows_closed,
                snapshot_required=tally.snapshot_required,
                hours=tally.hour_results(),
                cost=meter.cost(),
            )

    def poll(self) -> ChangePoll:
        """Look for new entries; nothing is recorded. No request before the first extract, one where nothing is new."""
        return Poll(self.warehouse, self.client, self.policy).look()

    def server_now(self) -> datetime:
        """The server's time, at most two seconds behind; one request where no answer has told it yet."""
        return self.client.server_floor()

    def guess_server_time(self) -> datetime:
        """The server's time as far as it is known without a request: for figures, never for decisions.

        Of the local clock only how much of it has passed counts.
        """
        if self.client.has_server_time:
            return self.client.server_floor()
        with self.warehouse.reading() as tx:
            return self._guess_server_time(FeedState.load(tx))

    def _guess_server_time(self, state: FeedState) -> datetime:
        now = self._clock.now()
        if state.last_opened_at is None or state.cursor is None:
            return now
        cursor = datetime.fromisoformat(state.cursor)
        read = datetime.fromisoformat(state.last_read) if state.last_read else cursor + self.policy.overlap
        return max(cursor, read + (now - datetime.fromisoformat(state.last_opened_at)))

    @searched_rarely()
    def settle(self, entity: Entity, *, wait: bool = True) -> SettleResult:
        """Look at the marked objects of the entity; with `wait`, until every mark found has been due."""
        meter = Meter(self.client, self._clock)
        with self._lease(entity.stream) as lease:
            settler = Settler(
                self.warehouse,
                self.client,
                self.policy,
                entity,
                lease,
                clock=self._clock,
                progress=self._progress,
            )
            return settler.run(meter, wait=wait)

    def verify(self, entity: Entity, *, heal: bool = False) -> Comparison:
        """`verify_all` of one entity."""
        (comparison,) = self.verify_all([entity], heal=heal)
        return comparison

    @searched_rarely()
    def verify_all(
        self, entities: Sequence[Entity] = tuple(Entity), *, heal: bool = False
    ) -> list[Comparison]:
        """Read the feed, refetch what is pending, compare with Rally value by value; with `heal`, repair what differs.

        Raises:
            NeverExtracted: a table was never filled by a full extract.
        """
        verification = Verification(
            self.warehouse,
            self.client,
            self.policy,
            clock=self._clock,
            progress=self._progress,
            lease_of=self._lease,
            read_changes=self.read_changes,
            refetch=self.settle,
        )
        return verification.run(entities, heal=heal)

    def allow_deletes(self, entity: Entity, count: int) -> None:
        """Let the next looks delete up to `count` suspected rows that the guard would stop at."""
        with (
            self._lease(entity.stream) as lease,
            self.warehouse.transaction("rally.allow-deletes", lease) as tx,
        ):
            deletes.allow_deletes(tx, entity, count)

    def windows_to_close(self, now: datetime) -> list[datetime]:
        """Starts of the hours since the log's base that have ended and are not closed."""
        with self.warehouse.reading() as tx:
            state = FeedState.load(tx)
            if state.base is None:
                return []
            base = datetime.fromisoformat(state.base)
            known = closed_starts(tx, floor_hour(base), now)
        return [window for window in hours(base, now) if window not in known]

    def coverage(self) -> Coverage:
        """How far the log is complete, and what is wrong with it."""
        with self.warehouse.reading() as tx:
            state = FeedState.load(tx)
            reasons = requirements(tx)
            through = datetime.fromisoformat(state.cursor) if state.cursor else None
            base = datetime.fromisoformat(state.base) if state.base else None
            gaps = find_gaps(tx, base, through) if base and through else []
        return Coverage(
            base=base,
            through=through,
            gaps=tuple(gaps),
            snapshot_required=next((found.reason for found in reasons.values()), None),
        )

    def required_extracts(self) -> list[RequiredExtract]:
        """The full extracts that are required, also the first ones."""
        with self.warehouse.reading() as tx:
            demanded = requirements(tx)
            filled = {entity for entity in Entity if is_filled(tx, entity)}
        found = []
        for entity in Entity:
            demand = demanded.get(entity.singular)
            if entity not in filled:
                found.append(RequiredExtract(entity, "no full extract has been finished yet", None))
            elif demand is not None:
                found.append(RequiredExtract(entity, demand.reason, demand.since))
        return found

    def snapshot_required(self, entity: Entity) -> str | None:
        """Why a full extract of the entity is required, or None; also where none was ever finished."""
        return next((found.reason for found in self.required_extracts() if found.entity == entity), None)

    def is_filled(self, entity: Entity) -> bool:
        """Whether a full extract of the entity has ever been finished."""
        with self.warehouse.reading() as tx:
            return is_filled(tx, entity)

    def _feed_state(self) -> FeedState:
        with self.warehouse.reading() as tx:
            return FeedState.load(tx)

    def replay_quarantine(self) -> ReplayResult:
        """Mark every quarantined object for another look; what can be stored then leaves the quarantine."""
        from rally_pipeline.rally.replay import replay

        return replay(self.warehouse, self.client, self._lease)

    def status(self) -> MirrorStatus:
        """The mirror as the warehouse knows it; no request."""
        with self.warehouse.reading() as tx:
            state = FeedState.load(tx)
            server_time = datetime.fromisoformat(state.server_time) if state.server_time else None
            through = datetime.fromisoformat(state.cursor) if state.cursor else None
            now = self._guess_server_time(state)
            tables = tuple(self._table_status(tx, entity, now) for entity in Entity)
            outcomes = [tx.state(verify_stream(entity)) for entity in Entity]
            recorded = tx.count(changes)
            reasons = requirements(tx)
        repairs = [int(outcome["repaired"]) for outcome in outcomes if outcome]
        return MirrorStatus(
            tables=tables,
            synced_through=through,
            server_time=server_time,
            lag_seconds=max(0.0, (now - through).total_seconds()) if through else None,
            snapshot_required=next((found.reason for found in reasons.values()), None),
            reconcile_repairs=sum(repairs) if repairs else None,
            changes_recorded=recorded,
        )

    def _table_status(self, tx: Transaction, entity: Entity, now: datetime) -> TableStatus:
        table = ENTITY_TABLES[entity]
        oldest: datetime | None = tx.scalar(
            select(func.min(dirty.c.first_seen)).where(dirty.c.entity_type == entity.singular)
        )
        age = (now - oldest).total_seconds() if oldest else None
        state = tx.state(entity.stream) or {}
        return TableStatus(
            table=entity.table_name,
            rows=tx.count(table),
            open_marks=marks.count_marks(tx, entity),
            oldest_mark_seconds=max(0.0, age) if age is not None else None,
            quarantined=len(tx.quarantined(entity.stream)),
            synced_at=tx.scalar(select(func.max(table.c["_synced_at"]))),
            extract_open=bool(state.get("pass")),
        )


__all__ = ["MirrorPolicy", "Progress", "RallyMirror", "SnapshotRequired", "no_progress"]
