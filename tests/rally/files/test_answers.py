"""Error texts of Rally tied to rows of the file, whatever `Row n` counts."""

from __future__ import annotations

import pytest

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.answers import ImportResult, Numbering, attribute, read_text
from rally_pipeline.rally.files.cells import Fault
from rally_pipeline.rally.files.endpoints import FileEndpoints
from rally_pipeline.rally.files.templates import TEMPLATES
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.desk import contacts, csv_text, deals

DOCUMENTED = [
    ("Row 5: Required field 'last_name' is empty", 5, Fault.REQUIRED, "last_name", None),
    (
        "Row 18: Duplicate contact with email 'i.o@example.org'",
        18,
        Fault.DUPLICATE,
        "email",
        "i.o@example.org",
    ),
    ("Row 33: Company 'Harbor 'n' Tool' not found", 33, Fault.LINK, "company_name", "Harbor 'n' Tool"),
    ("Row 2: Invalid email format 'x y'", 2, Fault.EMAIL, "email", "x y"),
    ("Row 3: Invalid lifecycle_stage value 'prospect'", 3, Fault.ENUMERATION, "lifecycle_stage", "prospect"),
    ("Row 4: Invalid date format in 'expected_close_date'", 4, Fault.DATE, "expected_close_date", None),
    ("Row 9: Something new", 9, Fault.OTHER, None, None),
    ("The file is odd", None, Fault.OTHER, None, None),
]


@pytest.mark.parametrize(("text", "number", "fault", "column", "value"), DOCUMENTED)
def test_documented_texts_are_taken_apart(
    text: str, number: int | None, fault: Fault, column: str | None, value: str | None
) -> None:
    read = read_text(text)
    assert (read.number, read.fault, read.column, read.value) == (number, fault, column, value)


def test_a_hostile_text_is_read_in_linear_time() -> None:
    for text in (
        "Row 1: Invalid email format '",
        "Row 1: Duplicate contact with email '",
        "Row 1: Company '",
    ):
        read = read_text(text + "' not found" * 100_000)
        assert len(read.message) < 2_500
    assert read_text("Row " + "9" * 1_000_000).number is None


MIXED = [
    {"first_name": "", "last_name": "A", "email": "1@example.org"},
    {"first_name": "B", "last_name": "B", "email": "2@example.org", "notes": "two\nlines"},
    {"first_name": "C", "last_name": "", "email": "3@example.org"},
    {"first_name": "D", "last_name": "D", "email": "no mail"},
    {"first_name": "E", "last_name": "E", "email": "5@example.org", "lifecycle_stage": "prospect"},
    {"first_name": "F", "last_name": "F", "email": "6@example.org", "company_name": "Harbor Tool"},
    {"first_name": "G", "last_name": "G", "email": "2@example.org"},
    {"first_name": "H", "last_name": "H", "email": "8@example.org"},
]


@pytest.mark.parametrize("numbering", list(Numbering))
def test_one_error_of_each_documented_kind_is_found_at_its_row_in_every_numbering(
    make_sqlite_desk: MakeDesk, numbering: Numbering
) -> None:
    desk = make_sqlite_desk(numbering=numbering.value)
    headers = TEMPLATES[Entity.CONTACTS].headers
    body = csv_text(headers, MIXED).encode()
    result = FileEndpoints(desk.http).post_import(Entity.CONTACTS, "x.csv", body)
    assert result.adds_up(8)
    assert (result.imported, result.skipped) == (2, 6)
    rows = [[row.get(name, "") for name in headers] for row in MIXED]
    found = attribute(result.errors, headers, rows)
    assert {place: [text.fault for text in texts] for place, texts in found.texts.items()} == {
        0: [Fault.REQUIRED],
        2: [Fault.REQUIRED],
        3: [Fault.EMAIL],
        4: [Fault.ENUMERATION],
        5: [Fault.LINK],
        6: [Fault.DUPLICATE],
    }
    assert (found.loose, found.numbering) == ([], numbering)


def test_texts_that_several_countings_fit_are_tied_to_no_row() -> None:
    rows = [["a", "x"], ["b", "x"], ["c", "x"], ["d", "x"]]
    found = attribute(["Row 2: Something new"], ["name", "note"], rows)
    assert found.texts == {}
    assert found.loose[0][1] == (0, 1, 2)
    assert found.numbering is None


def test_a_counting_seen_before_decides_where_several_fit() -> None:
    rows = [["a"], ["b"], ["c"], ["d"]]
    found = attribute(["Row 2: Something new"], ["name"], rows, Numbering.FILE)
    assert list(found.texts) == [0]


