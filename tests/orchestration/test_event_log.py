"""The event log with its databases kept open: the same history as Dagster's own class, in fewer waits for the disk."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from rally_pipeline.orchestration.event_log import MOST_RUNS_OPEN, KeptOpenEventLog
from rally_pipeline.orchestration.home import prepare_home


@dg.asset(check_specs=[dg.AssetCheckSpec("plausible", asset="table")])
def table():
    check = dg.AssetCheckResult(passed=True, check_name="plausible")
    return dg.MaterializeResult(metadata={"dagster/row_count": 3}, check_results=[check])


@pytest.fixture
def home(tmp_path):
    prepare_home(tmp_path)
    return tmp_path


@pytest.fixture
def instance(home):
    with dg.DagsterInstance.from_config(str(home)) as found:
        yield found


def line(run_id: str, text: str) -> EventLogEntry:
    return EventLogEntry(
        error_info=None, level=20, user_message=text, run_id=run_id, timestamp=time.time(), dagster_event=None
    )


def messages(log: SqliteEventLogStorage, run_id: str) -> list[str]:
    return [record.event_log_entry.user_message for record in log.get_records_for_run(run_id).records]


def open_databases(home: Path) -> list[str]:
    files = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
    return [file for file in files if file.startswith(runs_folder(home)) and file.endswith(".db")]


def runs_folder(home: Path) -> str:
    return str(home / "history" / "runs")


def test_a_fresh_home_keeps_its_event_log_open(instance):
    assert isinstance(instance.event_log_storage, KeptOpenEventLog)


def test_dagsters_own_class_reads_the_same_history(home, instance):
    result = dg.materialize([table], instance=instance)
    theirs = SqliteEventLogStorage(runs_folder(home))
    ours = instance.event_log_storage
    (key,) = table.check_keys
    assert messages(theirs, result.run_id) == messages(ours, result.run_id)
    assert len(messages(theirs, result.run_id)) > 10
    assert theirs.get_latest_materialization_events([table.key])[table.key].run_id == result.run_id
    assert theirs.get_asset_check_execution_history(key, limit=1)[0].run_id == result.run_id


def test_what_dagsters_own_class_stores_is_read_here(home, instance):
    instance.event_log_storage.store_event(line("run", "first"))
    SqliteEventLogStorage(runs_folder(home)).store_event(line("run", "second"))
    assert messages(instance.event_log_storage, "run") == ["first", "second"]


def test_who_follows_a_run_sees_events_while_the_database_stays_open(home, instance):
    """The live log of the UI, in another process with Dagster's own class."""
    ours, theirs = instance.event_log_storage, SqliteEventLogStorage(runs_folder(home))
    ours.store_event(line("run", "before"))
    seen, arrived = [], threading.Event()

    def follow(entry, _cursor):
        seen.append(entry.user_message)
        arrived.set()

    theirs.watch("run", None, follow)
    try:
        ours.store_event(line("run", "after"))
        assert arrived.wait(10)
    finally:
        theirs.dispose()
    assert seen[0] == "before"


def test_no_more_than_a_bounded_number_of_runs_stays_open(home, instance):
    log = instance.event_log_storage
    for number in range(3 * MOST_RUNS_OPEN):
        log.store_event(line(f"run{number}", "line"))
        assert messages(log, "run0") == ["line"]
    assert 0 < len(open_databases(home)) <= MOST_RUNS_OPEN + 1
    assert messages(log, "run1") == ["line"]


def test_threads_write_side_by_side(instance):
    log = instance.event_log_storage

    def write(name: str) -> None:
        for number in range(20):
            log.store_event(line("run", f"{name}{number}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(messages(log, "run")) == sorted(f"{name}{number}" for name in "abc" for number in range(20))


def remove_everything_and_be_interrupted(log: KeptOpenEventLog) -> None:
    with log.run_connection("run") as connection:
        connection.exec_driver_sql("DELETE FROM event_logs")
        raise KeyboardInterrupt


def test_a_failed_write_leaves_nothing_and_hinders_nothing(instance):
    log = instance.event_log_storage
    log.store_event(line("run", "first"))
    with pytest.raises(KeyboardInterrupt):
        remove_everything_and_be_interrupted(log)
    log.store_event(line("run", "second"))
    assert messages(log, "run") == ["first", "second"]


def test_events_survive_the_sudden_end_of_their_process(home):
    script = f"""
import os
from tests.orchestration.test_event_log import KeptOpenEventLog, line
log = KeptOpenEventLog({runs_folder(home)!r})
for number in range(5):
    log.store_event(line("run", str(number)))
os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == 9
    assert messages(SqliteEventLogStorage(runs_folder(home)), "run") == list("01234")


def test_wiping_removes_every_event(instance):
    result = dg.materialize([table], instance=instance)
    instance.event_log_storage.wipe()
    assert messages(instance.event_log_storage, result.run_id) == []
    assert instance.get_latest_materialization_event(table.key) is None
    assert dg.materialize([table], instance=instance).success


def test_a_run_is_removed_with_its_events(instance):
    result = dg.materialize([table], instance=instance)
    instance.delete_run(result.run_id)
    assert messages(instance.event_log_storage, result.run_id) == []
