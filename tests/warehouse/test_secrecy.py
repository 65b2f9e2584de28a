"""Passwords and people's data stay out of messages; what was deleted is gone from the files."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa

from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse import RowRefused, Transaction, Warehouse, WarehouseError
from tests.postgres import PostgresServer
from tests.warehouse.people import COLUMNS, instant, metadata, people, person

PASSWORD = "canary-pass-word"
PERSON = "canary.person@example.com"


def told(error: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    """Everything that a log or a screen would show of an error."""
    return "".join(traceback.format_exception(error)) + str(error) + repr(error) + caplog.text


STATEMENTS = [
    people.insert().values(id="dup", name=PERSON),
    people.insert().values(id=None, name=PERSON),
    sa.text("UPDATE people SET no_such_column = :value").bindparams(value=PERSON),
    sa.select(sa.cast(sa.literal(PERSON), sa.Integer), sa.text("no_such_column")),
    people.insert().values(id=PERSON, age=2**70),
]


@pytest.mark.security("16")
@pytest.mark.parametrize("number", range(len(STATEMENTS)))
def test_no_value_of_a_row_is_in_an_error(
    store: Warehouse, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="rally_pipeline")
    with store.transaction("fill") as tx:
        tx.upsert(people, COLUMNS, [person("dup", email=PERSON)])

    def fail(tx: Transaction) -> None:
        tx.execute(STATEMENTS[number])

    with pytest.raises((WarehouseError, OverflowError)) as caught:
        store.run("fail", fail)
    assert PERSON not in told(caught.value, caplog).replace(f"'{PERSON}'\n", "")
    assert "\n" not in str(caught.value)


@pytest.mark.security("16")
def test_no_value_of_a_refused_row_is_in_its_reason(
    store: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [person("a", name=PERSON, age=2**64), person("b", email=PERSON, name="\ud800")]
    with store.transaction("test") as tx:
        reasons = [reason for _, reason in tx.upsert(people, COLUMNS, bad).rejected]
    assert len(reasons) == 2
    assert PERSON not in "".join(reasons)
    with pytest.raises(RowRefused) as caught, store.transaction("test") as tx:
        tx.insert_new(people, COLUMNS, bad)
    assert PERSON not in str(caught.value)


@pytest.mark.security("15")
def test_a_wrong_password_is_not_repeated(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = postgres_server.url().replace("postgres@", f"nobody:{PASSWORD}@")
    with pytest.raises(WarehouseError) as caught:
        Warehouse.open(url)
    assert PASSWORD not in told(caught.value, caplog)


@pytest.mark.security("15")
def test_nothing_that_can_be_printed_holds_the_password(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = postgres_server.url().replace("postgres@", f"postgres:{PASSWORD}@")
    with Warehouse.open(url, schema="printed") as store:
        shown = f"{store!r} {store.identity()!r} {vars(store)!r} {vars(store._sessions)!r} {store._sessions.engine!r}"
    assert PASSWORD not in shown + caplog.text
    with postgres_server.connect() as admin:
        admin.execute("SET client_min_messages = error; DROP SCHEMA printed CASCADE")


@pytest.mark.security("37")
def test_deleted_people_leave_no_bytes_in_the_files(sqlite_url: str) -> None:
    folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
    with Warehouse.open(sqlite_url) as store:
        store.create_tables(metadata)
        with store.transaction("fill") as tx:
            tx.upsert(people, COLUMNS, [person(f"k{n}", email=f"{n}.{PERSON}") for n in range(500)])
    assert PERSON.encode() in b"".join(path.read_bytes() for path in folder.iterdir())
    with Warehouse.open(sqlite_url) as store, store.transaction("erase") as tx:
        deleted = tx.delete(people, [f"k{n}" for n in range(500)], mode=DeleteMode.HARD, at=instant(0))
        assert deleted == 500
    assert PERSON.encode() not in b"".join(path.read_bytes() for path in folder.iterdir())


HOSTILE = [
    "'; DROP TABLE people; --",
    '"; DROP TABLE people; --',
    "a\\'b",
    "$1",
    "%(x)s",
    "?",
    ":id",
    "\\",
    "/*",
    "x' OR '1'='1",
]


@pytest.mark.security("18")
def test_hostile_values_are_data_everywhere(store: Warehouse) -> None:
    rows = [person(text, name=text, email=text) for text in HOSTILE]
    with store.transaction("test") as tx:
        assert tx.upsert(people, COLUMNS, rows).inserted == len(rows)
        assert tx.fetch(people, COLUMNS, HOSTILE) == {row[0]: row for row in rows}
        assert set(tx.versions(people, HOSTILE)) == set(HOSTILE)
        for text in HOSTILE:
            tx.set_state(text, {text: text})
            assert tx.state(text) == {text: text}
            tx.quarantine(text, text, text, text)
            assert tx.release(text, text)
        assert [len(page) for page in tx.scan(people, (), batch=4)] == [4, 4, 2]
        assert tx.delete(people, HOSTILE, mode=DeleteMode.HARD, at=instant(0)) == len(rows)
