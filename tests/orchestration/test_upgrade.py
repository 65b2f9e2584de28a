"""A `dagster.yaml` of an earlier version: what this version no longer has is taken out, and nothing else."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from rally_pipeline.orchestration.upgrade import correct_instance_file

GONE = "instance_class:\n  module: rally_pipeline.orchestration.gone\n  class: Instance\n"
REST = "# our own words\nconcurrency:\n  pools: {default_limit: 1}   # one writer\n\ntelemetry:\n  enabled: false\n"


def written(home: Path, text: str) -> Path:
    path = home / "dagster.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "before",
    [
        f"{GONE}\n{REST}",
        f"{REST}\n{GONE}",
        f"# why it is there\n# and how\n{GONE}\n{REST}",
        "instance_class: {module: rally_pipeline.gone, class: Instance}\n" + REST,
        '"instance_class":\n  class: NoSuch\n  module: rally_pipeline.orchestration.home\n' + REST,
    ],
    ids=["first", "last", "with comments", "on one line", "module is there, class is not"],
)
def test_what_is_gone_is_taken_out_and_the_rest_stays_to_the_byte(tmp_path: Path, before: str) -> None:
    path = written(tmp_path, before)
    line = correct_instance_file(tmp_path)
    assert line is not None
    assert "instance_class (rally_pipeline." in line
    assert "\n" not in line
    assert path.read_text().strip("\n") == REST.strip("\n")
    assert (tmp_path / "dagster.yaml.before-upgrade").read_text() == before
    assert correct_instance_file(tmp_path) is None
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled


def test_several_settings_at_once(tmp_path: Path) -> None:
    launcher = (
        "run_launcher:\n  module: rally_pipeline.launching\n  class: Launcher\n  config: {deep: [1, 2]}\n"
    )
    path = written(tmp_path, f"{launcher}{REST}{GONE}")
    line = correct_instance_file(tmp_path)
    assert line is not None
    assert "run_launcher (rally_pipeline.launching.Launcher), instance_class" in line
    assert path.read_text() == REST


@pytest.mark.parametrize(
    "text",
    [
        REST,
        "",
        "run_launcher:\n  module: dagster_k8s\n  class: K8sRunLauncher\n",
        "compute_logs:\n  module: rally_pipeline_extras.logs\n  class: Manager\n",
        "instance_class: [no, mapping]\n",
        "- a list\n",
        "broken: [\n",
    ],
)
def test_what_is_not_ours_or_is_there_is_left_alone(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert correct_instance_file(tmp_path) is None
    assert path.read_text() == text
    assert [found.name for found in tmp_path.iterdir()] == ["dagster.yaml"]


def test_without_a_file_there_is_nothing_to_correct(tmp_path: Path) -> None:
    assert correct_instance_file(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_second_correction_keeps_the_first_backup(tmp_path: Path) -> None:
    for number in (1, 2):
        written(tmp_path, f"# number {number}\n\n{GONE}{REST}")
        assert correct_instance_file(tmp_path)
    kept = sorted(tmp_path.glob("dagster.yaml.before-upgrade*"))
    assert [path.read_text().split("\n")[0] for path in kept] == ["# number 1", "# number 2"]


def test_a_layout_that_no_cut_gets_right_loses_its_comments_but_no_setting(tmp_path: Path) -> None:
    inner = "{module: rally_pipeline.gone, class: I}"
    path = written(tmp_path, f"# all in one\n{{telemetry: {{enabled: false}}, instance_class: {inner}}}\n")
    assert correct_instance_file(tmp_path)
    assert path.read_text() == "telemetry:\n  enabled: false\n"


def test_the_file_behind_a_link_is_corrected_and_keeps_its_rights(tmp_path: Path) -> None:
    shared = tmp_path / "shared.yaml"
    shared.write_text(GONE + REST)
    shared.chmod(0o640)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(shared)
    assert correct_instance_file(home)
    assert (home / "dagster.yaml").is_symlink()
    assert shared.read_text() == REST
    assert shared.stat().st_mode & 0o777 == 0o640
