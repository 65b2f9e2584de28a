"""`sync` as a process: through Dagster, recorded in its storage, with an exit code that a cron job can trust."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from rally_pipeline.cli.sync import rally
from rally_pipeline.cli.sync.session import SyncSession
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.results import RequiredExtract
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from tests.rally.world import World


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


# -- what only a full extract can make right --------------------------------------------------------------------------


def change_together(sandbox, count: int) -> None:
    """Change contacts so that all entries of the feed bear one time."""
    crm = sandbox.sandbox.rally
    at = sandbox.sandbox.clock.now().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    for contact in crm.ids("contacts")[:count]:
        crm.change_silently("contacts", contact, {"notes": "together"})
        crm.entry("contact", contact, changed_at=at)


def notes(shell) -> dict[str, int]:
    with sqlite3.connect(shell.home / "warehouse.db") as connection:
        return dict(connection.execute("SELECT notes, count(*) FROM rally_contacts GROUP BY notes"))


def jobs_since(shell, known: int) -> list[str]:
    return [job for job, _ in recorded_runs(shell)[known:]]


@pytest.fixture
def crowded(connected, sandbox):
    """More contacts than a feed page holds, all in the warehouse."""
    crm = sandbox.sandbox.rally
    for _ in range(2):
        crm.mutate(60, kinds=["insert"], entities=["contacts"])
        sandbox.sandbox.clock.advance(60)
    assert connected.say("sync", "rally").exit_code == 0
    crm.switch(feed_max_limit=100)
    sandbox.sandbox.clock.advance(3_600)
    return connected


@pytest.mark.fault("F2")
def test_a_group_that_no_feed_page_can_hold_is_covered_by_one_extract_within_the_sync(crowded, sandbox):
    change_together(sandbox, 130)
    sandbox.sandbox.clock.advance(120)
    known = len(recorded_runs(crowded))
    done = crowded.say("sync", "rally")
    assert done.exit_code == 0, done.stderr
    (line,) = [text for text in done.stderr.splitlines() if "more contacts changed" in text]
    assert line.endswith("a full extract of contacts is made")
    assert jobs_since(crowded, known) == ["rally_incremental", "rally_full_extract", "rally_incremental"]
    assert notes(crowded)["together"] == 130
    again = crowded.say("sync", "rally")
    assert again.exit_code == 0
    assert "more contacts" not in again.stderr
    assert jobs_since(crowded, known)[3:] == ["rally_incremental"]


def test_a_sync_waits_until_an_extract_can_cover_the_group_and_says_until_when(tmp_path, capsys):
    world = World(f"sqlite:///{tmp_path / 'warehouse.db'}", Sandbox(records=80, apis=["rally"]))
    until = world.mirror.server_now() + timedelta(seconds=61)
    required = [RequiredExtract(Entity.CONTACTS, "more contacts changed than a feed page can hold", until)]
    session = cast(SyncSession, SimpleNamespace(wait=True))
    assert rally._wait(session, world.mirror, required)
    assert until <= world.mirror.server_now() < until + timedelta(seconds=6)
    world.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "more contacts changed" in line
    assert f"after {until:%H:%M:%S} UTC" in line
    assert line.endswith("waiting until then")


def test_a_sync_that_may_not_wait_leaves_the_group_to_the_next_one(crowded, sandbox):
    change_together(sandbox, 130)
    known = len(recorded_runs(crowded))
    done = crowded.say("sync", "rally", "--no-wait", RALLY_FEED_OVERLAP_SECONDS="600")
    assert done.exit_code == 0, done.stderr
    assert ": left to the next run" in done.stderr
    assert jobs_since(crowded, known) == ["rally_incremental"]
    sandbox.sandbox.clock.advance(602)
    later = crowded.say("sync", "rally", RALLY_FEED_OVERLAP_SECONDS="600")
    assert later.exit_code == 0, later.stderr
    assert jobs_since(crowded, known)[1:] == ["rally_full_extract", "rally_incremental"]
    assert notes(crowded)["together"] == 130


def test_a_group_that_would_have_to_be_waited_for_too_long_is_left_with_code_one(crowded, sandbox):
    change_together(sandbox, 130)
    done = crowded.say("sync", "rally", RALLY_FEED_OVERLAP_SECONDS="3600")
    assert done.exit_code == 1, done.stderr
    assert "again then" in done.stderr.splitlines()[-1]


@pytest.mark.fault("F14", "F15")
@pytest.mark.parametrize("loss", ["retention", "ids start over"])
def test_a_feed_that_is_no_longer_the_same_is_made_up_for_by_one_extract_within_the_sync(
    connected, sandbox, loss
):
    crm = sandbox.sandbox.rally
    assert connected.say("sync", "rally").exit_code == 0
    crm.mutate(5)
    assert connected.say("sync", "rally").exit_code == 0
    known = len(recorded_runs(connected))
    if loss == "retention":
        crm.switch(retention_seconds=600)
        crm.mutate(5)
        sandbox.sandbox.clock.advance(20_000)
    else:
        sandbox.sandbox.clock.advance(120)
        crm.restart_feed_ids(1)
    crm.mutate(5)
    done = connected.say("sync", "rally")
    assert done.exit_code == 0, done.stderr
    assert "a full extract of contacts and companies and deals and activities is made" in done.stderr
    assert jobs_since(connected, known) == ["rally_incremental", "rally_full_extract", "rally_incremental"]
    assert connected.say("verify").exit_code == 0
    assert connected.say("sync", "rally").exit_code == 0
    assert jobs_since(connected, known)[3:] == ["rally_incremental"]


# -- clocks and dates -------------------------------------------------------------------------------------------------


@pytest.mark.fault("C6")
@pytest.mark.parametrize("hours", [-3, 30])
def test_a_sync_reads_what_is_new_whatever_this_machines_clock_shows(shell, hours):
    """The source is so many hours ahead of this machine."""
    clock = SandboxClock.running(datetime.now(UTC) + timedelta(hours=hours))
    with SandboxServer(Sandbox(records=80, clock=clock, apis=["rally"])) as server:
        shell.variables |= server.environment()
        shell.variables |= {"RALLY_STALENESS_SECONDS": "0", "RALLY_FEED_OVERLAP_SECONDS": "30"}
        assert shell.say("sync", "rally").exit_code == 0
        for _ in range(2):
            clock.advance(300)
            server.sandbox.rally.mutate(10)
            done = shell.say("sync", "rally")
            assert done.exit_code == 0, done.stderr
            assert shell.say("verify").exit_code == 0
        status = json.loads(shell.say("status", "--json").stdout)["systems"]["rally"]
        assert 0 <= status["tables"]["rally_contacts"]["lag_seconds"] < 3_600
        assert status["problems"] == []


def test_a_machine_whose_clock_is_before_the_first_hour_of_the_feed_is_told_so(connected):
    start = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%d-%H:00")
    done = connected.say("sync", "rally", RALLY_FEED_START=start)
    assert done.exit_code == 2, done.stderr
    assert "RALLY_FEED_START" in done.stderr.splitlines()[-1]


@pytest.mark.fault("C5")
@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_an_entry_whose_date_is_none_breaks_no_sync(connected, sandbox, time):
    crm = sandbox.sandbox.rally
    assert connected.say("sync", "rally").exit_code == 0
    victim = crm.ids("contacts")[0]
    crm.entry("contact", victim, changed_at=time)
    for _ in range(2):
        done = connected.say("sync", "rally")
        assert done.exit_code == 0, done.stderr
    assert connected.say("status").exit_code == 0
