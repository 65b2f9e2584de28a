"""Tables come into being and grow; what does not fit is refused before anything is changed."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from rally_pipeline.warehouse import Transaction, UpsertResult, Warehouse, WarehouseError
from rally_pipeline.warehouse.types import BigInteger, Boolean, Instant, Json, Text
from tests.warehouse.people import COLUMNS, metadata, people, person
from tests.warehouse.processes import run_in_processes


def table(*columns: sa.Column[object], name: str = "grown") -> sa.Table:
    return sa.Table(name, sa.MetaData(), sa.Column("id", Text, primary_key=True), *columns)


def test_creating_tables_again_does_nothing(warehouse: Warehouse) -> None:
    assert warehouse.create_tables(metadata) == ["table links created", "table people created"]
    assert warehouse.create_tables(metadata) == []


def test_a_newer_version_adds_columns_and_keeps_rows_and_an_open_connection_goes_on(
    warehouse: Warehouse,
) -> None:
    first = table(sa.Column("name", Text))
    second = table(
        sa.Column("name", Text),
        sa.Column("tags", Json),
        sa.Column(
            "is_open",
            Boolean,
            nullable=False,
            server_default=sa.text("1" if warehouse.dialect == "sqlite" else "true"),
        ),
        sa.Column("seen_at", Instant, index=True),
    )
    warehouse.create_tables([first])
    with warehouse.transaction("old") as tx:
        tx.upsert(first, ("id", "name"), [("a", "one")])
    assert warehouse.create_tables([second]) == [
        "column grown.tags added",
        "column grown.is_open added",
        "column grown.seen_at added",
        "index ix_grown_seen_at created",
    ]
    with warehouse.transaction("new") as tx:
        columns = ("id", "name", "tags", "is_open", "seen_at")
        rows = [("a", "one", None, True, None), ("b", "two", "[1]", False, "2026-01-01T00:00:00.000000Z")]
        assert tx.upsert(second, columns, rows) == UpsertResult(inserted=1, unchanged=1)
        assert tx.upsert(first, ("id", "name"), [("b", "three")]) == UpsertResult(updated=1)
        assert tx.fetch(second, columns[1:], ["b"]) == {
            "b": ("three", "[1]", False, "2026-01-01T00:00:00.000000Z")
        }


def test_an_older_version_works_beside_columns_it_does_not_know(warehouse: Warehouse) -> None:
    warehouse.create_tables([table(sa.Column("name", Text), sa.Column("future", Text))])
    old = table(sa.Column("name", Text))
    assert warehouse.create_tables([old]) == []
    with warehouse.transaction("old") as tx:
        assert tx.upsert(old, ("id", "name"), [("a", "one")]) == UpsertResult(inserted=1)


def test_tables_and_columns_of_a_failed_transaction_do_not_stay(warehouse: Warehouse) -> None:
    class CrashError(BaseException):
        pass

    def crash(tx: Transaction) -> None:
        tx.create_tables([table(sa.Column("name", Text), sa.Column("more", Text)), table(name="another")])
        tx.upsert(table(sa.Column("name", Text)), ("id", "name"), [("b", None)])
        raise CrashError

    warehouse.create_tables([table(sa.Column("name", Text))])
    with pytest.raises(CrashError):
        warehouse.run("crash", crash)
    with warehouse.reading() as tx:
        inspector = sa.inspect(tx.connection)
        assert not inspector.has_table("another")
        assert [column["name"] for column in inspector.get_columns("grown")] == ["id", "name"]


def test_a_required_column_without_default_cannot_be_added_later(warehouse: Warehouse) -> None:
    warehouse.create_tables([table()])
    with pytest.raises(WarehouseError, match="new column name must be nullable or have a server default"):
        warehouse.create_tables([table(sa.Column("name", Text, nullable=False)), table(name="another")])
    with warehouse.reading() as tx:
        assert not sa.inspect(tx.connection).has_table("another")


def test_a_table_of_that_name_made_by_something_else_is_refused(warehouse: Warehouse) -> None:
    with warehouse.transaction("foreign") as tx:
        tx.execute(sa.text("CREATE TABLE grown (id text PRIMARY KEY, name integer)"))
    with pytest.raises(
        WarehouseError, match=r"^table grown has a column name of type INTEGER where TEXT is needed"
    ):
        warehouse.create_tables([table(sa.Column("name", Text))])


RESERVED = [
    "nothing",
    "window",
    "rowid",
    "select",
    "order",
    "user",
    "Table",
    "group by",
    '"; DROP TABLE people; --',
    "a.b",
    "ä😀",
    "%s",
    ":x",
    "?",
    "'",
    "--",
]


@pytest.mark.security("19", "20")
@pytest.mark.fault("V13")
def test_reserved_words_and_odd_names_are_quoted_everywhere(warehouse: Warehouse) -> None:
    warehouse.create_tables([people])
    odd = table(*(sa.Column(name, Text) for name in RESERVED), name="order")
    warehouse.create_tables([odd])
    columns = ("id", *RESERVED)
    row = ("k", *(f"value of {name}" for name in RESERVED))
    with warehouse.transaction("odd") as tx:
        assert tx.upsert(odd, columns, [row]) == UpsertResult(inserted=1)
        assert tx.upsert(odd, columns, [row]) == UpsertResult(unchanged=1)
        assert tx.upsert(odd, columns, [(*row[:-1], "changed")]) == UpsertResult(updated=1)
        assert tx.insert_new(odd, columns, [row]) == []
        assert tx.fetch(odd, columns, ["k"]) == {"k": (*row[:-1], "changed")}
        assert [len(page) for page in tx.scan(odd, columns)] == [1]
        assert tx.count(people) == 0


@pytest.mark.fault("D12")
@pytest.mark.parametrize("name", ["x" * 64, "ü" * 32, "nul\0", "lone\ud800"])
def test_a_name_that_a_database_would_cut_or_refuse_is_refused_at_once(
    warehouse: Warehouse, name: str
) -> None:
    with pytest.raises(WarehouseError, match="cannot name a table, column or index: 1 to 63 bytes, no NUL"):
        warehouse.create_tables([table(sa.Column(name, Text))])


@pytest.mark.fault("D12")
def test_names_that_are_equal_after_63_bytes_or_but_for_case_cannot_clash_silently(
    warehouse: Warehouse,
) -> None:
    with pytest.raises(WarehouseError, match="cannot name"):
        warehouse.create_tables([table(sa.Column("c" * 63 + "1", Text), sa.Column("c" * 63 + "2", Text))])
    with pytest.raises(WarehouseError, match=r"columns differ in upper and lower case only: name$"):
        warehouse.create_tables([table(sa.Column("Name", Text), sa.Column("name", Text))])


@pytest.mark.fault("D11")
def test_more_columns_than_the_database_allows_is_one_clear_line(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError, match=r"too many columns|at most 1600 columns") as caught:
        warehouse.create_tables([table(*(sa.Column(f"c{number}", BigInteger) for number in range(2_500)))])
    assert "\n" not in str(caught.value)


def test_processes_that_create_the_same_warehouse_at_once_do_not_disturb_each_other(
    warehouse_url: str,
) -> None:
    def create() -> None:
        with Warehouse.open(warehouse_url) as store:
            store.create_tables(metadata)
            store.create_tables([table(sa.Column("name", Text, index=True))])

    assert run_in_processes(4, create) == [0, 0, 0, 0]
    with Warehouse.open(warehouse_url) as store, store.transaction("test") as tx:
        assert tx.upsert(people, COLUMNS, [person("a")]) == UpsertResult(inserted=1)
        assert tx.scalar(sa.text("SELECT count(*) FROM warehouse_identity")) == 1
