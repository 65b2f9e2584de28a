"""Looking for new entries of the feed without recording anything: what a sensor asks once a minute."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from rally_pipeline.http.errors import Rejected
from rally_pipeline.rally.client import ChangeEntry, RallyClient
from rally_pipeline.rally.feed_state import FeedState
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.results import ChangePoll
from rally_pipeline.rally.spending import Meter
from rally_pipeline.rally.tables import changes
from rally_pipeline.rally.windows import floor_hour
from rally_pipeline.warehouse.values import instant_text, parse_instant

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Warehouse

_MOST_PAGES = 5
"""Pages of known entries after which a read has to find out."""
_ID_CHUNK = 500


class Poll:
    """One look from the feed's cursor on."""

    def __init__(self, warehouse: Warehouse, client: RallyClient, policy: MirrorPolicy) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy

    def look(self) -> ChangePoll:
        """The new entries of the first page that has some.

        Pages full of entries that are recorded already are turned over; where their end cannot be told from a cut, it
        counts as truncated, with the hour of the last entry. A feed that refuses the cursor's time has to be read.
        """
        meter = Meter(self._client, self._client.clock)
        with self._warehouse.reading() as tx:
            state = FeedState.load(tx)
        if state.cursor is None:
            return ChangePoll(0, (), None, False, None, None, meter.cost())
        cursor = parse_instant(state.cursor)
        new, truncated, seen = self._turn_pages(state)
        now = self._client.server_floor()
        # What is dated ahead belongs to the hour in which it was seen; a window of its own would never end.
        moments = [min(max(moment, cursor), now) for moment in (new or seen)]
        return ChangePoll(
            entries=len(new),
            windows=tuple(sorted({floor_hour(moment) for moment in moments})),
            latest=max(moments, default=None),
            truncated=truncated,
            cursor=cursor,
            server_time=now,
            cost=meter.cost(),
        )

    def _turn_pages(self, state: FeedState) -> tuple[list[datetime], bool, list[datetime]]:
        """Times of the new entries; whether there may be more; without new ones, where to look for those."""
        position = state.cursor or ""
        for _ in range(_MOST_PAGES):
            try:
                page = self._client.changes(parse_instant(position), limit=self._policy.feed_limit)
            except Rejected:
                # The feed may no longer reach back so far. A read finds out, and asks for a full extract then.
                return [], True, [floor_hour(self._client.server_floor())]
            new = [parse_instant(entry.changed_at) for entry in self._unknown(page.entries)]
            may_be_cut = page.received >= max(self._policy.feed_capacity_floor, state.capacity)
            if new:
                return new, may_be_cut, []
            last = page.entries[-1].changed_at if page.entries else position
            # No look needs to go behind entries dated in the future, nor behind a page that others were larger than.
            ahead = last > instant_text(self._client.server_ceiling())
            if ahead or page.received < max(1, state.capacity):
                return [], False, []
            further = max((entry.changed_at for entry in page.entries if entry.changed_at < last), default="")
            if further <= position and may_be_cut:
                return [], True, [parse_instant(last)]
            further = further if further > position else last
            if further <= position:
                return [], False, []
            position = further
        return [], True, [parse_instant(position)]

    def _unknown(self, entries: Sequence[ChangeEntry]) -> list[ChangeEntry]:
        """Those that are not recorded. The id alone says nothing: a source restored from a backup gives it again."""
        columns = (changes.c.id, changes.c.changed_at, changes.c.entity_type, changes.c.entity_id)
        known: set[tuple[object, ...]] = set()
        with self._warehouse.reading() as tx:
            for first in range(0, len(entries), _ID_CHUNK):
                ids = [entry.id for entry in entries[first : first + _ID_CHUNK]]
                statement = select(*columns, changes.c.action).where(changes.c.id.in_(ids))
                known.update(tuple(row) for row in tx.rows(statement))
        return [
            entry
            for entry in entries
            if (entry.id, parse_instant(entry.changed_at), entry.entity_type, entry.entity_id, entry.action)
            not in known
        ]
