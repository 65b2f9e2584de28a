"""What the UI is given: numbers that it plots, texts that stay texts."""

import dagster as dg
import pytest
from sqlalchemy import Column, MetaData, Table

from rally_pipeline.orchestration import metadata
from rally_pipeline.warehouse.types import ExactDecimal, Instant, Text

HOSTILE = '<img src=x onerror=alert(1)> [link](https://evil.example) | "'


def test_counts_are_numbers_under_a_namespace():
    found = metadata.numbers("rally", {"inserted": 3, "waited_seconds": 0.25})
    assert found == {
        "rally/inserted": dg.MetadataValue.int(3),
        "rally/waited_seconds": dg.MetadataValue.float(0.25),
    }


def test_a_table_is_described_by_name_and_columns():
    described = Table(
        "rally_deals",
        MetaData(),
        Column("id", Text(), primary_key=True),
        Column("value", ExactDecimal(), comment="money"),
        Column("updated_at", Instant(), nullable=False),
    )
    found = metadata.table(described, schema="crm")
    assert found["dagster/table_name"] == dg.MetadataValue.text("crm.rally_deals")
    columns = found["dagster/column_schema"].value.columns
    assert [column.name for column in columns] == ["id", "value", "updated_at"]
    assert columns[0].constraints.unique
    assert not columns[0].constraints.nullable
    assert columns[1].description == "money"


@pytest.mark.security("29")
def test_remote_text_is_a_table_cell_never_markdown():
    found = metadata.rejects("rally/rejects", [(HOSTILE, HOSTILE)])
    value = found["rally/rejects"]
    assert isinstance(value, dg.TableMetadataValue)
    assert value.records[0].data == {"key": HOSTILE, "reason": HOSTILE}


def test_no_rejects_means_no_entry():
    assert metadata.rejects("rally/rejects", []) == {}
