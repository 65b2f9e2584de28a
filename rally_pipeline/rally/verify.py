"""Comparing Rally with the warehouse by every column value, and healing just the difference.

Order: read the feed, refetch what is pending, scan the whole list and compare. The source goes on changing meanwhile.
What is pending, what was updated after `t_r - W`, or what a later read of the feed names is *in flight*: neither a
difference nor a repair. Healing only flags; the refetches repair, behind the delete guard. What they had to change is
the number of repairs, whose target is 0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rally_pipeline.http.waits import announce
from rally_pipeline.rally import marks
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.deletes import MassDeleteSuspected
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.extract import is_filled
from rally_pipeline.rally.feed_state import FeedState
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.results import Comparison, Cost
from rally_pipeline.rally.spending import Meter
from rally_pipeline.rally.table_comparison import TableComparison
from rally_pipeline.warehouse.values import parse_instant

if TYPE_CHECKING:
    from rally_pipeline.clock import Clock
    from rally_pipeline.rally.mirror import Progress
    from rally_pipeline.rally.results import ChangesResult
    from rally_pipeline.warehouse import Lease, Warehouse

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)


class NeverExtracted(Exception):
    """A table was never filled by a full extract, so that there is nothing to compare."""


class Verification:
    """One comparison of some entities. The waits, for conclusive refetches and for late entries, are shared by all.

    `read_changes` and `refetch` are those of the mirror: each takes the lease that it needs. The scan needs none.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        client: RallyClient,
        policy: MirrorPolicy,
        *,
        clock: Clock,
        progress: Progress,
        lease_of: Callable[[str], AbstractContextManager[Lease]],
        read_changes: Callable[[], ChangesResult],
        refetch: Callable[[Entity], object],
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._clock = clock
        self._progress = progress
        self._lease_of = lease_of
        self._read_changes = read_changes
        self._refetch = refetch
        self._costs: dict[Entity, Cost] = {}

    def run(self, entities: Sequence[Entity], *, heal: bool) -> list[Comparison]:
        """Compare; with `heal`, repair what differs.

        Raises:
            NeverExtracted: a table was never filled by a full extract.
            MassDeleteSuspected: more rows would go than the delete guard allows; none of that table was deleted.
            LeaseHeld: another process worked on the same stream for longer than this one waits.
        """
        self._costs = dict.fromkeys(entities, Cost())
        self._charged(entities[0], self._refuse_unfilled, entities)
        since = self._catch_up(entities)
        with ExitStack() as stack:
            tables = [stack.enter_context(self._comparison(entity)) for entity in entities]
            for table in tables:
                self._charged(table.entity, table.scan, since)
            self._drop_in_flight(tables, since)
            stopped = None
            if heal:
                stopped = self._heal(tables, since)
            else:
                self._confirm(tables, since)
            results = [table.result(self._costs[table.entity]) for table in tables]
        if stopped is not None:
            raise stopped
        return results

    def _comparison(self, entity: Entity) -> TableComparison:
        return TableComparison(self._warehouse, self._client, self._policy, entity, progress=self._progress)

    def _refuse_unfilled(self, entities: Sequence[Entity]) -> None:
        with self._warehouse.reading() as tx:
            empty = [entity for entity in entities if not is_filled(tx, entity)]
        if not empty:
            return
        # A wrong URL or key is told first: the extract would stumble over it as well.
        self._client.list_page(empty[0], offset=0, limit=1)
        names = ", ".join(entity.table_name for entity in empty)
        has = "has" if len(empty) == 1 else "have"
        raise NeverExtracted(
            f"{names} {has} not been read in full yet, so there is nothing to compare: run `rally-pipeline sync rally`"
            " first"
        )

    # ------------------------------------------------------------------ up to now

    def _catch_up(self, entities: Sequence[Entity]) -> datetime:
        """Read the feed and refetch what is pending; returns `t_r - W`, after which changes may not be known yet."""
        self._charged(entities[0], self._read_feed)
        self._announce_refetches(entities)
        for entity in entities:
            self._charged(entity, self._refetch, entity)
        return self._read_at() - self._policy.overlap

    def _announce_refetches(self, entities: Sequence[Entity]) -> None:
        with self._warehouse.reading() as tx:
            pending = sum(marks.count_marks(tx, entity) for entity in entities)
        if pending:
            self._announce_wait(f"{pending} changed records are read again then")

    def _announce_wait(self, what: str) -> None:
        announce(_logger, self._clock, "rally", float(self._policy.staleness_seconds), what)

    def _read_feed(self) -> None:
        """Bring the change log up to now. A read that goes on with an interrupted one may have begun long ago."""
        result = self._read_changes()
        if self._client.server_floor() - self._read_at() > self._policy.overlap:
            result = self._read_changes()
        if result.snapshot_required:
            _logger.warning("a full extract is required: %s; compared all the same", result.snapshot_required)

    def _read_at(self) -> datetime:
        """`t_r` of the last closed read; the present where the feed had to be given up."""
        with self._warehouse.reading() as tx:
            last_read = FeedState.load(tx).last_read
        return parse_instant(last_read) if last_read is not None else self._client.server_floor()

    # ------------------------------------------------------------------ what the scans found

    def _drop_in_flight(self, tables: Sequence[TableComparison], since: datetime) -> None:
        """Read the feed once more, if anything differs, and take out what changed meanwhile."""
        differing = [table for table in tables if table.differences]
        if not differing:
            return
        self._charged(differing[0].entity, self._read_changes)
        for table in differing:
            table.drop_in_flight(since)

    def _confirm(self, tables: Sequence[TableComparison], since: datetime) -> None:
        """Without healing: give entries that are late a while, then read what differs once more."""
        if not any(table.differences for table in tables):
            return
        self._announce_wait("rows differ, but entries of the feed may be late: compared again then")
        self._clock.sleep(float(self._policy.staleness_seconds))
        self._drop_in_flight(tables, since)
        for table in tables:
            self._charged(table.entity, table.confirm)

    def _heal(self, tables: Sequence[TableComparison], since: datetime) -> MassDeleteSuspected | None:
        """Flag, refetch, and measure what came of it. A guard that stops one table leaves the others their repairs."""
        differing = [table for table in tables if table.differences]
        for table in differing:
            self._charged(table.entity, self._flag, table)
        if differing:
            self._announce_wait(
                f"{sum(table.differences for table in differing)} rows differ: read again then"
            )
        stopped: MassDeleteSuspected | None = None
        for table in differing:
            try:
                self._charged(table.entity, self._refetch, table.entity)
            except MassDeleteSuspected as question:
                stopped = stopped or question
        if differing:
            self._charged(differing[0].entity, self._read_changes)
        for table in differing:
            self._charged(table.entity, table.measure_healing, since)
        return stopped

    def _flag(self, table: TableComparison) -> None:
        with self._lease_of(table.entity.stream) as lease:
            table.flag(lease)

    # ------------------------------------------------------------------ cost and waits

    def _charged(self, entity: Entity, action: Callable[..., Result], *arguments: Any) -> Result:
        """Do it at the cost of an entity; what all share is put down to the first that needs it."""
        meter = Meter(self._client, self._clock)
        try:
            return action(*arguments)
        finally:
            self._costs[entity] += meter.cost()
