"""How long a user waits until the changes are in the warehouse: the sandbox, its rate limit, and a virtual clock."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from rally_pipeline.http.budget import HeaderBudget
from rally_pipeline.http.client import HttpClient
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.mirror import RallyMirror
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.transport import SandboxTransport
from rally_pipeline.warehouse import Warehouse

_URL = "http://127.0.0.1"
_BASE = "/rally/api/v1"


@dataclass(frozen=True)
class Waiting:
    """Seconds of virtual time, requests, and refusals (429) of one way to follow the feed."""

    seconds: float
    requests: int
    refused: int
    lost: int = 0
    """Changes that were never seen."""


class LimitedTenant:
    """A tenant with `rows` contacts, 1,000 requests a minute, and a clock that only requests and sleeps move."""

    def __init__(self, rows: int, latency: float) -> None:
        self.clock = SandboxClock(datetime(2026, 3, 2, 8, 0, tzinfo=UTC))
        counts = {"contacts": rows, "companies": 0, "deals": 0, "activities": 0}
        self.sandbox = Sandbox(
            seed=1, records=counts, clock=self.clock, limit_per_minute=None, apis=["rally"], log_limit=None
        )
        self._latency = latency
        self._key = self.sandbox.environment(_URL)["RALLY_API_KEY"]

    def change(self, changed: int, entries: int) -> None:
        """`entries` updates over `changed` records, over the last quarter of an hour."""
        ids = self.sandbox.rally.ids("contacts")[
            :: max(1, self.sandbox.rally.counts()["contacts"] // changed)
        ]
        for number in range(entries):
            self.clock.advance(900 / entries)
            self.sandbox.rally.update("contacts", ids[number % changed], {"title": f"Title {number}"})

    def limit(self) -> None:
        """From now on requests take time and are counted."""
        self.sandbox.request_seconds = self._latency
        self.sandbox.rally.switch(limit_per_minute=1_000)

    def mirror(self, folder: Path) -> RallyMirror:
        """This package's mirror on this tenant's clock, with the default policy."""
        http = HttpClient(
            system="rally",
            base_url=_URL + _BASE,
            headers={"X-Api-Key": self._key},
            transport=SandboxTransport(self.sandbox),
            budget=HeaderBudget(clock=self.clock),
            clock=self.clock,
            random=Random(1),
        )
        warehouse = Warehouse.open(f"sqlite:///{folder / 'warehouse.db'}", clock=self.clock)
        # One thread: two would move the virtual clock at once, each for itself.
        policy = MirrorPolicy(prefetch=False, single_threads=1)
        mirror = RallyMirror(warehouse, RallyClient(http, clock=self.clock), policy, clock=self.clock)
        mirror.prepare()
        return mirror

    def measure(self, before: datetime, lost: int = 0) -> Waiting:
        """What happened since `before`."""
        log = [entry for entry in self.sandbox.log if entry.at >= before]
        refused = sum(entry.status == 429 for entry in log)
        return Waiting((self.clock.now() - before).total_seconds(), len(log), refused, lost)

    def get(self, path: str) -> Any:
        """A GET as a plain script sends it: after a 429 it sleeps as long as the server says."""
        while True:
            call = self.sandbox.call("GET", _BASE + path, {"X-Api-Key": self._key})
            answer = self.sandbox.handle(call)
            if answer.status != 429:
                return msgspec.json.decode(answer.body)
            admission = answer.headers
            reset = int(admission["X-RateLimit-Reset"])
            self.clock.advance(max(0.0, reset - self.clock.now().timestamp()))


def wait_for_ours(rows: int, changed: int, entries: int, latency: float) -> Waiting:
    """Until every mark is settled."""
    tenant = LimitedTenant(rows, latency)
    with tempfile.TemporaryDirectory() as folder:
        mirror = tenant.mirror(Path(folder))
        mirror.extract(Entity.CONTACTS)
        tenant.change(changed, entries)
        tenant.limit()
        began = tenant.clock.now()
        mirror.read_changes()
        mirror.settle(Entity.CONTACTS)
        mirror.warehouse.close()
    return tenant.measure(began)


def wait_for_documented(rows: int, changed: int, entries: int, latency: float) -> Waiting:
    """Until every change has been looked at; what is done with the records takes no time at all."""
    tenant = LimitedTenant(rows, latency)
    since = tenant.clock.now()
    tenant.change(changed, entries)
    tenant.limit()
    began = tenant.clock.now()
    cursor = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    seen: set[int] = set()
    while True:
        page = tenant.get(f"/sync/changes?since={cursor}&limit=1000")
        fresh = [entry for entry in page if entry["id"] not in seen]
        for entry in fresh:
            tenant.get(f"/contacts/{entry['entityId']}")
            seen.add(entry["id"])
        if len(page) < 1_000:
            break
        cursor = page[-1]["changedAt"]
    return tenant.measure(began, lost=entries - len(seen))
