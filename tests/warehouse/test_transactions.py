"""State, data and steps: committed together or not at all, at whatever step the process ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rally_pipeline.warehouse import Transaction, Warehouse, WarehouseBusy, WarehouseError, tables
from tests.warehouse.clocks import ManualClock
from tests.warehouse.people import COLUMNS, metadata, people, person


def load(store: Warehouse, page: int) -> None:
    """One page and the offset that describes it."""
    with store.lease("load") as lease, store.transaction("page", lease) as tx:
        tx.upsert(people, COLUMNS, [person(f"{page}-{number}") for number in range(20)])
        tx.set_state("load", {"offset": 20 * page + 20})


def check(store: Warehouse) -> int:
    """The invariant: the offset tells exactly how many rows are there."""
    with store.reading() as tx:
        offset = (tx.state("load") or {"offset": 0})["offset"]
        assert tx.count(people) == offset
    return int(offset)


def test_state_is_replaced_whole_and_kept_as_it_was_given(warehouse: Warehouse) -> None:
    value = {
        "cursor": "2026-01-01T00:00:00.000000Z",
        "n": 2**53,
        "deep": {"list": [1, None, True, "é😀"]},
        "none": None,
    }
    with warehouse.transaction("test") as tx:
        assert tx.state("s") is None
        tx.set_state("s", {"old": True})
        tx.set_state("s", value)
        assert tx.state("s") == value
    with warehouse.reading() as tx:
        assert tx.state("s") == value
        assert tx.state("other") is None


def test_of_two_first_states_at_once_the_later_replaces_and_a_claim_gives_way(warehouse_url: str) -> None:
    with Warehouse.open(warehouse_url) as one, Warehouse.open(warehouse_url) as other:
        found: list[dict[str, Any]] = []

        def second(stream: str) -> None:
            with other.transaction("second") as tx:
                if stream == "replaced":
                    tx.set_state(stream, {"by": "second"})
                else:
                    found.append(tx.claim_state(stream, {"by": "second"}))

        for stream in ("replaced", "claimed"):
            thread = threading.Thread(target=second, args=(stream,))
            with one.transaction("first") as tx:
                assert tx.claim_state(stream, {"by": "first"}) == {"by": "first"}
                thread.start()
                time.sleep(0.2)
            thread.join()
        with one.reading() as tx:
            assert tx.state("replaced") == {"by": "second"}
            assert tx.state("claimed") == found[0] == {"by": "first"}


def test_steps_are_called_around_every_transaction_in_order(warehouse_url: str) -> None:
    steps: list[str] = []
    with Warehouse.open(warehouse_url, step=steps.append) as store, store.lease("s") as lease:
        with store.transaction("page", lease) as tx:
            tx.set_state("s", {})
        with pytest.raises(ZeroDivisionError), store.transaction("failing"):
            raise ZeroDivisionError
    assert steps == [
        "lease.s.take:begin",
        "lease.s.take:before-commit",
        "lease.s.take:after-commit",
        "page:begin",
        "page:before-commit",
        "page:after-commit",
        "failing:begin",
        "lease.s.release:begin",
        "lease.s.release:before-commit",
        "lease.s.release:after-commit",
    ]


class CrashError(BaseException):
    """A simulated end of the process: nothing catches it."""


def test_a_crash_at_every_step_keeps_state_and_data_together(warehouse_url: str) -> None:
    with Warehouse.open(warehouse_url) as store:
        store.create_tables(metadata)
    survived: list[int] = []
    for crash_at in range(0, 40, 3):
        left = crash_at

        def step(_name: str) -> None:
            nonlocal left
            if left == 0:
                raise CrashError
            left -= 1

        with Warehouse.open(warehouse_url, step=step) as store:
            try:
                while True:
                    load(store, check(store) // 20)
            except CrashError:
                survived.append(check(store))
    assert survived == sorted(survived)
    assert survived[-1] > 80


@pytest.mark.fault("P1")
@pytest.mark.parametrize("at", ["begin", "before-commit", "after-commit"])
def test_a_process_killed_at_a_step_keeps_state_and_data_together(warehouse_url: str, at: str) -> None:
    with Warehouse.open(warehouse_url) as store:
        store.create_tables(metadata)
    for page in range(3):
        child = os.fork()
        if child == 0:
            try:

                def step(name: str) -> None:
                    if name == f"page:{at}":
                        os.kill(os.getpid(), signal.SIGKILL)

                load(Warehouse.open(warehouse_url, step=step), page)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with Warehouse.open(warehouse_url) as store:
            assert check(store) == 20 * (page + (at == "after-commit"))
            if at != "after-commit":
                load(store, page)


def test_run_repeats_what_may_help_and_nothing_else(warehouse_url: str) -> None:
    clock = ManualClock()
    with Warehouse.open(warehouse_url, clock=clock) as store:
        attempts: list[int] = []

        def busy_twice(tx: Transaction) -> str:
            attempts.append(1)
            tx.set_state("s", {"attempt": len(attempts)})
            if len(attempts) < 3:
                raise WarehouseBusy("made by a test")
            return "done"

        assert store.run("work", busy_twice) == "done"
        assert (len(attempts), clock.slept) == (3, [0.2, 0.4])
        with store.reading() as tx:
            assert tx.state("s") == {"attempt": 3}

        def always_busy(_tx: Transaction) -> None:
            attempts.append(1)
            raise WarehouseBusy("made by a test")

        attempts.clear()
        with pytest.raises(WarehouseBusy):
            store.run("work", always_busy)
        assert len(attempts) == 4

        def wrong(tx: Transaction) -> None:
            attempts.append(1)
            tx.execute(sa.text("SELECT nonsense"))

        attempts.clear()
        with pytest.raises(WarehouseError):
            store.run("work", wrong)
        assert len(attempts) == 1


@pytest.mark.fault("P8")
def test_a_warehouse_used_after_a_fork_opens_its_own_connections(warehouse_url: str) -> None:
    with Warehouse.open(warehouse_url) as store:
        store.create_tables(metadata)
        load(store, 0)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                load(store, 1)
                store.close()
                code = 0 if check(store) == 40 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert check(store) == 40
        load(store, 2)


def test_the_package_names_its_errors_without_loading_database_libraries(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys; from rally_pipeline.warehouse import WarehouseError, LeaseHeld; "
        "print({'sqlalchemy', 'psycopg', 'msgspec'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import rally_pipeline.warehouse

    with pytest.raises(AttributeError, match="no attribute 'Warehous'"):
        rally_pipeline.warehouse.Warehous  # type: ignore[attr-defined]  # noqa: B018


def test_own_tables_are_those_of_the_contract() -> None:
    columns: dict[str, Any] = {
        name: list(table.columns.keys()) for name, table in tables.metadata.tables.items()
    }
    assert columns["sync_state"] == ["stream", "value", "updated_at"]
    assert columns["quarantine"] == ["source", "key", "reason", "raw", "first_seen", "last_seen", "attempts"]
