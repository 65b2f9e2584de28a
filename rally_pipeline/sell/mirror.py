"""The Sell mirror as a whole: drain the queue, settle what it leaves open, say how things stand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import func, select

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.garbage import searched_rarely
from rally_pipeline.http.waits import announce
from rally_pipeline.sell import device as devices
from rally_pipeline.sell import landing, marks
from rally_pipeline.sell.client import SellClient
from rally_pipeline.sell.device import Device, DeviceClaims
from rally_pipeline.sell.drain import STREAM, DrainTally, QueueDrain
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.policy import SellPolicy
from rally_pipeline.sell.results import Cost, DrainResult, SellStatus, SettleResult, TableStatus
from rally_pipeline.sell.settle import Settler
from rally_pipeline.sell.spending import Meter
from rally_pipeline.sell.sweep import count_unresent, mark_undelivered, mark_unresent
from rally_pipeline.sell.tables import ENTITY_TABLES, failed_objects, metadata, queue_items, suspects
from rally_pipeline.warehouse.tables import quarantine
from rally_pipeline.warehouse.values import instant_text, parse_instant

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

Progress = Callable[[str, int, int | None], None]
"""`(stream, done, total)`; the total is None while it is unknown."""

Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)

_LEASE_SECONDS = 300.0
"""Longer than any one call with its repetitions, so that a slow server costs no take-over."""
_MOST_WAITS = 3
"""So many times the staleness bound is waited for at most in one run; what is open then is left to the next one."""
_RUN = "sell.run"
"""State: how the last drain ended."""
REPLAYED = "replayed from quarantine"


def no_progress(stream: str, done: int, total: int | None) -> None:
    """Reports nothing."""


class SellMirror:
    """All operations on the Sell tables. Each takes the one lease of the queue: there is one writer at a time."""

    def __init__(
        self,
        warehouse: Warehouse,
        client: SellClient,
        policy: SellPolicy,
        *,
        claims: DeviceClaims | None = None,
        clock: Clock | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._claims = claims
        self._clock = clock or SystemClock()
        self._progress = progress

    def prepare(self) -> None:
        """Create or complete the tables."""
        self._warehouse.create_tables(metadata)

    # ------------------------------------------------------------------ operations

    @searched_rarely()
    def drain(self) -> DrainResult:
        """Drain the queue to its 204, or to a bound; items are acknowledged only after their commit.

        Raises:
            ReadOnly: RALLY_PIPELINE_READ_ONLY is on; the queue is not opened.
            DeviceMismatch: the device UUID is not this warehouse's, or the warehouse was copied or restored.
            LeaseHeld: another drain is at work.
            ApiError: the API refuses, or does not answer.
        """
        self._client.http.check_writable("the Sell queue is not opened")
        meter = Meter(self._client.http, self._clock)
        with self._lease() as lease:
            device = self._check_device(lease)
            drain = QueueDrain(
                self._warehouse,
                self._client,
                self._policy,
                lease,
                device,
                clock=self._clock,
                progress=self._progress,
            )
            tally = drain.run()
            unresent, held = self._finish(lease, device, tally)
            with self._warehouse.reading() as tx:
                acks_pending = landing.count_pending(tx)
        return DrainResult(
            stopped_reason=tally.stopped_reason,
            sessions=tally.sessions,
            resumed=tally.resumed,
            pages=tally.pages,
            empty_pages=tally.empty_pages,
            unreadable_pages=tally.unreadable_pages,
            acks=tally.acks,
            acked=tally.acked,
            acks_pending=acks_pending,
            tally=tally.items,
            synced_through=tally.synced_through,
            unresent=unresent,
            sweep_held=held,
            cost=meter.cost(),
        )

    def settle(self, entities: Iterable[Entity], *, wait: bool = True) -> dict[Entity, SettleResult]:
        """Look at the open objects of these types; with `wait`, until those found are settled or failed.

        All types wait together until everything is old enough, so this takes hardly longer than the staleness bound.

        Raises:
            LeaseHeld: a drain is at work.
            ApiError: the token is refused, or the server answers nothing.
        """
        results = {entity: SettleResult(entity.value, cost=Cost()) for entity in entities}
        is_open = [
            entity
            for entity in results
            if self.read(lambda tx, kind=entity.singular: marks.read_marks(tx, kind, limit=1))  # type: ignore[misc]
        ]
        if not is_open:
            return results
        with self._lease() as lease:
            settlers = {entity: self._settler(entity, lease) for entity in is_open}
            self._settle_all(list(settlers.values()), wait=wait)
            return results | {entity: settler.result() for entity, settler in settlers.items()}

    def _settler(self, entity: Entity, lease: Lease) -> Settler:
        return Settler(
            self._warehouse,
            self._client,
            self._policy,
            lease,
            entity,
            clock=self._clock,
            progress=self._progress,
        )

    def _settle_all(self, settlers: Sequence[Settler], *, wait: bool) -> None:
        """In rounds, until nothing is left to wait for. A server's clock that stands still ends the waiting, too."""
        bound = self._policy.settling.total_seconds() + 1
        waited = 0.0
        while True:
            for settler in settlers:
                settler.settle_due()
            due = [at for settler in settlers if (at := settler.next_due()) is not None]
            if not wait or not due or waited >= _MOST_WAITS * bound:
                return
            left = (max(due) - self._client.server_time()).total_seconds()
            seconds = min(max(left, 0.0) + 0.01, bound)
            announce(
                logger,
                self._clock,
                "sell",
                seconds,
                "then an answer about what the queue left open cannot be stale",
            )
            self._clock.sleep(seconds)
            waited += seconds

    def adopt_device(self) -> Device:
        """Go on under `SELL_DEVICE_UUID`: a person vouches that this warehouse holds what it acknowledged."""
        uuid = devices.check_uuid(self._client.device_uuid)
        identity = self._warehouse.identity()
        with self._lease() as lease, self._warehouse.transaction("sell.adopt-device", lease) as tx:
            return devices.adopt_device(tx, uuid, identity, self._claims)

    def new_device(self) -> Device:
        """A new UUID: everything is sent again, and rows that are not sent are looked at."""
        identity = self._warehouse.identity()
        with self._lease() as lease, self._warehouse.transaction("sell.new-device", lease) as tx:
            return devices.new_device(tx, identity, self._claims)

    def unresent(self) -> dict[Entity, int]:
        """Rows of each type that the full resend has not brought so far; empty while none is under way."""
        with self._warehouse.reading() as tx:
            device = devices.read_device(tx)
            return count_unresent(tx, device.lineage) if device is not None and device.sweep else {}

    def allow_sweep(self, rows: int) -> None:
        """Let the next drain mark exactly `rows` rows that were not sent again; used once."""
        with self._lease() as lease, self._warehouse.transaction("sell.allow-sweep", lease) as tx:
            device = devices.read_device(tx)
            if device is not None:
                replace(device, allowed=rows).save(tx)

    def replay_quarantine(self) -> int:
        """Mark every quarantined record whose object is known for another look; returns how many.

        An item that could not be read at all names no object: it stays, and comes again when the object changes.
        """
        seen = self._client.server_time()
        found = 0
        with self._lease() as lease, self._warehouse.transaction("sell.replay", lease) as tx:
            page = int((tx.state(STREAM) or {}).get("page", 0))
            for entity in Entity:
                keys = [item.key for item in tx.quarantined(entity.stream)]
                named = [key for key in keys if key.replace(":", "").isdigit()]
                hints = [((entity.singular, key), REPLAYED) for key in named]
                marks.open_marks(tx, suspects, hints, mark=page, seen=seen)
                found += len(hints)
        return found

    # ------------------------------------------------------------------ status

    def landed_items(self) -> int:
        """Items in the landing table."""
        return self.read(lambda tx: tx.count(queue_items))

    def read(self, question: Callable[[Transaction], Answer]) -> Answer:
        """The answer to a question, asked in one read transaction."""
        with self._warehouse.reading() as tx:
            return question(tx)

    def status(self) -> SellStatus:
        """How the tables stand. Makes no request."""
        with self._warehouse.reading() as tx:
            run = tx.state(_RUN) or {}
            device = devices.read_device(tx)
            checked_at = _instant(run.get("checked_at"))
            synced_through = _instant(run.get("synced_through"))
            held = dict(tx.rows(select(quarantine.c.source, func.count()).group_by(quarantine.c.source)))
            kinds = {entity.singular for entity in Entity}
            counted = [marks.count_marks(tx, table) for table in marks.TABLES]
            unplaced = sum(
                count for found in counted for kind, (count, _) in found.items() if kind not in kinds
            )
            raw = select(func.count()).select_from(queue_items).where(queue_items.c.payload.is_not(None))
            return SellStatus(
                tables=tuple(self._table_status(tx, entity, held, checked_at) for entity in Entity),
                synced_through=synced_through,
                lag_seconds=(self._clock.now() - synced_through).total_seconds() if synced_through else None,
                checked_at=checked_at,
                stopped_reason=run.get("stopped_reason"),
                acks_pending=landing.count_pending(tx),
                raw_items=int(tx.scalar(raw) or 0),
                unplaced_marks=unplaced,
                quarantined=sum(count for source, count in held.items() if source.startswith("sell.")),
                device_uuid=device.uuid if device is not None else None,
                sweep_held=int(run.get("sweep_held", 0)),
            )

    def _table_status(
        self, tx: Transaction, entity: Entity, held: dict[str, int], checked_at: datetime | None
    ) -> TableStatus:
        table = ENTITY_TABLES[entity]
        suspected, first_suspected = marks.count_marks(tx, suspects).get(entity.singular, (0, None))
        failed, first_failed = marks.count_marks(tx, failed_objects).get(entity.singular, (0, None))
        firsts = [first for first in (first_suspected, first_failed) if first is not None]
        age = (checked_at - min(firsts)).total_seconds() if checked_at is not None and firsts else None
        return TableStatus(
            table=entity.table_name,
            rows=tx.count(table),
            open_marks=suspected + failed,
            failed_objects=failed,
            oldest_mark_seconds=max(0.0, age) if age is not None else None,
            quarantined=held.get(entity.stream, 0),
            synced_at=tx.scalar(select(func.max(table.c["_synced_at"]))),
        )

    # ------------------------------------------------------------------ parts

    @contextmanager
    def _lease(self) -> Iterator[Lease]:
        with self._warehouse.lease(
            STREAM, wait_seconds=self._policy.lease_wait_seconds, ttl_seconds=_LEASE_SECONDS
        ) as lease:
            yield lease

    def _check_device(self, lease: Lease) -> Device:
        uuid = devices.check_uuid(self._client.device_uuid)
        identity = self._warehouse.identity()
        with self._warehouse.transaction("sell.device", lease) as tx:
            return devices.check_device(tx, uuid, identity, self._claims)

    def _finish(self, lease: Lease, device: Device, tally: DrainTally) -> tuple[int, bool]:
        """Record how the run ended; after a complete one, look for rows not sent again and forget old items."""
        now = self._client.server_time()
        complete = tally.stopped_reason.is_complete
        unresent, held = 0, False
        with self._warehouse.transaction("sell.finish", lease) as tx:
            run = dict(tx.state(_RUN) or {})
            if complete:
                if not device.proven:
                    device = replace(device, proven=True)
                    device.save(tx)
                page = int((tx.state(STREAM) or {}).get("page", 0))
                mark_undelivered(tx, mark=page, seen=now)
                if device.sweep:
                    device, unresent, held = mark_unresent(tx, device, self._policy, mark=page, seen=now)
                if not device.sweep:
                    landing.forget(tx, before=now, days=self._policy.retention_days)
                if tally.synced_through is not None:
                    run["synced_through"] = instant_text(tally.synced_through)
            run |= {
                "stopped_reason": tally.stopped_reason.value,
                "checked_at": instant_text(now),
                "sweep_held": unresent if held else 0,
            }
            tx.set_state(_RUN, run)
        return unresent, held


def _instant(text: str | None) -> datetime | None:
    return None if text is None else parse_instant(text)
