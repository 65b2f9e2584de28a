"""The Sell commands as a person uses them: exit codes, one line for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from tests.cli.conftest import Shell


@pytest.fixture
def account() -> Iterator[SandboxServer]:
    """A small Sell account, served on loopback."""
    options = {"records": 40, "page_size": 20, "limit_per_second": None}
    with SandboxServer(Sandbox(apis=["sell"], clock=SandboxClock.running(), sell=options)) as server:
        yield server


@pytest.fixture
def seller(shell: Shell, account: SandboxServer) -> Shell:
    shell.variables |= {**account.environment(), "RALLY_STALENESS_SECONDS": "0"}
    return shell


def test_sync_status_and_a_new_device(seller: Shell, account: SandboxServer) -> None:
    sell = account.sandbox.sell
    first = seller.say("sync", "sell")
    assert first.exit_code == 0, first.stderr
    sell.world.mutate(10)
    gone = next(sell.world.live("lead"))
    sell.world.delete("lead", gone.id)
    assert seller.say("sync", "sell").exit_code == 0

    status = json.loads(seller.say("status", "--json").stdout)["systems"]["sell"]
    truth = sell.truth()
    assert status["tables"]["sell_leads"]["rows"] == len(truth["leads"])
    assert status["tables"]["sell_leads"]["open_marks"] == 0
    assert status["tables"]["sell_leads"]["synced_through"] is not None
    assert any("unknown types" in problem for problem in status["problems"])

    made = seller.say("sell", "new-device")
    assert made.exit_code == 0
    name, _, uuid = made.stdout.strip().partition("=")
    assert name == "SELL_DEVICE_UUID"
    refused = seller.say("sync", "sell")
    assert refused.exit_code == 2
    assert f"set SELL_DEVICE_UUID={uuid}" in refused.stderr
    again = seller.say("sync", "sell", SELL_DEVICE_UUID=uuid)
    assert again.exit_code == 0, again.stderr
    adopted = seller.say("sell", "adopt-device")
    assert adopted.exit_code == 0
    assert seller.say("sell", "sweep").exit_code == 0


@pytest.mark.parametrize(
    ("variables", "code", "words"),
    [
        ({"SELL_ACCESS_TOKEN": "z" * 64}, 2, "check SELL_ACCESS_TOKEN"),
        ({"SELL_DEVICE_UUID": ""}, 2, "set SELL_DEVICE_UUID"),
        ({"SELL_DEVICE_UUID": "my-host"}, 2, "is not a UUID"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(
    seller: Shell, variables: dict[str, str], code: int, words: str
) -> None:
    done = seller.say("sync", "sell", **variables)
    assert done.exit_code == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "z" * 64 not in done.stderr


def test_an_incomplete_drain_is_exit_code_one(seller: Shell, account: SandboxServer) -> None:
    account.sandbox.sell.refuse(404, path="/v2/sync/*/queues/main", times=None)
    done = seller.say("sync", "sell")
    assert done.exit_code == 1
    assert "ended early (session_lost)" in done.stderr
