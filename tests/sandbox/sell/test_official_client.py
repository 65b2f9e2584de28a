"""The official client basecrm 1.2.9, unmodified, against the sandbox over HTTP: how true the simulation is."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import unittest
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import basecrm
import pytest

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.sell import SellApi
from rally_pipeline.sandbox.server import SandboxServer


class Official:
    """The client and the account that it talks to."""

    def __init__(self, sandbox: Sandbox, environment: dict[str, str]) -> None:
        self.sandbox = sandbox
        self.api: SellApi = sandbox.sell
        self.client = basecrm.Client(
            access_token=environment["SELL_ACCESS_TOKEN"], base_url=environment["SELL_API_URL"]
        )
        self.uuid = environment["SELL_DEVICE_UUID"]

    def fetch(self, answer: Any = basecrm.Sync.ACK) -> list[tuple[Any, Any]]:
        """The whole flow as its documentation shows it."""
        seen: list[tuple[Any, Any]] = []

        def callback(meta: Any, data: Any) -> Any:
            seen.append((meta, data))
            return answer

        basecrm.Sync(client=self.client, device_uuid=self.uuid).fetch(callback)
        return seen


@pytest.fixture(autouse=True)
def process_wide_debugging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its own tests switch debug output on for the whole process; the tests that follow shall not meet it."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 0)
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
def official() -> Iterator[Official]:
    options = {"records": 60, "page_size": 7, "limit_per_second": None}
    sandbox = Sandbox(seed=3, apis=["sell"], clock=SandboxClock.running(), sell=options)
    with SandboxServer(sandbox) as server:
        yield Official(sandbox, server.environment())


def test_it_is_the_release_that_everybody_installs() -> None:
    assert version("basecrm") == "1.2.9"


def test_it_completes_its_flow(official: Official) -> None:
    seen = official.fetch()
    truth = official.api.truth()
    assert Counter(f"{meta.type}s" for meta, _ in seen) == Counter(
        {kind: len(rows) for kind, rows in truth.items()}
    )
    leads = {data.id: data for meta, data in seen if meta.type == "lead"}
    assert leads == {lead["id"]: lead for lead in truth["leads"]}
    assert all(meta.sync.event_type == "created" for meta, _ in seen)
    assert official.fetch() == []
    assert official.sandbox.log.matching(path="/v2/sync/start")[-1].status == 204


def test_it_gets_updates_and_deletes(official: Official) -> None:
    official.fetch()
    leads = list(official.api.world.live("lead"))
    official.api.world.update("lead", leads[0].id, {"first_name": "Renamed"})
    official.api.world.delete("lead", leads[1].id)
    seen = {data.id: (meta.sync, data) for meta, data in official.fetch()}
    assert seen[int(leads[0].id)][0].event_type == "updated"
    assert seen[int(leads[0].id)][1].first_name == "Renamed"
    assert seen[int(leads[1].id)][0].event_type == "deleted"
    assert seen[int(leads[1].id)][0].revision == 0
    assert dict(seen[int(leads[1].id)][1]) == {"id": int(leads[1].id)}


def test_what_it_does_not_acknowledge_comes_again_in_a_later_session(official: Official) -> None:
    first = official.fetch(basecrm.Sync.NACK)
    assert official.api.sync.acks == []
    again = official.fetch()
    assert len(again) == len(first)
    assert official.fetch() == []


def test_it_stops_at_an_empty_page_as_the_fact_sheet_says(official: Official) -> None:
    official.api.switch(empty_every=2)
    seen = official.fetch()
    assert len(seen) == 7
    official.api.switch(empty_every=0)
    assert len(official.fetch()) == sum(1 for _ in official.api.world.live()) - 7


def test_it_understands_the_errors(official: Official) -> None:
    for status, kind in ((401, "RequestError"), (422, "ResourceError"), (500, "ServerError")):
        official.api.refuse(status, path="/v2/sync/start")
        with pytest.raises(getattr(basecrm.errors, kind)) as caught:
            official.fetch()
        assert caught.value.logref
    official.api.refuse(429, path="/v2/sync/start")
    with pytest.raises(basecrm.RateLimitError):
        official.fetch()


def test_it_reads_the_core_api(official: Official) -> None:
    leads = official.client.leads.list(page=1, per_page=3, sort_by="id")
    assert len(leads) == 3
    assert official.client.leads.retrieve(leads[0].id).last_name == leads[0].last_name
    assert official.client.accounts.self().name == "Example Ltd"
    assert len(official.client.pipelines.list()) == 2
    assert (
        len(official.client.stages.list(ids=",".join(str(s.id) for s in official.client.stages.list()[:2])))
        == 2
    )
    with pytest.raises(basecrm.RequestError):
        official.client.leads.retrieve(1)


def test_its_own_sync_tests_pass(official: Official, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASECRM_ACCESS_TOKEN", official.api.token)
    names = ["basecrm.test.test_sync", "basecrm.test.test_sync_service"]
    # They have the token printed that they are given.
    with contextlib.redirect_stdout(io.StringIO()):
        result = unittest.TextTestRunner(stream=io.StringIO()).run(
            unittest.defaultTestLoader.loadTestsFromNames(names)
        )
    assert result.testsRun > 0
    assert result.wasSuccessful()
