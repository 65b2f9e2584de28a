"""Exports: checked to the end before they take their place, and good for importing again."""

from __future__ import annotations

import csv
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from rally_pipeline.http.errors import BadAnswer, NoAnswer, ServerFailed
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.exporter import ExportFormat
from rally_pipeline.rally.files.folders import hash_file
from rally_pipeline.rally.files.problems import FileError
from rally_pipeline.rally.files.sources import open_source
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.sandbox.rally.file_columns import FILE_COLUMNS
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.desk import Desk, read_csv

ORDER = (Entity.COMPANIES, Entity.CONTACTS, Entity.DEALS, Entity.ACTIVITIES)


@pytest.mark.parametrize("file_format", [ExportFormat.CSV, ExportFormat.XLSX])
@pytest.mark.parametrize("entity", list(Entity))
def test_an_export_holds_every_record_and_says_what_it_is(
    make_desk: MakeDesk, entity: Entity, file_format: ExportFormat
) -> None:
    desk = make_desk(records=80, mirrored=True)
    report = desk.exporter.export(entity, desk.folder / "exports", file_format)
    expected = desk.sandbox.rally.counts()[entity.value]
    assert (report.rows, report.mirror_rows, report.difference) == (expected, expected, 0)
    assert report.path.name == f"{entity.value}_20260302T080000Z.{file_format.value}"
    assert (report.sha256, report.bytes) == hash_file(report.path)
    assert report.headers == TEMPLATES[entity].headers
    assert (len(report.preview), report.notes, report.cost.requests) == (5, (), 1)
    assert stat.S_IMODE(report.path.stat().st_mode) == 0o600
    with open_source(report.path, report.headers) as source:
        assert sum(1 for _ in source.rows()) == expected
    assert [entry.name for entry in report.path.parent.iterdir()] == [report.path.name]


@pytest.mark.security("22")
def test_texts_that_are_formulas_are_guarded_for_people_and_untouched_for_machines(
    make_sqlite_desk: MakeDesk,
) -> None:
    desk = make_sqlite_desk(workbook_formulas=True)
    desk.sandbox.rally.create("companies", {"name": "=1+1", "notes": "-5", "phone": "+49 30 1"})
    folder = desk.folder / "exports"
    report = desk.exporter.export(Entity.COMPANIES, folder)
    (row,) = read_csv(report.path)
    assert (row["name"], row["notes"], row["phone"]) == ("'=1+1", "'-5", "'+49 30 1")
    desk.pass_time(1)
    raw = desk.make_exporter(guard_formulas=False).export(Entity.COMPANIES, folder)
    assert read_csv(raw.path)[0]["name"] == "=1+1"
    desk.pass_time(1)
    book = desk.exporter.export(Entity.COMPANIES, folder, ExportFormat.XLSX)
    cells = [cell for line in openpyxl.load_workbook(book.path).active.iter_rows() for cell in line]
    assert {cell.data_type for cell in cells if cell.value is not None} == {"s"}
    desk.pass_time(1)
    loose = desk.make_exporter(guard_formulas=False).export(Entity.COMPANIES, folder, ExportFormat.XLSX)
    assert loose.notes[0] == "cell companies!A2 is a formula: open the file with care"


@pytest.mark.parametrize(
    ("fault", "parameters", "error"),
    [
        ("cut_close_delimited", {}, FileError),
        ("cut_close_delimited", {"at": 5_000}, FileError),
        ("html_200", {}, BadAnswer),
        ("empty_200", {}, BadAnswer),
        ("html_503", {}, ServerFailed),
    ],
)
def test_an_export_that_is_not_whole_never_takes_a_place(
    make_sqlite_desk: MakeDesk, fault: str, parameters: dict[str, Any], error: type[Exception]
) -> None:
    desk = make_sqlite_desk(records={"companies": 60}, mirrored=True)
    folder = desk.folder / "exports"
    desk.exporter.export(Entity.COMPANIES, folder)
    before = sorted((entry.name, entry.read_bytes()) for entry in folder.iterdir())
    desk.pass_time(60)
    desk.sandbox.faults.add(fault, path="/export", times=20, **parameters)
    with pytest.raises(error):
        desk.exporter.export(Entity.COMPANIES, folder)
    assert sorted((entry.name, entry.read_bytes()) for entry in folder.iterdir()) == before


