"""`sync` and `verify` from the first time on, and what happens when they are stopped, killed or let down."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest

from tests.outside.conftest import MakePlace, Place
from tests.outside.processes import Ended, Running, wait_for

SYNC_SECONDS = 150
"""In which a sync of a small account must end; it takes about 10."""
STOP_SECONDS = 60
SYSTEMS = ("rally", "sell")
BLAMES = ("locked by another", "another process", "is being worked on by", "unexpected")
"""What a command that was told to stop must not say: nobody else was there."""


def compared(ended: Ended) -> dict[str, dict[str, int]]:
    """Counts by entity of `verify --json`."""
    found: dict[str, dict[str, int]] = json.loads(ended.out)["entities"]
    return found


def test_first_sync_changes_second_sync_and_verify_agree_with_the_source(place: Place) -> None:
    place.home.run("sync", *SYSTEMS, seconds=SYNC_SECONDS)
    place.require_equal()
    for system in SYSTEMS:
        place.source.change(40, system)
    place.settle()
    place.home.run("sync", *SYSTEMS, seconds=SYNC_SECONDS)
    place.require_equal()
    found = compared(place.home.run("verify", "--json"))
    assert all(counts["equal"] == counts["compared"] for counts in found.values()), found
    before = place.source.requests()
    place.home.run("sync", *SYSTEMS, seconds=SYNC_SECONDS)
    assert place.source.requests() - before <= 10  # nothing is new: hardly anything is asked


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_sync_killed_at_any_moment_is_followed_by_one_that_goes_on_at_once(
    system: str, make_place: MakePlace, dice: random.Random, long_form: bool
) -> None:
    place = make_place("--records", "600", "--seed", str(dice.randrange(1000)))
    usual = place.home.run("sync", system, seconds=SYNC_SECONDS).seconds
    for _round in range(20 if long_form else 2):
        place.source.change(60, system)
        for _kill in range(dice.randint(1, 2)):
            running = place.home.begin("sync", system)
            time.sleep(dice.random() * usual)
            running.kill()
            place.source.change(20, system)
        place.settle()
        place.home.run("sync", system, seconds=SYNC_SECONDS)
        place.require_equal(system)
    statuses = run_statuses(place)
    assert not statuses & {"STARTED", "STARTING", "CANCELING", "QUEUED"}, statuses
    assert taken_slots(place) == 0


@pytest.mark.night("postgresql-rally", "sqlite-sell")
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_first_sync_that_is_killed_does_not_begin_anew(
    system: str, make_place: MakePlace, dice: random.Random
) -> None:
    place = make_place("--records", "3000", "--seed", str(dice.randrange(1000)))
    for _kill in range(2):
        running = place.home.begin("sync", system)
        time.sleep(1 + dice.random() * 4)
        running.kill()
    place.home.run("sync", system, seconds=SYNC_SECONDS)
    place.require_equal(system)


def run_statuses(place: Place) -> set[str]:
    """States of all runs in Dagster's storage."""
    return {row["status"] for row in dagster_rows(place, "runs.db", "SELECT status FROM runs")}


def taken_slots(place: Place) -> int:
    """Places in pools that a run holds."""
    statement = "SELECT count(*) AS n FROM concurrency_slots WHERE run_id IS NOT NULL"
    found: int = dagster_rows(place, "runs/index.db", statement)[0]["n"]
    return found


def dagster_rows(place: Place, file: str, statement: str) -> list[dict]:
    from tests.outside.comparing import Tables

    return Tables(f"sqlite:///{place.home.path / 'dagster' / 'history' / file}").ask(statement)


@pytest.mark.night("postgresql-SIGTERM", "sqlite-SIGINT")
@pytest.mark.parametrize(
    ("system", "number"), [("rally", signal.SIGTERM), ("sell", signal.SIGINT)], ids=["SIGTERM", "SIGINT"]
)
def test_a_sync_that_is_told_to_stop_ends_soon_with_a_true_line(
    system: str, number: signal.Signals, make_place: MakePlace, dice: random.Random
) -> None:
    place = make_place("--records", "2000")
    place.source.fault("stall", parameters={"seconds": 0.3}, times=None, api=system)
    running = place.home.begin("sync", system)
    begun = place.source.requests()
    wait_for("its work", lambda: place.source.requests() > begun + 3, seconds=60, by=running)
    time.sleep(dice.random() * 3)
    asked = time.monotonic()
    running.signal(number)
    ended = running.wait(seconds=asked - running.begun + STOP_SECONDS)
    assert ended.code in (1, 130), str(ended)
    assert ended.last_line, str(ended)
    assert not [blame for blame in BLAMES if blame in ended.err], str(ended)
    place.source.clear_faults()
    place.home.run("sync", system, seconds=SYNC_SECONDS)
    place.require_equal(system)


