"""Dagster's home folder and the shipped instance settings, loaded for real."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from rally_pipeline.orchestration.home import (
    PACKAGED,
    dagster_home,
    prepare_home,
)
from rally_pipeline.settings import load_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["dagster.yaml", "workspace.yaml"])
def test_the_files_in_the_project_folder_are_the_packaged_ones(name):
    assert (ROOT / name).read_text() == (PACKAGED / name).read_text()


def test_a_fresh_home_gets_settings_and_storage(tmp_path):
    home = tmp_path / "dagster"
    prepare_home(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_runs() == []
        limits = instance.get_concurrency_config().run_queue_config.tag_concurrency_limits
        assert limits[0]["key"] == "rally_pipeline/stream"
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled


def test_settings_that_somebody_changed_stay(tmp_path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    prepare_home(tmp_path)
    assert (tmp_path / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_the_home_is_below_the_data_folder_unless_dagster_has_one(tmp_path, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings = load_settings(rally_pipeline_home=tmp_path)
    assert dagster_home(settings) == tmp_path / "dagster"
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "shared"))
    assert dagster_home(settings) == tmp_path / "shared"


def test_the_workspace_names_the_definitions():
    (entry,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert entry["python_module"] == {
        "module_name": "rally_pipeline.definitions",
        "location_name": "rally_pipeline",
    }


def test_processes_that_prepare_a_fresh_home_at_once_do_not_race_for_its_tables(tmp_path):
    script = "import sys, pathlib; from rally_pipeline.orchestration.home import prepare_home as p; "
    script += "sys.stdin.readline(); p(pathlib.Path(sys.argv[1]))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", "import dagster; " + script, str(tmp_path / "dagster")],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [(process.communicate(timeout=300)[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * 4, ended
