"""Dagster's own history: finished runs older than a bound are removed, since Dagster never does it itself.

A run that holds the latest materialisation of any asset or partition stays, whatever its age: without it the asset
would look as if it had never been materialised.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from rally_pipeline.orchestration import policy
from rally_pipeline.settings import Settings

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
PAGE = 100


class HistoryConfig(dg.Config):
    """Launchpad options of the removal."""

    keep_days: int = Field(default=30, ge=1, le=3650, description="Finished runs younger than this stay.")
    most_runs: int = Field(
        default=5_000, ge=1, le=100_000, description="Stop after this many; the next run goes on."
    )
    dry_run: bool = Field(default=False, description="Count only.")


@dg.op(
    description="Removes finished runs and their event logs that are older than the bound.",
    out=dg.Out(dg.Nothing),
)
def purge_run_history(context: dg.OpExecutionContext, config: HistoryConfig) -> None:
    """Bounded and repeatable: what is left over is removed by the next run."""
    before = datetime.now(UTC) - timedelta(days=config.keep_days)
    needed = runs_with_latest_materializations(context.instance)
    removed = kept = 0
    for run_id in _finished_runs(context.instance, before):
        if run_id in needed:
            kept += 1
            continue
        if removed >= config.most_runs:
            break
        if not config.dry_run:
            context.instance.delete_run(run_id)
        removed += 1
    verb = "would be removed" if config.dry_run else "removed"
    context.log.info(
        f"{removed} runs {verb}, {kept} kept for a latest materialisation, bound {before:%Y-%m-%d}"
    )
    context.add_output_metadata({"removed": removed, "kept": kept})


def runs_with_latest_materializations(instance: dg.DagsterInstance) -> set[str]:
    """Ids of the runs that any asset's or partition's present state rests on."""
    needed: set[str] = set()
    for key in instance.all_asset_keys():
        storage_ids = list(
            instance.get_latest_storage_id_by_partition(
                key, dg.DagsterEventType.ASSET_MATERIALIZATION
            ).values()
        )
        event = instance.get_latest_materialization_event(key)
        if event is not None:
            needed.add(event.run_id)
        for start in range(0, len(storage_ids), PAGE):
            chunk = storage_ids[start : start + PAGE]
            found = instance.fetch_materializations(dg.AssetRecordsFilter(key, storage_ids=chunk), limit=PAGE)
            needed.update(record.event_log_entry.run_id for record in found.records)
    return needed


def _finished_runs(instance: dg.DagsterInstance, before: datetime) -> list[str]:
    """Ids, oldest first; collected before anything is removed, so that removing does not disturb the paging."""
    filters = dg.RunsFilter(statuses=FINISHED, created_before=before)
    return list(reversed(instance.get_run_ids(filters=filters)))


@dg.job(
    name="run_history_retention",
    description="Removes old finished runs from Dagster's storage and keeps every asset's latest materialisation.",
    tags=policy.stream_tags("run_history_retention", seconds=3600),
)
def run_history_retention() -> None:
    """One op."""
    purge_run_history()


def history_defs(settings: Settings) -> dg.Definitions:
    """The retention job and its nightly schedule."""
    nightly = dg.ScheduleDefinition(
        name="run_history_retention_schedule",
        job=run_history_retention,
        cron_schedule="17 3 * * *",
        execution_timezone="UTC",
        default_status=policy.schedule_status(settings),
        description="Every night at 03:17 UTC.",
    )
    return dg.Definitions(jobs=[run_history_retention], schedules=[nightly])
