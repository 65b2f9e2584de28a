"""The jobs of Rally: a full pass, the incremental step, and the comparison that heals."""

import dagster as dg
from pydantic import Field

from rally_pipeline.orchestration import metadata, policy
from rally_pipeline.orchestration.failures import clear_failures
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.rally.defs import reports
from rally_pipeline.rally.defs.names import (
    FEED,
    FULL_EXTRACT,
    INCREMENTAL,
    RECONCILE,
    extract_key,
    mirror_key,
)
from rally_pipeline.rally.defs.resource import RallyResource
from rally_pipeline.rally.entities import Entity

_EXTRACTS = dg.AssetSelection.assets(*(dg.AssetKey(list(extract_key(entity))) for entity in Entity))
_MIRRORS = dg.AssetSelection.assets(*(dg.AssetKey(list(mirror_key(entity))) for entity in Entity))
_FEED = dg.AssetSelection.assets(dg.AssetKey(list(FEED)))

FULL_EXTRACT_JOB = dg.define_asset_job(
    FULL_EXTRACT,
    selection=_EXTRACTS | _MIRRORS,
    description="A full pass over the four lists, then every mark settled. Resumes an interrupted pass.",
    tags=policy.stream_tags(FULL_EXTRACT, seconds=policy.FULL_EXTRACT_SECONDS),
)

INCREMENTAL_JOB = dg.define_asset_job(
    INCREMENTAL,
    selection=_FEED | _MIRRORS,
    description="The change feed for one hour or a range of hours, then every mark settled.",
    tags=policy.stream_tags(INCREMENTAL, seconds=policy.INCREMENTAL_SECONDS, priority=10),
)


class ReconcileConfig(dg.Config):
    """Launchpad options of the comparison."""

    heal: bool = Field(
        default=True, description="Repair exactly the differing rows; otherwise differences fail the step."
    )


def _reconcile_op(entity: Entity) -> dg.OpDefinition:
    @dg.op(
        name=f"reconcile_{entity.value}",
        description=f"Reads the feed, refetches what is pending, and compares Rally's {entity.value} with"
        f" `{entity.table_name}` by every column value. What changes meanwhile is in flight, no difference.",
        out=dg.Out(dg.Nothing),
    )
    def reconcile_entity(
        context: dg.OpExecutionContext,
        config: ReconcileConfig,
        rally: RallyResource,
        warehouse: WarehouseResource,
    ) -> None:
        with clear_failures(), rally.mirror(warehouse, context.log) as mirror:
            result = mirror.verify(entity, heal=config.heal)
        examples = metadata.rejects("rally/examples", result.examples)
        context.log_event(
            dg.AssetObservation(
                asset_key=list(mirror_key(entity)),
                description="Compared with Rally row by row",
                metadata={**metadata.numbers("rally", result.counts()), **examples},
            )
        )
        evaluation = reports.reconciled(result.repaired, result.left, mirror_key(entity))
        context.log_event(evaluation)  # type: ignore[arg-type]  # taken, though the annotation leaves it out
        if result.left:
            raise dg.Failure(
                f"{entity.table_name}: {result.missing} missing, {result.extra} extra, {result.stale} stale,"
                f" {result.repaired} repaired",
                metadata=examples,
                allow_retries=False,
            )
        if result.repaired:
            told = ", ".join(f"{entity_id} ({kind})" for entity_id, kind in result.examples)
            context.log.warning(
                f"{entity.table_name}: {result.repaired} rows repaired, the target is 0; the first are {told}"
            )

    return reconcile_entity


_RECONCILE_OPS = [_reconcile_op(entity) for entity in Entity]


@dg.job(
    name=RECONCILE,
    description="Compares Rally with the warehouse value by value and heals the differences; each entity on its own.",
    tags=policy.stream_tags(RECONCILE, seconds=policy.FULL_EXTRACT_SECONDS),
)
def reconcile_job() -> None:
    """One op per entity, none waiting for another's success."""
    for op in _RECONCILE_OPS:
        op()
