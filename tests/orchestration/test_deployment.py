"""The files for production and for plain `dagster dev`, loaded for real: storage, code server, workspace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile

import dagster as dg
import pytest
import yaml

from tests.postgres import running_server

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RALLY = {"RALLY_API_URL": "https://acme.rallycrm.example/api/v1", "RALLY_API_KEY": "rk_live_canary_4711"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path) -> dict[str, str]:
    system = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**system, **RALLY, "PYTHONPATH": str(ROOT), "RALLY_PIPELINE_HOME": str(home)}


def test_plain_dagster_dev_reads_the_settings_of_the_project_folder(tmp_path):
    """Without DAGSTER_HOME it takes `dagster.yaml` from the working folder and stores elsewhere."""
    from dagster._core.instance.ref import InstanceRef

    ref = InstanceRef.from_dir(str(tmp_path), config_dir=str(ROOT))
    with dg.DagsterInstance.from_ref(ref) as instance:
        assert instance.run_monitoring_enabled


def test_the_workspace_of_the_project_folder_loads(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(ROOT / "workspace.yaml")],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr


def test_production_keeps_what_development_says_about_writers_and_limits():
    """Only storage, launcher and sizes differ: a limit or a retry rule changed in one file belongs into the other."""
    here = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    there = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert set(there) - set(here) == {"storage", "run_launcher"}
    runs = [found["concurrency"]["runs"]["tag_concurrency_limits"] for found in (here, there)]
    assert runs[0] == runs[1]
    for name in ("run_retries", "retention", "freshness", "telemetry", "python_logs"):
        assert here[name] == there[name]
    assert there["run_monitoring"]["enabled"]


@pytest.fixture(scope="module")
def production(tmp_path_factory) -> Iterator[Path]:
    """A DAGSTER_HOME with the shipped file, on a real PostgreSQL server."""
    home, port = tmp_path_factory.mktemp("production"), str(free_port())
    copyfile(DEPLOY / "dagster.yaml", home / "dagster.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPORT", port)
        with running_server(listen_addresses="127.0.0.1", port=port):
            for name, value in {
                "HOST": "127.0.0.1",
                "PORT": port,
                "USER": "postgres",
                "DB": "postgres",
            }.items():
                patch.setenv(f"DAGSTER_PG_{name}", value)
            patch.setenv("DAGSTER_PG_PASSWORD", "not-asked-for")
            yield home


def test_production_storage_is_postgresql_and_keeps_a_run(production):
    @dg.asset
    def table():
        return dg.MaterializeResult(metadata={"dagster/row_count": 3})

    with dg.DagsterInstance.from_config(str(production)) as instance:
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        assert instance.run_monitoring_enabled
        assert dg.materialize([table], instance=instance).success
    with dg.DagsterInstance.from_config(str(production)) as instance:
        assert instance.get_latest_materialization_event(table.key) is not None


def test_the_code_server_serves_the_location_that_the_workspace_names(tmp_path):
    """The shipped workspace with another port, since the real one may be in use here."""
    port = free_port()
    workspace = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())
    server = workspace["load_from"][0]["grpc_server"]
    assert server["location_name"] == "rally_pipeline"
    server["port"] = port
    file = tmp_path / "workspace.yaml"
    file.write_text(yaml.safe_dump(workspace))
    command = [sys.executable, "-m", "dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(port)]
    command += ["-m", "rally_pipeline.definitions", "--location-name", "rally_pipeline"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert sensors_behind(file, process) >= {"rally_changes_sensor"}
    finally:
        # The server waits for its clients when it is asked to end; what is tested here is over.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


def sensors_behind(workspace: Path, process: subprocess.Popen[bytes]) -> set[str]:
    """The sensors that a service sees through the workspace, as soon as the code server is up."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    deadline = time.monotonic() + 120
    with dg.DagsterInstance.local_temp(str(workspace.parent)) as instance:
        while True:
            assert process.poll() is None, "the code server ended"
            with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(workspace)])) as context:
                location = context.create_request_context().get_code_location_entries()["rally_pipeline"]
                if location.code_location is not None:
                    (repository,) = location.code_location.get_repositories().values()
                    return {sensor.name for sensor in repository.get_sensors()}
            assert time.monotonic() < deadline, location.load_error
            time.sleep(0.5)
