from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse import RowRefused, Transaction, UpsertResult, Warehouse, WarehouseError
from tests.warehouse.people import COLUMNS, LINK_COLUMNS, instant, links, people, person


def upsert(store: Warehouse, *rows: Any, **options: Any) -> UpsertResult:
    with store.transaction("test") as tx:
        return tx.upsert(people, COLUMNS, rows, touch=("_synced_at",), **options)


def stored(store: Warehouse) -> dict[str, Any]:
    with store.reading() as tx:
        return {key: row for page in tx.scan(people, COLUMNS) for key, row in page}


def writes(store: Warehouse) -> Any:
    """Something that changes whenever a row of the table is written, even with equal values."""
    if store.dialect == "postgresql":
        with store.reading() as tx:
            return sorted(tx.rows(sa.text("SELECT id, xmin::text, ctid::text, xmax::text FROM people")))
    with store.reading() as tx:
        driver: Any = tx.connection.connection.dbapi_connection
        return driver.total_changes


def test_new_rows_are_inserted_and_read_back_as_they_were_given(store: Warehouse) -> None:
    rows = [
        person("a"),
        person("b", name="", email=None, age=-(2**63), wealth="-0.000001", is_active=False, tags=None),
    ]
    assert upsert(store, *rows) == UpsertResult(inserted=2)
    assert stored(store) == {"a": rows[0], "b": rows[1]}


def test_columns_that_are_empty_in_a_whole_batch_become_null(store: Warehouse) -> None:
    upsert(store, *(person(f"k{n}") for n in range(100)))
    empty = {"email": None, "wealth": None, "tags": None}
    rows = [person(f"k{n}", **empty, age=None if n else 7) for n in range(120)]
    assert upsert(store, *rows) == UpsertResult(inserted=20, updated=100)
    assert stored(store) == {row[0]: row for row in rows}


def test_the_bad_rows_of_a_large_batch_come_back_as_they_were_given(store: Warehouse) -> None:
    rows = [person(f"k{n}", email=None, age=2**63 if n % 40 == 7 else n) for n in range(100)]
    result = upsert(store, *rows)
    assert [row for row, _ in result.rejected] == [rows[7], rows[47], rows[87]]
    assert result.inserted == 97


def test_redelivered_rows_change_nothing_and_cost_no_write(store: Warehouse) -> None:
    rows = [person(f"k{n}") for n in range(50)]
    upsert(store, *rows)
    before = writes(store)
    assert upsert(store, *rows) == UpsertResult(unchanged=50)
    assert writes(store) == before


def test_touch_columns_alone_cost_no_write_but_follow_a_real_change(store: Warehouse) -> None:
    upsert(store, person("a"), person("b"))
    before = writes(store)
    later = {"_synced_at": instant(60)}
    assert upsert(store, person("a", **later)) == UpsertResult(unchanged=1)
    assert writes(store) == before
    assert upsert(store, person("a", name="new", **later)) == UpsertResult(updated=1)
    assert stored(store)["a"][-1] == instant(60)
    assert stored(store)["b"][-1] == instant(0)


@pytest.mark.parametrize("guard", ["updated_at", "_version"])
def test_a_stale_row_never_overwrites_a_newer_one(store: Warehouse, guard: str) -> None:
    def version(number: int) -> dict[str, Any]:
        return {"updated_at": instant(number), "_version": number, "name": f"state {number}"}

    upsert(store, person("a", **version(5)), person("b", **version(5)), guard=guard)
    result = upsert(
        store, person("a", **version(3)), person("b", **version(7)), person("c", **version(1)), guard=guard
    )
    assert result == UpsertResult(inserted=1, updated=1, older=["a"])
    assert [row[1] for row in stored(store).values()] == ["state 5", "state 7", "state 1"]