def test_a_number_beyond_the_last_row_rules_a_counting_out() -> None:
    rows = [["a"], ["b"], ["c"], ["d"]]
    assert list(attribute(["Row 5: Something new"], ["name"], rows).texts) == [3]
    assert attribute(["Row 0: Something new"], ["name"], rows).numbering is Numbering.INDEX


def test_a_quoted_value_finds_its_row_where_no_counting_fits() -> None:
    rows = [["a@example.org"], ["b@example.org"]]
    found = attribute(["Row 77: Duplicate contact with email 'B@example.org'"], ["email"], rows)
    assert list(found.texts) == [1]


def test_counts_are_believed_only_if_they_add_up() -> None:
    assert ImportResult(3, 2, 1).adds_up(3)
    for wrong in (ImportResult(3, 2, 1), ImportResult(4, 3, 0), ImportResult(4, 5, -1)):
        assert not wrong.adds_up(4)


@pytest.mark.parametrize("numbering", ["data", "file", "line", "index"])
def test_errors_that_only_rally_can_see_reach_the_row_of_the_file(
    make_desk: MakeDesk, numbering: str
) -> None:
    """Rally is stricter than our checks here: it wants two letters at the end of an address."""
    desk = make_desk(numbering=numbering, policy={"max_rows": 4})
    desk.sandbox.rally.create(
        "contacts", {"firstName": "x", "lastName": "y", "email": "Person.6@import.example"}
    )
    rows = contacts(9)
    rows[1]["notes"] = "a note\nof three\nlines"
    rows[2]["email"] = "short@example.x"
    rows[4]["company_name"] = "Nobody Ltd."
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, [{"email": "refused before"}, *rows]))
    assert desk.errors() == [
        (2, "first_name", "refused", "required"),
        (2, "last_name", "refused", "required"),
        (2, "email", "refused", "email"),
        (5, "email", "refused", "email"),
        (7, "company_name", "refused", "link"),
        (8, "email", "duplicate", "duplicate"),
    ]
    assert (report.imported, report.duplicate, report.refused) == (6, 1, 3)


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_rows_skipped_without_a_text_are_found_in_rallys_lists(make_desk: MakeDesk, limit: int) -> None:
    desk = make_desk(errors_limit=limit, policy={"max_rows": 10})
    desk.sandbox.rally.create(
        "contacts", {"firstName": "x", "lastName": "y", "email": "person.9@import.example"}
    )
    desk.extract()
    desk.pass_time(1)
    rows = contacts(10)
    for place in (2, 5):
        rows[place]["email"] = f"short{place}@example.x"
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, rows))
    assert (report.imported, report.duplicate, report.refused) == (7, 1, 2)
    errors = {row: (outcome, fault) for row, _, outcome, fault in desk.errors()}
    assert set(errors) == {4, 7, 10}
    assert errors[10] == ("duplicate", "duplicate")
    told = [fault for _, fault in errors.values()].count("email")
    assert told == limit


def test_where_neither_texts_nor_lists_tell_the_rows_are_unknown_and_the_counts_stand(
    make_sqlite_desk: MakeDesk,
) -> None:
    """The lists are stale for longer than anyone waits."""
    desk = make_sqlite_desk(
        errors_limit=0, rally={"replica_lag_seconds": 1_000_000}, policy={"most_readbacks": 2}
    )
    rows = contacts(4)
    rows[2]["email"] = "short@example.x"
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, rows))
    assert (report.rows, report.unknown) == (4, 4)
    assert "imported 3 of 4 rows" in report.problems[0].message


def test_an_upload_that_is_refused_as_a_whole_refuses_its_rows_with_rallys_words(
    make_sqlite_desk: MakeDesk,
) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 2}, skipped_status=422)
    rows = deals(3)
    rows[0]["stage_name"] = "No Such Stage"
    report = desk.run(Entity.DEALS, desk.write(Entity.DEALS, rows))
    assert (report.refused, report.imported) == (2, 1)
    assert "Stage 'No Such Stage' not found" in report.problems[0].message


def test_an_upload_of_which_rally_takes_nothing_is_counted_as_such(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(atomic=True, errors_limit=1)
    rows = deals(3)
    rows[0]["stage_name"] = "No Such Stage"
    report = desk.run(Entity.DEALS, desk.write(Entity.DEALS, rows))
    assert (report.refused, desk.records(Entity.DEALS)) == (3, [])
