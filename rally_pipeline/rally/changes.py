"""Reading the change feed: every entry is recorded once, whatever order, ties, lateness or crashes do.

The cursor `s` moves only when a read closes, to the server's time before the read's first request minus the overlap:
never to the greatest `changedAt`, never to the time at the end. A trailing group of equal times is taken only where
the page cannot have been cut inside it. Entries become rows of `rally_changes` and open marks in one transaction with
the position. Algorithm: correctness, section "Change feed".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from rally_pipeline.http.errors import NotFound, Rejected
from rally_pipeline.rally.client import ChangeEntry, ChangePage, RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_log import FeedLog, FeedTally
from rally_pipeline.rally.feed_state import FEED_STREAM, FeedState, require_snapshot, required
from rally_pipeline.rally.groups import LargeGroups, ReadFrom
from rally_pipeline.rally.invariants import check_cursor, check_marked, check_step
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.retention import FeedChecks, GroupTooLarge, SnapshotRequired
from rally_pipeline.rally.tables import changes
from rally_pipeline.rally.windows import close_windows
from rally_pipeline.warehouse.values import instant_text, parse_instant

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import Progress
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

_LIMIT_FACTOR = 10
_GARBLED_TRIES = 3
_CLOCK_JITTER = timedelta(seconds=2)


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
        self._log = FeedLog(self.tally)
        self._checks = FeedChecks(warehouse, client, policy)
        self._groups = LargeGroups(warehouse, client, policy, self._ask)
        self._clock_compared = False

    # ------------------------------------------------------------------ the main read: cursor to now

    def read_on(self, *, base: datetime | None = None) -> FeedState:
        """Read from the cursor to the present and move the cursor. `base` begins the log where there is none.

        Where only a full extract helps, the tally says why.
        """
        state = self._open(base)
        try:
            self._read_pages(state)
            self._close(state)
        except GroupTooLarge as group:
            self._hold(state, group)
        except SnapshotRequired as reason:
            self._give_up(state, str(reason))
        return state

    def _open(self, base: datetime | None) -> FeedState:
        with self._warehouse.reading() as tx:
            state = FeedState.load(tx)
        # Of an answer of this very process: whether a stored time is old, only a clock could tell that may be wrong.
        started = self._client.server_floor()
        if state.cursor is None:
            # The first read of a log without a snapshot: complete from `base` on, or from now on.
            first = min(base or started, started) - self._policy.overlap
            state.cursor = state.base = instant_text(first)
        if state.position is None or state.read_started is None:
            # A server clock that was set back must not hide what it stamps now, nor what the last read could not see.
            since = [started] if state.last_read is None else [started, parse_instant(state.last_read)]
            state.position = min(state.cursor, *(instant_text(at - self._policy.overlap) for at in since))
            state.read_started = instant_text(started)
            state.opened_at = instant_text(self._client.clock.now())
            with self._warehouse.transaction("rally.feed.open", self._lease) as tx:
                state.store(tx)
        return state

    def _read_pages(self, state: FeedState) -> None:
        self._checks.check_age(state)
        while True:
            position = required(state.position)
            page = self._ask(parse_instant(position))
            if self._begin_again(state, page):
                continue
            self._checks.check_known(state, page)
            self._log.note_cut(page, floor=self._policy.feed_capacity_floor, overlap=self._policy.overlap)
            try:
                kept = self._kept(state, page, position)
            except ReadFrom as further:
                self._go_on_from(state, further)
                continue
            ends = not _has_news(page.entries, position) and not _has_news(kept, position)
            self._record(state, page, kept, ends=ends)
            self._progress(FEED_STREAM, self.tally.received, None)
            if ends:
                return

    @staticmethod
    def _go_on_from(state: FeedState, further: ReadFrom) -> None:
        state.position = further.position
        if further.skipped and state.base is not None:
            state.base = max(state.base, further.position)

    def _begin_again(self, state: FeedState, page: ChangePage) -> bool:
        """Whether the server's clock was set back: then the read starts from what it may have stamped since.

        That may have happened any time after the last read, and everything since then has been stamped anew.
        """
        stamped = page.dated
        if stamped is None:
            return False
        before = stamped < parse_instant(required(state.read_started)) - _CLOCK_JITTER
        behind = not self._clock_compared and self._is_behind(state, stamped)
        self._clock_compared = True
        if not before and not behind:
            return False
        unread = self._time_since_last_read(state)
        if unread is None:
            raise SnapshotRequired("the server's clock was set back, and nobody can tell when")
        self._groups.trusts_extracts = False
        state.read_started = min(required(state.read_started), instant_text(stamped))
        state.position = min(required(state.position), instant_text(stamped - unread - self._policy.overlap))
        return True

    def _is_behind(self, state: FeedState, stamped: datetime) -> bool:
        """Whether less time has passed by the server's clock than by the local one since the cursor was fixed.

        Clocks drift apart, but by more than the overlap covers they must not: reading on from there costs little.
        """
        unread = self._time_since_last_read(state)
        if unread is None:
            return False
        expected = parse_instant(required(state.cursor)) + self._policy.overlap + unread
        return stamped < expected - min(_CLOCK_JITTER + unread / 1_000, self._policy.overlap)

    def _time_since_last_read(self, state: FeedState) -> timedelta | None:
        """How long ago, by the local clock, the read began that fixed the cursor; None where nobody can tell."""
        if state.last_opened_at is None:
            return None
        unread = self._client.clock.now() - parse_instant(state.last_opened_at)
        return unread if unread >= timedelta(0) else None

    def _ask(self, since: datetime, entity: Entity | None = None) -> ChangePage:
        """One page; of a single entity with a larger limit, where a tie group may not fit a page."""
        limit = self._policy.feed_limit
        before = self._client.http.usage.requests
        try:
            for _ in range(_GARBLED_TRIES):
                if entity is None:
                    page = self._client.changes(since, limit=limit)
                else:
                    page = self._ask_for_more(since, limit, entity)
                if not page.unreadable:
                    break
        except (Rejected, NotFound) as error:
            if isinstance(error, NotFound) and not error.gone:
                raise
            why = error.excerpt or error.detail or error.status
            raise SnapshotRequired(
                f"the feed refuses to be read from {since:%Y-%m-%d %H:%M} UTC ({why})"
            ) from error
        self.tally.pages += 1
        self.tally.received += page.received
        self.tally.hours[instant_text(since)[:13]].requests += self._client.http.usage.requests - before
        return page

    def _ask_for_more(self, since: datetime, limit: int, entity: Entity) -> ChangePage:
        try:
            return self._client.changes(since, limit=limit * _LIMIT_FACTOR, entities=(entity,))
        except Rejected:
            return self._client.changes(since, limit=limit, entities=(entity,))

    def _kept(self, state: FeedState, page: ChangePage, position: str) -> list[ChangeEntry]:
        """The entries that may be stepped over: all but a trailing group that the page's end may have cut."""
        entries = page.entries
        may_be_cut = page.received >= max(self._policy.feed_capacity_floor, state.capacity)
        if not entries:
            if page.unreadable and may_be_cut:
                raise SnapshotRequired(
                    f"the feed answers with entries that cannot be read ({page.unreadable[0][1]})"
                )
            return []
        last = entries[-1].changed_at
        before = [entry for entry in entries if entry.changed_at < last]
        if before and before[-1].changed_at > position:
            return before
        # The last group is the only news. A page below what the server is known to return was not cut inside it.
        if not may_be_cut:
            return entries
        return self._groups.read(page, parse_instant(position), last)

    # ------------------------------------------------------------------ a window behind the cursor

    def read_window(self, start: datetime, end: datetime) -> None:
        """Read [start, end) again: missing entries and their marks are added, the cursor stays.

        Raises:
            SnapshotRequired: the feed does not reach back that far any more.
        """
        known = self._known_between(start, end)
        if not known:
            self._checks.check_reach(start)
        state = FeedState(
            position=instant_text(start - timedelta(seconds=1)), capacity=self._stored_capacity()
        )
        until = instant_text(end)
        met: set[int] = set()
        while True:
            position = required(state.position)
            page = self._ask(parse_instant(position))
            met.update(entry.id for entry in page.entries)
            try:
                kept = self._kept(state, page, position)
            except ReadFrom as further:
                self._go_on_from(state, further)
                continue
            except GroupTooLarge as group:
                self._demand(FeedState(), group, store=False)
                raise SnapshotRequired(str(group)) from group
            ends = not _has_news(page.entries, position) and not _has_news(kept, position)
            self._record(state, page, kept, ends=ends, store=False)
            if ends or required(state.position) >= until:
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

    # ------------------------------------------------------------------ committing

    def _record(
        self, state: FeedState, page: ChangePage, kept: list[ChangeEntry], *, ends: bool, store: bool = True
    ) -> None:
        """One transaction: entries, marks, position (FD2)."""
        with self._warehouse.transaction("rally.feed.page", self._lease) as tx:
            check_step(
                page,
                kept,
                required(state.position),
                whole_below=max(self._policy.feed_capacity_floor, state.capacity),
                proven=self._groups.proven,
            )
            self._log.park(tx, page.unreadable, page.answered)
            reason = self._insert(tx, state, kept, page.answered, store=store)
            if kept and not ends:
                state.position = kept[-1].changed_at
            state.capacity = max(state.capacity, page.received)
            if store:
                state.server_time = instant_text(self._client.server_floor())
                unread = self._groups.unread
                if unread is not None and required(state.base) < unread <= state.server_time:
                    # The log lacks a part of that group, so it is complete from behind it on.
                    state.base = unread
                state.store(tx)
        if reason:
            raise SnapshotRequired(reason)

    def _insert(
        self, tx: Transaction, state: FeedState, kept: list[ChangeEntry], answered: datetime, *, store: bool
    ) -> str | None:
        """Write and mark what is new; returns why the ids say that the source was restored, or None."""
        fresh = self._log.insert(tx, kept, answered)
        self._log.mark(tx, fresh, answered)
        check_marked(tx, fresh, answered)
        self._log.note_lateness(state, fresh)
        if not fresh:
            return None
        reason = self._checks.find_restart(tx, state, fresh) if store else None
        lowest = min(entry.id for entry in fresh)
        state.lowest_id = lowest if state.lowest_id is None else min(state.lowest_id, lowest)
        return reason

    def _hold(self, state: FeedState, group: GroupTooLarge) -> None:
        """Keep what came of the group and end the read in front of it; the cursor stays, so nothing is behind it."""
        state.read_started = state.position = state.opened_at = None
        reason = self._demand(state, group, store=True)
        self.tally.snapshot_required = str(group)
        if reason:
            self._give_up(state, reason)

    def _demand(self, state: FeedState, group: GroupTooLarge, *, store: bool) -> str | None:
        """One transaction: the entries that came, their marks, and the full extracts that have to cover the others."""
        with self._warehouse.transaction("rally.feed.group", self._lease) as tx:
            reason = self._insert(tx, state, group.entries, self._client.server_ceiling(), store=store)
            held = state if store else FeedState.load(tx)
            held.groups[group.at] = instant_text(group.since)
            held.store(tx)
            require_snapshot(tx, str(group), since=group.since, entities=group.entities)
        return reason

    def _close(self, state: FeedState) -> None:
        """Move the cursor (never back), close the windows that it passed."""
        # A date that was ahead when the read began has been corrected by the answers since.
        started = min(parse_instant(required(state.read_started)), self._client.server_floor())
        before = required(state.cursor)
        state.cursor = max(before, instant_text(started - self._policy.overlap))
        state.last_read = instant_text(started)
        state.last_opened_at = state.opened_at
        state.read_started = state.position = state.opened_at = None
        state.groups = {at: since for at, since in state.groups.items() if at > state.cursor}
        with self._warehouse.transaction("rally.feed.close", self._lease) as tx:
            check_cursor(tx, state.cursor, self._policy.overlap)
            state.store(tx)
            base = parse_instant(required(state.base))
            self.tally.windows_closed += close_windows(
                tx, base, parse_instant(state.cursor), touched=self.tally.touched, closed_at=started
            )

    def _give_up(self, state: FeedState, reason: str) -> None:
        """Only a full extract helps. The feed goes on from here: the extract covers all that came before."""
        now = self._client.server_floor()
        state.cursor = state.base = instant_text(now - self._policy.overlap)
        state.read_started = state.position = None
        state.lowest_id = state.last_read = None
        state.last_opened_at = instant_text(self._client.clock.now())
        self.tally.snapshot_required = reason
        with self._warehouse.transaction("rally.feed.give-up", self._lease) as tx:
            require_snapshot(tx, reason, since=now)
            state.store(tx)


def _has_news(entries: list[ChangeEntry], position: str) -> bool:
    return bool(entries) and entries[-1].changed_at > position
