"""Formula injection, and XLSX files that are not what they seem."""

from __future__ import annotations

import io
import zipfile
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files import workbooks
from rally_pipeline.rally.files.problems import FileError
from rally_pipeline.rally.files.sources import open_source
from rally_pipeline.rally.files.spreadsheets import is_risky, neutralise, restore
from rally_pipeline.rally.files.workbooks import write_workbook
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.desk import contacts, read_csv

RISKY = [
    "=1+1",
    "+49 30 1",
    "-5",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\0=1",
    "'=1",
    "''=1",
    "'",
    "''",
    "O'Brien",
    "'quoted'",
    "",
]


@pytest.mark.security("22")
@pytest.mark.fault("V16")
@pytest.mark.parametrize("cell", RISKY)
def test_no_cell_begins_a_formula_and_every_cell_comes_back(cell: str) -> None:
    assert not is_risky(neutralise(cell))
    assert restore(neutralise(cell)) == cell


@pytest.mark.security("22")
@pytest.mark.fault("V16")
@settings(max_examples=500)
@given(st.text(st.sampled_from("'=+-@\t\r\0a \n,\""), max_size=8))
def test_guarding_is_lossless_for_every_text(cell: str) -> None:
    assert not is_risky(neutralise(cell))
    assert restore(neutralise(cell)) == cell


def _bomb(path: Path, member: str, unpacked: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open(member, "w") as stream:
            for _ in range(unpacked >> 20):
                stream.write(b" " * (1 << 20))
    return path


def _book(path: Path, **members: str) -> Path:
    """A good workbook with members replaced or added."""
    good = io.BytesIO()
    book = openpyxl.Workbook()
    book.active.append(["first_name", "last_name", "email"])
    book.active.append(["Ines", "Okafor", "ines@example.org"])
    book.save(good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as target:
        for item in source.infolist():
            if item.filename not in members:
                target.writestr(item, source.read(item))
        for name, content in members.items():
            target.writestr(name, content)
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(FileError) as caught, open_source(path, ()) as source:
        list(source.rows())
    assert "\n" not in str(caught.value)
    return str(caught.value)


ENTITY = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><worksheet>&e;</worksheet>'
)
BILLION = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><sst>&b;</sst>'
REMOTE = '<?xml version="1.0"?><!DOCTYPE x SYSTEM "http://127.0.0.1:9/evil.dtd"><workbook/>'


@pytest.mark.security("24")
@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("xl/worksheets/sheet1.xml", ENTITY),
        ("xl/sharedStrings.xml", BILLION),
        ("xl/workbook.xml", REMOTE),
        ("xl/styles.xml", ENTITY.encode("utf-16").decode("latin-1")),
        ("xl/_rels/workbook.xml.rels", ENTITY),
    ],
)
def test_workbooks_with_entities_are_refused_before_they_are_parsed(
    tmp_path: Path, member: str, content: str
) -> None:
    path = _book(tmp_path / "x.xlsx", **{member: content})
    assert "document type definition" in _refusal(path) or "not well-formed" in _refusal(path)


@pytest.mark.security("23")
def test_a_workbook_that_unpacks_to_300_times_its_size_is_refused(tmp_path: Path) -> None:
    path = _bomb(tmp_path / "bomb.xlsx", "xl/worksheets/sheet1.xml", 300 << 20)
    assert path.stat().st_size < 400_000
    assert "times its size" in _refusal(path)


@pytest.mark.security("23")
def test_a_workbook_with_too_many_shared_strings_or_parts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "sharedStrings.xml' unpacks to" in _refusal(
        _bomb(
            tmp_path / "strings.xlsx", "xl/sharedStrings.xml", workbooks.MAX_SHARED_STRINGS_BYTES + (1 << 20)
        )
    )
    many = {f"xl/media/{n}.png": "" for n in range(1_001)}
    assert "parts" in _refusal(_book(tmp_path / "parts.xlsx", **many))
    monkeypatch.setattr(workbooks, "MAX_TOTAL_BYTES", 1_000)
    assert "unpacks to" in _refusal(_book(tmp_path / "total.xlsx"))