def test_an_equal_guard_lets_the_incoming_row_win_and_an_empty_one_has_no_say(store: Warehouse) -> None:
    upsert(
        store, person("a", _version=5), person("b", _version=None), person("c", _version=5), guard="_version"
    )
    changed = [
        person("a", _version=5, age=1),
        person("b", _version=2, age=1),
        person("c", _version=None, age=1),
    ]
    assert upsert(store, *changed, guard="_version") == UpsertResult(updated=3)
    assert [row[3] for row in stored(store).values()] == [1, 1, 1]


def test_of_equal_keys_in_a_batch_the_greatest_guard_wins_and_among_equals_the_last(store: Warehouse) -> None:
    rows = [person("a", _version=2, age=1), person("a", _version=2, age=2), person("a", _version=1, age=3)]
    assert upsert(store, *rows, guard="_version") == UpsertResult(inserted=1, duplicates=2)
    assert stored(store)["a"][3] == 2
    assert upsert(store, *rows) == UpsertResult(updated=1, duplicates=2)
    assert stored(store)["a"][3] == 3


BAD = {
    "age": (2**63, "column age: the number does not fit into 64 bits"),
    "name": ("lone \ud800", "column name: the text has U+0000 or a lone surrogate"),
    "email": ("nul \0 inside", "column email: the text has U+0000 or a lone surrogate"),
    "tags": ('["\\u0000"]', "column tags: the JSON has U+0000"),
    "id": (None, "column id: a value is required"),
}


@pytest.mark.parametrize("column", BAD)
def test_a_refused_row_is_named_and_the_others_are_stored(store: Warehouse, column: str) -> None:
    value, reason = BAD[column]
    rows = [person(f"k{n}") for n in range(100)]
    bad = person("bad", **{"name": "secret name"} | {column: value})
    rows[50] = person("k50", name="\\u0000", tags='["\\\\\\\\u0000"]')
    result = upsert(store, *rows[:40], bad, *rows[40:])
    assert result == UpsertResult(inserted=100, rejected=[(bad, reason)])
    assert "secret" not in reason
    assert len(stored(store)) == 100


def test_rows_that_only_the_database_can_refuse_are_found_by_halving(store: Warehouse) -> None:
    unique = sa.Table(
        "logins",
        sa.MetaData(),
        sa.Column("id", people.c.id.type, primary_key=True),
        sa.Column("login", people.c.name.type, unique=True),
    )
    store.create_tables([unique])
    rows = [(f"k{n}", f"login {n}") for n in range(20)] + [("twin 1", "login 3"), ("twin 2", "login 4")]
    with store.transaction("test") as tx:
        result = tx.upsert(unique, ("id", "login"), rows)
        tx.set_state("after", {"still": "works"})
    assert (result.inserted, len(result.rejected)) == (20, 2)
    assert {reason for _, reason in result.rejected} == {"a unique column has this value already"}
    with store.reading() as tx:
        assert (tx.count(unique), tx.state("after")) == (20, {"still": "works"})


def test_a_page_full_of_bad_rows_is_refused_row_by_row(store: Warehouse) -> None:
    rows = [person(f"k{n}", age=2**70) for n in range(1_000)]
    result = upsert(store, *rows)
    assert (len(result.rejected), result.inserted) == (1_000, 0)
    assert stored(store) == {}


def test_writing_a_row_brings_a_softly_deleted_one_back(store: Warehouse) -> None:
    rows = [("deal", 1, "one"), ("deal", 2, "two")]
    with store.transaction("test") as tx:
        tx.upsert(links, LINK_COLUMNS, rows)
        assert tx.delete(links, [("deal", 1), ("deal", 9)], mode=DeleteMode.SOFT, at=instant(5)) == 1
        assert tx.delete(links, [("deal", 1)], mode=DeleteMode.SOFT, at=instant(6)) == 0
        assert tx.count(links) == 1
    with store.transaction("test") as tx:
        assert tx.fetch(links, ("_deleted_at",), [("deal", 1)]) == {("deal", 1): (instant(5),)}
        assert tx.upsert(links, LINK_COLUMNS, rows) == UpsertResult(updated=1, unchanged=1)
        assert tx.count(links) == 2


