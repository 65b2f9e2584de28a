"""Tables that a model reads, as far as its SQL says so plainly."""

from __future__ import annotations

import time

import pytest

from rally_pipeline.signalsmith.lineage import known_upstream, model_tables


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT * FROM rally_contacts", ["rally_contacts"]),
        ("select a from Public.Rally_Deals d join \"crm\".\"sell_leads\" l on 1=1", ["rally_deals", "sell_leads"]),
        ("SELECT * FROM a, b AS x, c y WHERE 1", ["a", "b", "c"]),
        ("SELECT 'FROM hidden' FROM t -- FROM comment\n/* JOIN more */", ["t"]),
        ("WITH x AS (SELECT * FROM rally_contacts) SELECT * FROM x", ["rally_contacts", "x"]),
        ("SELECT extract(year FROM day) FROM t", ["day", "t"]),
        ("FROM `proj.set`.`t`", ["t"]),
        ("SELECT * FROM a x LEFT JOIN b y ON x.i = y.i, c", ["a", "b"]),
        ("SELECT * FROM (SELECT 1 FROM inner_one) q JOIN outer_one o USING (id), x", ["inner_one", "outer_one"]),
        ("", []),
        ("SELECT 1", []),
    ],
)  # fmt: skip
def test_tables_of_a_query(sql: str, tables: list[str]) -> None:
    assert list(model_tables({"sql_query": sql})) == tables


def test_a_table_model_names_its_table() -> None:
    assert model_tables({"source_table": "Rally_Contacts", "sql_query": None}) == ("rally_contacts",)


@pytest.mark.parametrize("model", [{}, {"sql_query": 7}, {"sql_query": None}, {"sql_query": "x" * 200_000}])
def test_a_model_without_readable_sql_has_no_tables(model: dict[str, object]) -> None:
    assert model_tables(model) == ()


def test_only_tables_of_this_package_become_upstream() -> None:
    assert known_upstream(["rally_contacts", "other", "sell_loss_reasons"]) == (
        ("rally", "contacts"), ("sell", "loss_reasons"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "sql", ["from " * 20_000, "from a," * 14_000, "'" * 99_999, "/*" * 49_000, 'from "' * 16_000]
)
def test_hostile_sql_is_read_in_no_time(sql: str) -> None:
    begun = time.process_time()
    model_tables({"sql_query": sql})
    assert time.process_time() - begun < 1.0