def test_two_syncs_at_once_do_no_harm(place: Place) -> None:
    both = [place.home.begin("sync", *SYSTEMS) for _ in range(2)]
    ended = [running.wait(SYNC_SECONDS * 2) for running in both]
    # The one that came second waits, or says who is at work; it never fails in another way.
    assert 0 in {one.code for one in ended}, "\n".join(map(str, ended))
    for one in ended:
        assert one.code == 0 or "another" in one.last_line or "being worked on" in one.last_line, str(one)
    place.home.run("sync", *SYSTEMS, seconds=SYNC_SECONDS)
    place.require_equal()


def test_verify_finds_no_false_difference_while_the_source_changes(make_place: MakePlace) -> None:
    place = make_place("--records", "800", "--changes-per-minute", "240")
    place.home.run("sync", "rally", seconds=SYNC_SECONDS)
    place.source.do("rally", "mutate", n=5, kinds=["update"], entities=["contacts"])
    for _time in range(2):
        found = compared(place.home.run("verify", "--json"))
        wrong = {name: counts for name, counts in found.items() if not is_clean(counts)}
        assert not wrong, wrong
    healed = compared(place.home.run("verify", "--heal", "--json"))
    assert {counts["repaired"] for counts in healed.values()} == {0}, healed


def is_clean(counts: dict[str, int]) -> bool:
    return not (counts["missing"] or counts["extra"] or counts["stale"])


def test_verify_sees_a_changed_cell_and_heals_exactly_it(place: Place) -> None:
    place.home.run("sync", "rally", seconds=SYNC_SECONDS)
    place.settle()
    table = place.tables.name("rally_contacts")
    keys = sorted(row["id"] for row in place.tables.rows("rally_contacts"))
    place.tables.do(f"UPDATE {table} SET last_name = 'meddled with' WHERE id = '{keys[0]}'")
    place.tables.do(f"DELETE FROM {table} WHERE id = '{keys[1]}'")
    shown = place.home.run("verify", "--json", code=1)
    counts = compared(shown)["contacts"]
    assert (counts["stale"], counts["missing"], counts["extra"]) == (1, 1, 0), counts
    healed = compared(place.home.run("verify", "--heal", "--json"))
    assert healed["contacts"]["repaired"] == 2, healed
    place.require_equal("rally")
    assert all(is_clean(counts) for counts in compared(place.home.run("verify", "--json")).values())


def test_a_connection_that_drops_in_a_sell_page_does_not_hold_up_later_syncs(make_place: MakePlace) -> None:
    place = make_place("--records", "100")
    for fault in ("reset_in_body", "cut_body", "lost_answer"):
        place.source.fault(fault, api="sell", path="*/queues/main", after=1, times=6)
        place.home.run("sync", "sell", code=None, seconds=SYNC_SECONDS)
        place.source.clear_faults()
        place.source.change(60, "sell")
    place.settle()
    for _time in range(2):
        place.home.run("sync", "sell", seconds=SYNC_SECONDS)
    place.require_equal("sell")


@pytest.mark.night
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_source_that_fails_for_a_while_is_one_clear_line_and_then_forgotten(
    system: str, make_place: MakePlace
) -> None:
    place = make_place("--records", "100")
    place.source.fault("status_503", api=system, times=None, after=4)
    running: Running = place.home.begin("sync", system)
    ended = running.wait(seconds=900)
    assert ended.code == 1, str(ended)
    assert "503" in ended.last_line or "unavailable" in ended.last_line.lower(), str(ended)
    place.source.clear_faults()
    place.home.run("sync", system, seconds=SYNC_SECONDS)
    place.require_equal(system)
