"""Importing as a whole: twice, interrupted by refusals, at once, large."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from rally_pipeline.http.errors import Forbidden, NoAnswer, Redirected, Unauthorized
from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.importer import LEASE_STREAM
from rally_pipeline.rally.files.problems import FileError
from rally_pipeline.rally.files.tables import import_chunks
from rally_pipeline.warehouse.errors import LeaseHeld, WarehouseError
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.desk import NAMES, ROWS, activities, contacts, read_csv


@pytest.mark.parametrize("entity", list(Entity))
def test_the_same_file_twice_does_nothing_and_says_so(make_desk: MakeDesk, entity: Entity) -> None:
    desk = make_desk()
    path = desk.write(entity, ROWS[entity](3))
    assert desk.run(entity, path).imported == 3
    before = len(desk.sandbox.log)
    again = desk.run(entity, path.rename(desk.folder / "other name.csv"))
    assert (again.status, again.imported, again.rows) == ("already imported", 3, 3)
    assert "the same file was imported" in again.notes[-1]
    assert "as rows.csv" in again.notes[-1]
    assert len(desk.sandbox.log) == before
    assert set(desk.values(entity, NAMES[entity][1]).values()) == {1}


def test_a_file_of_which_nothing_was_sent_may_be_tried_again(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(records={"companies": 1}, mirrored=True)
    path = desk.write(Entity.CONTACTS, contacts(2, company_name="Soon There"))
    assert desk.run(Entity.CONTACTS, path).refused == 2
    desk.pass_time(120)
    desk.sandbox.rally.create("companies", {"name": "Soon There"})
    second = desk.run(Entity.CONTACTS, path)
    assert (second.status, second.imported, second.refused) == ("done", 2, 0)
    assert desk.errors() == []


def test_a_header_without_rows_imports_nothing(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, []))
    assert (report.rows, report.uploads, report.status) == (0, 0, "done")


def test_a_semicolon_file_of_a_spreadsheet_is_imported_as_it_is_meant(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    path = desk.folder / "excel.csv"
    text = 'Last Name;First Name;E-Mail Note;Email;Notes\r\n"Müller; Groß";Zoë;;z@example.org;"eins\nzwei"\r\n;;;;\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("E-Mail Note", "_note").encode())
    assert desk.run(Entity.CONTACTS, path).imported == 1
    (record,) = desk.records(Entity.CONTACTS)
    assert (record["lastName"], record["notes"]) == ("Müller; Groß", "eins\nzwei")


@pytest.mark.parametrize(
    ("active", "scope", "error"), [(False, "write", Unauthorized), (True, "read", Forbidden)]
)
def test_a_refused_key_stops_the_import_where_it_can_go_on(
    make_sqlite_desk: MakeDesk, active: bool, scope: str, error: type[Exception]
) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 2})
    path = desk.write(Entity.CONTACTS, contacts(4))

    def change_key() -> None:
        desk.http._headers["X-Api-Key"] = desk.sandbox.rally.key(scope, active=active)

    # The key changes while the first upload is under way, so the second one meets it.
    desk.sandbox.before(1, change_key, path="/import")
    with pytest.raises(error):
        desk.run(Entity.CONTACTS, path)
    assert {state for _, state, _, _ in desk.chunks()} <= {"planned", "done"}
    desk.sandbox.clear_scripts()
    desk.sandbox.rally.key("write", active=True)
    desk.restart()
    report = desk.run(Entity.CONTACTS, path)
    assert (report.imported, report.duplicate) == (4, 0)


def test_without_a_connection_the_upload_waits_for_the_next_run(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 2})
    path = desk.write(Entity.ACTIVITIES, activities(4))
    desk.sandbox.before(1, lambda: setattr(desk.http._transport, "refusing", True), path="/import")
    with pytest.raises(NoAnswer):
        desk.run(Entity.ACTIVITIES, path)
    desk.restart()
    report = desk.run(Entity.ACTIVITIES, path)
    assert (report.imported, report.uploads) == (4, 3)
    assert set(desk.values(Entity.ACTIVITIES, "subject").values()) == {1}


def test_a_throttled_upload_is_sent_again_after_the_wait_because_it_was_not_applied(
    make_sqlite_desk: MakeDesk,
) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 2}, rally={"limit_per_minute": 60})
    path = desk.write(Entity.ACTIVITIES, activities(6))
    desk.sandbox.before(2, lambda: desk.sandbox.rally.spend(1_000), path="/import")
    report = desk.run(Entity.ACTIVITIES, path)
    assert report.imported == 6
    assert set(desk.values(Entity.ACTIVITIES, "subject").values()) == {1}


def test_two_imports_do_not_run_at_once(make_desk: MakeDesk) -> None:
    desk = make_desk()
    path = desk.write(Entity.CONTACTS, contacts(1))
    with desk.warehouse.lease(LEASE_STREAM), pytest.raises(LeaseHeld):
        desk.run(Entity.CONTACTS, path)
    assert desk.run(Entity.CONTACTS, path).imported == 1


def test_a_file_that_changes_while_it_is_read_is_not_imported(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    path = desk.write(Entity.CONTACTS, contacts(3))
    desk.sandbox.before(
        1, lambda: path.write_text(path.read_text() + "x,y,z@example.org\n"), path="/template"
    )
    with pytest.raises(FileError, match="was changed while it was read"):
        desk.run(Entity.CONTACTS, path)
    assert desk.uploads() == 0


def test_a_file_that_is_not_there_or_no_file_is_named(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    with pytest.raises(FileError, match="there is no file"):
        desk.run(Entity.CONTACTS, desk.folder / "none.csv")
    with pytest.raises(FileError, match="is not a file"):
        desk.run(Entity.CONTACTS, desk.folder)


def test_a_rejects_file_that_cannot_be_written_is_written_by_the_next_run(
    make_sqlite_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_sqlite_desk()
    path = desk.write(Entity.CONTACTS, [*contacts(1), {"email": "x"}])

    make_file = tempfile.mkstemp

    def refuse(**options: Any) -> tuple[int, str]:
        if options["dir"] == desk.folder:
            raise PermissionError(13, "Permission denied")
        return make_file(**options)

    with monkeypatch.context() as patched:
        patched.setattr("rally_pipeline.rally.files.folders.tempfile.mkstemp", refuse)
        report = desk.run(Entity.CONTACTS, path)
    assert report.rejects is None
    assert "could not be written" in report.notes[-1]
    again = desk.run(Entity.CONTACTS, path)
    assert again.status == "already imported"
    assert again.rejects is not None
    assert [row["_row"] for row in read_csv(again.rejects)] == ["3"]


def test_a_rejects_file_that_somebody_mends_is_never_overwritten(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    first = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, [{"email": "first"}]))
    assert first.rejects is not None
    first.rejects.write_text("half mended")
    second = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, [{"email": "second"}]))
    assert first.rejects.read_text() == "half mended"
    assert second.rejects is not None
    assert read_csv(second.rejects)[0]["email"] == "second"
    # A rejects file that is imported as it is has itself as its rejects.
    assert desk.run(Entity.CONTACTS, second.rejects).rejects == second.rejects


def test_stored_bytes_that_were_altered_are_not_sent(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 1})
    path = desk.write(Entity.CONTACTS, contacts(2))

    def alter() -> None:
        with desk.warehouse.transaction("alter") as tx:
            tx.execute(
                import_chunks.update()
                .where(import_chunks.c.chunk == 2)
                .values(body=b"first_name\r\nevil\r\n")
            )

    desk.sandbox.before(1, alter, path="/import")
    with pytest.raises(InvariantViolation, match="its bytes were altered"):
        desk.run(Entity.CONTACTS, path)
    assert desk.uploads() == 1


INSTEAD_OF_AN_ANSWER = """
    lost_answer html_200 empty_200 error_200 null_200 wrong_shape cut_json cut_body deep_json close_before_headers
    reset_in_body odd_success redirect html_503
