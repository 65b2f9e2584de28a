"""Files in Dagster: the inbox sensor, imports as partitions, exports as assets; real runs over loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.defs.inbox import LONGEST_PAUSE, InboxCursor, SeenFile, look_into
from rally_pipeline.rally.files.folders import hash_file
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.settings import Settings
from tests.rally.files.desk import companies, contacts, csv_text
from tests.rally.test_defs import Office, open_office

SENSOR = "rally_import_sensor"


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    yield from open_office(tmp_path, monkeypatch)


def _drop(settings: Settings, entity: Entity, rows: list[dict[str, str]], name: str = "rows.csv") -> Path:
    folder = settings.imports_path / entity.value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(csv_text(TEMPLATES[entity].headers, rows))
    return path


def _tick(office: Office, cursor: str | None = None) -> dg.SensorResult:
    sensor = office.definitions.resolve_sensor_def(SENSOR)
    resources = office.definitions.resources or {}
    with dg.build_sensor_context(
        instance=office.instance, cursor=cursor, resources={"warehouse": resources["warehouse"]}
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def _run(office: Office, request: dg.RunRequest, **config: Any) -> dg.ExecuteInProcessResult:
    """Do what the daemon would do with a request of the sensor."""
    assert request.asset_selection is not None
    assert request.partition_key is not None
    office.instance.add_dynamic_partitions("rally_import_files", [request.partition_key])
    (key,) = request.asset_selection
    job = office.definitions.resolve_job_def("rally_import").get_subset(asset_selection={key})
    return job.execute_in_process(
        instance=office.instance,
        partition_key=request.partition_key,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, **config},
        tags=request.tags,
    )


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_a_file_dropped_into_the_inbox_is_imported_once(office: Office) -> None:
    path = _drop(office.settings, Entity.CONTACTS, [*contacts(3), {"email": "x", "notes": "=1+1"}])
    first = _tick(office)
    assert "still being written" in str(first.skip_reason)
    second = _tick(office, first.cursor)
    (request,) = second.run_requests or []
    assert request.partition_key == hash_file(path)[0]
    assert request.asset_selection == [dg.AssetKey(["rally_files", "contacts_import"])]
    assert second.dynamic_partitions_requests[0].partition_keys == [request.partition_key]

    result = _run(office, request)
    assert result.success
    found = _metadata(result)
    assert (found["rally/rows"], found["rally/imported"], found["rally/refused"]) == (4, 3, 1)
    assert (found["dagster/partition_row_count"], found["dagster/table_name"]) == (3, "import_row_errors")
    assert found["rally/rejects_file"] == str(path.with_name("rows.rejects.csv"))
    rejects = [record.data for record in found["rally/rejects"].records]
    assert rejects[0] == {"key": "row 5, first_name", "reason": "Required field 'first_name' is empty"}
    checks = {
        check.check_name: (check.passed, check.severity.value)
        for check in result.get_asset_check_evaluations()
    }
    assert checks == {"every_row_imported": (False, "WARN"), "every_row_decided": (True, "ERROR")}

    assert _tick(office, second.cursor).skip_reason is not None
    path.rename(path.with_name("the same again.csv"))
    cursor = _tick(office, second.cursor).cursor
    assert "no new file" in str(_tick(office, cursor).skip_reason)
    emails = [record["email"] for record in office.rally.records("contacts")]
    assert [emails.count(row["email"]) for row in contacts(3)] == [1, 1, 1]
    # Running the partition again does nothing and says so.
    path.with_name("the same again.csv").rename(path)
    uploads = office.requests().count("/importexport/contacts/import")
    assert _metadata(_run(office, request))["rally/status"] == "already imported"
    assert office.requests().count("/importexport/contacts/import") == uploads


def test_files_that_others_may_link_to_come_first(office: Office) -> None:
    _drop(office.settings, Entity.CONTACTS, contacts(2, company_name="Company 1"))
    _drop(office.settings, Entity.COMPANIES, companies(2))
    result = _tick(office, _tick(office).cursor)
    (request,) = result.run_requests or []
    assert request.asset_selection == [dg.AssetKey(["rally_files", "companies_import"])]
    office.fill()
    assert _run(office, request).success
    (request,) = _tick(office, result.cursor).run_requests or []
    assert request.asset_selection == [dg.AssetKey(["rally_files", "contacts_import"])]
    found = _metadata(_run(office, request))
    assert (found["rally/imported"], found["rally/refused"]) == (2, 0)


def test_a_failed_import_is_asked_for_again_with_growing_pauses(office: Office) -> None:
    _drop(office.settings, Entity.CONTACTS, contacts(1))
    result = _tick(office, _tick(office).cursor)
    (request,) = result.run_requests or []
    office.rally.key("write", active=False)
    failed = _run(office, request)
    assert not failed.success
    again = _tick(office, result.cursor)
    assert "tried again at" in str(again.skip_reason)
    cursor = InboxCursor.read(again.cursor)
    (seen,) = cursor.files.values()
    for _ in range(12):
        pause = datetime.fromisoformat(seen.retry_at) - datetime.now(UTC)
        assert pause <= LONGEST_PAUSE
        seen.retry_at = "2020-01-01T00:00:00+00:00"
        again = _tick(office, cursor.text())
        assert len(again.run_requests or []) == 1
        cursor = InboxCursor.read(again.cursor)
        (seen,) = cursor.files.values()
    assert datetime.fromisoformat(seen.retry_at) - datetime.now(UTC) > timedelta(minutes=14)
    office.rally.key("write", active=True)
    assert _metadata(_run(office, request))["rally/imported"] == 1


def test_a_file_that_cannot_be_imported_fails_its_run_once_and_is_left_alone(office: Office) -> None:
    path = office.settings.imports_path / "contacts" / "wrong.csv"
    assert _tick(office).skip_reason is not None
    assert path.parent.is_dir()  # the first tick makes the inbox
    path.write_text("name,domain\nA,a.example\n")
    result = _tick(office, _tick(office).cursor)
    (request,) = result.run_requests or []
    failed = _run(office, request)
    assert not failed.success
    (event,) = [event for event in failed.all_events if event.event_type_value == "STEP_FAILURE"]
    assert (
        "the columns are those of companies, not of contacts" in event.step_failure_data.error_display_string
    )
    assert not [event for event in failed.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert "wrong.csv was refused as a whole" in str(_tick(office, result.cursor).skip_reason)


def test_a_run_under_way_is_not_doubled(office: Office) -> None:
    _drop(office.settings, Entity.CONTACTS, contacts(1))
    cursor = _tick(office).cursor
    (request,) = _tick(office, cursor).run_requests or []
    job = office.definitions.resolve_job_def("rally_import")
    office.instance.create_run_for_job(
        job.get_subset(asset_selection=set(request.asset_selection or ())),
        status=dg.DagsterRunStatus.STARTED,
        tags=request.tags,
    )
    assert "is being imported" in str(_tick(office, cursor).skip_reason)


def test_an_import_whose_file_was_taken_away_is_finished_from_what_is_stored(office: Office) -> None:
    path = _drop(
        office.settings, Entity.ACTIVITIES, [{"activity_type": "call", "subject": "Once"}, {"subject": "x"}]
    )
    (request,) = _tick(office, _tick(office).cursor).run_requests or []
    office.sandbox.before(1, lambda: office.rally.key("write", active=False), path="/import")
    assert not _run(office, request).success
    path.unlink()
    office.rally.key("write", active=True)
    found = _metadata(_run(office, request))
    assert (found["rally/imported"], found["rally/refused"]) == (1, 1)
    assert "not there any more" in found["rally/notes"]
    assert path.with_name("rows.rejects.csv").exists()


@pytest.mark.parametrize("key", ["0" * 64, "../../etc/passwd", "'; DROP TABLE import_files; --", "x\ny"])
def test_a_partition_without_a_file_fails_in_one_line(office: Office, key: str) -> None:
    request = dg.RunRequest(partition_key=key, asset_selection=[dg.AssetKey(["rally_files", "deals_import"])])
    failed = _run(office, request)
    (event,) = [event for event in failed.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "no file with the content of this partition" in event.step_failure_data.error_display_string


def test_exports_become_files_with_their_numbers(office: Office) -> None:
    office.fill()
    result = office.run("rally_export")
    assert result.success
    events = {
        event.asset_key.path[-1]: event.materialization.metadata
        for event in result.get_asset_materialization_events()
    }
    assert sorted(events) == sorted(f"{entity.value}_export" for entity in Entity)
    for entity in Entity:
        found = {name: value.value for name, value in events[f"{entity.value}_export"].items()}
        path = Path(found["dagster/uri"])
        assert path.parent == office.settings.exports_path
        assert (found["rally/sha256"], found["rally/bytes"]) == hash_file(path)
        count = office.rally.counts()[entity.value]
        assert (found["dagster/row_count"], found["rally/mirror_rows"], found["rally/difference"]) == (
            count,
            count,
            0,
        )
        assert len(found["rally/preview"].records) == 5
    assert all(check.passed for check in result.get_asset_check_evaluations())


def test_an_export_takes_its_options_from_the_launchpad(office: Office) -> None:
    config = {"rally_files__deals_export": {"config": {"format": "xlsx", "keep_days": 1}}}
    result = office.run(
        "rally_export", config, asset_selection=[dg.AssetKey(["rally_files", "deals_export"])]
    )
    (event,) = result.get_asset_materialization_events()
    assert str(event.materialization.metadata["dagster/uri"].value).endswith(".xlsx")
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.description) == (False, "the mirror was never complete")


def test_the_cursor_bears_any_text_and_forgets_files_that_are_gone(tmp_path: Path) -> None:
    for text in (
        None,
        "",
        "x",
        "[]",
        '{"version": 99}',
        '{"version": 1, "files": {"a": 5}}',
        '{"files": null}',
    ):
        assert InboxCursor.read(text).files == {}
    cursor = InboxCursor(files={"contacts/gone.csv": SeenFile("1:1", "abc")})
    assert look_into(tmp_path, cursor) == ([], [])
    assert json.loads(cursor.text()) == {"version": 1, "files": {}}


def test_a_file_that_still_grows_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "contacts"
    folder.mkdir()
    path = folder / "grows.csv"
    cursor = InboxCursor()
    for size in range(1, 5):
        path.write_text("x" * size)
        waiting, remarks = look_into(tmp_path, cursor)
        assert (waiting, len(remarks)) == ([], 1)
    waiting, _ = look_into(tmp_path, cursor)
    assert [file.path for file in waiting] == [path]
