"""`rally-pipeline import`, `export`, `template`, as a person uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from tests.cli.conftest import Shell
from tests.rally.files.desk import contacts, csv_text, read_csv

LATIN = "first_name,last_name,email\nZoë,B,z@b.org\n".encode("cp1252")


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(records=60, clock=SandboxClock.running(), apis=["rally"])


@pytest.fixture
def shell(tmp_path: Path, sandbox: Sandbox) -> Iterator[Shell]:
    with SandboxServer(sandbox) as server:
        yield Shell(tmp_path, server.environment())


def _write(shell: Shell, rows: list[dict[str, str]], name: str = "people.csv") -> Path:
    path = shell.folder / name
    path.write_text(csv_text(TEMPLATES[Entity.CONTACTS].headers, rows))
    return path


def test_a_file_is_checked_imported_and_the_second_time_nothing_happens(
    shell: Shell, sandbox: Sandbox
) -> None:
    _write(shell, contacts(3))
    dry = shell.say("import", "contacts", "people.csv", "--dry-run")
    assert (dry.exit_code, sandbox.rally.counts()["contacts"]) == (0, 24)
    assert "people.csv into contacts: checked" in dry.stdout
    first = shell.say("import", "contacts", "people.csv", "--json")
    assert first.exit_code == 0
    found = json.loads(first.stdout)
    assert (found["status"], found["rows"], found["imported"], found["unknown"]) == ("done", 3, 3, 0)
    again = shell.say("import", "contacts", "people.csv")
    assert again.exit_code == 0
    assert "already imported" in again.stdout
    assert "the same file was imported" in again.stderr
    assert sandbox.rally.counts()["contacts"] == 27


def test_refused_rows_are_shown_with_row_and_column_and_can_be_mended(shell: Shell, sandbox: Sandbox) -> None:
    _write(shell, [*contacts(1), {"first_name": "A", "last_name": "B", "email": "no mail"}])
    result = shell.say("import", "contacts", "people.csv")
    assert result.exit_code == 1
    assert "row 3, column email: Invalid email format 'no mail'" in result.stdout
    assert "1 refused, 0 unknown of 2 rows; mend " in result.stderr
    (reject,) = read_csv(shell.folder / "people.rejects.csv")
    _write(shell, [{**reject, "email": "mended@example.org"}], "mended.csv")
    assert shell.say("import", "contacts", "mended.csv").exit_code == 0
    assert sandbox.rally.counts()["contacts"] == 26


@pytest.mark.parametrize(
    ("content", "arguments", "line"),
    [
        (b"", ("contacts", "people.csv"), "Error: the file is empty"),
        (b"name,domain\nA,a.example\n", ("contacts", "people.csv"), "Error: the columns are those of companies"),
        (LATIN, ("contacts", "people.csv"), "Error: line 2: byte 0xEB"),
        (b"x", ("contacts", "none.csv"), "Error: there is no file none.csv"),
        (b"x", ("leads", "people.csv"), "Error: Invalid value for '{contacts|companies|deals|activities}'"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_and_exit_code_2(
    shell: Shell, content: bytes, arguments: tuple[str, str], line: str
) -> None:
    (shell.folder / "people.csv").write_bytes(content)
    result = shell.say("import", *arguments)
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith(line)


def test_another_encoding_is_named_on_the_command_line(shell: Shell, sandbox: Sandbox) -> None:
    (shell.folder / "old.csv").write_bytes(LATIN)
    assert shell.say("import", "contacts", "old.csv", "--encoding", "cp1252").exit_code == 0
    assert [
        record["firstName"] for record in sandbox.rally.records("contacts") if record["email"] == "z@b.org"
    ] == ["Zoë"]


@pytest.mark.parametrize("file_format", ["csv", "xlsx"])
def test_an_export_is_named_with_its_numbers(shell: Shell, file_format: str) -> None:
    result = shell.say("export", "deals", "--format", file_format, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["rows"] == 12
    assert Path(found["path"]).parent == shell.home / "exports"
    assert Path(found["path"]).suffix == f".{file_format}"
    plain = shell.say("export", "deals", "--format", file_format)
    assert "12 rows, " in plain.stdout
    assert "was never complete" in plain.stderr


def test_the_template_is_saved_and_nothing_is_overwritten(shell: Shell) -> None:
    result = shell.say("template", "activities")
    assert (result.exit_code, result.stdout.strip()) == (0, "activities_template.csv")
    text = (shell.folder / "activities_template.csv").read_text()
    assert text.strip() == ",".join(TEMPLATES[Entity.ACTIVITIES].headers)
    again = shell.say("template", "activities")
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)


def test_every_command_explains_itself(shell: Shell) -> None:
    for command in ("import", "export", "template"):
        result = shell.say(command, "--help")
        assert result.exit_code == 0
        assert "Usage:" in result.stdout
    assert all(name in shell.say("--help").stdout for name in ("import", "export", "template"))
