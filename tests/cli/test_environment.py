"""Variables written out for a shell, and the home folder that a command is given."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from rally_pipeline.cli.dev import sandboxed
from rally_pipeline.cli.environment import assignment, read_settings
from rally_pipeline.settings import Settings, SettingsError

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
NASTY = [
    "",
    "plain",
    "* * * * *",
    "it's",
    'say "hello"',
    "both ' and \"",
    "$HOME and `id` and $(id)",
    "it's $HOME",
    "back\\slash",
    "two\\\\",
    "ends in one\\",
    "\\'$`\"",
    "#no comment",
    " blanks ",
    "~/x",
    "a;b&c|d>e",
    "ünïcode ✓",
    "two\nlines",
    "!history",
    "%41%2F?",
]


def sourced(line: str) -> dict[str, str]:
    """The environment of a program that a POSIX shell starts after the line."""
    program = f'{line}\nexec "{sys.executable}" -c "$SHOW"'
    done = subprocess.run(
        ["sh", "-euc", program],
        env={"PATH": os.environ["PATH"], "SHOW": SHOW, "PYTHONUTF8": "1"},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_shell_and_a_reader_of_dotenv_files_understand_the_same(tmp_path: Path) -> None:
    chance = random.Random(4)
    values = [*NASTY, *("".join(chance.choices("a\\'\"$`{} =#\n*", k=6)) for _ in range(500))]
    wanted = {f"V{number}": value for number, value in enumerate(values)}
    file = tmp_path / "variables"
    file.write_text("".join(f"{assignment(name, value)}\n" for name, value in wanted.items()))
    found = sourced(f"set -a; . {file}")
    assert {name: found[name] for name in wanted} == wanted
    # What dotenv itself replaces, and what has no spelling in common, is right in the shell alone.
    both = {
        name
        for name, value in wanted.items()
        if "${" not in value and not (set("$`") & set(value) and ("'" in value or "\\" in value))
    }
    assert len(both) > 200
    read = {name: dotenv_values(stream=StringIO(assignment(name, wanted[name])))[name] for name in both}
    assert read == {name: wanted[name] for name in both}


@pytest.mark.parametrize("name", ["home", "a home", "it's a \"home\" of $USER's", "home#1;x&", "hömé"])
def test_the_line_that_dev_prints_gives_a_shell_the_variables_of_the_services(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    variables = {"RALLY_API_URL": "http://127.0.0.1:8790/api/v1", "RALLY_API_KEY": "it's a $key"}
    environment = sandboxed.begin_home(tmp_path / name, variables)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if sandboxed.SOURCING in line]
    found = sourced(line.partition(sandboxed.SOURCING)[2].strip())
    assert environment["SELL_DRAIN_CRON"] == "* * * * *"
    assert {name: found.get(name) for name in environment} == environment


def test_what_the_sandbox_prints_is_fit_for_a_shell_and_a_file(shell) -> None:
    command = [sys.executable, "-m", "rally_pipeline.cli", "sandbox", "--port", "0", "--records", "5"]
    process = subprocess.Popen(
        [*command, "--end-with-stdin"],
        env=shell.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("#"):
                break
    finally:
        process.communicate(timeout=60)
    kept = shell.folder / ".env"
    kept.write_text("".join(printed))
    found = sourced(f"set -a; . {kept}")
    read = dotenv_values(kept)
    assert read["RALLY_API_URL"].startswith("http://127.0.0.1:")
    assert {name: found[name] for name in read} == read
    assert all("='" in line for line in printed[:-1])


def test_a_home_that_cannot_be_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    file = tmp_path / "file"
    file.touch()
    for home, said in {
        "file": "there is a file in its place",
        "file/below": "there is a file in its place",
        "a%2Fb": "Dagster cannot keep its storage",
        "what?": "Dagster cannot keep its storage",
        "%41": "Dagster cannot keep its storage",
    }.items():
        monkeypatch.setenv("RALLY_PIPELINE_HOME", home)
        with pytest.raises(SettingsError, match=rf"^RALLY_PIPELINE_HOME: .*{said}"):
            read_settings()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    assert read_settings().home_path == tmp_path / "%41"


def told_to_nobody(home: Path) -> str:
    """What a user without rights is told about a home (root may write everywhere)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            os.environ["RALLY_PIPELINE_HOME"] = str(home)
            read_settings()
        except SettingsError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as said:
        return said.read()


def test_a_home_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "hidden").mkdir(mode=0o000)
    for home in ("locked", "locked/below", "hidden/below/it"):
        said = told_to_nobody(tmp_path / home)
        assert said.startswith(f"RALLY_PIPELINE_HOME: {tmp_path / home} cannot be written: ")
    # Where neither Dagster nor the warehouse keeps anything in it, it need not be writable.
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("WAREHOUSE_URL", "postgresql://db.example/crm")
    assert told_to_nobody(tmp_path / "locked") == ""


def test_a_missing_parent_is_no_hindrance_and_nothing_is_made_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RALLY_PIPELINE_HOME", str(tmp_path / "not" / "yet"))
    assert read_settings().home_path == tmp_path / "not" / "yet"
    assert list(tmp_path.iterdir()) == []


def test_variables_of_the_file_and_in_other_spellings_reach_what_dagster_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster asks the process environment for `RALLY_API_KEY`, in capitals."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / ".env").write_bytes(
        b"\xef\xbb\xbfexport RALLY_API_KEY='from the file'\r\nsell_access_token=x\r\n"
    )
    monkeypatch.setenv("RALLY_API_KEY", "from-the-environment")
    monkeypatch.setenv("signalsmith_api_token", "lower")
    # What the call adds is taken back afterwards.
    monkeypatch.setenv("SELL_ACCESS_TOKEN", "")
    monkeypatch.delenv("SELL_ACCESS_TOKEN")
    monkeypatch.setenv("SIGNALSMITH_API_TOKEN", "")
    monkeypatch.delenv("SIGNALSMITH_API_TOKEN")
    read_settings()
    names = ("RALLY_API_KEY", "SELL_ACCESS_TOKEN", "SIGNALSMITH_API_TOKEN")
    assert [os.environ[name] for name in names] == ["from-the-environment", "x", "lower"]