"""


@pytest.mark.parametrize("fault", INSTEAD_OF_AN_ANSWER.split())
def test_whatever_comes_instead_of_an_answer_each_row_is_there_once(
    make_sqlite_desk: MakeDesk, fault: str
) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 3})
    path = desk.write(Entity.ACTIVITIES, activities(9))
    desk.sandbox.faults.add(fault, path="/import", after=1)
    try:
        report = desk.run(Entity.ACTIVITIES, path)
    except Redirected:
        report = desk.run(Entity.ACTIVITIES, path)
    assert (report.imported, report.rows) == (9, 9)
    assert set(desk.values(Entity.ACTIVITIES, "subject").values()) == {1}


def test_the_simulated_server_may_take_long_to_answer(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(slow_seconds=300)
    report = desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, activities(3)))
    assert (report.imported, report.uploads) == (3, 1)
    desk.files.switch(slow_seconds=2_000)
    report = desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, activities(3, start=10)))
    assert (report.imported, report.uploads) == (3, 1)
    assert set(desk.values(Entity.ACTIVITIES, "subject").values()) == {1}


MEASURE = """
import re, sys
from pathlib import Path
from typing import Any
from rally_pipeline.rally.entities import Entity
from rally_pipeline.sandbox.application import Sandbox
from tests.rally.files.desk import Desk

