"""Files are private, appear whole or not at all, and their names lead nowhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rally_pipeline.rally.files.folders import inside, list_inbox, make_folder, writing
from rally_pipeline.rally.files.problems import FileError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text("before")
    with pytest.raises(IsADirectoryError), writing(path) as temporary:
        temporary.write_text("half") and tmp_path.read_text()
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.csv"]
    with writing(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after"


@pytest.mark.security("46")
def test_files_and_folders_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "exports")
    with writing(folder / "x.csv") as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_text("x")
    assert stat.S_IMODE((folder / "x.csv").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.security("47")
@pytest.mark.parametrize(
    "name",
    [
        "../secret.csv",
        "..",
        ".",
        "",
        "/etc/passwd",
        "a/b.csv",
        "a\\b.csv",
        "x\0.csv",
        "x\n.csv",
        "a" * 300,
        "link.csv",
    ],
)
def test_a_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.csv").write_text("secret")
    folder = make_folder(tmp_path / "inbox")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(FileError):
        inside(folder, name)
    (folder / "good.csv").write_text("x")
    assert inside(folder, "good.csv") == folder / "good.csv"


def test_the_inbox_shows_files_that_are_meant_for_import_only(tmp_path: Path) -> None:
    for name in (
        "b.csv",
        "a.xlsx",
        "B.CSV",
        ".hidden.csv",
        "~$a.xlsx",
        "x.rejects.csv",
        "notes.txt",
        "x.csv.part",
    ):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "b.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert [path.name for path in list_inbox(tmp_path)] == ["B.CSV", "a.xlsx", "b.csv"]
    assert list_inbox(tmp_path / "none") == []
