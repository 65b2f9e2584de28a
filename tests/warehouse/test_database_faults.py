"""Locks, full disks, ended sessions: a rollback, one clear line, and the next run goes on as if nothing had been."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from rally_pipeline.warehouse import (
    CommitUnknown,
    Transaction,
    Warehouse,
    WarehouseBusy,
    WarehouseError,
    WarehouseFull,
    WarehouseUnavailable,
    postgresql,
    sqlite,
)
from tests.postgres import PostgresServer, running_server
from tests.warehouse.people import COLUMNS, metadata, people, person


def count(store: Warehouse) -> int:
    with store.reading() as tx:
        return tx.count(people)


def add(store: Warehouse, *keys: str) -> None:
    with store.transaction("add") as tx:
        tx.upsert(people, COLUMNS, [person(key) for key in keys])


@pytest.mark.fault("D2")
def test_a_lock_held_for_a_second_is_waited_for(sqlite_url: str) -> None:
    with Warehouse.open(sqlite_url) as store, Warehouse.open(sqlite_url) as other:
        store.create_tables(metadata)
        locked = threading.Event()

        def hold() -> None:
            with other.transaction("hold") as tx:
                tx.set_state("held", {})
                locked.set()
                time.sleep(1)

        thread = threading.Thread(target=hold)
        thread.start()
        locked.wait()
        began = time.monotonic()
        add(store, "a")
        assert time.monotonic() - began > 0.5
        thread.join()
        assert count(store) == 1


@pytest.mark.fault("D2")
def test_a_lock_held_for_too_long_is_a_clean_failure(warehouse_url: str) -> None:
    with (
        Warehouse.open(warehouse_url, lock_wait_seconds=0.2) as store,
        Warehouse.open(warehouse_url) as other,
    ):
        store.create_tables(metadata)
        with other.transaction("hold") as tx:
            add_to_all(tx)
            with pytest.raises(
                WarehouseBusy, match=r"lock.* for too long; try again when it has finished$"
            ) as caught:
                add(store, "a")
        assert caught.value.repeatable
        assert count(store) == 0
        add(store, "a")
        assert count(store) == 1


def add_to_all(tx: Transaction) -> None:
    """Take the lock: SQLite has one for all, PostgreSQL one per table."""
    if tx.connection.dialect.name == "postgresql":
        tx.execute(sa.text("LOCK TABLE people"))


def test_readers_do_not_wait_for_a_writer_and_see_one_moment(warehouse_url: str) -> None:
    with (
        Warehouse.open(warehouse_url, lock_wait_seconds=0.2) as store,
        Warehouse.open(warehouse_url) as other,
    ):
        store.create_tables(metadata)
        add(store, "a")
        with store.reading() as view:
            assert view.count(people) == 1
            add(other, "b")
            assert view.count(people) == 1
            with other.transaction("open") as tx:
                tx.upsert(people, COLUMNS, [person("c")])
                with store.reading() as second:
                    assert second.count(people) == 2
        assert count(store) == 3


def test_a_read_transaction_refuses_to_write(store: Warehouse) -> None:
    with pytest.raises(WarehouseError, match=r"read-only"), store.reading() as tx:
        tx.upsert(people, COLUMNS, [person("a")])
    add(store, "b")
    assert count(store) == 1


def test_the_connection_of_a_reader_writes_again_afterwards(store: Warehouse) -> None:
    for key in "abc":
        with store.reading() as tx:
            tx.count(people)
        add(store, key)
    assert count(store) == 3


@pytest.mark.fault("D4")
def test_a_full_disk_at_any_page_rolls_back_and_the_next_run_is_equal(sqlite_url: str) -> None:
    rows = [person(f"k{n}", name="x" * 400) for n in range(300)]
    with Warehouse.open(sqlite_url) as store:
        store.create_tables(metadata)
        with store.reading() as tx:
            pages = tx.scalar(sa.text("PRAGMA page_count"))

        def load(limit: int) -> None:
            with store.transaction("page") as tx:
                tx.execute(sa.text(f"PRAGMA max_page_count = {limit}")).fetchall()
                tx.upsert(people, COLUMNS, rows)
                tx.set_state("page", {"done": True})

        for limit in range(pages, pages + 15):
            with pytest.raises(
                WarehouseFull, match=r"cannot grow: the disk \(or quota\) is full; free space and run again$"
            ):
                load(limit)
            assert count(store) == 0
        load(10_000)
        with store.reading() as tx:
            assert (tx.count(people), tx.state("page")) == (300, {"done": True})


FILL = """
import resource, signal, sys
from rally_pipeline.warehouse import Warehouse, WarehouseError
from tests.warehouse.people import COLUMNS, people, person
with Warehouse.open(sys.argv[1]) as store:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        for page in range(40):
            with store.transaction("page") as tx:
                tx.upsert(people, COLUMNS, [person(f"{page}-{n}", name="x" * 400) for n in range(100)])
            print("stored", flush=True)
    except WarehouseError as error:
        print(error)
