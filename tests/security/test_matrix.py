"""The list is complete and true: every row has a test that runs, or a reason; no marker names a row that is not."""

from __future__ import annotations

from tests.faults.marked import find_tests
from tests.security.__main__ import table
from tests.security.matrix import ROWS


def test_every_row_has_a_test_or_a_reason() -> None:
    tests = find_tests(marker="security")
    assert [row.number for row in ROWS.values() if (row.number in tests) == bool(row.untested)] == []
    assert sum(number in tests for number in ROWS) >= 45


def test_every_marker_names_a_row_and_rows_are_numbered_from_1_to_52() -> None:
    assert sorted(set(find_tests(marker="security")) - set(ROWS)) == []
    assert list(ROWS) == [str(number) for number in range(1, 53)]


def test_the_table_shows_every_row_and_the_totals() -> None:
    text = table(named=False)
    assert all(f"  {row.number:3} {row.threat}" in text for row in ROWS.values())
    assert text.splitlines()[-1].startswith("52 rows: ")
    assert text.endswith(" 0 open")
