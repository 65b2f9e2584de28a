"""What tells that the feed has forgotten entries, or that another feed answers: then only a full extract helps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from rally_pipeline.http.errors import Rejected
from rally_pipeline.rally.client import ChangeEntry, ChangePage, RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FeedState, required
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.tables import changes
from rally_pipeline.warehouse.values import instant_text, parse_instant

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction, Warehouse


class SnapshotRequired(Exception):
    """The feed alone can no longer make the mirror right; the message says why."""


class GroupTooLarge(Exception):
    """More entries bear one time than any page holds, so a full extract has to cover them before the read goes on.

    `at`: the time. `entries`: those of the group that came. `entities`: those of which some may be hidden. `since`: an
    extract that begins then covers them (server time).
    """

    def __init__(
        self,
        reason: str,
        *,
        at: str,
        entities: Sequence[Entity],
        entries: Sequence[ChangeEntry],
        since: datetime,
    ) -> None:
        super().__init__(reason)
        self.at = at
        self.since = since
        self.entities = tuple(entities)
        self.entries = list(entries)


class FeedChecks:
    """Checks of one run over the feed. They read, and cost a request only where a cursor or a window is old."""

    def __init__(self, warehouse: Warehouse, client: RallyClient, policy: MirrorPolicy) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy

    def check_age(self, state: FeedState) -> None:
        """Compare a cursor that is old enough with the oldest entry that the feed still has.

        Raises:
            SnapshotRequired: the feed has forgotten what lies between.
        """
        cursor = parse_instant(required(state.cursor))
        age = parse_instant(required(state.read_started)) - cursor
        if age.total_seconds() < self._policy.retention_probe_seconds + self._policy.overlap_seconds:
            return
        if self.check_reach(cursor):
            return
        raise SnapshotRequired(
            f"the feed shows no entry at all, so changes since {cursor:%Y-%m-%d %H:%M} UTC may have been forgotten"
        )

    def check_reach(self, start: datetime) -> bool:
        """Refuse a stretch whose beginning the feed has already forgotten.

        Returns False where nobody can tell, since the feed is empty.

        Raises:
            SnapshotRequired: the oldest entry is later than `start` and is not the tenant's first.
        """
        try:
            oldest = self._client.changes(datetime(1970, 1, 1, tzinfo=UTC), limit=1).entries[:1]
        except Rejected:
            # A server that refuses what it has forgotten will refuse the read itself, if it must.
            return True
        if oldest and oldest[0].id > 1 and oldest[0].changed_at > instant_text(start):
            raise SnapshotRequired(
                f"the feed's oldest entry is of {oldest[0].changed_at[:16]} UTC, so changes since"
                f" {start:%Y-%m-%d %H:%M} UTC may have been forgotten"
            )
        return bool(oldest)

    def check_known(self, state: FeedState, page: ChangePage) -> None:
        """Entries that were recorded long enough ago must still be there; else the feed was cut or replaced.

        Raises:
            SnapshotRequired: they are not.
        """
        position = required(state.position)
        settled = parse_instant(required(state.read_started)) - self._policy.staleness - timedelta(seconds=1)
        if page.received >= max(self._policy.feed_capacity_floor, state.capacity):
            return
        end = parse_instant(page.entries[-1].changed_at) if page.entries else datetime.max.replace(tzinfo=UTC)
        statement = (
            select(changes.c.id, changes.c.entity_id)
            .where(
                changes.c.changed_at > parse_instant(position),
                changes.c.changed_at < end,
                changes.c.recorded_at < settled,
            )
            .limit(page.received + 50)
        )
        with self._warehouse.reading() as tx:
            known = tx.rows(statement)
        met = {entry.id for entry in page.entries}
        # A feed that keeps one entry an object replaces it by a later one.
        replaced = {entry.entity_id for entry in page.entries}
        missing = [
            entry_id for entry_id, object_id in known if entry_id not in met and object_id not in replaced
        ]
        if missing:
            raise SnapshotRequired(
                f"{len(missing)} of {len(known)} recorded entries after {position[:16]} UTC are gone from the feed:"
                " its retention has passed them, or the source was restored from a backup"
            )

    def find_restart(self, tx: Transaction, state: FeedState, fresh: Sequence[ChangeEntry]) -> str | None:
        """Why the ids say that the source was restored from a backup, or None."""
        if state.lowest_id is not None:
            newest = max(fresh, key=lambda entry: entry.changed_at)
            if newest.id < state.lowest_id and newest.changed_at > required(state.cursor):
                return f"the feed's ids start over (entry {newest.id} is below {state.lowest_id})"
        ids = [entry.id for entry in fresh]
        twice = (
            select(changes.c.id)
            .where(changes.c.id.in_(ids))
            .group_by(changes.c.id)
            .having(func.count() > 1)
            .limit(1)
        )
        found = tx.rows(twice)
        return f"feed entry {found[0][0]} came again with other content" if found else None