@pytest.mark.security("25")
def test_names_in_the_archive_lead_nowhere(tmp_path: Path) -> None:
    path = _book(tmp_path / "x.xlsx", **{"../../evil.xml": "<x/>", "/etc/evil": "x"})
    with open_source(path, ()) as source:
        assert [row.cells for row in source.rows()] == [("Ines", "Okafor", "ines@example.org")]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.xlsx"]
    assert not (tmp_path.parent.parent / "evil.xml").exists()


@pytest.mark.parametrize("keep", [10, 200, 1_000, 4_000])
def test_a_cut_workbook_is_refused(tmp_path: Path, keep: int) -> None:
    path = _book(tmp_path / "x.xlsx")
    path.write_bytes(path.read_bytes()[:keep])
    assert "no readable XLSX file" in _refusal(path)


def test_cells_of_a_workbook_are_read_as_they_are_meant(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append([])
    sheet.append(["text", "whole", "fraction", "day", "moment", "yes", "phone"])
    sheet.append(
        ["  a\nb ", 85, 12400000.5, date(2025, 3, 4), datetime(2025, 3, 4, 9, 8, 7), True, "+49 30 1"]
    )
    sheet.append([None, 85.0, 1e-7, None, None, None, None])
    sheet.append([None] * 7)
    sheet.append(["end"])
    book.create_sheet("second").append(["not read"])
    path = tmp_path / "x.xlsx"
    book.save(path)
    with open_source(path, ()) as source:
        assert source.headers == ("text", "whole", "fraction", "day", "moment", "yes", "phone")
        rows = list(source.rows())
    assert [row.cells for row in rows] == [
        ("  a\nb ", "85", "12400000.5", "2025-03-04", "2025-03-04T09:08:07Z", "true", "+49 30 1"),
        ("", "85", "0.0000001"),
        ("end",),
    ]
    assert [row.number for row in rows] == [3, 4, 6]


def test_a_workbook_is_imported_like_a_csv_and_errors_of_formulas_are_found(make_desk: MakeDesk) -> None:
    desk = make_desk()
    path = desk.folder / "people.xlsx"
    write_workbook(
        path,
        "people",
        ["Email", "First Name", "Last Name", "Phone"],
        [["a@example.org", "A", "Ä", "'+49 30 1"], ["b@example.org", "B", "#N/A", ""], ["", "", "", ""]],
    )
    report = desk.run(Entity.CONTACTS, path)
    assert (report.rows, report.imported, report.refused) == (2, 1, 1)
    assert desk.errors() == [(3, "last_name", "refused", "characters")]
    assert desk.values(Entity.CONTACTS, "phone") == {"+49 30 1": 1}
    assert (desk.file_row()["format"], report.rejects) == ("xlsx", desk.folder / "people.xlsx.rejects.csv")


@pytest.mark.parametrize("guarded", [True, False])
def test_the_rejects_file_is_guarded_and_gives_back_what_was_typed(
    make_sqlite_desk: MakeDesk, guarded: bool
) -> None:
    desk = make_sqlite_desk(policy={"guard_formulas": guarded})
    typed = '=HYPERLINK("http://evil.example")'
    rows = [{**contacts(1)[0], "last_name": "", "notes": typed, "phone": "+49 30 1", "title": "'kept"}]
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, rows))
    assert report.rejects is not None
    (reject,) = read_csv(report.rejects)
    assert reject["notes"] == ("'" + typed if guarded else typed)
    assert reject["title"] == "'kept"
    mended = desk.write(Entity.CONTACTS, [{**reject, "last_name": "Now"}], name="mended.csv")
    assert desk.run(Entity.CONTACTS, mended).imported == 1
    (record,) = desk.records(Entity.CONTACTS)
    assert (record["notes"], record["phone"], record["title"]) == (typed, "+49 30 1", "'kept")