def test_a_hard_delete_removes_rows_and_counts_them(store: Warehouse) -> None:
    with store.transaction("test") as tx:
        tx.upsert(links, LINK_COLUMNS, [("deal", n, None) for n in range(5)])
        assert (
            tx.delete(links, [("deal", 1), ("deal", 3), ("deal", 77)], mode=DeleteMode.HARD, at=instant(1))
            == 2
        )
        assert tx.delete(links, [], mode=DeleteMode.HARD, at=instant(1)) == 0
        assert sorted(key for page in tx.scan(links, ()) for key, _ in page) == [
            ("deal", 0),
            ("deal", 2),
            ("deal", 4),
        ]


def test_insert_new_returns_only_what_was_not_there_in_the_order_given(store: Warehouse) -> None:
    with store.transaction("test") as tx:
        assert tx.insert_new(links, LINK_COLUMNS, [("a", 1, "first")]) == [("a", 1)]
        rows = [("b", 2, "x"), ("a", 1, "other"), ("a", 3, "y"), ("b", 2, "again")]
        assert tx.insert_new(links, LINK_COLUMNS, rows, returning=("note",)) == [("x",), ("y",)]
        assert tx.insert_new(links, LINK_COLUMNS, rows) == []
        assert tx.fetch(links, ("note",), [("a", 1), ("b", 2)]) == {("a", 1): ("first",), ("b", 2): ("x",)}


def test_insert_new_refuses_a_bad_row_by_name_and_keeps_nothing(store: Warehouse) -> None:
    with pytest.raises(RowRefused, match=r"^table people, key 'bad': column age: the number does not fit"):  # noqa: SIM117
        with store.transaction("test") as tx:
            tx.insert_new(people, COLUMNS, [person("good"), person("bad", age=2**63)])
    assert stored(store) == {}


def test_versions_come_back_for_stored_keys_only(store: Warehouse) -> None:
    upsert(store, *(person(f"k{n}", _version=n) for n in range(1_000)))
    with store.reading() as tx:
        found = tx.versions(people, [f"k{n}" for n in range(0, 2_000, 2)])
        assert found == {f"k{n}": n for n in range(0, 1_000, 2)}
        assert tx.versions(people, []) == {}
        assert tx.versions(people, ["k1"], "updated_at") == {"k1": instant(0)}
        many = [f"k{n}" for n in range(500, 600)]
        assert tx.versions(people, many, "updated_at") == dict.fromkeys(many, instant(0))


def test_versions_are_exact_whatever_stands_beside_the_keys(store: Warehouse) -> None:
    numbers = [-(2**63), 2**63 - 1, 2**53 + 1, None, 0]
    keys = [f'"{n}\\ \n{"é😀"}' for n in range(100)]
    upsert(store, *(person(key, _version=numbers[n % 5]) for n, key in enumerate(keys)))
    with store.reading() as tx:
        found = tx.versions(people, keys[10:90:2])
    assert found == {keys[n]: numbers[n % 5] for n in range(10, 90, 2)}


def test_scan_yields_every_row_once_in_bytewise_key_order(store: Warehouse) -> None:
    keys = ["Z", "a", "B", "é", "z", "10", "9", "_", "😀", "\uffff"]
    upsert(store, *(person(key) for key in keys))
    with store.reading() as tx:
        pages = list(tx.scan(people, ("name",), batch=3))
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    assert [key for page in pages for key, _ in page] == sorted(keys, key=str.encode)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda tx: tx.upsert(people, ("id", "nmae"), [("a", "b")]), "unknown or repeated columns"),
        (lambda tx: tx.upsert(people, ("id", "id"), [("a", "b")]), "unknown or repeated columns"),
        (lambda tx: tx.upsert(people, ("name",), [("b",)]), "key columns"),
        (lambda tx: tx.upsert(people, ("id", "name"), [("a", "b")], guard="name"), "cannot guard"),
        (lambda tx: tx.upsert(people, ("id", "wealth"), [("a", "1")], guard="wealth"), "cannot guard"),
    ],
)
def test_columns_that_do_not_fit_the_table_are_a_programming_error(
    store: Warehouse, call: Callable[[Any], object], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem), store.transaction("test") as tx:
        call(tx)


