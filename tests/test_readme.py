"""The README tells the truth about commands, files and pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from rally_pipeline.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_test_command_of_the_readme() -> None:
    (command,) = [line for line in README.splitlines() if line.startswith("python3") and "pytest" in line]
    assert command in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"pytest (tests/[\w/.]+)", README))))
def test_every_test_that_the_readme_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!http)([\w/.-]+)\)", README))))
def test_every_picture_and_file_that_the_readme_links_is_there(path: str) -> None:
    assert (ROOT / path).stat().st_size > 0


@pytest.mark.parametrize("command", sorted(set(re.findall(r"rally-pipeline ([a-z-]+)", README))))
def test_every_command_that_the_readme_names_explains_itself(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_versions_are_pinned_by_name_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!-]+", line)] == []
