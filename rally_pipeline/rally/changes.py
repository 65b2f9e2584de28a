"""Reading the change feed: every entry is recorded once, whatever order, ties, lateness or crashes do.

The cursor `s` moves only when a read closes, to the server's time before the read's first request minus the overlap:
never to the greatest `changedAt`, never to the time at the end. A trailing group of equal times is taken only where
the page cannot have been cut inside it. Entries become rows of `rally_changes` and open marks in one transaction with
the position. Algorithm: correctness, section "Change feed".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from rally_pipeline.http.errors import NotFound, Rejected
from rally_pipeline.rally.client import ChangeEntry, ChangePage, RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FEED_STREAM, FeedState, require_snapshot
from rally_pipeline.rally.marks import Hint, add_marks
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.tables import changes
from rally_pipeline.rally.windows import close_windows
from rally_pipeline.warehouse.values import instant_text, json_text

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import Progress
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

_COLUMNS = ("id", "changed_at", "entity_type", "entity_id", "action", "changed_by", "recorded_at")
_ACTIONS = ("inserted", "updated", "deleted")
_LIMIT_FACTOR = 10
_CLOCK_JITTER = timedelta(seconds=2)
_INT64_MAX = 2**63 - 1


@dataclass(slots=True)
class FeedTally:
    """Counters of one read."""

    pages: int = 0
    received: int = 0
    recorded: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    parked: int = 0
    late_seconds: float = 0.0
    windows_closed: int = 0
    snapshot_required: str | None = None
    touched: set[str] = field(default_factory=set)
    """Hours (canonical text) that got new entries."""


class SnapshotRequired(Exception):
    """The feed alone can no longer make the mirror right; the message says why."""


class ChangeReader:
    """One run over the feed, under the feed's lease."""

    def __init__(
        self,
        warehouse: Warehouse,
        client: RallyClient,
        policy: MirrorPolicy,
        lease: Lease,
        *,
        progress: Progress,
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._lease = lease
        self._progress = progress
        self.tally = FeedTally()

    # ------------------------------------------------------------------ the main read: cursor to now

    def read_on(self, *, base: datetime | None = None) -> FeedState:
        """Read from the cursor to the present and move the cursor. `base` begins the log where there is none."""
        state = self._open(base)
        try:
            self._read_pages(state)
        except SnapshotRequired as reason:
            self._give_up(state, str(reason))
            return state
        self._close(state)
        return state

    def _open(self, base: datetime | None) -> FeedState:
        with self._warehouse.reading() as tx:
            state = FeedState.load(tx)
        started = self._started(state)
        if state.cursor is None:
            # The first read of a log without a snapshot: complete from `base` on, or from now on.
            first = min(base or started, started) - self._policy.overlap
            state.cursor = state.base = instant_text(first)
        if state.position is None or state.read_started is None:
            # A server clock that was set back must not hide what it stamps now.
            state.position = min(state.cursor, instant_text(started - self._policy.overlap))
            state.read_started = instant_text(started)
            with self._warehouse.transaction("rally.feed.open", self._lease) as tx:
                state.store(tx)
        return state

    def _started(self, state: FeedState) -> datetime:
        """A lower bound of the server's time before the first request of this read.

        The time of an earlier run's last answer is one, and costs no request; asked anew only where it is old.
        """
        if state.server_time is None or self._client.has_server_time:
            return self._client.server_floor()
        stored = _instant(state.server_time)
        age = self._client.clock.now() - stored
        fresh = timedelta(seconds=max(60, 2 * self._policy.overlap_seconds))
        return stored if timedelta(0) <= age <= fresh else self._client.server_floor()

    def _read_pages(self, state: FeedState) -> None:
        self._check_retention(state)
        while True:
            position = _required(state.position)
            page = self._ask(_instant(position))
            if self._begin_again(state, page):
                continue
            self._check_known(state, page)
            kept = self._kept(state, page, position)
            ends = not page.entries or page.entries[-1].changed_at <= position
            self._record(state, page, kept, ends=ends)
            self._progress(FEED_STREAM, self.tally.received, None)
            if ends:
                return

    def _begin_again(self, state: FeedState, page: ChangePage) -> bool:
        """Whether the server's clock was set back meanwhile: then the read starts from what it stamps now."""
        stamped = page.dated
        if stamped is None or stamped >= _instant(_required(state.read_started)) - _CLOCK_JITTER:
            return False
        state.read_started = instant_text(stamped)
        state.position = min(_required(state.position), instant_text(stamped - self._policy.overlap))
        return True

    def _ask(self, since: datetime, entity: Entity | None = None) -> ChangePage:
        """One page; of a single entity with a larger limit, where a tie group may not fit a page."""
        limit = self._policy.feed_limit
        try:
            if entity is None:
                page = self._client.changes(since, limit=limit)
            else:
                page = self._ask_for_more(since, limit, entity)
        except (Rejected, NotFound) as error:
            if isinstance(error, NotFound) and not error.gone:
                raise
            why = error.excerpt or error.detail or error.status
            raise SnapshotRequired(
                f"the feed refuses to be read from {since:%Y-%m-%d %H:%M} UTC ({why})"
            ) from error
        self.tally.pages += 1
        self.tally.received += page.received
        return page

    def _ask_for_more(self, since: datetime, limit: int, entity: Entity) -> ChangePage:
        try:
            return self._client.changes(since, limit=limit * _LIMIT_FACTOR, entities=(entity,))
        except Rejected:
            return self._client.changes(since, limit=limit, entities=(entity,))

    def _kept(self, state: FeedState, page: ChangePage, position: str) -> list[ChangeEntry]:
        """The entries that may be stepped over: all but a trailing group that the page's end may have cut."""
        entries = page.entries
        if not entries:
            return []
        last = entries[-1].changed_at
        before = [entry for entry in entries if entry.changed_at < last]
        if before and before[-1].changed_at > position:
            return before
        # The last group is the only news. A page below what the server is known to return was not cut inside it.
        if page.received < max(self._policy.feed_capacity_floor, state.capacity):
            return entries
        return self._whole_group(page, _instant(position), last)

    def _whole_group(self, page: ChangePage, position: datetime, last: str) -> list[ChangeEntry]:
        """A page full of one time. Prove that it is not cut, or fetch the rest of the group."""
        earlier = position - self._policy.overlap
        if self._ask(earlier).received > page.received:
            return page.entries
        found = page.entries
        for entity in Entity:
            part = self._ask(position, entity)
            beyond = bool(part.entries) and part.entries[-1].changed_at > last
            whole = beyond or part.received < page.received
            if not whole and self._ask(earlier, entity).received <= part.received:
                raise SnapshotRequired(
                    f"more {entity.value} changed at {last[:19]} UTC than a feed page can hold"
                    f" ({part.received} entries), so some cannot be read"
                )
            found = _union(found, [entry for entry in part.entries if entry.changed_at <= last])
        return found

    # ------------------------------------------------------------------ a window behind the cursor

    def read_window(self, start: datetime, end: datetime) -> None:
        """Read [start, end) again: missing entries and their marks are added, the cursor stays.

        Raises:
            SnapshotRequired: the feed does not reach back that far any more.
        """
        known = self._known_between(start, end)
        if not known:
            self._check_reach(start)
        state = FeedState(
            position=instant_text(start - timedelta(seconds=1)), capacity=self._stored_capacity()
        )
        until = instant_text(end)
        met: set[int] = set()
        while True:
            position = _required(state.position)
            page = self._ask(_instant(position))
            met.update(entry.id for entry in page.entries)
            kept = self._kept(state, page, position)
            ends = not page.entries or page.entries[-1].changed_at <= position
            self._record(state, page, kept, ends=ends, store=False)
            if ends or _required(state.position) >= until:
                break
        lost = known - met
        if lost:
            raise SnapshotRequired(
                f"{len(lost)} entries recorded for {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC are no longer"
                " in the feed: the window is older than the feed's retention"
            )
        with self._warehouse.transaction("rally.feed.window", self._lease) as tx:
            self.tally.windows_closed += close_windows(
                tx, start, end, touched=self.tally.touched, closed_at=self._client.server_floor()
            )

    def _stored_capacity(self) -> int:
        with self._warehouse.reading() as tx:
            return FeedState.load(tx).capacity

    def _known_between(self, start: datetime, end: datetime) -> set[int]:
        statement = select(changes.c.id).where(changes.c.changed_at >= start, changes.c.changed_at < end)
        with self._warehouse.reading() as tx:
            return {row[0] for row in tx.rows(statement)}

    # ------------------------------------------------------------------ retention, restarts

    def _check_retention(self, state: FeedState) -> None:
        """A cursor that is old enough is compared with the oldest entry that the feed still has."""
        cursor = _instant(_required(state.cursor))
        age = _instant(_required(state.read_started)) - cursor
        if age.total_seconds() < self._policy.retention_probe_seconds + self._policy.overlap_seconds:
            return
        self._check_reach(cursor)

    def _check_reach(self, start: datetime) -> None:
        """Refuse a stretch whose beginning the feed has already forgotten.

        Raises:
            SnapshotRequired: the oldest entry is later than `start` and is not the tenant's first.
        """
        try:
            oldest = self._client.changes(datetime(1970, 1, 1, tzinfo=UTC), limit=1).entries[:1]
        except Rejected:
            # A server that refuses what it has forgotten will refuse the read itself, if it must.
            return
        if oldest and oldest[0].id > 1 and oldest[0].changed_at > instant_text(start):
            raise SnapshotRequired(
                f"the feed's oldest entry is of {oldest[0].changed_at[:16]} UTC, so changes since"
                f" {start:%Y-%m-%d %H:%M} UTC may have been forgotten"
            )

    def _check_known(self, state: FeedState, page: ChangePage) -> None:
        """Entries that were recorded long enough ago must still be there; else the feed was cut or replaced.

        Raises:
            SnapshotRequired: they are not.
        """
        position = _required(state.position)
        settled = _instant(_required(state.read_started)) - self._policy.staleness - timedelta(seconds=1)
        if page.received >= max(self._policy.feed_capacity_floor, state.capacity):
            return
        end = _instant(page.entries[-1].changed_at) if page.entries else datetime.max.replace(tzinfo=UTC)
        statement = (
            select(changes.c.id, changes.c.entity_id)
            .where(
                changes.c.changed_at > _instant(position),
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

    def _check_restart(self, tx: Transaction, state: FeedState, fresh: Sequence[ChangeEntry]) -> str | None:
        """Why the ids say that the source was restored from a backup, or None."""
        if state.lowest_id is not None:
            newest = max(fresh, key=lambda entry: entry.changed_at)
            if newest.id < state.lowest_id and newest.changed_at > _required(state.cursor):
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

    # ------------------------------------------------------------------ recording

    def _record(
        self, state: FeedState, page: ChangePage, kept: list[ChangeEntry], *, ends: bool, store: bool = True
    ) -> None:
        """One transaction: entries, marks, position (FD2)."""
        with self._warehouse.transaction("rally.feed.page", self._lease) as tx:
            self._park(tx, page.unreadable)
            fresh = self._insert(tx, kept, page.answered)
            self._mark(tx, fresh, page.answered)
            self._note_lateness(state, fresh)
            reason = self._check_restart(tx, state, fresh) if fresh and store else None
            if kept and not ends:
                state.position = kept[-1].changed_at
            state.capacity = max(state.capacity, page.received)
            if fresh:
                lowest = min(entry.id for entry in fresh)
                state.lowest_id = lowest if state.lowest_id is None else min(state.lowest_id, lowest)
            if store:
                state.server_time = instant_text(self._client.server_floor())
                state.store(tx)
        if reason:
            raise SnapshotRequired(reason)

    def _insert(self, tx: Transaction, kept: list[ChangeEntry], answered: datetime) -> list[ChangeEntry]:
        """Insert what is not known yet; returns it."""
        recorded_at = instant_text(answered)
        usable = [entry for entry in kept if -_INT64_MAX <= entry.id <= _INT64_MAX]
        rows = {
            (entry.id, entry.changed_at, entry.entity_type, entry.entity_id, entry.action): entry
            for entry in usable
        }
        values = [(*key, entry.changed_by, recorded_at) for key, entry in rows.items()]
        new = tx.insert_new(changes, _COLUMNS, values)
        return [rows[key] for key in new]

    def _mark(self, tx: Transaction, fresh: list[ChangeEntry], answered: datetime) -> None:
        tally = self.tally
        hints: dict[Entity, list[Hint]] = {}
        for entry in fresh:
            entity = Entity.of_singular(entry.entity_type)
            if entity is None or entry.action not in _ACTIONS:
                self._park_entry(tx, entry)
            if entity is not None:
                hints.setdefault(entity, []).append(Hint(entry.entity_id, entry.action, entry.changed_at))
            tally.actions[entry.action] += 1
            tally.touched.add(entry.changed_at[:13])
        tally.recorded += len(fresh)
        for entity, listed in hints.items():
            tally.marked += add_marks(tx, entity, listed, seen=answered)

    def _note_lateness(self, state: FeedState, fresh: list[ChangeEntry]) -> None:
        """The monitor of `L`: how far behind the last closed read an entry is dated that it did not see."""
        if state.last_read is None or not fresh:
            return
        oldest = min(entry.changed_at for entry in fresh)
        late = (_instant(state.last_read) - _instant(oldest)).total_seconds()
        self.tally.late_seconds = max(self.tally.late_seconds, late)

    def _park_entry(self, tx: Transaction, entry: ChangeEntry) -> None:
        """An entry of an unknown kind is kept for a person; an object of a known type is looked at all the same."""
        what = f"unknown entity type '{entry.entity_type:.40}' or action '{entry.action:.40}'"
        tx.quarantine(FEED_STREAM, f"entry:{entry.id}", what, json_text(asdict(entry)))
        self.tally.parked += 1

    def _park(self, tx: Transaction, unreadable: Sequence[tuple[bytes, str]]) -> None:
        for raw, reason in unreadable:
            tx.quarantine(FEED_STREAM, f"hash:{blake2b(raw, digest_size=16).hexdigest()}", reason, raw)
            self.tally.parked += 1

    # ------------------------------------------------------------------ the end of a read

    def _close(self, state: FeedState) -> None:
        """Move the cursor (never back), close the windows that it passed."""
        # A date that was ahead when the read began has been corrected by the answers since.
        started = min(_instant(_required(state.read_started)), self._client.server_floor())
        before = _required(state.cursor)
        state.cursor = max(before, instant_text(started - self._policy.overlap))
        state.last_read = instant_text(started)
        state.read_started = state.position = None
        with self._warehouse.transaction("rally.feed.close", self._lease) as tx:
            state.store(tx)
            base = _instant(_required(state.base))
            self.tally.windows_closed += close_windows(
                tx, base, _instant(state.cursor), touched=self.tally.touched, closed_at=started
            )

    def _give_up(self, state: FeedState, reason: str) -> None:
        """Only a full extract helps. The feed goes on from here: the extract covers all that came before."""
        now = self._client.server_floor()
        state.cursor = state.base = instant_text(now - self._policy.overlap)
        state.read_started = state.position = None
        state.lowest_id = state.last_read = None
        self.tally.snapshot_required = reason
        with self._warehouse.transaction("rally.feed.give-up", self._lease) as tx:
            require_snapshot(tx, reason, since=now)
            state.store(tx)


def _union(first: list[ChangeEntry], second: list[ChangeEntry]) -> list[ChangeEntry]:
    found = {
        (entry.id, entry.changed_at, entry.entity_id, entry.action): entry for entry in (*first, *second)
    }
    return sorted(found.values(), key=lambda entry: (entry.changed_at, entry.id))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _required(text: str | None) -> str:
    if text is None:
        raise RuntimeError("the feed has no read in progress")
    return text
