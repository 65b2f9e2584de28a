"""Checks before sending: each documented kind of error, at its row and column."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.cells import (
    CellError,
    DateReader,
    IntegerReader,
    Reader,
    TextReader,
    read_currency,
    read_decimal,
    read_domain,
    read_email,
)
from rally_pipeline.rally.files.problems import FileError
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.desk import contacts, deals, read_csv


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("2025-03-04", "2025-03-04"),
        (" 2025-03-04 ", "2025-03-04"),
        ("2025-03-04T09:08:07Z", "2025-03-04T09:08:07Z"),
        ("2025-03-04T09:08:07.500Z", "2025-03-04T09:08:07.5Z"),
        ("2025-03-04T09:08:07+02:00", "2025-03-04T07:08:07Z"),
        ("2025-03-04 09:08:07Z", "2025-03-04T09:08:07Z"),
        ("2024-02-29", "2024-02-29"),
    ],
)
def test_dates_are_sent_in_the_documented_forms(text: str, sent: str) -> None:
    assert DateReader("due_date")(text) == sent


@pytest.mark.parametrize(
    "text",
    ["04.03.2025", "3/4/2025", "2025-13-01", "2025-02-30", "2025-3-4", "20250304", "2025-W10-2", "tomorrow",
     "2025-03-04T25:00:00Z", "2025-03-04T09:08:07", "٢٠٢٥-٠٣-٠٤", "2025-03-04" * 10, "0001-01-01T00:00:00+14:00"],
)  # fmt: skip
def test_other_dates_are_refused(text: str) -> None:
    with pytest.raises(CellError, match="Invalid date format in 'due_date'"):
        DateReader("due_date")(text)


@pytest.mark.parametrize(
    "text", ["ines@example.org", "o'brien+tag@sub.example.co.uk", "Жанна@пример.рф", " a@b.c "]
)
def test_addresses_that_can_exist_are_taken(text: str) -> None:
    assert read_email(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    ["ines", "@example.org", "ines@", "ines@example", "a b@example.org", "a@b@c.org", "a@.org", "a@org.", "a@b..c",
     ".a@b.org", "a.@b.org", "a..b@c.org", "a,b@c.org", "Ines <ines@example.org>", "a@b.org;c@d.org", "a\u200b@b.org",
     "x" * 250 + "@b.org"],
)  # fmt: skip
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(CellError):
        read_email(text)


@pytest.mark.parametrize("text", ["0", "12400000.50", "-3.5", "0.000000000000000000000000001", "9" * 28])
def test_amounts_keep_every_digit(text: str) -> None:
    assert read_decimal(text) == text


@pytest.mark.parametrize(
    "text", ["1,200.50", "1.200,50", "1e5", "€ 5", "5.", ".5", "--5", "NaN", "Infinity", "", "9" * 29, "٣"]
)
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(CellError):
        read_decimal(text)


def test_whole_numbers_have_bounds() -> None:
    assert IntegerReader(0, 100)(" 100 ") == "100"
    for text in ("101", "-1", "5.0", "1 000", "10**3", "٣", "9" * 30):
        with pytest.raises(CellError):
            IntegerReader(0, 100)(text)


def test_lengths_currencies_and_domains() -> None:
    assert TextReader(5)("abcde") == "abcde"
    with pytest.raises(CellError, match="6 characters are too many: at most 5"):
        TextReader(5)("abcdef")
    assert (read_currency(" EUR"), read_domain("a.example")) == ("EUR", "a.example")
    for text in ("EURO", "E1R", "€€€"):
        with pytest.raises(CellError):
            read_currency(text)
    for text in ("https://a.example", "a b.example", "x" * 254):
        with pytest.raises(CellError):
            read_domain(text)


def _message_of(read: Reader, text: str) -> str:
    try:
        read(text)
    except CellError as error:
        return error.message
    return ""


@settings(max_examples=200, deadline=200)
@given(st.text(max_size=300))
def test_no_text_makes_a_reader_fail_otherwise_or_hang(text: str) -> None:
    for read in (
        read_email,
        read_decimal,
        read_domain,
        read_currency,
        DateReader("d"),
        IntegerReader(),
        TextReader(),
    ):
        message = _message_of(read, text)
        assert "\n" not in message
        assert len(message) < 300


BROKEN = [
    {"last_name": "No First", "email": "1@example.org"},
    {"first_name": "No Last", "email": "2@example.org"},
    {"first_name": "Bad", "last_name": "Mail", "email": "bad mail"},
    {"first_name": "Bad", "last_name": "Stage", "email": "4@example.org", "lifecycle_stage": "prospect"},
    {"first_name": "No", "last_name": "Company", "email": "5@example.org", "company_name": "Harbor Tool"},
    {"first_name": "Good", "last_name": "Row", "email": "6@example.org", "lifecycle_stage": "Customer"},
    {"first_name": "Same", "last_name": "Mail", "email": " 6@EXAMPLE.org"},
    {"first_name": "N\0UL", "last_name": "x", "email": "8@example.org"},
    {"first_name": "x" * 1_001, "last_name": "x", "email": "9@example.org"},
]


@pytest.mark.fault("R8")
def test_one_error_of_each_kind_gives_exactly_those_errors_at_the_right_rows(make_desk: MakeDesk) -> None:
    desk = make_desk(records={"companies": 3}, mirrored=True)
    path = desk.write(Entity.CONTACTS, BROKEN)
    report = desk.run(Entity.CONTACTS, path)
    assert desk.errors() == [
        (2, "first_name", "refused", "required"),
        (3, "last_name", "refused", "required"),
        (4, "email", "refused", "email"),
        (5, "lifecycle_stage", "refused", "enumeration"),
        (6, "company_name", "refused", "link"),
        (8, "email", "duplicate", "duplicate"),
        (9, "first_name", "refused", "characters"),
        (10, "first_name", "refused", "length"),
    ]
    assert (report.rows, report.imported, report.duplicate, report.refused) == (9, 1, 1, 7)
    assert desk.values(Entity.CONTACTS, "email") == {"6@example.org": 1}
    assert desk.values(Entity.CONTACTS, "lifecycleStage") == {"customer": 1}


def test_deals_are_checked_for_amounts_dates_and_links(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(records={"companies": 2, "contacts": 2}, mirrored=True)
    contact = desk.records(Entity.CONTACTS)[0]["email"].upper()
    company = desk.records(Entity.COMPANIES)[0]["name"]
    rows = [
        {**deals(1)[0], "contact_email": contact, "company_name": f" {company.lower()} "},
        {
            **deals(1, start=2)[0],
            "expected_close_date": "30.06.2025",
            "probability": "150",
            "value": "1.000,00",
        },
        {**deals(1, start=3)[0], "contact_email": "nobody@example.org", "currency": "Euro"},
        {**deals(1)[0], "stage_name": "Lead"},
    ]
    desk.run(Entity.DEALS, desk.write(Entity.DEALS, rows))
    assert desk.errors() == [
        (3, "value", "refused", "number"),
        (3, "probability", "refused", "number"),
        (3, "expected_close_date", "refused", "date"),
        (4, "currency", "refused", "characters"),
        (4, "contact_email", "refused", "link"),
        (5, "name", "duplicate", "duplicate"),
    ]
    (deal,) = desk.records(Entity.DEALS)
    # The link was found without regard to case and blanks, and sent as Rally spells it.
    assert (deal["companyName"], deal["contactId"]) == (company, desk.records(Entity.CONTACTS)[0]["id"])


def test_a_name_that_several_companies_have_is_not_linked_by_chance(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    for domain in ("a.example", "b.example"):
        desk.sandbox.rally.create("companies", {"name": "Twin Ltd.", "domain": domain})
    desk.extract()
    desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, contacts(1, company_name="Twin Ltd.")))
    assert desk.errors() == [(2, "company_name", "refused", "ambiguous")]


def test_a_company_made_after_the_mirror_was_read_is_known(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(mirrored=True)
    desk.pass_time(600)
    desk.sandbox.rally.create("companies", {"name": "Brand New", "domain": "new.example"})
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, contacts(2, company_name="Brand New")))
    assert (report.imported, report.succeeded) == (2, True)


def test_without_a_mirror_links_are_left_to_rally_and_the_report_says_so(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, contacts(1, company_name="Nobody")))
    assert desk.errors() == [(2, "company_name", "refused", "link")]
    assert report.uploads == 1
    assert any("companies" in note for note in report.notes)


def test_companies_and_deals_that_exist_are_not_made_twice(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(records={"companies": 2, "deals": 2}, mirrored=True)
    company, deal = desk.records(Entity.COMPANIES)[0], desk.records(Entity.DEALS)[0]
    pipelines = {pipeline.id: pipeline for pipeline in desk.sandbox.rally.tenant.pipelines}
    mine = pipelines.pop(deal["pipelineId"])
    (other,) = pipelines.values()
    report = desk.run(
        Entity.COMPANIES,
        desk.write(
            Entity.COMPANIES, [{"name": "Other", "domain": company["domain"].upper()}, {"name": "New"}]
        ),
    )
    assert (report.imported, report.duplicate) == (1, 1)
    rows = [
        {"name": deal["name"], "pipeline_name": pipeline.name, "stage_name": pipeline.stages[0].name}
        for pipeline in (mine, other)
    ]
    report = desk.run(Entity.DEALS, desk.write(Entity.DEALS, rows, name="deals.csv"))
    assert (report.imported, report.duplicate) == (1, 1)
    assert desk.values(Entity.DEALS, "name")[deal["name"]] == 2


def test_a_dry_run_reports_the_same_and_sends_and_stores_nothing(make_desk: MakeDesk) -> None:
    desk = make_desk(records={"companies": 3}, mirrored=True)
    path = desk.write(Entity.CONTACTS, BROKEN)
    report = desk.importer.check(Entity.CONTACTS, path)
    assert (report.rows, report.accepted, report.duplicate, report.refused, report.chunks) == (9, 1, 1, 7, 1)
    assert [problem.row for problem in report.problems] == [2, 3, 4, 5, 6, 8, 9, 10]
    assert (desk.uploads(), desk.errors(), list(desk.folder.iterdir())) == (0, [], [path])


def test_a_file_of_the_wrong_entity_is_refused_before_anything_is_sent(make_desk: MakeDesk) -> None:
    desk = make_desk()
    path = desk.write(Entity.CONTACTS, contacts(3))
    with pytest.raises(FileError, match="the columns are those of contacts, not of deals"):
        desk.run(Entity.DEALS, path)
    assert desk.uploads() == 0
    assert desk.file_row()["status"] == "refused"
    assert "those of contacts" in desk.file_row()["message"]
    assert desk.run(Entity.CONTACTS, path).imported == 3


def test_rows_with_too_few_or_too_many_cells_are_refused_alone(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    path = desk.folder / "odd.csv"
    path.write_text(
        "first_name,last_name,email,notes\nA,A,a@example.org,x,,\nB,B\nC,C,c@example.org,x,y\nD,D,d@example.org,\n"
    )
    report = desk.run(Entity.CONTACTS, path)
    assert [(row, fault) for row, _, _, fault in desk.errors()] == [
        (3, "cells"),
        (3, "required"),
        (4, "cells"),
    ]
    assert report.imported == 2


@pytest.mark.fault("R4")
def test_the_rejects_file_can_be_mended_and_imported_again(make_desk: MakeDesk) -> None:
    desk = make_desk(records={"companies": 3}, mirrored=True)
    path = desk.write(Entity.CONTACTS, [*BROKEN[:5], {**BROKEN[5], "phone": "+49 30 1"}])
    report = desk.run(Entity.CONTACTS, path)
    assert report.rejects == desk.folder / "rows.rejects.csv"
    rejects = read_csv(report.rejects)
    assert [row["_row"] for row in rejects] == ["2", "3", "4", "5", "6"]
    assert rejects[2]["_problems"].startswith("email: Invalid email format 'bad mail'")
    mended = [{**row, "first_name": "Now", "last_name": "Good", "email": f"mended.{n}@example.org",
               "lifecycle_stage": "lead", "company_name": ""} for n, row in enumerate(rejects)]  # fmt: skip
    text = (
        ",".join(mended[0])
        + "\n"
        + "\n".join(",".join(f'"{cell}"' for cell in row.values()) for row in mended)
    )
    again = desk.folder / "mended.csv"
    again.write_text(text)
    second = desk.run(Entity.CONTACTS, again)
    assert (second.imported, second.rejects) == (5, None)
    assert len(desk.records(Entity.CONTACTS)) == 6


def test_rows_of_unknown_outcome_are_not_imported_again_by_accident(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(policy={"most_rounds": 0}, lost="half", lost_uploads=[1])
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, contacts(4)))
    assert (report.imported, report.unknown) == (2, 2)
    assert report.rejects is not None
    assert {row["_outcome"] for row in read_csv(report.rejects)} == {"unknown"}
    second = desk.run(Entity.CONTACTS, report.rejects)
    assert (second.imported, second.refused, second.uploads) == (0, 2, 0)
    assert {fault for _, _, _, fault in desk.errors()} == {"undecided"}
