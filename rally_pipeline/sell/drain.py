"""Draining the queue: sessions to their 204, one transaction a page, acknowledgement only after the commit.

What is bounded: sessions, run time, empty answers and unreadable answers in a row. What fails the run: a refused
token or scope, a warehouse that does not commit, a device UUID that is not this warehouse's. What does not: an
acknowledgement without an answer (its keys stay in `sell_pending_acks`), a lost session, a page cut on its way;
their items come again, and applying them again changes nothing. A run that stops early says so in
`stopped_reason`, and the next one goes on where it was. Algorithm and invariants: correctness, section 6.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Self

from rally_pipeline.http.errors import ApiError, BadAnswer, Forbidden, NotFound, Unauthorized
from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.sell import landing
from rally_pipeline.sell.apply import PageApplier
from rally_pipeline.sell.device import (
    Device,
    check_first_items,
    check_first_start,
    check_uuid,
    read_device,
)
from rally_pipeline.sell.landing import PageMark
from rally_pipeline.sell.results import PageTally, StoppedReason
from rally_pipeline.sell.sessions import Session, read_session, save_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rally_pipeline.clock import Clock
    from rally_pipeline.sell.client import Fetched, SellClient
    from rally_pipeline.sell.policy import SellPolicy
    from rally_pipeline.sell.queue import QueuePage
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

logger = logging.getLogger(__name__)

STREAM = "sell.queue"
_REPLAYED_AT_ONCE = 50
_BARREN_SESSIONS = 2
"""Sessions in a row without news that end a run: one may have lost its only page, a second one shows no progress."""


class _End(Enum):
    """How one session ended."""

    DRAINED = "drained"
    LOST = "lost"
    EMPTY = "empty"
    RUNTIME = "runtime"


@dataclass(slots=True)
class DrainTally:
    """What a run did, collected while it works."""

    stopped_reason: StoppedReason = StoppedReason.DRAINED
    sessions: int = 0
    resumed: bool = False
    pages: int = 0
    empty_pages: int = 0
    unreadable_pages: int = 0
    acks: int = 0
    acked: int = 0
    synced_through: datetime | None = None
    items: PageTally = field(default_factory=PageTally)


class _Fetcher:
    """Fetches the pages of a session in turn; the next one may be under way while the last one is committed."""

    def __init__(self, client: SellClient, session_id: str) -> None:
        self._client = client
        self._session_id = session_id
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="sell-fetch")
        self._under_way: Future[Fetched] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    @property
    def is_under_way(self) -> bool:
        """Whether a page has been asked for that `next` will return."""
        return self._under_way is not None

    def begin(self) -> None:
        """Ask for the next page without waiting for it."""
        self._under_way = self._threads.submit(self._client.fetch, self._session_id)

    def next(self) -> Fetched:
        """The next page. Raises what `SellClient.fetch` raises."""
        under_way, self._under_way = self._under_way, None
        return under_way.result() if under_way is not None else self._client.fetch(self._session_id)


class QueueDrain:
    """One run over the queue, under its lease."""

    def __init__(
        self,
        warehouse: Warehouse,
        client: SellClient,
        policy: SellPolicy,
        lease: Lease,
        device: Device,
        *,
        clock: Clock,
        progress: Callable[[str, int, int | None], None],
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._lease = lease
        self._device = device
        self._clock = clock
        self._progress = progress
        self._page = 0
        self._committed = 0
        """Number of the last page whose transaction has ended."""
        self._unconfirmed = 0
        self._confirmed: list[int] = []
        """Pages whose acknowledgement was accepted; noted in the next transaction."""
        self._deadline = clock.monotonic() + policy.max_runtime_seconds
        self.tally = DrainTally()

    def run(self) -> DrainTally:
        """Acknowledge what is left, then drain sessions until nothing is pending or a bound is met.

        Raises:
            ApiError: the API refuses the token, the scope or a session, or does not answer.
            DeviceMismatch: the UUID has acknowledged objects elsewhere.
            WarehouseError: a page was not committed: it was not acknowledged, and nothing more was fetched.
        """
        with self._warehouse.reading() as tx:
            self._page = self._committed = int((tx.state(STREAM) or {}).get("page", 0))
            session = read_session(tx)
        self._replay_acks()
        self.tally.stopped_reason = self._drain_sessions(session)
        if self._unconfirmed:
            self._replay_acks()
        self._note_confirmed()
        return self.tally

    # ------------------------------------------------------------------ sessions

    def _drain_sessions(self, left: Session | None) -> StoppedReason:
        end, barren = _End.DRAINED, 0
        for _ in range(self._policy.max_rounds):
            session = self._resume(left) if left is not None else self._start()
            left = None
            if session is None:
                return StoppedReason.DRAINED
            end = self._drain(session)
            if end is _End.RUNTIME:
                return StoppedReason.RUNTIME
            if end is _End.EMPTY:
                return StoppedReason.EMPTY_PAGES
            if end is _End.DRAINED and not session.short:
                self.tally.synced_through = session.started_at
                return StoppedReason.DRAINED
            barren = barren + 1 if session.fresh and not session.news else 0
            if barren >= _BARREN_SESSIONS:
                return StoppedReason.SESSION_LOST if end is _End.LOST else StoppedReason.NOTHING_NEW
        return StoppedReason.SESSION_LOST if end is _End.LOST else StoppedReason.ROUNDS

    def _start(self) -> Session | None:
        """Open a session and remember it before anything is fetched from it."""
        session_id = self._client.start()
        started_at = self._client.server_time()
        if session_id is None:
            with self._warehouse.reading() as tx:
                if not self._device.proven:
                    check_first_start(tx, self._device)
            self.tally.synced_through = started_at
            return None
        session = Session(session_id, started_at, fresh=True)
        self.tally.sessions += 1
        with self._transaction("sell.session") as tx:
            save_session(tx, session)
        return session

    def _resume(self, session: Session) -> Session:
        """Go on with the session of an earlier run; from here on a crash may lose a page of it."""
        self.tally.resumed = True
        if not session.short:
            with self._transaction("sell.session") as tx:
                save_session(tx, session)
        return session

    def _leave(self, session: Session | None, *, orderly: bool = False) -> None:
        with self._transaction("sell.session") as tx:
            save_session(tx, session, orderly=orderly)

    def _drain(self, session: Session) -> _End:
        """Fetch pages until the session ends, or a bound is met between two pages."""
        empty = unreadable = 0
        with _Fetcher(self._client, session.id) as fetcher:
            while True:
                late = self._clock.monotonic() >= self._deadline
                if late and not fetcher.is_under_way:
                    self._leave(session, orderly=not session.short)
                    return _End.RUNTIME
                try:
                    fetched = fetcher.next()
                except (NotFound, Unauthorized) as error:
                    logger.info("the session is gone (%s): starting another one", error)
                    self._leave(None)
                    return _End.LOST
                except BadAnswer as error:
                    session.short = True
                    self.tally.unreadable_pages += 1
                    unreadable += 1
                    if unreadable >= self._policy.max_unreadable_pages:
                        raise
                    logger.warning("a page was lost on its way, it will come again: %s", error)
                    continue
                session.short = session.short or fetched.repeated
                if fetched.page is None:
                    self._leave(None)
                    return _End.DRAINED
                unreadable = 0
                if fetched.page.is_empty:
                    empty += 1
                    self.tally.empty_pages += 1
                    if empty >= self._policy.max_empty_pages:
                        self._leave(session, orderly=not session.short)
                        return _End.EMPTY
                    self._clock.sleep(self._policy.empty_pause_seconds * min(10, 2 ** (empty - 1)))
                    continue
                empty = 0
                if self._policy.prefetch and not late:
                    fetcher.begin()
                self._take(fetched.page, session)

    # ------------------------------------------------------------------ one page

    def _take(self, page: QueuePage, session: Session) -> None:
        """Commit the page with everything that it says, then acknowledge it."""
        mark = PageMark(self._page + 1, self._device.lineage, self._client.server_time())
        commits = self._lease.commits
        with self._transaction("sell.page") as tx:
            self._check_lineage(tx)
            if not self._device.proven:
                check_first_items(tx, self._device, page.items)
            applier = PageApplier(tx, mark, self._policy.delete_mode)
            applier.apply(page)
            tx.set_state(STREAM, {"page": mark.number})
            if applier.ack_keys:
                tx.witness()
        self._page = mark.number
        if self._lease.commits > commits:
            self._committed = mark.number
        self.tally.pages += 1
        self.tally.items.add(applier.tally)
        session.news = session.news or applier.tally.has_news
        self._acknowledge(mark.number, applier.ack_keys)
        done = self.tally.items.items
        self._progress(STREAM, done, None if page.count_left is None else done + page.count_left)

    def _check_lineage(self, tx: Transaction) -> None:
        """What is stored here is acknowledged under the device of this warehouse, and no other (SQ2)."""
        known = read_device(tx)
        mine = (check_uuid(self._client.device_uuid), self._device.lineage)
        if known is None or (known.uuid, known.lineage) != mine:
            stored = "none" if known is None else f"{known.uuid} (lineage {known.lineage})"
            raise InvariantViolation(
                "SQ2", f"the page came for device {mine[0]} (lineage {mine[1]}), the warehouse's is {stored}"
            )

    def _acknowledge(self, page: int, keys: list[str]) -> None:
        """Send the keys of a committed page; without a confirmation they stay pending and the run goes on."""
        if not keys:
            return
        if page > self._committed:
            raise InvariantViolation(
                "SQ1", f"page {page} would be acknowledged, the last committed one is {self._committed}"
            )
        try:
            result = self._client.acknowledge(keys)
        except (Unauthorized, Forbidden):
            raise
        except ApiError as error:
            logger.warning("page %d is stored, its acknowledgement is not confirmed: %s", page, error)
            self._unconfirmed += 1
            return
        if not result.confirmed:
            logger.warning("page %d is stored, its acknowledgement was not answered with 202", page)
            self._unconfirmed += 1
            return
        self._confirmed.append(page)
        self.tally.acks += result.calls
        self.tally.acked += len(keys)

    def _replay_acks(self) -> None:
        """Acknowledge what was committed and not confirmed; doing so again is harmless."""
        after = -1
        self._unconfirmed = 0
        self._note_confirmed()
        while True:
            with self._warehouse.reading() as tx:
                found = landing.pending(
                    tx, lineage=self._device.lineage, after=after, limit=_REPLAYED_AT_ONCE
                )
            for pending in found:
                self._acknowledge(pending.page, list(pending.keys))
            self._note_confirmed()
            if len(found) < _REPLAYED_AT_ONCE:
                return
            after = found[-1].page

    def _note_confirmed(self) -> None:
        if self._confirmed:
            with self._transaction("sell.acks"):
                logger.debug("%d acknowledgements confirmed", len(self._confirmed))

    @contextmanager
    def _transaction(self, name: str) -> Iterator[Transaction]:
        """A leased transaction that also notes the acknowledgements confirmed since the last one."""
        with self._warehouse.transaction(name, self._lease) as tx:
            if self._confirmed:
                landing.confirm(tx, self._confirmed, at=self._client.server_time())
            yield tx
        self._confirmed.clear()
