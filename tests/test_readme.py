"""README and docs tell the truth about commands, settings, names in Dagster, files and pictures, and leave none out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from rally_pipeline.cli import main
from rally_pipeline.cli.failures import CommandFailed, UserMistake, outcome_of
from rally_pipeline.rooms import build
from rally_pipeline.settings import FEED_START_FORMAT, Settings, load_settings
from rally_pipeline.signalsmith.options import FILE_NAME, SyncOptions, read_options
from rally_pipeline.signalsmith.sync_files import read_folder

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy" / "README.md"]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
README = TEXTS["README.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OTHERS = {
    "DAGSTER_HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "RALLY_PIPELINE_TRACEBACK",
}
"""Variables that are read although they are no settings of the package."""
VARIABLE = re.compile(
    r"\b(?:RALLY|SELL|SIGNALSMITH|WAREHOUSE|DAGSTER|HTTPS?|ALL|NO|REQUESTS|CURL|SSL|IMPORTS|EXPORTS|SYNCS|DELETE)_[A-Z_]+\b"
)


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(main))


def invocations() -> list[tuple[str, str]]:
    """(page, line) of every `rally-pipeline …` in a shell block or between backticks."""
    found = []
    for page, text in TEXTS.items():
        for kind, block in FENCE.findall(text):
            if kind == "sh":
                lines = block.replace("&&", "\n").splitlines()
                found += [(page, line.strip()) for line in lines if "rally-pipeline " in line]
        found += [(page, code) for code in re.findall(r"`(rally-pipeline [^`]+)`", FENCE.sub("", text))]
    return sorted(set(found))


def named(pattern: str) -> list[tuple[str, str]]:
    """(page, what the first group holds) of every match."""
    return sorted({(page, found) for page, text in TEXTS.items() for found in re.findall(pattern, text)})


# -- commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_named(words: tuple[str, ...]) -> None:
    line = f"rally-pipeline {' '.join(words)}"
    assert re.search(rf"`{line}[ `]", TEXTS["docs/commands.md"]), line


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_is_named_in_the_line_of_its_command(words: tuple[str, ...]) -> None:
    start = f"`rally-pipeline {' '.join(words)}"
    lines = [line for line in TEXTS["docs/commands.md"].splitlines() if start in line]
    options = {
        name
        for parameter in COMMANDS[words].params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--") and name != "--help"
    }
    assert options <= set(re.findall(r"--[a-z-]+", " ".join(lines))), lines


@pytest.mark.parametrize(("page", "line"), invocations())
def test_every_line_fits_the_commands(page: str, line: str) -> None:
    words = shlex.split(line[line.index("rally-pipeline") :], comments=True)[1:]
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{page}: {line}"
        command = command.commands[words.pop(0)]
    if "--help" in words or isinstance(command, click.Group):
        return
    # As click reads them, but for files, which need not be there.
    given, surplus, _ = command.make_parser(click.Context(command)).parse_args(list(words))
    assert surplus == [], f"{page}: {line}"
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and isinstance(value, str | tuple):
            chosen = {value} if isinstance(value, str) else set(value)
            assert chosen <= set(parameter.type.choices), f"{page}: {line}"


def test_help_lists_every_command_and_the_exit_codes() -> None:
    listed = CliRunner().invoke(main, ["--help"])
    assert listed.exit_code == 0
    assert {words[0] for words in COMMANDS} <= set(re.findall(r"^  ([a-z-]+) ", listed.output, re.MULTILINE))
    assert outcome_of(CommandFailed("x"))[0] == 1
    assert outcome_of(UserMistake("x"))[0] == 2
    for text in (listed.output, README):
        assert {code for code in "012" if re.search(rf"\b{code} (all|a|some|you)", text)} == set("012")


# -- settings -----------------------------------------------------------------------------------------------------


def table_of_settings() -> dict[str, str]:
    """Variable and default, as docs/settings.md lists them."""
    rows = re.findall(r"^\| `([A-Z_]+)` \|.*\| ([^|]+) \|$", TEXTS["docs/settings.md"], re.MULTILINE)
    return {
        name: default.strip() for name, default in rows if name in {n.upper() for n in Settings.model_fields}
    }


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_listed_with_its_default(field: str) -> None:
    listed = table_of_settings()
    default = Settings.model_fields[field].default
    if default is None:
        assert not re.fullmatch(r"`[^`]+`", listed[field.upper()])
        return
    shown = default.strftime(FEED_START_FORMAT) if isinstance(default, datetime) else str(default)
    assert listed[field.upper()] == f"`{shown.lower() if isinstance(default, bool) else shown}`"


@pytest.mark.parametrize(("page", "variable"), named(f"({VARIABLE.pattern})"))
def test_every_variable_that_is_named_is_read(page: str, variable: str) -> None:
    assert variable in OTHERS | {name.upper() for name in Settings.model_fields}, page


def test_variables_that_are_no_settings_are_listed_too() -> None:
    assert {name for name in OTHERS if f"`{name}`" not in TEXTS["docs/settings.md"]} == set()


# -- Dagster ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dagster_names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of the jobs, sensors and schedules where everything is configured."""
    settings = load_settings(
        rally_pipeline_home=tmp_path_factory.mktemp("home"),
        rally_api_url="https://acme.example/api/v1",
        rally_api_key="key",
        sell_access_token="t" * 64,
        sell_device_uuid="5c1d5a0e-0000-4000-8000-000000000001",
        signalsmith_api_url="https://acme.example/api/v1",
        signalsmith_api_token="token",
        signalsmith_workspace_id="workspace",
    )
    repository = build(settings, announce=False).get_repository_def()
    return {
        "job": {name for name in repository.job_names if not name.startswith("__")},
        "sensor": {sensor.name for sensor in repository.sensor_defs},
        "schedule": {schedule.name for schedule in repository.schedule_defs},
    }


