"""The command line against a served sandbox: refresh, syncs as code, sync, status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rally_pipeline.cli import main
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer


class Shell:
    """A terminal in which SignalSmith is configured."""

    def __init__(self, home: Path, sandbox: Sandbox, environment: dict[str, str]) -> None:
        self.home = home
        self.sandbox = sandbox
        wanted = {name: value for name, value in environment.items() if name.startswith("SIGNALSMITH")}
        others = dict.fromkeys(
            ("RALLY_API_URL", "RALLY_API_KEY", "SELL_ACCESS_TOKEN", "SELL_DEVICE_UUID"), ""
        )
        self.environment = {
            **others, **wanted, "RALLY_PIPELINE_HOME": str(home), "SYNCS_DIR": str(home / "syncs"),
            "DAGSTER_HOME": "", "DAGSTER_WEBSERVER_URL": "", "WAREHOUSE_URL": "",
        }  # fmt: skip

    def __call__(self, *arguments: str) -> Result:
        return CliRunner(env=self.environment).invoke(main, list(arguments))

    def json(self, *arguments: str) -> Any:
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    @property
    def syncs(self) -> dict[str, Any]:
        return {sync["name"]: sync for sync in self.sandbox.signalsmith.truth()["syncs"]}


@pytest.fixture
def make_shell(tmp_path: Path) -> Iterator[Callable[..., Shell]]:
    servers = []

    def make(**options: Any) -> Shell:
        limits = {"limit_per_minute": None, "limit_per_second": None}
        quick = {"queue_seconds": 0.0, "run_seconds": 0.0, "scheduler": False, **options.pop("switches", {})}
        sandbox = Sandbox(
            seed=5, apis=["signalsmith"], clock=SandboxClock.running(),
            signalsmith={**limits, **options, "switches": quick},
        )  # fmt: skip
        server = SandboxServer(sandbox)
        servers.append(server)
        return Shell(tmp_path / "home", sandbox, server.__enter__().environment())

    yield make
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture
def shell(make_shell: Callable[..., Shell]) -> Shell:
    return make_shell()


def test_refresh_reports_what_is_new_and_writes_the_catalog(shell: Shell) -> None:
    result = shell("signalsmith", "refresh")
    assert result.exit_code == 0, result.output
    assert "added: Contacts to newsletter (contacts_to_newsletter)" in result.stdout
    assert (shell.home / "signalsmith_catalog.json").exists()
    found = shell.json("signalsmith", "refresh", "--json")
    assert (found["syncs"], found["unchanged"], found["reload"]) == (2, 2, "nothing changed")


def test_refresh_of_a_hostile_workspace_names_every_reason(make_shell: Callable[..., Shell]) -> None:
    shell = make_shell(hostile=True)
    found = shell.json("signalsmith", "refresh", "--json")
    assert found["skipped"] == 9
    reasons = {row["sync"]: row["reason"] for row in found["without_schedule"]}
    assert "6 fields instead of 5" in reasons["Six fields (six_fields)"]
    assert all("\x1b" not in line for line in shell("signalsmith", "refresh").output.splitlines())


def test_a_shrunken_list_is_a_mistake_until_it_is_accepted(make_shell: Callable[..., Shell]) -> None:
    shell = make_shell(syncs=10)
    shell("signalsmith", "refresh")
    for sync_id in [sync["id"] for sync in shell.syncs.values()][:8]:
        shell.sandbox.control("signalsmith", "remove_sync", {"sync": sync_id})
    refused = shell("signalsmith", "refresh")
    assert refused.exit_code == 2
    assert refused.output.count("--accept-shrink") == 1
    assert "waits in signalsmith_catalog.suspect.json" in shell("status").output
    assert shell("signalsmith", "refresh", "--accept-shrink").exit_code == 0


def test_what_is_not_configured_is_named(shell: Shell) -> None:
    shell.environment["SIGNALSMITH_API_TOKEN"] = ""
    for command in (
        ("signalsmith", "refresh"),
        ("syncs", "plan"),
        ("syncs", "pull"),
        ("sync", "signalsmith"),
    ):
        result = shell(*command)
        assert result.exit_code == 2, command
        assert "SIGNALSMITH_API_TOKEN" in result.output


def test_a_wrong_token_is_one_clear_line(shell: Shell) -> None:
    shell.environment["SIGNALSMITH_API_TOKEN"] = "sk_live_canary_4713"
    result = shell("signalsmith", "refresh")
    assert result.exit_code == 2
    assert "check SIGNALSMITH_API_TOKEN" in result.output
    assert "canary" not in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_pull_plan_edit_plan_apply(shell: Shell) -> None:
    assert shell("syncs", "plan").exit_code == 2  # no folder yet, and the line says what to do
    assert shell("syncs", "pull").exit_code == 0
    assert shell.json("syncs", "plan", "--json")["actions"] == []
    assert shell("syncs", "plan", "--check").exit_code == 0
    path = shell.home / "syncs" / "deals_to_finance.yaml"
    path.write_text(
        path.read_text().replace("0 * * * *", "0 6 * * *").replace("status: active", "status: paused")
    )
    planned = shell("syncs", "plan")
    assert '  schedule: "0 * * * *" -> "0 6 * * *"' in planned.stdout
    assert '  status: "active" -> "paused"' in planned.stdout
    assert shell("syncs", "plan", "--check").exit_code == 3
    assert shell.syncs["Deals to finance"]["schedule"] == "0 * * * *"  # a plan changes nothing
    applied = shell("syncs", "apply")
    assert applied.exit_code == 0, applied.output
    assert "done   update Deals to finance" in applied.stdout
    assert (shell.syncs["Deals to finance"]["schedule"], shell.syncs["Deals to finance"]["status"]) == (
        "0 6 * * *", "paused",
    )  # fmt: skip
    assert "0 to change, 2 unchanged" in shell("syncs", "apply").output


@pytest.mark.fault("R7")
def test_apply_deletes_only_with_prune_and_never_for_an_empty_folder(shell: Shell) -> None:
    shell("syncs", "pull")
    (shell.home / "syncs" / "deals_to_finance.yaml").unlink()
    assert "1 without a file (left alone): Deals to finance" in shell("syncs", "apply").output
    assert "delete Deals to finance" in shell("syncs", "plan", "--prune").stdout
    assert len(shell.syncs) == 2
    assert shell("syncs", "apply", "--prune").exit_code == 0
    assert list(shell.syncs) == ["Contacts to newsletter"]
    (shell.home / "syncs" / "contacts_to_newsletter.yaml").unlink()
    refused = shell("syncs", "apply", "--prune")
    assert refused.exit_code == 2
    assert "would delete every sync" in refused.output
    assert list(shell.syncs) == ["Contacts to newsletter"]


def test_a_mistake_in_one_file_applies_nothing_and_is_named_with_its_line(shell: Shell) -> None:
    shell("syncs", "pull")
    path = shell.home / "syncs" / "deals_to_finance.yaml"
    path.write_text(path.read_text().replace("0 * * * *", "0 0 31 4 *"))
    for command in ("plan", "apply"):
        result = shell("syncs", command)
        assert result.exit_code == 2
        assert "deals_to_finance.yaml:" in result.output.replace("\n", "")
        assert "never fires" in result.output
    assert [entry for entry in shell.sandbox.log if entry.method in ("PUT", "POST", "DELETE")] == []


def test_sync_runs_every_active_sync_once_and_dagster_shows_it(shell: Shell) -> None:
    result = shell("sync", "signalsmith")
    assert result.exit_code == 0, result.output
    assert "2 of 2 active syncs ran" in result.output
    runs = shell.sandbox.signalsmith.truth()["runs"]
    assert sorted(run["status"] for run in runs) == ["completed", "completed"]
    status = shell.json("status", "--json")["systems"]["signalsmith"]
    assert status["tables"]["signalsmith_runs"]["rows"] == 2
    assert status["problems"] == []


def test_sync_fails_where_a_sync_fails_and_still_runs_the_others(shell: Shell) -> None:
    first = shell.syncs["Contacts to newsletter"]["id"]
    shell.sandbox.control(
        "signalsmith", "plan_run", {"sync": first, "outcome": "failed", "error": "login expired"}
    )
    result = shell("sync", "signalsmith")
    assert result.exit_code == 1
    assert "failed in SignalSmith: login expired" in result.output
    assert len(shell.sandbox.signalsmith.truth()["runs"]) == 2
    assert "contacts_to_newsletter: latest run: failed: login expired" in shell("status").output


def test_sync_leaves_observed_and_inactive_syncs_alone(shell: Shell) -> None:
    second = shell.syncs["Deals to finance"]["id"]
    shell.sandbox.control("signalsmith", "edit_sync", {"sync": second, "fields": {"status": "paused"}})
    (shell.home / "syncs").mkdir(parents=True)
    (shell.home / "syncs" / "signalsmith.yaml").write_text(
        "syncs: {Contacts to newsletter: {ownership: observe}}"
    )
    result = shell("sync", "signalsmith")
    assert result.exit_code == 0, result.output
    assert "0 of 1 active syncs ran, 1 only observed" in result.output
    assert shell.sandbox.signalsmith.truth()["runs"] == []


def test_status_makes_no_request(shell: Shell) -> None:
    shell("signalsmith", "refresh")
    before = len(shell.sandbox.log)
    assert shell("status").exit_code == 0
    assert len(shell.sandbox.log) == before


@pytest.mark.parametrize(
    "command",
    [("signalsmith",), ("signalsmith", "refresh"), *(("syncs", *rest) for rest in ((), ("plan",), ("apply",)))],
)  # fmt: skip
def test_every_command_explains_itself(shell: Shell, command: tuple[str, ...]) -> None:
    result = shell(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output
