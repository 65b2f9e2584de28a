"""Folders as the doctor sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rally_pipeline.doctor import home
from rally_pipeline.doctor.finding import Finding, Verdict
from rally_pipeline.settings import load_settings


def verdicts(found: list[Finding]) -> list[Verdict]:
    return [one.verdict for one in found]


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    found = list(home.examine_folder("home", tmp_path / "a" / "b"))
    assert found[0].verdict is Verdict.OK
    assert "made by the first command" in found[0].text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (found,) = home.examine_folder("home", tmp_path / "file" / "home")
    assert found.verdict is Verdict.PROBLEM
    assert "is not a folder" in found.text


def test_a_folder_that_refuses_files_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(home.tempfile, "TemporaryFile", refuse)
    (found,) = home.examine_folder("home", tmp_path)
    assert found.verdict is Verdict.PROBLEM
    assert "permission denied" in found.text


@pytest.mark.parametrize(
    ("kind", "network"),
    [("ext4", False), ("overlay", False), ("nfs4", True), ("cifs", True), ("fuse.sshfs", True)],
)
def test_a_network_file_system_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, network: bool
) -> None:
    folder = tmp_path / "with blank"
    folder.mkdir()
    point = str(folder).replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {point} {kind} rw 0 0\ntmpfs /run tmpfs rw 0 0\n")
    monkeypatch.setattr(home, "_MOUNTS", mounts)
    found = list(home.examine_folder("home", folder / "home"))
    assert any("network file system" in one.text for one in found) == network


@pytest.mark.parametrize(
    ("free", "verdict"), [(5 << 30, []), (1 << 29, [Verdict.WARNING]), (1 << 20, [Verdict.PROBLEM])]
)
def test_little_room_is_said(tmp_path: Path, free: int, verdict: list[Verdict]) -> None:
    assert verdicts(list(home.judge_room("home", tmp_path, free))) == verdict


@pytest.mark.parametrize(
    ("text", "fault"), [("a: [", "is not YAML"), ("- a\n", "is not a mapping"), ("", None)]
)
def test_dagsters_configuration_is_read(tmp_path: Path, text: str, fault: str | None) -> None:
    settings = load_settings(rally_pipeline_home=tmp_path)
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(text)
    (found,) = home.examine_dagster(settings)
    assert found.verdict is (Verdict.OK if fault is None else Verdict.PROBLEM)
    assert (fault or "can be read") in found.text


def test_a_dagster_home_elsewhere_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "elsewhere"))
    found = list(home.examine_dagster(load_settings(rally_pipeline_home=tmp_path)))
    assert "may be written" in found[0].text
    assert "DAGSTER_HOME" in found[-1].text


def test_folders_of_imports_and_exports_elsewhere_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    settings = load_settings(
        rally_pipeline_home=tmp_path / "home",
        imports_dir=tmp_path / "file" / "inbox",
        exports_dir=tmp_path / "out",
    )
    found = [(one.subject, one.verdict) for one in home.examine_home(settings)]
    assert found == [("home", Verdict.OK), ("imports", Verdict.PROBLEM), ("exports", Verdict.OK)]