path = Path(sys.argv[1])
sandbox = Sandbox(records=0, limit_per_minute=None, apis=["rally"])
sandbox.rally.files._apply = lambda entity, rows, by, moment: [[] for _ in rows]  # its memory is not the subject
desk = Desk(f"sqlite:///{path}.db", path.parent, sandbox)
peaks = []

def measure(stream, done, total):
    status = Path("/proc/self/status").read_text()
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) // 1024)

desk.importer._progress = measure
report = desk.run(Entity.CONTACTS, path)
measure("", 0, 0)
print(report.rows, report.imported, report.uploads, *peaks)
"""


def test_150_000_rows_go_in_uploads_with_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w") as file:
        file.write("first_name,last_name,email,phone,title,city,lifecycle_stage,notes\n")
        line = "First {0},Last {0},p.{0}@import.example,+49 30 {0},Buyer,Hamburg,lead,A note on this person\n"
        file.writelines(line.format(n) for n in range(150_000))
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    ).stdout
    rows, imported, uploads, *peaks = (int(word) for word in output.split())
    assert (rows, imported, uploads, len(peaks)) == (150_000, 150_000, 15, 31)
    # Peak megabytes after each part. SQLite fills its page cache of 32 MB meanwhile; nothing else grows.
    assert peaks[14] - peaks[1] < 32, peaks
    assert peaks[-1] - peaks[17] < 8, peaks


@pytest.mark.parametrize("entity", list(Entity))
def test_a_warehouse_put_back_from_before_the_import_sends_nothing(
    make_sqlite_desk: MakeDesk, entity: Entity
) -> None:
    """Written into the same file, so that only the witness of the uploads can tell."""
    desk = make_sqlite_desk()
    path = desk.write(entity, ROWS[entity](3))
    file = desk.url.removeprefix("sqlite:///")
    with sqlite3.connect(file) as source, sqlite3.connect(f"{file}.backup") as backup:
        source.backup(backup)
    desk.run(entity, path)
    desk.close()
    with sqlite3.connect(f"{file}.backup") as backup, sqlite3.connect(file) as target:
        backup.backup(target)
    desk.open()
    before = desk.uploads()
    with pytest.raises(WarehouseError, match=r"an older state was restored.*rally-pipeline restored"):
        desk.run(entity, path)
    assert desk.uploads() == before == 1


def test_a_file_is_imported_anew_where_a_person_insists(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk()
    path = desk.write(Entity.ACTIVITIES, activities(2))
    desk.run(Entity.ACTIVITIES, path)
    assert desk.importer.run(Entity.ACTIVITIES, path, again=True).imported == 2
    assert len(desk.records(Entity.ACTIVITIES)) == 4
