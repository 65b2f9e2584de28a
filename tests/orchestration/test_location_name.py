"""One name for the code location, whatever starts it: switches and tick history hang on it, and so does a reload."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from rally_pipeline.cli.signalsmith import LOCATION
from rally_pipeline.orchestration.home import WORKSPACE
from rally_pipeline.settings import load_settings
from rally_pipeline.signalsmith.defs.reload import request_reload
from tests.orchestration.test_deployment import DEPLOY, ROOT, environment, free_port

SELL = {"SELL_ACCESS_TOKEN": "t" * 64, "SELL_DEVICE_UUID": "5c1d5a0e-0000-4000-8000-000000000001"}
QUERY = """
{ repositoriesOrError { ... on RepositoryConnection { nodes {
    name location { name }
    schedules { name scheduleState { selectorId } }
    sensors { name sensorState { selectorId } }
} } } }
"""
PATIENCE_SECONDS = 180

Identity = tuple[str, str, dict[str, str]]
"""Names of location and repository, and what keys the stored state of each schedule and sensor."""


def services_environment(folder: Path) -> dict[str, str]:
    (folder / "dagster").mkdir(exist_ok=True)
    return {**environment(folder / "home"), **SELL, "DAGSTER_HOME": str(folder / "dagster")}


def identity(data: Any) -> Identity:
    (node,) = data["repositoriesOrError"]["nodes"]
    keys = {found["name"]: found["scheduleState"]["selectorId"] for found in node["schedules"]}
    keys |= {found["name"]: found["sensorState"]["selectorId"] for found in node["sensors"]}
    return node["location"]["name"], node["name"], keys


def ask_command_line(arguments: Sequence[str], folder: Path, cwd: Path) -> Identity:
    """What Dagster's own loader makes of the arguments (none: what it finds in the working folder)."""
    command = [str(Path(sys.executable).with_name("dagster-graphql")), "-t", QUERY, *arguments]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=services_environment(folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (answer,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return identity(json.loads(answer)["data"])


@contextmanager
def running(arguments: Sequence[str], folder: Path, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service of Dagster, ended with everything that it started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", *arguments],
        cwd=cwd,
        env=services_environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


def ask_webserver(url: str, process: subprocess.Popen[bytes]) -> Identity:
    """The same from a running UI, as soon as it has loaded the location."""
    body = json.dumps({"query": QUERY}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "Dagster ended"
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                data = json.load(answer)["data"]
        except (urllib.error.URLError, ConnectionError):
            data = None
        if data and data["repositoriesOrError"].get("nodes"):
            return identity(data)
        time.sleep(0.5)
    raise AssertionError("Dagster did not come up")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """By the workspace file that `rally-pipeline dev` gives to Dagster."""
    folder = tmp_path_factory.mktemp("packaged")
    return ask_command_line(["-w", str(WORKSPACE)], folder, cwd=folder)


def test_the_name_is_the_promised_one(workspace: Identity) -> None:
    location, repository, keys = workspace
    assert (location, repository) == (LOCATION, "__repository__") == ("rally_pipeline", "__repository__")
    assert keys.keys() >= {"rally_changes_sensor", "rally_feed_close", "sell_drain_schedule"}


def test_the_workspace_file_of_the_checkout_gives_the_same(workspace: Identity, tmp_path: Path) -> None:
    assert ask_command_line(["-w", "workspace.yaml"], tmp_path, cwd=ROOT) == workspace


def test_plain_dagster_dev_in_the_checkout_gives_the_same_and_can_be_asked_to_reload(
    workspace: Identity, tmp_path: Path
) -> None:
    """Dagster looks into `pyproject.toml` before `workspace.yaml` there."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(["dev", "-h", "127.0.0.1", "-p", str(port)], tmp_path, cwd=ROOT) as process:
        assert ask_webserver(url, process) == workspace
        assert request_reload(load_settings(dagster_webserver_url=url), LOCATION) == "reloaded"


def test_the_code_server_of_production_gives_the_same(workspace: Identity, tmp_path: Path) -> None:
    port = str(free_port())
    described = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())
    described["load_from"][0]["grpc_server"]["port"] = int(port)
    file = tmp_path / "workspace.yaml"
    file.write_text(yaml.safe_dump(described))
    (command,) = [
        line.partition("`dagster ")[2].partition("`")[0].split()
        for line in (DEPLOY / "README.md").read_text().splitlines()
        if line.startswith("| code server |")
    ]
    command[command.index("-p") + 1] = port
    deadline = time.monotonic() + PATIENCE_SECONDS
    with running(command, tmp_path, cwd=tmp_path) as process:
        while True:
            assert process.poll() is None, "the code server ended"
            try:
                found = ask_command_line(["-w", str(file)], tmp_path, cwd=tmp_path)
                break
            except ValueError:
                assert time.monotonic() < deadline, "the code server did not come up"
    assert found == workspace


def test_dg_is_told_the_same_name() -> None:
    """`dg dev` names the location by this entry alone."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert project["code_location_name"] == LOCATION
    assert project["code_location_target_module"] == "rally_pipeline.definitions"


OLD = """
import dagster as dg

@dg.job
def run_history_retention():
    pass

nightly = dg.ScheduleDefinition(
    name="run_history_retention_schedule", job=run_history_retention, cron_schedule="17 3 * * *"
)
defs = dg.Definitions(jobs=[run_history_retention], schedules=[nightly])
"""


def test_a_switch_of_a_schedule_that_exists_no_more_disturbs_nothing(
    workspace: Identity, tmp_path: Path
) -> None:
    """An earlier version had a schedule that removed old runs, of other projects as well."""
    (tmp_path / "old.py").write_text(OLD)
    described = {
        "module_name": "old",
        "location_name": "rally_pipeline",
        "working_directory": str(tmp_path),
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"load_from": [{"python_module": described}]}))
    command = ["schedule", "start", "run_history_retention_schedule", "-w", "old.yaml"]
    subprocess.run(
        [sys.executable, "-m", "dagster", *command],
        cwd=tmp_path,
        env=services_environment(tmp_path),
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    assert ask_command_line(["-w", str(WORKSPACE)], tmp_path, cwd=tmp_path) == workspace
