"""`sync` as a process: through Dagster, recorded in its storage, with an exit code that a cron job can trust."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time

import pytest


def test_a_first_sync_reads_everything_and_a_second_only_what_changed(connected, sandbox):
    # The settings come from a file: Dagster's resources must see them as well.
    lines = [f"{name}={value}\n" for name, value in connected.variables.items()]
    (connected.folder / ".env").write_text("".join(lines))
    connected.variables = {}
    first = connected.run("sync", "rally")
    assert first.returncode == 0, first.stderr
    assert first.stderr.splitlines()[-4:] == [
        "rally_contacts: 32 rows",
        "rally_companies: 12 rows",
        "rally_deals: 16 rows",
        "rally_activities: 20 rows",
    ]
    assert first.stdout == ""
    sandbox.sandbox.rally.mutate(20)
    sandbox.sandbox.log.clear()
    second = connected.run("sync")
    assert second.returncode == 0, second.stderr
    assert len(sandbox.sandbox.log) < 25
    verified = connected.say("verify", "--json")
    assert verified.exit_code == 0, verified.stderr
    assert json.loads(verified.stdout)["equal"]
    assert recorded_runs(connected) == [
        ("rally_full_extract", "SUCCESS"),
        ("rally_incremental", "SUCCESS"),
        ("rally_incremental", "SUCCESS"),
    ]


def recorded_runs(shell) -> list[tuple[str, str]]:
    """Job and state of the runs that the UI would show, oldest first."""
    with sqlite3.connect(shell.home / "dagster" / "history" / "runs.db") as connection:
        return connection.execute("SELECT pipeline_name, status FROM runs ORDER BY id").fetchall()


def test_settings_as_a_container_hands_them_over_and_a_home_with_a_difficult_name(connected, sandbox):
    """`docker --env-file` leaves quotes in the values; the key must arrive without them in Dagster's steps too."""
    connected.variables = {name: f' "{value}" \r' for name, value in connected.variables.items()}
    connected.variables["RALLY_API_URL"] = connected.variables["RALLY_API_URL"].replace("http:", "HTTP:")
    home = connected.folder / "it's a #1 hömé & so on"
    done = connected.run("sync", "rally", RALLY_PIPELINE_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert (home / "warehouse.db").exists()
    assert {path.name for path in connected.folder.iterdir()} == {home.name}


def test_a_bad_cron_of_sell_stops_neither_rally_nor_sell(connected, sandbox):
    connected.variables |= {
        name: value for name, value in sandbox.environment().items() if name.startswith("SELL")
    }
    done = connected.run("sync", "rally", "sell", SELL_DRAIN_CRON="every quarter of an hour")
    assert done.returncode == 0, done.stderr
    assert "SELL_DRAIN_CRON: not a cron expression" in done.stderr
    assert "sell_contacts: " in done.stderr


def test_a_mistake_ends_at_once_with_one_line_and_code_two(connected):
    done = connected.say("sync", "rally", RALLY_API_KEY="rk_live_canary_4711")
    assert done.exit_code == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: rally_extract__")
    assert "RALLY_API_KEY" in line
    stored = b"".join(path.read_bytes() for path in connected.home.rglob("*.db"))
    assert b"canary" not in stored


def test_a_failed_run_is_code_one_and_leaves_the_rest_done(connected, sandbox):
    sandbox.sandbox.faults.add("status_501", api="rally", path="*/deals", times=None)
    done = connected.say("sync", "rally")
    assert done.exit_code == 1, done.stderr
    assert "rally_extract__deals" in done.stderr
    assert "501" in done.stderr
    with sqlite3.connect(connected.home / "warehouse.db") as connection:
        (rows,) = connection.execute("SELECT count(*) FROM rally_contacts").fetchone()
    assert rows == 32


def begin_and_send(connected, sandbox, number: int) -> subprocess.CompletedProcess[str]:
    """Start a sync that stands still at the first page of deals, and send it a signal there."""
    sandbox.sandbox.faults.add("stall", api="rally", path="*/deals", times=1, seconds=3600)
    process = subprocess.Popen(
        [sys.executable, "-m", "rally_pipeline.cli", "sync", "rally"],
        cwd=connected.folder,
        env=connected.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any("/deals" in str(entry) for entry in sandbox.sandbox.log):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_after_a_killed_sync_the_next_one_goes_on_at_once_and_the_dead_run_is_ended(connected, sandbox):
    assert begin_and_send(connected, sandbox, signal.SIGKILL).returncode == -signal.SIGKILL
    assert recorded_runs(connected) == [("rally_full_extract", "STARTED")]
    following = connected.run("sync", "rally")
    assert following.returncode == 0, following.stderr
    assert recorded_runs(connected) == [
        ("rally_full_extract", "CANCELED"),
        ("rally_full_extract", "SUCCESS"),
        ("rally_incremental", "SUCCESS"),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sync_that_is_told_to_stop_begins_nothing_more(connected, sandbox, number):
    done = begin_and_send(connected, sandbox, number)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "told to stop; what was committed stays, the next run goes on from there"
    )
    ((job, state),) = recorded_runs(connected)
    assert (job, state in ("CANCELED", "FAILURE")) == ("rally_full_extract", True)
