"""The retention job: old runs go, what the present rests on stays."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from rally_pipeline.orchestration.history import run_history_retention, runs_with_latest_materializations


@dg.asset
def table():
    return dg.MaterializeResult()


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def windows():
    return dg.MaterializeResult()


@pytest.fixture
def instance():
    with dg.instance_for_test() as found:
        yield found


def age(instance, run_id, days):
    """Put the run into the past, where the storage keeps it."""
    from dagster._core.storage.runs.schema import RunsTable

    with instance.run_storage.connect() as connection:
        past = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days)
        connection.execute(
            RunsTable.update().where(RunsTable.c.run_id == run_id).values(create_timestamp=past)
        )


def purge(instance, **config):
    ops = {"purge_run_history": {"config": config}}
    result = run_history_retention.execute_in_process(instance=instance, run_config={"ops": ops})
    return {run.run_id for run in instance.get_runs()} - {result.run_id}


def test_old_runs_go_and_the_latest_of_every_asset_and_partition_stay(instance):
    runs = [dg.materialize([table], instance=instance).run_id for _ in range(3)]
    first_a = dg.materialize([windows], instance=instance, partition_key="a").run_id
    only_b = dg.materialize([windows], instance=instance, partition_key="b").run_id
    last_a = dg.materialize([windows], instance=instance, partition_key="a").run_id
    for run_id in (*runs, first_a, only_b, last_a):
        age(instance, run_id, days=60)
    assert runs_with_latest_materializations(instance) == {runs[2], only_b, last_a}
    assert purge(instance, keep_days=30) == {runs[2], only_b, last_a}
    assert instance.get_materialized_partitions(windows.key) == {"a", "b"}
    assert instance.get_latest_materialization_event(table.key).run_id == runs[2]


def test_young_and_unfinished_runs_stay(instance):
    young = [dg.materialize([table], instance=instance).run_id for _ in range(2)]
    running = instance.create_run_for_job(run_history_retention, status=dg.DagsterRunStatus.STARTED).run_id
    age(instance, running, days=60)
    assert purge(instance, keep_days=30) == {*young, running}


def test_a_dry_run_removes_nothing_and_a_bound_stops_early(instance):
    runs = [dg.materialize([table], instance=instance).run_id for _ in range(4)]
    for run_id in runs:
        age(instance, run_id, days=60)
    assert set(runs) <= purge(instance, keep_days=30, dry_run=True)
    assert runs[0] not in purge(instance, keep_days=30, most_runs=1)
    left = {run.run_id for run in instance.get_runs()}
    assert {runs[1], runs[2], runs[3]} <= left