@pytest.mark.parametrize("kind", ["job", "sensor", "schedule"])
def test_every_name_in_dagster_is_listed_and_no_other(kind: str, dagster_names: dict[str, set[str]]) -> None:
    (table,) = re.findall(
        rf"^\| {kind} \|.*\n\| --- .*\n((?:\|.*\n)+)", TEXTS["docs/operating.md"], re.MULTILINE
    )
    cells = [row.split("|")[1] for row in table.splitlines()]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == dagster_names[kind]


# -- syncs as code ------------------------------------------------------------------------------------------------


def test_the_files_of_the_syncs_can_be_used(tmp_path: Path) -> None:
    blocks = [block for kind, block in FENCE.findall(TEXTS["docs/syncs-as-code.md"]) if kind == "yaml"]
    for block in blocks:
        (name,) = re.findall(r"^# syncs/(\S+)$", block, re.MULTILINE)
        (tmp_path / name).write_text(block, encoding="utf-8")
    files, findings = read_folder(tmp_path)
    assert (len(files), findings) == (len(blocks) - 1, [])
    options = read_options(tmp_path)
    assert options.problem == ""
    for name in yaml.safe_load((tmp_path / FILE_NAME).read_text(encoding="utf-8"))["syncs"]:
        assert options.of("", name, {}).problems == ()


def test_every_option_of_a_sync_is_listed_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", TEXTS["docs/syncs-as-code.md"], re.MULTILINE)
    listed = {name: default.strip().strip("`") for name, default in rows}
    assert listed.keys() == {field.name for field in fields(SyncOptions)} - {"problems"}
    for field in fields(SyncOptions):
        if isinstance(field.default, int | float):
            assert listed[field.name] == str(field.default)


# -- files --------------------------------------------------------------------------------------------------------


def test_ci_runs_the_test_command_of_the_readme() -> None:
    (command,) = [line for line in README.splitlines() if line.startswith("python3") and "pytest" in line]
    assert command in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(("page", "path"), named(r"pytest (tests/[\w/.]+)"))
def test_every_test_that_is_named_is_there(page: str, path: str) -> None:
    assert (ROOT / path).exists(), page


@pytest.mark.parametrize(("page", "path"), named(r"\]\((?!http)([\w/.-]+)\)"))
def test_every_picture_and_page_that_is_linked_is_there(page: str, path: str) -> None:
    assert ((ROOT / page).parent / path).stat().st_size > 0


@pytest.mark.parametrize(
    ("page", "path"), named(r"`((?:rally_pipeline|deploy|docs|tests|benchmarks|\.ci)/[\w./-]*)`")
)
def test_every_path_that_is_named_is_there(page: str, path: str) -> None:
    assert (ROOT / path).exists(), page


@pytest.mark.parametrize(("page", "module"), named(r"python -m ([\w.]+)"))
def test_every_module_that_is_to_be_run_is_there(page: str, module: str) -> None:
    assert find_spec(module) is not None, page


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", README))
    assert linked == {page for page in TEXTS if page.startswith("docs/")}
    assert "`deploy/README.md`" in README


def test_versions_are_pinned_by_name_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!-]+", line)] == []
