"""One writer per stream: leases decide who may try, fences decide who may write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rally_pipeline.warehouse import FenceLost, LeaseHeld, Warehouse, leasing
from rally_pipeline.warehouse.tables import leases
from tests.warehouse.clocks import ManualClock
from tests.warehouse.processes import run_in_processes

STREAM = "rally.contacts"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def two(warehouse_url: str, clock: ManualClock) -> Iterator[tuple[Warehouse, Warehouse]]:
    """Two processes' views of one warehouse."""
    with (
        Warehouse.open(warehouse_url, clock=clock) as one,
        Warehouse.open(warehouse_url, clock=clock) as other,
    ):
        yield one, other


def set_state(store: Warehouse, lease: leasing.Lease, value: object) -> None:
    with store.transaction("test", lease) as tx:
        tx.set_state(STREAM, {"value": value})


def state(store: Warehouse) -> object:
    with store.reading() as tx:
        return (tx.state(STREAM) or {}).get("value")


def row(store: Warehouse) -> Any:
    with store.reading() as tx:
        return tx.execute(sa.select(leases).where(leases.c.stream == STREAM)).one()


def test_a_held_lease_is_refused_with_its_holder_and_given_back_at_the_end(
    two: tuple[Warehouse, Warehouse],
) -> None:
    one, other = two
    with one.lease(STREAM), pytest.raises(LeaseHeld) as refused, other.lease(STREAM):
        pass
    assert str(refused.value).startswith(
        f"stream '{STREAM}' is being worked on by process {os.getpid()} on {leasing.host_name().partition('/')[0]} "
        "since 2026-03-01 12:00:00 UTC"
    )
    with other.lease(STREAM) as lease:
        assert lease.fence == 2
    with one.lease("another.stream"), other.lease(STREAM):
        pass


def test_waiting_for_a_lease_ends_when_it_is_free_or_time_is_up(
    two: tuple[Warehouse, Warehouse], clock: ManualClock
) -> None:
    one, other = two
    with one.lease(STREAM), pytest.raises(LeaseHeld), other.lease(STREAM, wait_seconds=3):
        pass
    assert sum(clock.slept) == pytest.approx(3)
    with one.lease(STREAM, ttl_seconds=20), other.lease(STREAM, wait_seconds=60) as lease:
        assert lease.fence == 3


@pytest.mark.fault("P3", "S10")
def test_a_holder_that_wakes_up_after_a_takeover_cannot_write(
    two: tuple[Warehouse, Warehouse], clock: ManualClock
) -> None:
    one, other = two
    with one.lease(STREAM, ttl_seconds=120) as old:
        set_state(one, old, "before")
        clock.advance(121)
        with other.lease(STREAM) as new:
            with pytest.raises(FenceLost, match=r"was taken over by another process; nothing was written"):
                set_state(one, old, "too late")
            set_state(other, new, "after")
            assert state(one) == "after"
        with pytest.raises(FenceLost):
            set_state(one, old, "too late")
    assert (state(one), row(one).holder) == ("after", None)


def test_every_leased_transaction_renews_the_lease(
    two: tuple[Warehouse, Warehouse], clock: ManualClock
) -> None:
    one, other = two
    with one.lease(STREAM, ttl_seconds=60) as lease:
        for _ in range(5):
            clock.advance(50)
            set_state(one, lease, "working")
        with pytest.raises(LeaseHeld), other.lease(STREAM):
            pass
        clock.advance(61)
        set_state(one, lease, "late, but nobody took over")


def test_a_lost_lease_is_not_taken_from_its_new_holder_at_the_end(
    two: tuple[Warehouse, Warehouse], clock: ManualClock
) -> None:
    one, other = two
    with ExitStack() as new:
        with one.lease(STREAM, ttl_seconds=10):
            clock.advance(11)
            new.enter_context(other.lease(STREAM))
        with pytest.raises(LeaseHeld), one.lease(STREAM):
            pass


def test_the_fence_row_is_locked_until_the_leased_transaction_ends(warehouse_url: str) -> None:
    """A take-over waits for a transaction that is already under way, so the two cannot interleave."""
    order: list[str] = []
    with Warehouse.open(warehouse_url) as one, Warehouse.open(warehouse_url) as other:

        def take_over() -> None:
            with other.lease(STREAM) as lease:
                order.append("taken")
                set_state(other, lease, "theirs")

        with one.lease(STREAM, ttl_seconds=0.05) as lease:
            with one.transaction("slow", lease) as tx:
                lease.ttl_seconds = 0.0
                thread = threading.Thread(target=take_over)
                thread.start()
                time.sleep(0.3)
                tx.set_state(STREAM, {"value": "mine"})
                order.append("committing")
            thread.join()
            with pytest.raises(FenceLost):
                set_state(one, lease, "mine again")
        assert order == ["committing", "taken"]
        assert state(one) == "theirs"