def test_a_cut_at_a_row_end_of_an_unframed_answer_is_noticed_by_the_count(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(records={"companies": 60}, mirrored=True, line_end="\n")
    folder = desk.folder / "exports"
    whole = desk.make_exporter(guard_formulas=False).export(Entity.COMPANIES, folder).path.read_bytes()
    desk.pass_time(60)
    cut = whole[: len(whole) // 2].rfind(b".example") and whole.rfind(b"\n", 0, len(whole) // 2) + 1
    desk.sandbox.faults.add("cut_close_delimited", path="/export", at=cut)
    with pytest.raises(FileError, match="without saying that the export was complete"):
        desk.exporter.export(Entity.COMPANIES, folder)


def test_an_export_that_is_far_too_short_is_not_believed_without_a_word(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(records={"companies": 300}, mirrored=True)
    for record_id in desk.sandbox.rally.ids("companies")[:150]:
        desk.sandbox.rally.delete("companies", record_id)
    folder = desk.folder / "exports"
    with pytest.raises(FileError, match="150 rows but the mirror 300: not believed"):
        desk.exporter.export(Entity.COMPANIES, folder)
    assert list(folder.iterdir()) == []
    report = desk.make_exporter(accept_shortfall=True).export(Entity.COMPANIES, folder)
    assert (report.rows, report.difference) == (150, -150)
    assert "150 rows, 300 in the mirror" in report.notes


def test_columns_beyond_the_documented_ones_are_kept_and_missing_ones_refused(
    make_sqlite_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_sqlite_desk(records={"companies": 3}, export_id=True, byte_order_mark=True)
    report = desk.exporter.export(Entity.COMPANIES, desk.folder / "exports")
    assert report.headers[0] == "id"
    assert "further columns: id" in report.notes
    monkeypatch.setitem(FILE_COLUMNS, "companies", FILE_COLUMNS["companies"][1:])
    with pytest.raises(FileError, match="lacks documented columns: name"):
        desk.exporter.export(Entity.COMPANIES, desk.folder / "exports")


@pytest.mark.security("39")
def test_old_exports_go_and_the_newest_and_other_files_stay(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(records={"companies": 3, "contacts": 3})
    folder = desk.folder / "exports"
    exporter = desk.make_exporter(keep_days=7)
    exporter.export(Entity.CONTACTS, folder)
    exporter.export(Entity.COMPANIES, folder, ExportFormat.XLSX)
    for _ in range(4):
        exporter.export(Entity.COMPANIES, folder)
        desk.pass_time(3 * 86_400)
    (folder / "companies_mine.csv").write_text("x")
    report = exporter.export(Entity.COMPANIES, folder)
    assert report.removed == 1
    names = sorted(entry.name for entry in folder.iterdir())
    assert names == [
        "companies_20260302T080000Z.xlsx",
        "companies_20260308T080000Z.csv",
        "companies_20260311T080000Z.csv",
        "companies_20260314T080000Z.csv",
        "companies_mine.csv",
        "contacts_20260302T080000Z.csv",
    ]


def test_a_template_is_saved_as_rally_gives_it_and_overwrites_nothing(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(template_rows=2)
    path = desk.exporter.save_template(Entity.DEALS, desk.folder / "deals.csv")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert (tuple(rows[0]), len(rows)) == (TEMPLATES[Entity.DEALS].headers, 3)
    with pytest.raises(FileError, match="exists already"):
        desk.exporter.save_template(Entity.DEALS, path)


def test_a_template_that_is_none_is_not_saved(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    desk.sandbox.faults.add("html_200", path="/template", times=9)
    with pytest.raises(BadAnswer, match="the template cannot be used"):
        desk.exporter.save_template(Entity.DEALS, desk.folder / "deals.csv")
    assert list(desk.folder.iterdir()) == []


def test_parquet_without_its_package_is_refused_before_anything_is_asked(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(records={"companies": 3})
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        with pytest.raises(FileError, match="pip install pyarrow"):
            desk.exporter.export(Entity.COMPANIES, desk.folder / "exports", ExportFormat.PARQUET)
        assert len(desk.sandbox.log) == 0
        return
    report = desk.exporter.export(Entity.COMPANIES, desk.folder / "exports", ExportFormat.PARQUET)
    table = parquet.read_table(report.path)
    assert (table.num_rows, table.column_names) == (3, list(TEMPLATES[Entity.COMPANIES].headers))
    assert table.column("name").to_pylist() == [
        record["name"] for record in _by_creation(desk, Entity.COMPANIES)
    ]


def _by_creation(desk: Desk, entity: Entity) -> list[dict[str, Any]]:
    return sorted(desk.records(entity), key=lambda record: (record["createdAt"], record["id"]))


# -- exported, and imported again into an empty tenant --------------------------------------------------------------


def _carried(desk: Desk, entity: Entity) -> Counter[tuple[Any, ...]]:
    """Every record as the values that a CSV carries, links as the names that they stand for."""
    api = desk.sandbox.rally
    names = {
        "companyId": {record["id"]: record["name"] for record in api.records("companies")},
        "contactId": {record["id"]: record["email"] for record in api.records("contacts")},
        "dealId": {record["id"]: record["name"] for record in api.records("deals")},
        "stageId": {stage.id: stage.name for pipeline in api.tenant.pipelines for stage in pipeline.stages},
        "pipelineId": {pipeline.id: pipeline.name for pipeline in api.tenant.pipelines},
    }
    found: Counter[tuple[Any, ...]] = Counter()
    for record in api.records(entity.value):
        values = []
        for column in FILE_COLUMNS[entity.value]:
            value = record[column.field]
            value = names[column.field].get(value) if column.field in names else value
            values.append(tuple(value) or None if isinstance(value, list) else value)
        found[tuple(values)] += 1
    return found


def _make_names_unique(desk: Desk) -> None:
    """The API links by name; records of one name cannot be told apart by any file."""
    for number, record in enumerate(list(desk.sandbox.rally.records("companies"))):
        desk.sandbox.rally.change_silently("companies", record["id"], {"name": f"{record['name']} {number}"})


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("file_format", [ExportFormat.CSV, ExportFormat.XLSX])
def test_an_export_imported_into_an_empty_tenant_gives_equal_records(
    make_sqlite_desk: MakeDesk, sqlite_url: str, tmp_path: Path, file_format: ExportFormat, guarded: bool
) -> None:
    details = {"contact_details": True}
    full = make_sqlite_desk(records=400, seed=7, rally=details)
    _make_names_unique(full)
    for number, text in enumerate(
        ["=1+1", "'=1", "@x", "-", 'multi\nline "quoted"', " edge ", "a;b,c\td", "🙂 ｆ"]
    ):
        full.sandbox.rally.create(
            "contacts",
            {
                "firstName": text,
                "lastName": text,
                "email": f"edge{number}@example.org",
                "notes": text,
                "phone": "+49 1",
            },
        )
    folder = full.folder / "exports"
    exporter = full.make_exporter(guard_formulas=guarded)
    paths = {entity: exporter.export(entity, folder, file_format).path for entity in ORDER}
    policy = {"max_rows": 50, "guard_formulas": guarded}
    empty = make_sqlite_desk(seed=8, rally=details, trim=False, policy=policy)
    for entity in ORDER:
        report = empty.run(entity, paths[entity])
        assert (report.imported, report.problems) == (report.rows, ()), entity
        assert _carried(empty, entity) == _carried(full, entity)


MEASURE = """
import re, sys
from pathlib import Path
from rally_pipeline.rally.client import connect
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.exporter import Exporter
from rally_pipeline.settings import load_settings
from rally_pipeline.warehouse import Warehouse

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

settings = load_settings()
with Warehouse.open(settings.warehouse) as warehouse:
    exporter = Exporter(warehouse, connect(settings))
    exporter.export(Entity.ACTIVITIES, settings.exports_path)
    before = peak()
    report = exporter.export(Entity.COMPANIES, settings.exports_path)
    print(report.rows, report.bytes, before, peak())
"""


def test_an_export_over_a_socket_streams_to_disk(tmp_path: Path) -> None:
    from rally_pipeline.sandbox.application import Sandbox
    from rally_pipeline.sandbox.server import SandboxServer

    sandbox = Sandbox(records={"companies": 1_000, "activities": 10}, limit_per_minute=None, apis=["rally"])
    for record_id in sandbox.rally.ids("companies"):
        sandbox.rally.change_silently("companies", record_id, {"notes": "n" * 20_000})
    with SandboxServer(sandbox) as server:
        environment = {
            **server.environment(),
            "RALLY_PIPELINE_HOME": str(tmp_path / "home"),
            "PYTHONPATH": str(Path(__file__).parents[3]),
        }
        output = subprocess.run(
            [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True
        ).stdout
    rows, size, before, after = (int(word) for word in output.split())
    assert (rows, size > 20_000_000) == (1_000, True)
    assert after - before < 8, (before, after)


def test_a_connection_that_breaks_in_an_export_is_tried_again_with_an_empty_file(
    make_sqlite_desk: MakeDesk,
) -> None:
    desk = make_sqlite_desk(records={"companies": 60})
    desk.sandbox.faults.add("cut_body", path="/export", times=2)
    report = desk.exporter.export(Entity.COMPANIES, desk.folder / "exports")
    assert (report.rows, report.cost.requests) == (60, 3)
    desk.sandbox.faults.add("cut_body", path="/export", times=99)
    with pytest.raises(NoAnswer):
        desk.exporter.export(Entity.COMPANIES, desk.folder / "exports")
