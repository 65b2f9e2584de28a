"""A connection that dies around COMMIT: what was committed is found out, what was not is said so."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rally_pipeline.warehouse import (
    CommitUnknown,
    Transaction,
    Warehouse,
    WarehouseBusy,
    WarehouseUnavailable,
)
from tests.postgres import PostgresServer
from tests.warehouse.cutting_proxy import CuttingProxy
from tests.warehouse.people import COLUMNS, metadata, people, person


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[CuttingProxy]:
    with tempfile.TemporaryDirectory(prefix="rally-proxy-") as folder:
        relay = CuttingProxy(Path(folder), postgres_server.folder)
        yield relay
        relay.close()


@pytest.fixture
def remote(proxy: CuttingProxy, postgres_server: PostgresServer, postgres_url: str) -> Iterator[Warehouse]:
    """A warehouse behind the proxy."""
    with Warehouse.open(postgres_url.replace(str(postgres_server.folder), str(proxy.folder))) as store:
        store.create_tables(metadata)
        yield store


def names(store: Warehouse) -> list[str]:
    with store.reading() as tx:
        return [key for page in tx.scan(people, ()) for key, _ in page]


@pytest.mark.fault("D1")
def test_a_commit_whose_answer_was_lost_counts_as_committed(remote: Warehouse, proxy: CuttingProxy) -> None:
    with remote.lease("rally.contacts") as lease:
        proxy.cut("after")
        with remote.transaction("page", lease) as tx:
            tx.upsert(people, COLUMNS, [person("a")])
        assert proxy.cuts == 1
        with remote.transaction("page", lease) as tx:
            assert tx.upsert(people, COLUMNS, [person("a"), person("b")]).inserted == 1
    assert names(remote) == ["a", "b"]


@pytest.mark.fault("D1")
def test_a_commit_that_never_arrived_is_reported_as_not_done(remote: Warehouse, proxy: CuttingProxy) -> None:
    with remote.lease("rally.contacts") as lease:
        proxy.cut("before")
        with pytest.raises(
            WarehouseUnavailable, match=r"while 'page' was being committed; it was not committed"
        ):
            remote.run("page", lambda tx: tx.upsert(people, COLUMNS, [person("a")]), lease=lease, attempts=1)
        assert names(remote) == []
        with remote.transaction("page", lease) as tx:
            assert tx.upsert(people, COLUMNS, [person("a")]).inserted == 1
    assert names(remote) == ["a"]


@pytest.mark.fault("D1")
@pytest.mark.parametrize("when", ["before", "after"])
def test_run_repeats_only_a_transaction_that_was_not_committed(
    remote: Warehouse, proxy: CuttingProxy, when: Any
) -> None:
    calls = 0
    with remote.lease("rally.contacts") as lease:
        proxy.cut(when)

        def work(tx: Any) -> int:
            nonlocal calls
            calls += 1
            count: int = (tx.state("counter") or {"n": 0})["n"] + 1
            tx.set_state("counter", {"n": count})
            return count

        assert remote.run("count", work, lease=lease) == 1
    assert calls == (2 if when == "before" else 1)
    with remote.reading() as tx:
        assert tx.state("counter") == {"n": 1}


def test_without_a_lease_the_outcome_stays_unknown(remote: Warehouse, proxy: CuttingProxy) -> None:
    proxy.cut("after")
    with (
        pytest.raises(CommitUnknown, match=r"whether it was is not known: run again"),
        remote.transaction("page") as tx,
    ):
        tx.upsert(people, COLUMNS, [person("a")])
    assert names(remote) == ["a"]


def test_without_a_connection_afterwards_the_outcome_stays_unknown(
    remote: Warehouse, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote._sessions._clock, "sleep", waits.append)
    with remote.lease("rally.contacts") as lease:
        proxy.cut("after")

        def work(tx: Transaction) -> None:
            tx.upsert(people, COLUMNS, [person("a")])
            proxy.refusing = True

        with pytest.raises(CommitUnknown):
            remote.run("page", work, lease=lease)
        assert len(waits) == 6
        proxy.refusing = False
        assert names(remote) == ["a"]


class FailingCommit:
    """Stands in for the dialect's commit: fails once, before or after the driver has committed."""

    def __init__(self, store: Warehouse, code: str, *, after: bool) -> None:
        self._commit = store._sessions.engine.dialect.do_commit
        self._code = code
        self._after = after
        self.left = 1
        store._sessions.engine.dialect.do_commit = self  # type: ignore[method-assign]

    def __call__(self, connection: Any) -> None:
        if self.left and not self._after:
            self.left -= 1
            raise self._error()
        self._commit(connection)
        if self.left:
            self.left -= 1
            raise self._error()

    def _error(self) -> sqlite3.OperationalError:
        error = sqlite3.OperationalError("made by a test")
        error.sqlite_errorname = self._code
        return error


@pytest.mark.fault("D3")
def test_a_busy_commit_is_rolled_back_and_repeated_as_a_whole(sqlite_url: str) -> None:
    with Warehouse.open(sqlite_url) as store:
        store.create_tables(metadata)
        FailingCommit(store, "SQLITE_BUSY", after=False)
        with pytest.raises(WarehouseBusy), store.transaction("page") as tx:
            tx.upsert(people, COLUMNS, [person("a")])
        assert names(store) == []
        FailingCommit(store, "SQLITE_BUSY", after=False)
        assert store.run("page", lambda tx: tx.upsert(people, COLUMNS, [person("a")])).inserted == 1
        assert names(store) == ["a"]


@pytest.mark.parametrize("after", [True, False])
def test_a_commit_that_failed_on_the_disk_is_looked_up(sqlite_url: str, after: bool) -> None:
    with Warehouse.open(sqlite_url) as store:
        store.create_tables(metadata)
        with store.lease("rally.contacts") as lease:
            FailingCommit(store, "SQLITE_IOERR_FSYNC", after=after)
            try:
                with store.transaction("page", lease) as tx:
                    tx.upsert(people, COLUMNS, [person("a")])
            except WarehouseUnavailable:
                assert not after
            assert names(store) == (["a"] if after else [])
            with store.transaction("page", lease) as tx:
                tx.upsert(people, COLUMNS, [person("b")])
        assert names(store) == (["a", "b"] if after else ["b"])
