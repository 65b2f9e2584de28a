"""The sixteen import/export endpoints of the simulated Rally, with both readings of what is undocumented."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import openpyxl
import pytest

from rally_pipeline.sandbox.api import ControlError
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.rally.file_columns import FILE_COLUMNS
from rally_pipeline.sandbox.wire import Answer, Delivery

BASE = "/rally/api/v1/importexport"
ENTITIES = ("contacts", "companies", "deals", "activities")
CONTACT_HEADERS = "first_name,last_name,email,lifecycle_stage,company_name,notes"


def _sandbox(records: Any = 0, **switches: Any) -> Sandbox:
    sandbox = Sandbox(records=records, limit_per_minute=None, apis=["rally"])
    sandbox.rally.files.switch(**switches)
    return sandbox


def _get(sandbox: Sandbox, path: str, *, scope: str = "read", method: str = "GET") -> Answer:
    key = {"X-Api-Key": sandbox.rally.key(scope)}  # type: ignore[arg-type]
    return sandbox.handle(sandbox.call(method, f"{BASE}/{path}", key))


def _post(
    sandbox: Sandbox, entity: str, content: str | bytes, *, scope: str = "write", part: str = "file"
) -> Answer:
    data = content.encode() if isinstance(content, str) else content
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="%b"; filename="x.csv"\r\nContent-Type: text/csv\r\n\r\n%b'
        b"\r\n--edge--\r\n" % (part.encode(), data)
    )
    headers = {
        "X-Api-Key": sandbox.rally.key(scope),  # type: ignore[arg-type]
        "Content-Type": "multipart/form-data; boundary=edge",
    }
    return sandbox.handle(sandbox.call("POST", f"{BASE}/{entity}/import", headers, body))


def _rows(answer: Answer) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.body.decode("utf-8-sig"), newline="")))


@pytest.mark.parametrize("entity", ENTITIES)
def test_each_entity_has_its_four_endpoints(entity: str) -> None:
    sandbox = _sandbox(records=40)
    headers = [column.name for column in FILE_COLUMNS[entity]]
    count = sandbox.rally.counts()[entity]
    template = _get(sandbox, f"{entity}/template")
    assert (template.status, _rows(template)) == (200, [headers])
    export = _get(sandbox, f"{entity}/export")
    assert export.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert (_rows(export)[0], len(_rows(export))) == (headers, count + 1)
    book = _get(sandbox, f"{entity}/export/excel")
    sheet = openpyxl.load_workbook(io.BytesIO(book.body)).active
    assert next(list(row) for row in sheet.iter_rows(values_only=True)) == headers
    assert sheet.max_row == count + 1
    result = _post(sandbox, entity, ",".join(headers) + "\n")
    assert result.decoded() == {"totalRows": 0, "imported": 0, "skipped": 0, "errors": []}


def test_rows_are_imported_and_make_feed_entries() -> None:
    sandbox = _sandbox(records={"companies": 1})
    company = next(sandbox.rally.records("companies"))
    text = f'{CONTACT_HEADERS}\nInes,Okafor,ines@example.org,customer,"{company["name"]}","a\nb"\n'
    assert _post(sandbox, "contacts", text).decoded()["imported"] == 1
    (record,) = sandbox.rally.records("contacts")
    assert (record["companyId"], record["lifecycleStage"], record["notes"]) == (
        company["id"],
        "customer",
        "a\nb",
    )
    entry = sandbox.rally.entries()[-1]
    assert (entry["entityId"], entry["action"]) == (record["id"], "inserted")


ONE_OF_EACH = f"""{CONTACT_HEADERS}
Good,Row,good@example.org,lead,,
,First,a@example.org,,,
Last,,b@example.org,,,
Bad,Mail,nomail,,,
Bad,Stage,c@example.org,prospect,,
No,Company,d@example.org,,Harbor Tool,
Twice,Mail,GOOD@example.org,,,
"""
TEXTS = [
    (2, "Required field 'first_name' is empty"),
    (3, "Required field 'last_name' is empty"),
    (4, "Invalid email format 'nomail'"),
    (5, "Invalid lifecycle_stage value 'prospect'"),
    (6, "Company 'Harbor Tool' not found"),
    (7, "Duplicate contact with email 'GOOD@example.org'"),
]


@pytest.mark.parametrize(("numbering", "shift"), [("data", 0), ("file", 1), ("line", 1), ("index", -1)])
def test_each_documented_text_in_each_numbering(numbering: str, shift: int) -> None:
    result = _post(_sandbox(numbering=numbering), "contacts", ONE_OF_EACH).decoded()
    assert (result["totalRows"], result["imported"], result["skipped"]) == (7, 1, 6)
    assert result["errors"] == [f"Row {row + shift}: {text}" for row, text in TEXTS]


def test_dates_and_other_links_have_their_texts() -> None:
    text = (
        "name,stage_name,pipeline_name,expected_close_date,contact_email,probability\n"
        "A,Lead,Sales,04.03.2025,,\nB,Nowhere,Sales,,,\nC,Lead,Nothing,,,\nD,Lead,Sales,,x@example.org,\nE,Lead,Sales,,,101\n"
    )
    assert _post(_sandbox(), "deals", text).decoded()["errors"] == [
        "Row 1: Invalid date format in 'expected_close_date'",
        "Row 2: Stage 'Nowhere' not found",
        "Row 3: Pipeline 'Nothing' not found",
        "Row 4: Contact 'x@example.org' not found",
        "Row 5: Invalid probability value '101'",
    ]


def test_all_problems_of_a_row_may_be_told_and_pipelines_are_checked() -> None:
    text = "name,stage_name,pipeline_name,expected_close_date\n,Lead,Nothing,x\n"
    assert _post(_sandbox(all_errors=True), "deals", text).decoded()["errors"] == [
        "Row 1: Required field 'name' is empty",
        "Row 1: Invalid date format in 'expected_close_date'",
        "Row 1: Pipeline 'Nothing' not found",
    ]


@pytest.mark.parametrize(
    ("entity", "text"),
    [
        ("companies", "name,domain\nA,a.example\n"),
        ("deals", "name,stage_name,pipeline_name\nA,Lead,Sales\n"),
        ("activities", "activity_type,subject\ncall,A\n"),
    ],
)
def test_duplicates_beyond_contacts_are_noticed_only_if_switched(entity: str, text: str) -> None:
    for switched, expected in (([], 2), (["contacts", entity], 1)):
        sandbox = _sandbox(duplicates=switched)
        for _ in range(2):
            result = _post(sandbox, entity, text).decoded()
        assert len(list(sandbox.rally.records(entity))) == expected
        assert bool(result["errors"]) == bool(switched)


def test_activities_take_what_only_the_csv_knows() -> None:
    header = "activity_type,subject,status,completed_at"
    text = f"{header}\nemail,A,cancelled,\ncall,B,completed,2025-03-04T09:08:07Z\ntask,C,,\n"
    sandbox = _sandbox()
    assert _post(sandbox, "activities", text).decoded()["imported"] == 3
    found = {record["subject"]: record for record in sandbox.rally.records("activities")}
    assert (found["A"]["activityType"], found["A"]["status"]) == ("email", "cancelled")
    assert found["B"]["completedAt"] == "2025-03-04T09:08:07Z"
    assert (found["C"]["status"], found["C"]["completedAt"]) == ("pending", None)


def test_texts_can_be_cut_short_counts_wrong_and_an_upload_all_or_nothing() -> None:
    assert len(_post(_sandbox(errors_limit=2), "contacts", ONE_OF_EACH).decoded()["errors"]) == 2
    assert _post(_sandbox(wrong_counts="total"), "contacts", ONE_OF_EACH).decoded()["totalRows"] == 8
    assert _post(_sandbox(wrong_counts="imported"), "contacts", ONE_OF_EACH).decoded()["imported"] == 0
    assert _post(_sandbox(skipped_status=207), "contacts", ONE_OF_EACH).status == 207
    atomic = _sandbox(atomic=True)
    assert _post(atomic, "contacts", ONE_OF_EACH).decoded()["imported"] == 0
    assert list(atomic.rally.records("contacts")) == []


@pytest.mark.parametrize(("lost", "applied"), [("before", 0), ("half", 2), ("after", 4)])
def test_an_answer_is_lost_before_in_the_middle_of_or_after_applying(lost: str, applied: int) -> None:
    sandbox = _sandbox(lost=lost, lost_uploads=[2])
    rows = "".join(f"call,{n}\n" for n in range(4))
    assert _post(sandbox, "activities", f"activity_type,subject\n{rows}").status == 200
    answer = _post(sandbox, "activities", f"activity_type,subject\n{rows}")
    assert answer.fault is not None
    assert answer.fault.delivery is Delivery.RESET_BEFORE_HEADERS
    assert len(list(sandbox.rally.records("activities"))) == 4 + applied


def test_the_rest_of_a_lost_upload_may_come_late() -> None:
    sandbox = _sandbox(lost="half", late_seconds=30, lost_status=504)
    assert _post(sandbox, "activities", "activity_type,subject\ncall,A\ncall,B\n").status == 504
    assert len(list(sandbox.rally.records("activities"))) == 1
    sandbox.clock.advance(60)
    _get(sandbox, "activities/template")
    assert len(list(sandbox.rally.records("activities"))) == 2


def test_an_upload_takes_its_time_and_slow_answers_stall() -> None:
    sandbox = _sandbox(rows_per_second=2.0, slow_seconds=9)
    before = sandbox.clock.now()
    answer = _post(sandbox, "activities", "activity_type,subject\n" + "call,A\n" * 10)
    assert (sandbox.clock.now() - before).total_seconds() == 5
    assert answer.fault is not None
    assert answer.fault.seconds == 9
    assert len({record["createdAt"] for record in sandbox.rally.records("activities")}) == 5


def test_ten_megabytes_in_both_readings_and_a_smaller_limit() -> None:
    head, row = b"activity_type,subject,body\n", b"note,A,"

    def upload(size: int, **switches: Any) -> int:
        return _post(
            _sandbox(**switches), "activities", head + row + b"x" * (size - len(head + row) - 1) + b"\n"
        ).status

    assert [upload(size, limit="decimal") for size in (10_000_000, 10_000_001)] == [200, 413]
    assert [upload(size, limit="binary") for size in (10_485_760, 10_485_761)] == [200, 413]
    assert upload(10_000_000, limit="decimal", limit_counts="request") == 413
    assert upload(2_000, limit_bytes=1_000) == 413


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("contacts/import", "GET", 405),
        ("contacts/export", "POST", 405),
        ("contacts/export/csv", "GET", 404),
        ("leads/export", "GET", 404),
        ("contacts", "GET", 404),
    ],
)
def test_what_is_no_endpoint_is_refused(path: str, method: str, status: int) -> None:
    assert _get(_sandbox(), path, method=method, scope="write").status == status


def test_scopes_and_forms_of_uploads() -> None:
    sandbox = _sandbox()
    assert _post(sandbox, "contacts", ONE_OF_EACH, scope="read").status == 403
    assert sandbox.handle(sandbox.call("GET", f"{BASE}/contacts/export")).status == 401
    assert _post(sandbox, "contacts", ONE_OF_EACH, part="upload").status == 400
    assert _post(sandbox, "contacts", "name\nx\n").status == 400
    assert _post(sandbox, "contacts", "first_name,last_name,email\nZo\xeb".encode("latin-1")).status == 400
    assert _post(sandbox, "contacts", f'{CONTACT_HEADERS}\n"open').status == 400
    headers = {"X-Api-Key": sandbox.rally.key("write"), "Content-Type": "text/csv"}
    assert sandbox.handle(sandbox.call("POST", f"{BASE}/contacts/import", headers, b"x")).status == 415
    assert list(sandbox.rally.records("contacts")) == []


def test_names_of_links_in_both_readings() -> None:
    text = f"{CONTACT_HEADERS}\nA,A,a@example.org,,blue tools,\n"
    for switches, imported in (({}, 0), ({"link_match": "ignore_case"}, 1)):
        sandbox = _sandbox(**switches)
        sandbox.rally.create("companies", {"name": "Blue Tools"})
        assert _post(sandbox, "contacts", text).decoded()["imported"] == imported
    text = text.replace("blue tools", "Blue Tools")
    for same_names, imported in (("first", 1), ("refuse", 0)):
        sandbox = _sandbox(same_names=same_names)
        for _ in range(2):
            sandbox.rally.create("companies", {"name": "Blue Tools"})
        assert _post(sandbox, "contacts", text).decoded()["imported"] == imported


def test_templates_and_exports_in_their_variants() -> None:
    sandbox = _sandbox(
        records={"deals": 3}, byte_order_mark=True, line_end="\n", template_rows=2, export_id=True
    )
    assert len(_rows(_get(sandbox, "deals/template"))) == 3
    export = _get(sandbox, "deals/export")
    assert export.body.startswith(b"\xef\xbb\xbfid,name,")
    assert b"\r" not in export.body
    ids = [row[0] for row in _rows(export)[1:]]
    assert sorted(ids) == sandbox.rally.ids("deals")
    sandbox.rally.files.switch(export_dates="date")
    assert {len(row[5]) for row in _rows(_get(sandbox, "deals/export"))[1:]} == {10}


def test_an_export_and_its_workbook_hold_the_same_cells() -> None:
    sandbox = _sandbox(records=60)
    for entity in ENTITIES:
        sheet = openpyxl.load_workbook(io.BytesIO(_get(sandbox, f"{entity}/export/excel").body)).active
        cells: list[Sequence[str]] = [
            [value or "" for value in row] for row in sheet.iter_rows(values_only=True)
        ]
        assert cells == _rows(_get(sandbox, f"{entity}/export"))


def test_switches_are_checked_and_reach_over_the_control_routes() -> None:
    sandbox = _sandbox()
    for wrong in ({"numbering": "roman"}, {"unknown": 1}, {"rows_per_second": 0}, {"late_seconds": -1}):
        with pytest.raises(ControlError):
            sandbox.rally.files.switch(**wrong)
    shown = sandbox.control("rally", "files", {"lost": "after"})
    assert isinstance(shown, dict)
    assert (shown["lost"], sandbox.rally.files.switches.lost) == ("after", "after")
