"""The assets of Sell.

`sell_queue/items`: the Sync queue drained to its 204, landed and applied page by page, acknowledged after each
commit. `sell/<type>`: the mirror tables; materialising them settles what the queue left open by looking at the
records. Running any of them again, late, twice or at once changes nothing that is right already.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from rally_pipeline.orchestration import checks, metadata
from rally_pipeline.orchestration.failures import clear_failures
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.sell.defs.resource import SellResource
from rally_pipeline.sell.entities import Entity
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from rally_pipeline.sell.mirror import SellMirror
    from rally_pipeline.sell.results import DrainResult, SellStatus, SettleResult, TableStatus

QUEUE = ("sell_queue", "items")
TABLES_OP = "sell_tables"
DRAINED = "queue_drained"
CONFIRMED = "acknowledgements_confirmed"
SCOPE = "scope_allows_looks"
OVERDUE_FLOOR_SECONDS = 900


def table_key(entity: Entity) -> tuple[str, str]:
    """Asset key of the mirror table of a type."""
    return ("sell", entity.value)


class SettleConfig(dg.Config):
    """Launchpad options of settling."""

    wait: bool = Field(
        default=True,
        description="Wait until every mark is old enough to be settled; otherwise leave fresh ones to the next run.",
    )


def queue_asset() -> dg.AssetsDefinition:
    """The queue as landed."""

    @dg.asset(
        key=list(QUEUE),
        group_name="sell_queue",
        kinds={"python", "sql"},
        description="Zendesk Sell's Sync queue, drained until the server says 204. Each page is committed with its"
        " effects before it is acknowledged, so a crash costs at most one page twice. What the queue contradicts"
        " or cannot deliver is left to the looks of `sell/…`.",
        check_specs=[
            checks.spec(DRAINED, QUEUE, "The run ended because nothing was pending, not at a bound."),
            checks.spec(CONFIRMED, QUEUE, "Sell confirmed the acknowledgement of every stored page."),
            checks.spec(checks.QUARANTINE, QUEUE),
            checks.spec(checks.ONE_WRITER, QUEUE),
        ],
    )
    def items(
        context: dg.AssetExecutionContext, sell: SellResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read the parameter
        from rally_pipeline.sell.drain import STREAM

        with clear_failures(), sell.mirror(warehouse, context.log) as mirror:
            result = mirror.drain()
            status = mirror.status()
            rows = mirror.landed_items()
            one_writer = mirror.read(lambda tx: checks.one_writer(tx, STREAM, QUEUE))
        context.log.info(
            f"{result.stopped_reason}: {result.tally.items} items on {result.pages} pages, {result.acks}"
            f" acknowledgements, {result.cost.requests} requests"
        )
        if result.sweep_held:
            context.log.warning(_sweep_remark(result.unresent))
        return dg.MaterializeResult(
            metadata={**_queue_metadata(result, status, warehouse.db_schema), **metadata.row_count(rows)},
            check_results=[*_queue_checks(result, status), one_writer],
        )

    return items


def table_assets(settings: Settings) -> dg.AssetsDefinition:
    """The mirror tables, any of which can be materialised alone."""
    bound = float(max(OVERDUE_FLOOR_SECONDS, 10 * settings.rally_staleness_seconds))

    @dg.multi_asset(
        name=TABLES_OP,
        specs=[_table_spec(entity) for entity in Entity],
        can_subset=True,
        check_specs=[
            spec
            for entity in Entity
            for spec in (
                checks.spec(checks.KEYS, table_key(entity)),
                checks.spec(checks.MARKS, table_key(entity)),
                checks.spec(checks.QUARANTINE, table_key(entity)),
                checks.spec(SCOPE, table_key(entity), "The token may read the records that need a look."),
            )
        ],
    )
    def sell_tables(
        context: dg.AssetExecutionContext,
        config: SettleConfig,
        sell: SellResource,
        warehouse: WarehouseResource,
    ) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]  # Dagster cannot read the parameter
        wanted = {key.path[-1] for key in context.selected_asset_keys}
        with clear_failures(), sell.mirror(warehouse, context.log) as mirror:
            settled = mirror.settle([entity for entity in Entity if entity.value in wanted], wait=config.wait)
            status = mirror.status()
            for entity, result in settled.items():
                yield _table_result(mirror, entity, result, status, bound, warehouse.db_schema)

    return sell_tables


def _table_spec(entity: Entity) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=dg.AssetKey(list(table_key(entity))),
        deps=[dg.AssetKey(list(QUEUE))],
        group_name="sell",
        kinds={"sql", "table"},
        description=f"Table `{entity.table_name}`: every row is a state that Sell really had. The queue writes it;"
        " contradictions, deletes and objects that the queue could not deliver are settled by reading the record.",
    )


def _table_result(
    mirror: "SellMirror",
    entity: Entity,
    result: "SettleResult",
    status: "SellStatus",
    bound: float,
    schema: str | None,
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    from rally_pipeline.sell.tables import ENTITY_TABLES

    key = table_key(entity)
    (table,) = (found for found in status.tables if found.table == entity.table_name)
    return dg.MaterializeResult(
        asset_key=dg.AssetKey(list(key)),
        metadata={
            **metadata.numbers("sell", result.counts()),
            **metadata.numbers("sell", _standing(table)),
            **metadata.row_count(table.rows),
            **metadata.table(ENTITY_TABLES[entity], schema=schema),
            **_lag_metadata(status),
        },
        check_results=[
            mirror.read(lambda tx: checks.keys(tx, ENTITY_TABLES[entity], key)),
            checks.marks(table.open_marks, table.oldest_mark_seconds, bound, key),
            checks.quarantine(result.quarantined, table.quarantined, key),
            dg.AssetCheckResult(
                check_name=SCOPE,
                asset_key=dg.AssetKey(list(key)),
                passed=not result.scope_missing,
                description="give SELL_ACCESS_TOKEN the scopes read and profile"
                if result.scope_missing
                else None,
                metadata={"open_marks": table.open_marks},
            ),
        ],
    )


def _standing(table: "TableStatus") -> dict[str, int]:
    return {
        "open_marks": table.open_marks,
        "failed_objects": table.failed_objects,
        "quarantined_now": table.quarantined,
    }


def _lag_metadata(status: "SellStatus") -> metadata.Metadata:
    lag = {} if status.lag_seconds is None else {"lag_seconds": status.lag_seconds}
    return {
        **metadata.numbers("sell", lag),
        **metadata.instant("sell/synced_through", status.synced_through),
    }


def _queue_metadata(result: "DrainResult", status: "SellStatus", schema: str | None) -> metadata.Metadata:
    from rally_pipeline.sell.tables import queue_items

    standing = {"raw_items": status.raw_items, "quarantined_now": status.quarantined}
    return {
        **metadata.numbers("sell", result.counts()),
        **metadata.numbers("sell", standing),
        **metadata.table(queue_items, schema=schema),
        **_lag_metadata(status),
        "sell/stopped_reason": dg.MetadataValue.text(result.stopped_reason.value),
    }


def _queue_checks(result: "DrainResult", status: "SellStatus") -> list[dg.AssetCheckResult]:
    key = dg.AssetKey(list(QUEUE))
    return [
        dg.AssetCheckResult(
            check_name=DRAINED,
            asset_key=key,
            passed=result.is_complete and not result.sweep_held,
            description=_sweep_remark(result.unresent) if result.sweep_held else None,
            metadata={"stopped_reason": result.stopped_reason.value, "sessions": result.sessions},
        ),
        dg.AssetCheckResult(
            check_name=CONFIRMED,
            asset_key=key,
            passed=result.acks_pending == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description="their items come again and change nothing" if result.acks_pending else None,
            metadata={"pages_pending": result.acks_pending},
        ),
        checks.quarantine(result.tally.quarantined, status.quarantined, QUEUE),
    ]


def _sweep_remark(rows: int) -> str:
    return (
        f"{rows} rows were not sent again after the change of the device UUID, more than the guard lets go unasked:"
        f" `rally-pipeline sell sweep` shows them, `rally-pipeline sell sweep --confirm {rows}` has them looked at"
    )