def test_several_upserts_into_several_shapes_share_one_transaction(store: Warehouse) -> None:
    with store.transaction("test") as tx:
        assert tx.upsert(people, COLUMNS, [person("a"), person("b")]).inserted == 2
        assert tx.upsert(people, ("id", "name"), [("b", "other"), ("c", "new")]) == UpsertResult(
            inserted=1, updated=1
        )
        assert tx.upsert(people, COLUMNS, [person("a"), person("d")]) == UpsertResult(inserted=1, unchanged=1)
        assert tx.upsert(links, LINK_COLUMNS, [("x", 1, None)]).inserted == 1
        assert tx.upsert(people, COLUMNS, []) == UpsertResult()
    assert {key: row[1] for key, row in stored(store).items()} == {
        "a": "name of a",
        "b": "other",
        "c": "new",
        "d": "name of d",
    }


def test_bulk_statements_work_again_after_a_rolled_back_transaction(store: Warehouse) -> None:
    def crash(tx: Transaction) -> None:
        tx.upsert(people, COLUMNS, [person("crash")])
        raise ZeroDivisionError

    def fail(tx: Transaction) -> None:
        tx.upsert(people, COLUMNS, [person("fail")])
        tx.execute(sa.text("SELECT * FROM no_such_table"))

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            store.run("crash", crash)
        with pytest.raises(WarehouseError):
            store.run("fail", fail)
        assert stored(store) == {}
    assert upsert(store, person("a")) == UpsertResult(inserted=1)


VERSIONS = st.one_of(st.none(), st.integers(0, 3))
ROWS = st.lists(
    st.tuples(st.sampled_from("abcde"), VERSIONS, st.integers(0, 1), st.integers(0, 9)), max_size=8
)
STEPS = st.lists(st.tuples(st.booleans(), ROWS, st.sets(st.sampled_from("abcde"), max_size=2)), max_size=6)


class Model:
    """What the upsert promises, said again without a database."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Any, ...]] = {}

    def upsert(self, batch: list[tuple[Any, ...]], *, guarded: bool) -> UpsertResult:
        winners: dict[str, tuple[Any, ...]] = {}
        for row in batch:
            rival = winners.get(row[0])
            if rival is None or not (guarded and self._older(row, rival)):
                winners[row[0]] = row
        inserted = updated = unchanged = 0
        older = []
        for key, row in winners.items():
            known = self.rows.get(key)
            if known is None:
                inserted += 1
            elif known[1:3] == row[1:3]:
                unchanged += 1
                continue
            elif guarded and self._older(row, known):
                older.append(key)
                continue
            else:
                updated += 1
            self.rows[key] = row
        return UpsertResult(inserted, updated, unchanged, sorted(older), [], len(batch) - len(winners))

    @staticmethod
    def _older(row: tuple[Any, ...], known: tuple[Any, ...]) -> bool:
        return row[1] is not None and known[1] is not None and bool(row[1] < known[1])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_sequence_of_batches_ends_as_the_model_says_with_exact_counts(
    store: Warehouse, steps: Any
) -> None:
    with store.transaction("empty") as tx:
        tx.execute(people.delete())
    model = Model()
    for guarded, batch, deleted in steps:
        rows = [
            person(key, _version=version, age=age, _synced_at=instant(at)) for key, version, age, at in batch
        ]
        expected = model.upsert([(row[0], row[8], row[3], row[9]) for row in rows], guarded=guarded)
        result = upsert(store, *rows, guard="_version" if guarded else None)
        result.older.sort()
        assert result == expected
        for key in deleted & model.rows.keys():
            del model.rows[key]
        with store.transaction("test") as tx:
            tx.delete(people, sorted(deleted), mode=DeleteMode.HARD, at=instant(0))
    assert {key: (row[0], row[8], row[3], row[9]) for key, row in stored(store).items()} == model.rows