HOLD = """
import sys, time
from rally_pipeline.warehouse import FenceLost, Warehouse
with Warehouse.open(sys.argv[1]) as store, store.lease("rally.contacts", ttl_seconds=float(sys.argv[2])) as lease:
    def say(word):
        with store.transaction("say", lease) as tx:
            tx.set_state("rally.contacts", {"value": word})
        print(word, flush=True)
    say("holding")
    sys.stdin.readline()
    try:
        say("woken")
    except FenceLost as error:
        print("fence lost", flush=True)
"""


@pytest.fixture
def holder(warehouse_url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease and waits for a line."""
    Warehouse.open(warehouse_url).close()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, warehouse_url, "1.0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def test_the_lease_of_a_killed_process_of_this_host_is_taken_over_at_once(
    warehouse_url: str, holder: subprocess.Popen[str], clock: ManualClock
) -> None:
    with Warehouse.open(warehouse_url) as store:
        with pytest.raises(LeaseHeld, match=f"process {holder.pid} on"), store.lease(STREAM):
            pass
        holder.kill()
        with store.lease(STREAM, wait_seconds=0.9) as lease:
            assert lease.fence == 2
            set_state(store, lease, "mine")


@pytest.mark.fault("P3")
def test_a_process_stopped_past_its_lease_cannot_write_when_it_goes_on(
    warehouse_url: str, holder: subprocess.Popen[str]
) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.send_signal(signal.SIGSTOP)
    with Warehouse.open(warehouse_url) as store:
        with store.lease(STREAM, wait_seconds=5) as lease:
            set_state(store, lease, "mine")
        holder.send_signal(signal.SIGCONT)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "fence lost\n"
        assert state(store) == "mine"


def change_holder(store: Warehouse, **changes: object) -> None:
    with store.transaction("test") as tx:
        tx.execute(leases.update().values(holder=row(store).holder | changes))


def test_whether_a_holder_is_dead_is_only_judged_on_its_own_host(two: tuple[Warehouse, Warehouse]) -> None:
    one, other = two
    with one.lease(STREAM):
        change_holder(one, host="elsewhere/1/2", pid=2**22 + 1)
        with pytest.raises(LeaseHeld, match=r"process \d+ on elsewhere since"), other.lease(STREAM):
            pass
        change_holder(one, host=leasing.host_name(), pid=2**22 + 1)
        with other.lease(STREAM):
            pass


def test_a_process_number_used_again_by_another_process_does_not_keep_a_lease_alive(
    two: tuple[Warehouse, Warehouse],
) -> None:
    one, other = two
    with one.lease(STREAM):
        change_holder(one, started="1")
        with other.lease(STREAM) as lease:
            assert lease.fence == 2


def test_a_lease_that_this_process_could_not_give_back_does_not_keep_it_waiting(
    two: tuple[Warehouse, Warehouse], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    monkeypatch.setattr(one, "_release_lease", lambda _lease: None)
    with one.lease(STREAM):
        pass
    assert row(other).holder is not None
    with other.lease(STREAM) as lease:
        assert lease.fence == 2


def test_a_finished_process_that_nobody_has_waited_for_counts_as_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as zombie:
        status = Path(f"/proc/{zombie.pid}/stat")
        while status.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        assert leasing.started_at(zombie.pid) is None


@pytest.mark.fault("P8")
def test_a_forked_child_can_read_but_not_write_under_its_parents_lease(warehouse_url: str) -> None:
    with Warehouse.open(warehouse_url) as store, store.lease(STREAM) as lease:
        set_state(store, lease, "parent")
        child = os.fork()
        if child == 0:
            outcome = 1
            try:
                assert state(store) == "parent"
                set_state(store, lease, "child")
            except FenceLost:
                outcome = 0
            finally:
                os._exit(outcome)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        set_state(store, lease, "parent again")
        assert state(store) == "parent again"


def test_a_second_transaction_of_the_same_thread_is_refused_instead_of_waiting_for_itself(
    two: tuple[Warehouse, Warehouse],
) -> None:
    one, _ = two
    with one.transaction("outer"):
        with (
            pytest.raises(RuntimeError, match="a transaction of this thread is open already"),
            one.transaction("inner"),
        ):
            pass
        with one.reading() as tx:
            assert tx.state("x") is None
    with one.transaction("next"):
        pass


@pytest.mark.security("49")
@pytest.mark.fault("P4")
def test_processes_that_race_for_a_lease_lose_no_update(warehouse_url: str) -> None:
    def race() -> None:
        done = 0
        with Warehouse.open(warehouse_url) as store:
            while done < 15:
                try:
                    with (
                        store.lease("race", wait_seconds=30) as lease,
                        store.transaction("count", lease) as tx,
                    ):
                        tx.set_state("race", {"n": (tx.state("race") or {"n": 0})["n"] + 1})
                    done += 1
                except LeaseHeld:
                    continue

    assert run_in_processes(3, race) == [0, 0, 0]
    with Warehouse.open(warehouse_url) as store, store.reading() as tx:
        assert tx.state("race") == {"n": 45}
        assert tx.rows(sa.select(leases.c.fence, leases.c.commits, leases.c.holder)) == [(45, 45, None)]
