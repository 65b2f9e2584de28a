"""Records that cannot be stored are kept with their reason until they are replayed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rally_pipeline.warehouse import Transaction, Warehouse
from tests.warehouse.clocks import ManualClock
from tests.warehouse.people import COLUMNS, metadata, people, person


def test_a_record_is_kept_with_reason_raw_text_and_times(warehouse_url: str) -> None:
    clock = ManualClock()
    with Warehouse.open(warehouse_url, clock=clock) as store:
        with store.transaction("test") as tx:
            tx.quarantine("rally.contacts", "k1", "column age: too large", b'{"id": "k1", "age": 1e999}')
        first = clock.now()
        clock.advance(60)
        with store.transaction("test") as tx:
            tx.quarantine("rally.contacts", "k1", "column age: still too large", '{"id": "k1", "age": 2e999}')
            tx.quarantine("sell.deals", "k1", "other source", "{}")
        with store.reading() as tx:
            (record,) = tx.quarantined("rally.contacts")
            assert [kept.source for kept in tx.quarantined()] == ["rally.contacts", "sell.deals"]
            assert len(tx.quarantined(limit=1)) == 1
    assert (record.source, record.key, record.reason) == (
        "rally.contacts",
        "k1",
        "column age: still too large",
    )
    assert (record.raw, record.attempts) == ('{"id": "k1", "age": 2e999}', 2)
    assert (record.first_seen, record.last_seen) == (first, first + timedelta(seconds=60))


def test_a_replayed_record_is_stored_and_released_in_one_transaction(store: Warehouse) -> None:
    with store.transaction("refuse") as tx:
        row, reason = tx.upsert(people, COLUMNS, [person("bad", age=2**63), person("good")]).rejected[0]
        tx.quarantine("people", str(row[0]), reason, '{"id": "bad", "age": 9223372036854775808}')

    def replay(tx: Transaction) -> int:
        for record in tx.quarantined("people"):
            assert tx.upsert(people, COLUMNS, [person(record.key, age=1)]).inserted == 1
            assert tx.release(record.source, record.key)
        return len(tx.quarantined("people"))

    assert store.run("replay", replay) == 0
    with store.reading() as tx:
        assert tx.count(people) == 2
    with store.transaction("again") as tx:
        assert not tx.release("people", "bad")


@pytest.mark.fault("V12")
def test_bytes_that_are_no_text_and_huge_records_are_kept_as_far_as_they_go(store: Warehouse) -> None:
    with store.transaction("test") as tx:
        tx.quarantine("files", "bytes", "not UTF-8", b"\xff\xfe caf\xe9 \x00 end")
        tx.quarantine("files", "huge", "too large", "x" * 5_000_000)
        tx.quarantine("files", "odd \0 key \ud800", "odd", "raw \0 text")
        by_key = {record.key: record for record in tx.quarantined("files")}
        assert tx.release("files", "odd \0 key \ud800")
    assert by_key["bytes"].raw == "\\xff\\xfe caf\\xe9 \ufffd end"
    assert (len(by_key["huge"].raw), by_key["huge"].reason) == (
        4_000_000,
        "too large (raw text cut: 5,000,000 characters)",
    )
    assert by_key["odd \ufffd key \ufffd"].raw == "raw \ufffd text"


def test_the_quarantine_shares_the_fate_of_its_transaction(warehouse: Warehouse) -> None:
    warehouse.create_tables(metadata)

    def fail(tx: Transaction) -> None:
        tx.quarantine("people", "k", "reason", "{}")
        raise ZeroDivisionError

    try:
        warehouse.run("fail", fail)
    except ZeroDivisionError:
        with warehouse.reading() as tx:
            assert tx.quarantined() == []
