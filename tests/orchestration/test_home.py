"""Dagster's home folder and the shipped instance settings, loaded for real."""

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
