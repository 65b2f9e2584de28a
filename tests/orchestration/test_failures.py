"""Errors of the engines, as Dagster and the person at the screen meet them."""

from datetime import UTC, datetime

import dagster as dg
import pytest
import sqlalchemy as sa

from rally_pipeline.http import errors
from rally_pipeline.orchestration.diagnosis import diagnose
from rally_pipeline.orchestration.failures import clear_failures
from rally_pipeline.orchestration.progress import watched
from rally_pipeline.rally.deletes import MassDeleteSuspected
from rally_pipeline.rally.retention import SnapshotRequired
from rally_pipeline.rally.tenant import WrongTenant
from rally_pipeline.settings import SettingsError
from rally_pipeline.warehouse.errors import FenceLost, LeaseHeld, WarehouseBusy, WarehouseError

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def api(kind, **more):
    return kind("rally", "GET", "contacts", **more)


def unreachable():
    error = api(errors.NoAnswer, detail="connection refused")
    error.sent = False
    return error


def held_up_by_the_proxy():
    error = api(errors.NoAnswer, detail="the proxy proxy:3128 wants a password (407)")
    error.sent, error.lasting, error.advice = False, True, "set HTTPS_PROXY"
    return error


def waited_in_vain():
    error = api(
        errors.Throttled, detail="not sent: 3 of 1,000 requests are left until 2026-03-03 04:00:00 UTC"
    )
    error.given_up = True
    return error


def test_every_room_error_named_in_the_diagnosis_exists():
    from importlib import import_module

    from rally_pipeline.orchestration import diagnosis

    for name in diagnosis._ROOM_ERRORS:
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(import_module(module), kind), Exception)


@pytest.mark.parametrize(
    ("error", "mistake", "repeatable", "words"),
    [
        (api(errors.Unauthorized, status=401), True, False, "RALLY_API_KEY"),
        (api(errors.Forbidden, status=403), True, False, "RALLY_API_KEY"),
        (api(errors.NotFound, status=404), True, False, "RALLY_API_URL"),
        (api(errors.Redirected, status=302), True, False, "RALLY_API_URL"),
        (api(errors.NotTheApi, status=200, detail="HTML"), True, False, "https://acme.rallycrm.io/api/v1"),
        (api(errors.BadAnswer, status=200, detail="HTML"), False, True, "run it again"),
        (unreachable(), True, True, "RALLY_API_URL"),
        (held_up_by_the_proxy(), True, False, "(407); set HTTPS_PROXY"),
        (api(errors.NoAnswer, detail="read timed out"), False, True, "read timed out"),
        (api(errors.ServerFailed, status=503), False, True, "503"),
        (api(errors.Throttled, status=429), False, True, "429"),
        (waited_in_vain(), False, False, "3 of 1,000 requests are left until"),
        (api(errors.Rejected, status=422), False, False, "422"),
        (LeaseHeld("rally.feed", "pid 7", NOW, NOW), False, True, "rally.feed"),
        (FenceLost("rally.feed", 3), False, True, "rally.feed"),
        (WarehouseError("no such database"), True, False, "no such database"),
        (WarehouseBusy("locked"), True, True, "locked"),
        (WrongTenant("another tenant"), True, False, "another tenant"),
        (MassDeleteSuspected("900 of 1000"), True, False, "900 of 1000"),
        (SnapshotRequired("too old"), False, False, "too old"),
        (SettingsError("RALLY_API_URL: not a URL"), True, False, "RALLY_API_URL"),
        (PermissionError(13, "Permission denied", "/data"), True, False, "/data"),
    ],
)
def test_an_error_becomes_one_line_that_says_whose_move_it_is(error, mistake, repeatable, words):
    diagnosis = diagnose(error)
    assert diagnosis is not None
    assert (diagnosis.mistake, diagnosis.repeatable) == (mistake, repeatable)
    assert words in diagnosis.line
    assert "\n" not in diagnosis.line


def test_what_sqlite_says_of_disk_and_rights_under_dagsters_storage_is_one_line(tmp_path):
    """Any error of a database that the warehouse did not translate is one of Dagster's own storage."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'runs.db'}")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        connection.exec_driver_sql("PRAGMA max_page_count = 3")
        with pytest.raises(sa.exc.OperationalError) as full:
            connection.execute(sa.text("INSERT INTO t VALUES (zeroblob(100000))"))
        with pytest.raises(sa.exc.OperationalError) as defect:
            connection.exec_driver_sql("SELECT * FROM no_such_table")
    found = diagnose(full.value)
    assert found is not None
    assert found.mistake
    assert (
        found.line == "Dagster's storage cannot grow: the disk (or quota) is full; free space and run again"
    )
    assert diagnose(defect.value) is None


def test_a_defect_keeps_its_traceback():
    assert diagnose(ZeroDivisionError()) is None
    with pytest.raises(ZeroDivisionError), clear_failures():
        raise ZeroDivisionError


def test_a_wrong_key_fails_the_step_without_another_attempt():
    error = api(errors.Unauthorized, status=401, excerpt="<b>no</b>")
    with pytest.raises(dg.Failure) as caught, clear_failures():
        raise error
    assert caught.value.allow_retries is False
    assert caught.value.metadata["status"] == dg.MetadataValue.text("401")
    assert caught.value.metadata["excerpt"] == dg.MetadataValue.text("<b>no</b>")


@pytest.mark.fault("P7")
def test_an_outage_is_tried_again_unless_somebody_waits_for_the_run():
    with pytest.raises(dg.RetryRequested) as caught, clear_failures():
        raise unreachable()
    assert caught.value.seconds_to_wait
    shown = caught.value.__cause__
    assert isinstance(shown, dg.Failure)
    assert "RALLY_API_URL" in str(shown.description)
    with watched(lambda stream, done, total: None):
        with pytest.raises(dg.Failure) as caught, clear_failures():
            raise unreachable()
        assert caught.value.allow_retries is False


def test_a_stream_that_stays_held_after_the_wait_fails_the_step_with_its_holder():
    with pytest.raises(dg.Failure, match="being worked on by pid 7") as caught, clear_failures():
        raise LeaseHeld("rally.feed", "pid 7", NOW, NOW)
    assert not caught.value.allow_retries


def test_a_cancelled_run_passes_through():
    from dagster._core.errors import DagsterExecutionInterruptedError

    with pytest.raises(DagsterExecutionInterruptedError), clear_failures():
        raise DagsterExecutionInterruptedError
