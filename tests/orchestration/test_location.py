"""The code location: loads quickly, in a fresh interpreter, without network or database, and names what it holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGURED = {
    "RALLY_API_URL": "https://acme.rallycrm.example/api/v1",
    "RALLY_API_KEY": "rk_live_canary_4711",
    "SELL_ACCESS_TOKEN": "sell_canary_4713",
    "SELL_DEVICE_UUID": "5c1d5a0e-0000-4000-8000-000000000001",
    "WAREHOUSE_URL": "postgresql+psycopg://loader:pw_canary_4712@warehouse.example/crm",
}

LOAD = """
import gc, json, sqlite3, socket, sys, time

def refuse(*_args, **_kwargs):
    raise AssertionError("the location touched the network or a database while loading")

begun = time.process_time()
import dagster
dagster_seconds = time.process_time() - begun
socket.socket.connect = socket.create_connection = socket.getaddrinfo = sqlite3.connect = refuse
begun = time.process_time()
from rally_pipeline.definitions import defs
seconds = time.process_time() - begun
frozen = gc.get_freeze_count()
heavy = sorted({"requests", "sqlalchemy", "pandas", "psycopg", "openpyxl"} & sys.modules.keys())
repository = defs.get_repository_def()
graph = defs.resolve_asset_graph()
sensors = {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs}
schedules = {schedule.name: schedule.default_status.value for schedule in repository.schedule_defs}
print(json.dumps({
    "share": seconds / dagster_seconds,
    "frozen": frozen,
    "heavy": heavy,
    "assets": sorted(key.to_user_string() for key in graph.get_all_asset_keys()),
    "checks": sorted(f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys),
    "jobs": sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
    "sensors": sensors,
    "schedules": schedules,
    "executors": sorted({job.executor_def.name for job in repository.get_all_jobs()}),
    "repr": repr(repository.get_top_level_resources()),
    "steps": sorted({node.name for job in repository.get_all_jobs() for node in job.all_node_defs}),
    "steps_with_a_retry_policy": sorted({
        node.name for job in repository.get_all_jobs() for node in job.all_node_defs if node.retry_policy
    }),
}))
"""


def load(tmp_path: Path, **variables: str) -> tuple[dict, str]:
    """Load the definitions in a fresh interpreter; returns what it holds and what it printed on stderr."""
    done = _run(tmp_path, LOAD, variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def _run(tmp_path: Path, code: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    system = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {**system, "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    found, errors = load(tmp_path_factory.mktemp("configured"), **CONFIGURED)
    return {**found, "stderr": errors}


def test_no_step_answers_an_interrupt_with_another_attempt(configured):
    """A `RetryPolicy` would: what repeats is asked for by the step itself (`clear_failures`)."""
    assert len(configured["steps"]) >= 8
    assert configured["steps_with_a_retry_policy"] == []


def test_the_catalogue_is_complete(configured):
    entities = ("activities", "companies", "contacts", "deals")
    rally = [f"{group}/{entity}" for group in ("rally", "rally_extract") for entity in entities]
    assert set(configured["assets"]) >= {*rally, "rally_feed/changes"}
    assert set(configured["jobs"]) >= {"rally_full_extract", "rally_incremental", "reconcile"}
    assert configured["sensors"].keys() >= {"rally_changes_sensor"}
    assert configured["schedules"].keys() >= {"rally_feed_close"}
    for entity in entities:
        for check in ("keys_unique_and_present", "marks_not_overdue", "nothing_newly_quarantined"):
            assert f"rally/{entity}:{check}" in configured["checks"]
    for check in ("coverage_without_gaps", "lateness_within_overlap", "nothing_newly_quarantined"):
        assert f"rally_feed/changes:{check}" in configured["checks"]


def test_nothing_removes_runs(configured):
    """A Dagster instance may hold the runs of other projects: what is removed from it is for people to decide."""
    package = Path(__file__).parents[2] / "rally_pipeline"
    sources = {path.name: path.read_text() for path in package.rglob("*.py")}
    assert [name for name, text in sources.items() if "delete_run(" in text] == []
    named = {*configured["jobs"], *configured["schedules"], *configured["sensors"]}
    assert [name for name in named if "retention" in name or "history" in name] == []


def test_loading_is_quick_and_imports_nothing_heavy(configured):
    assert configured["heavy"] == []
    assert configured["share"] < 1.0  # of what Dagster itself takes, so that a busy machine says the same


def test_what_is_loaded_is_left_out_of_the_search_for_garbage(configured):
    """Tens of thousands of objects of Dagster and of the definitions, in each run and again at its end."""
    assert configured["frozen"] > 50_000


def test_every_job_runs_in_process(configured):
    assert configured["executors"] == ["in_process"]


@pytest.mark.security("13")
def test_secrets_are_in_no_representation(configured):
    assert "canary" not in configured["repr"] + configured["stderr"]


def test_sensors_and_schedules_start_off(configured):
    assert {*configured["sensors"].values(), *configured["schedules"].values()} == {"STOPPED"}


def test_autostart_switches_them_on(tmp_path):
    found, _ = load(tmp_path, **CONFIGURED, RALLY_AUTOSTART="true")
    assert {*found["sensors"].values(), *found["schedules"].values()} == {"RUNNING"}


def test_what_is_not_configured_is_absent_and_said_so(tmp_path):
    found, errors = load(tmp_path, RALLY_API_URL=CONFIGURED["RALLY_API_URL"])
    assert not [name for name in found["assets"] if name.startswith("rally")]
    assert "rally is absent: set RALLY_API_KEY to see its assets" in errors


def test_settings_are_read_from_a_file_too(tmp_path):
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in CONFIGURED.items()))
    found, _ = load(tmp_path)
    assert "rally/contacts" in found["assets"]


def test_a_bad_setting_fails_the_load_and_names_the_variable(tmp_path):
    done = _run(tmp_path, LOAD, {**CONFIGURED, "RALLY_FEED_START": "2026-01-01-00:30"})
    assert done.returncode != 0
    assert "RALLY_FEED_START: must be a whole hour" in done.stderr
    assert "canary" not in done.stderr


def test_one_entity_failing_does_not_stop_the_others():
    """The steps of the four entities do not depend on each other."""
    from rally_pipeline.rally.defs.assets import extract_asset, mirror_asset
    from rally_pipeline.rally.entities import Entity
    from rally_pipeline.settings import load_settings

    settings = load_settings()
    for entity in Entity:
        (mirror,) = mirror_asset(entity, settings).specs
        assert {dep.asset_key.to_user_string() for dep in mirror.deps} == {
            f"rally_extract/{entity.value}",
            "rally_feed/changes",
        }
        (extract,) = extract_asset(entity, settings).specs
        assert list(extract.deps) == []
