"""Sensors, backfills and runs under Dagster's own services, and what is left when one of them is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.outside.conftest import MakePlace, Place
from tests.outside.deployment import FINISHED, Services, running_services
from tests.outside.processes import wait_for

DEPLOYED = {"RALLY_AUTOSTART": "true", "RALLY_POLL_SECONDS": "5", "SELL_DRAIN_CRON": "* * * * *"}
WINDOWS = 30
RUN_SECONDS = 240
"""In which a run must have begun and ended, with others before it in the queue."""
RUNTIME_SECONDS = 20
"""The bound that the run to be killed is launched with; `run_monitoring` looks every half minute."""
MONITORED_SECONDS = RUNTIME_SECONDS + 30 + 60 + 60
OPEN = ("STARTED", "STARTING", "CANCELING")


def wait_for_mirror(services: Services) -> None:
    """Until the sensor has had everything read once; after that it waits for changes."""
    daemon = services.running["daemon"]
    done = {"job": "rally_full_extract"}
    wait_for(
        "a first mirror", lambda: services.dagster.runs("SUCCESS", **done), seconds=RUN_SECONDS, by=daemon
    )


def require_equal_soon(place: Place, services: Services, *systems: str, seconds: float = RUN_SECONDS) -> None:
    """Source and warehouse agree after a while, without a hand."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            place.require_equal(*systems)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise AssertionError(services.running["daemon"].said()[-3000:]) from None
            time.sleep(2)


def hours_before_now(count: int) -> list[str]:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return [(hour - timedelta(hours=n)).strftime("%Y-%m-%d-%H:00") for n in range(count - 1, -1, -1)]


def deployed_variables() -> dict[str, str]:
    return {**DEPLOYED, "RALLY_FEED_START": hours_before_now(WINDOWS + 2)[0]}


def test_a_backfill_while_the_sensor_works_loses_and_doubles_nothing(make_place: MakePlace) -> None:
    place = make_place("--records", "400", "--changes-per-minute", "120", **deployed_variables())
    with running_services(place.home, place.home.folder) as services:
        dagster = services.dagster
        wait_for_mirror(services)
        backfill = dagster.backfill("rally_feed/changes", hours_before_now(WINDOWS))
        tag = {"dagster/backfill": backfill}

        def ended() -> list[str]:
            states = [run["status"] for run in dagster.runs(**tag)]
            return states if states and set(states) <= set(FINISHED) else []

        states = wait_for("the backfill", ended, seconds=2 * RUN_SECONDS, by=dagster.running)
        assert set(states) == {"SUCCESS"}
        assert not dagster.runs("FAILURE")
        place.source.do("rally", "switch", changes_per_second=0.0)
        require_equal_soon(place, services, "rally")
        ids = [row["id"] for row in place.tables.rows("rally_changes")]
        assert len(ids) == len(set(ids))


@pytest.mark.night("postgresql")
def test_a_run_whose_process_is_killed_ends_within_its_bound_and_later_ones_go_on(
    make_place: MakePlace, dice: random.Random
) -> None:
    place = make_place("--records", "400", **deployed_variables())
    place.home.run("sync", "rally", "sell", DAGSTER_HOME=str(place.home.folder / "by-hand"))
    place.source.fault("stall", parameters={"seconds": 2.0}, times=None, api="rally", path="/contacts")
    with running_services(place.home, place.home.folder) as services:
        dagster = services.dagster
        run_id = dagster.launch("rally_full_extract", **{"dagster/max_runtime": str(RUNTIME_SECONDS)})
        worker = wait_for("its process", lambda: dagster.worker_of(run_id), seconds=RUN_SECONDS)
        wait_for("its start", lambda: dagster.status(run_id) == "STARTED", seconds=RUN_SECONDS)
        time.sleep(dice.random() * 3)
        os.kill(worker, signal.SIGKILL)
        place.source.clear_faults()
        assert dagster.require_end(run_id, seconds=MONITORED_SECONDS) in ("FAILURE", "CANCELED")
        place.source.change(30)
        place.source.change(30, "sell")
        require_equal_soon(place, services, "rally", "sell")
        later = dagster.launch("rally_full_extract")
        assert dagster.require_end(later, seconds=RUN_SECONDS) == "SUCCESS"
        wait_for("free pools", lambda: run_id not in dagster.claimed(), seconds=MONITORED_SECONDS)


@pytest.mark.night("sqlite-both", "postgresql-daemon")
@pytest.mark.parametrize("victims", [("daemon",), ("daemon", "code-server")], ids=["daemon", "both"])
def test_services_that_are_killed_and_started_again_go_on(
    victims: tuple[str, ...], make_place: MakePlace, dice: random.Random, long_form: bool
) -> None:
    place = make_place("--records", "400", **deployed_variables())
    with running_services(place.home, place.home.folder) as services:
        for _time in range(8 if long_form else 1):
            wait_for_mirror(services)
            place.source.change(60)
            time.sleep(dice.random() * 8)
            for name in victims:
                services.kill(name)
            place.source.change(30)
            for name in reversed(victims):
                services.start(name)
            place.source.change(30, "sell")
            require_equal_soon(place, services, "rally", "sell")
        dagster = services.dagster
        wait_for("no open run", lambda: not dagster.runs(*OPEN), seconds=RUN_SECONDS)
        assert dagster.claimed() == set()


@pytest.mark.night("sqlite")
def test_a_sync_by_hand_beside_the_services_does_no_harm(make_place: MakePlace) -> None:
    place = make_place("--records", "300", **deployed_variables())
    with running_services(place.home, place.home.folder) as services:
        home = {"DAGSTER_HOME": str(services.dagster_home)}
        wait_for_mirror(services)
        for _time in range(2):
            place.source.change(30)
            place.home.run("sync", "rally", code=None, seconds=RUN_SECONDS, **home)
        require_equal_soon(place, services, "rally", "sell")
        assert not services.dagster.runs("FAILURE", job="rally_incremental")