"""


@pytest.mark.fault("D4")
@pytest.mark.parametrize("size", [150_000, 400_000, 1_000_000])
def test_a_log_that_cannot_grow_keeps_every_committed_page_and_no_other(
    sqlite_url: str, tmp_path: Path, size: int
) -> None:
    with Warehouse.open(sqlite_url) as store:
        store.create_tables(metadata)
    done = subprocess.run(
        [sys.executable, "-c", FILL, sqlite_url, str(size)], capture_output=True, text=True, check=True
    )
    *stored, line = done.stdout.splitlines()
    assert "cannot be read or written: input/output error" in line or "is full" in line or "not known" in line
    with Warehouse.open(sqlite_url) as store:
        assert count(store) == 100 * len(stored)
        add(store, "next")
        assert count(store) == 100 * len(stored) + 1


@pytest.mark.fault("D7")
def test_a_session_ended_by_the_administrator_leaves_nothing_behind_and_the_next_one_works(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with Warehouse.open(postgres_url) as store, postgres_server.connect() as admin:
        store.create_tables(metadata)
        attempts = 0

        def work(tx: Transaction) -> None:
            nonlocal attempts
            attempts += 1
            tx.upsert(people, COLUMNS, [person("a")])
            if attempts == 1:
                admin.execute(
                    "SELECT pg_terminate_backend(%s)", [tx.scalar(sa.text("SELECT pg_backend_pid()"))]
                )
            tx.set_state("x", {"attempt": attempts})

        with pytest.raises(WarehouseUnavailable, match="nothing was changed, run again"):
            store.run("kill", work, attempts=1)
        assert (attempts, count(store)) == (1, 0)
        attempts = 0
        store.run("kill", work)
        assert (attempts, count(store)) == (2, 1)


def test_a_stopped_writer_cannot_hold_its_locks_for_ever(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "IDLE_SECONDS", 1)
    with Warehouse.open(postgres_url) as store, Warehouse.open(postgres_url) as other:
        store.create_tables(metadata)

        def stop(tx: Transaction) -> None:
            tx.upsert(people, COLUMNS, [person("a")])
            other.run("take over", lambda tx: tx.upsert(people, COLUMNS, [person("a", age=7)]))
            tx.set_state("x", {})

        with pytest.raises(WarehouseUnavailable, match="idled for too long"):
            store.run("stop", stop, attempts=1)
        with store.reading() as tx:
            assert tx.versions(people, ["a"], "age") == {"a": 7}


def test_sessions_ended_between_two_transactions_are_replaced_unnoticed(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with Warehouse.open(postgres_url) as store, postgres_server.connect() as admin:
        store.create_tables(metadata)
        for key in "abc":
            add(store, key)
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'rally_pipeline' AND pid <> pg_backend_pid()"
            )
        assert count(store) == 3


@pytest.mark.fault("D7")
def test_a_deadlock_is_broken_and_both_transactions_are_repeated_to_their_end(postgres_url: str) -> None:
    with Warehouse.open(postgres_url) as store:
        store.create_tables(metadata)
        add(store, "a", "b")
        meeting = threading.Barrier(2, timeout=20)
        attempts = []

        def work(first: str, second: str) -> None:
            def cross(tx: Transaction) -> None:
                attempts.append(first)
                for key in (first, second):
                    tx.execute(people.update().where(people.c.id == key).values(age=people.c.age + 1))
                    if key == first and len(attempts) <= 2:
                        meeting.wait()

            store.run("cross", cross)

        threads = [threading.Thread(target=work, args=pair) for pair in (("a", "b"), ("b", "a"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(attempts) == 3
        with store.reading() as tx:
            assert {key: row[0] for key, row in tx.fetch(people, ("age",), ["a", "b"]).items()} == {
                "a": 42,
                "b": 42,
            }


def test_two_sessions_that_insert_the_same_keys_count_each_row_once(postgres_url: str) -> None:
    """Without a lease the second waits for the first and then finds its rows."""
    rows = [person(f"k{n}", _version=1) for n in range(200)]
    newer = [person(f"k{n}", _version=2) for n in range(100, 300)]
    with Warehouse.open(postgres_url) as one, Warehouse.open(postgres_url) as other:
        one.create_tables(metadata)
        results = []
        with one.transaction("first") as tx:
            results.append(tx.upsert(people, COLUMNS, rows, guard="_version"))

            def second() -> None:
                with other.transaction("second") as tx:
                    results.append(tx.upsert(people, COLUMNS, newer, guard="_version"))

            thread = threading.Thread(target=second)
            thread.start()
            time.sleep(0.3)
        thread.join()
        assert [(r.inserted, r.updated, r.unchanged) for r in results] == [(200, 0, 0), (100, 100, 0)]


@pytest.mark.fault("D8")
def test_a_server_restart_in_the_middle_is_survived_by_repeating() -> None:
    with running_server() as server, Warehouse.open(server.url()) as store:
        store.create_tables(metadata)
        add(store, "before")
        attempts = 0

        def work(tx: Transaction) -> None:
            nonlocal attempts
            attempts += 1
            tx.upsert(people, COLUMNS, [person("during")])
            if attempts == 1:
                server.restart()
            tx.set_state("x", {})

        store.run("restart", work)
        assert (attempts, count(store)) == (2, 2)
        server.restart()
        add(store, "after")
        assert count(store) == 3


@pytest.mark.fault("D8")
def test_a_server_that_crashed_comes_back_with_every_committed_row() -> None:
    with running_server() as server, Warehouse.open(server.url()) as store:
        store.create_tables(metadata)
        add(store, "a", "b")

        def crash_the_server(tx: Transaction) -> None:
            tx.upsert(people, COLUMNS, [person("c")])
            with psycopg.connect(host=str(server.folder), user="postgres") as victim:
                os.kill(victim.info.backend_pid, signal.SIGKILL)
            tx.set_state("x", {})

        # The server ends the other sessions a moment later: in the middle of the work, or at its commit.
        with pytest.raises((WarehouseUnavailable, CommitUnknown)):
            store.run("crash", crash_the_server, attempts=1)
        deadline = time.monotonic() + 30
        while True:
            try:
                assert count(store) == 2
                break
            except WarehouseUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.1)


@pytest.mark.fault("D9")
def test_a_corrupt_page_met_while_working_is_one_clear_line(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Warehouse.open(sqlite_url) as store:
        store.create_tables(metadata)
        add(store, *(f"k{n}" for n in range(3_000)))
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    content = bytearray(file.read_bytes())
    for page in range(40, len(content) // 8192):
        content[page * 8192 : page * 8192 + 64] = b"\x5a" * 64
    file.write_bytes(content)
    monkeypatch.setattr(sqlite, "check_file", lambda *_: None)
    damaged = r"^the warehouse file .* is corrupt: restore a backup"
    with Warehouse.open(sqlite_url) as store, pytest.raises(WarehouseError, match=damaged):
        count_all(store)


def count_all(store: Warehouse) -> int:
    with store.reading() as tx:
        return sum(len(page) for page in tx.scan(people, COLUMNS))


@pytest.mark.fault("P6")
def test_running_out_of_file_descriptors_is_a_clean_failure(warehouse_url: str) -> None:
    Warehouse.open(warehouse_url).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(WarehouseError) as caught:
            Warehouse.open(warehouse_url)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "\n" not in str(caught.value)
    Warehouse.open(warehouse_url).close()


def test_signals_and_locks_of_a_killed_writer_do_not_outlive_it(sqlite_url: str) -> None:
    with Warehouse.open(sqlite_url) as store:
        store.create_tables(metadata)
        script = (
            "import sys, time\n"
            "from rally_pipeline.warehouse import Warehouse\n"
            "from tests.warehouse.people import COLUMNS, people, person\n"
            "with Warehouse.open(sys.argv[1]) as store, store.transaction('t') as tx:\n"
            "    tx.upsert(people, COLUMNS, [person('half')])\n"
            "    print('open', flush=True)\n"
            "    time.sleep(60)\n"
        )
        with subprocess.Popen([sys.executable, "-c", script, sqlite_url], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        add(store, "a")
        assert count(store) == 1


def test_a_plain_sqlite_error_never_reaches_the_caller(sqlite_url: str) -> None:
    with (
        Warehouse.open(sqlite_url) as store,
        pytest.raises(WarehouseError) as caught,
        store.transaction("t") as tx,
    ):
        tx.execute(sa.text("SELECT * FROM nowhere"))
    assert not isinstance(caught.value, sqlite3.Error)
    assert str(caught.value).endswith("the statement failed: no such table: nowhere")
