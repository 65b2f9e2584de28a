"""The matrix is complete and true: every row has a test that runs, or a reason; no marker names a row that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.__main__ import table
from tests.faults.marked import find_tests
from tests.faults.matrix import GROUPS, ROWS


def test_every_row_has_a_test_or_a_reason() -> None:
    tests = find_tests()
    neither = [row.label for row in ROWS.values() if row.number not in tests and not row.inapplicable]
    assert neither == []
    assert len([number for number in ROWS if number in tests]) >= 160


def test_no_row_that_is_tested_claims_that_it_cannot_apply() -> None:
    tests = find_tests()
    assert [row.number for row in ROWS.values() if row.number in tests and row.inapplicable] == []


def test_every_marker_names_a_row() -> None:
    assert sorted(set(find_tests()) - set(ROWS)) == []


def test_rows_are_numbered_once() -> None:
    assert len(ROWS) == sum(len(rows) for rows in GROUPS.values())


def test_the_table_shows_every_row_and_the_totals() -> None:
    text = table(named=False)
    assert all(f"  {row.number:4} {row.fault}" in text for row in ROWS.values())
    assert text.splitlines()[-1].startswith(f"{len(ROWS)} rows: ")
    assert text.endswith(" 0 open")


CASE = "from tests.faults.cycles import case\n"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("@pytest.mark.fault('T1', 'T2')\ndef test_a(): ...", {"T1": 1, "T2": 1}),
        (
            CASE + "CASES = [case('T3', 'x')]\n@pytest.mark.parametrize('c', CASES)\ndef test_a(c): ...",
            {"T3": 1},
        ),
        (CASE + "@pytest.mark.parametrize('c', [case('T3', 'T4')])\ndef test_a(c): ...", {"T3": 1}),
        ("@pytest.mark.parametrize('c', [case('T3', 'another case')])\ndef test_a(c): ...", {}),
        ("@pytest.mark.skip\n@pytest.mark.fault('T1')\ndef test_a(): ...", {}),
        ("@pytest.mark.fault('T1')\ndef helper(): ...", {}),
        (CASE + "CASES = [case('T3', 'x')]\ndef test_a(): ...", {}),
    ],
)
def test_only_tests_that_run_are_counted(tmp_path: Path, source: str, found: dict[str, int]) -> None:
    (tmp_path / "test_x.py").write_text(source)
    assert {number: len(tests) for number, tests in find_tests(tmp_path).items()} == found
