"""What is stored about the change feed: how far its log is complete, and whether a full extract is required."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.tables import extract_required
from rally_pipeline.warehouse.values import instant_text, parse_instant

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction, Warehouse

FEED_STREAM = "rally.feed"
_BASE_WAIT_SECONDS = 120.0
_CLOCK_JITTER = timedelta(seconds=2)


@dataclass(slots=True)
class FeedState:
    """The feed's row in `sync_state`; times in canonical text, which sorts."""

    cursor: str | None = None
    """`s`: every entry up to here is recorded."""
    base: str | None = None
    """From here on the log is complete."""
    server_time: str | None = None
    """The server's time at some past answer: a lower bound of its time now."""
    read_started: str | None = None
    """`t_r` of the read in progress: server time before its first request."""
    position: str | None = None
    """`p` of the read in progress."""
    last_read: str | None = None
    """`t_r` of the last closed read: what it could not see yet but is dated earlier, came late."""
    capacity: int = 0
    """Entries of the largest feed page ever seen."""
    lowest_id: int | None = None
    opened_at: str | None = None
    """The local clock when the read in progress began; only differences of it mean anything."""
    last_opened_at: str | None = None
    """The local clock when the read began that fixed the cursor."""
    groups: dict[str, str] = field(default_factory=dict)
    """Groups of equal times that no page can hold -> a full extract that begins then covers what nobody can read."""

    @staticmethod
    def load(tx: Transaction) -> FeedState:
        """The stored state, or a fresh one."""
        return FeedState(**(tx.state(FEED_STREAM) or {}))

    def store(self, tx: Transaction) -> None:
        """Write the state with the data of the same transaction."""
        tx.set_state(FEED_STREAM, asdict(self))


def required(text: str | None) -> str:
    """A time that a read in progress must have."""
    if text is None:
        raise RuntimeError("the feed has no read in progress")
    return text


def ensure_base(warehouse: Warehouse, started: datetime, policy: MirrorPolicy, *, now: datetime) -> None:
    """Give the feed a cursor before the first list request, unless it has one (SN5).

    `now` is the local clock's time. An existing cursor stays, unless the server's clock was set back meanwhile.
    """
    base = started - policy.overlap
    with warehouse.reading() as tx:
        if not _is_later(FeedState.load(tx).cursor, base):
            return
    with (
        warehouse.lease(FEED_STREAM, wait_seconds=_BASE_WAIT_SECONDS) as lease,
        warehouse.transaction("rally.feed.base", lease) as tx,
    ):
        state = FeedState.load(tx)
        if state.cursor is None:
            state.base = instant_text(base)
        if _is_later(state.cursor, base):
            state.cursor = instant_text(base)
            state.server_time = instant_text(started)
            state.last_opened_at = instant_text(now)
            state.store(tx)


def _is_later(cursor: str | None, base: datetime) -> bool:
    """Whether there is no cursor, or one that a clock which was not set back cannot have given."""
    return cursor is None or parse_instant(cursor) > base + _CLOCK_JITTER


@dataclass(frozen=True, slots=True)
class Requirement:
    """Why a full extract of an entity is required, and from when on (server time) it may begin to count."""

    reason: str
    since: datetime


def whole_second(moment: datetime) -> datetime:
    """The first whole second that is not before `moment`."""
    begun = moment.replace(microsecond=0)
    return begun if begun == moment else begun + timedelta(seconds=1)


def require_snapshot(
    tx: Transaction, reason: str, *, since: datetime, entities: Iterable[Entity] = tuple(Entity)
) -> None:
    """Note that only a full extract of the entities, begun after `since`, makes the mirror trustworthy again.

    The latest `since` wins: one extract then answers every demand. It is kept as a whole second, like the times by
    which an extract knows when it began: who has waited for `since` would else begin just before it.
    """
    insert = postgresql.insert if tx.connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(extract_required)
    new, later = statement.excluded, statement.excluded.since >= extract_required.c.since
    statement = statement.on_conflict_do_update(
        index_elements=[extract_required.c.entity_type],
        set_={
            "reason": case((later, new.reason), else_=extract_required.c.reason),
            "since": case((later, new.since), else_=extract_required.c.since),
        },
    )
    rows = [
        {"entity_type": entity.singular, "reason": reason, "since": whole_second(since)}
        for entity in entities
    ]
    if rows:
        tx.connection.execute(statement, rows)


def pull_back_requirement(tx: Transaction, entity: Entity, *, started: datetime, bound: timedelta) -> None:
    """A demand dated further ahead than `bound` is of a server clock that was set back since: it counts from now on."""
    tx.execute(
        update(extract_required)
        .where(extract_required.c.entity_type == entity.singular, extract_required.c.since > started + bound)
        .values(since=started)
    )


def lift_requirement(tx: Transaction, entity: Entity, *, started: datetime) -> None:
    """A full extract that began at `started` has ended. One comparison decides, so a newer requirement stays."""
    tx.execute(
        delete(extract_required).where(
            extract_required.c.entity_type == entity.singular, extract_required.c.since <= started
        )
    )


def requirements(tx: Transaction) -> dict[str, Requirement]:
    """Entity type -> why a full extract of it is required, and since when."""
    columns = extract_required.c
    rows = tx.rows(select(columns.entity_type, columns.reason, columns.since))
    return {kind: Requirement(reason, since) for kind, reason, since in rows}
