"""One process that works on the mirror: the real engines with a hook at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from rally_pipeline.http.budget import HeaderBudget
from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.transport import Limits
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.mirror import RallyMirror
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.transport import SandboxTransport
from rally_pipeline.warehouse import Warehouse
from tests.rally.world import Crash, World

BASE_URL = "http://127.0.0.1/rally/api/v1"
LIMITS = Limits(max_body_bytes=1_000_000)
"""A small cap on answers, so that a body that breaks it costs little to make."""


class Process(World):
    """A World whose process stays dead once it has died: what would run on the way out, such as giving a lease back,
    does not happen.
    """

    def __init__(
        self,
        url: str,
        sandbox: Sandbox,
        *,
        hook: Callable[[Process, str], None],
        entities: Sequence[Entity],
        skew_seconds: float = 0.0,
        seed: int = 1,
        **policy: Any,
    ) -> None:
        self._hook = hook
        self._entities = entities
        self.skew_seconds = skew_seconds
        self._seed = seed
        self.dead = False
        self.lives = 0
        super().__init__(url, sandbox, **policy)

    def open(self) -> None:
        """Begin a new life: new client, new warehouse handle, same database."""
        self.dead = False
        self.lives += 1
        self.local_clock = clock = self.sandbox.clock.skewed(self.skew_seconds)
        self.warehouse = Warehouse.open(self.url, clock=clock, step=self.step)
        self.http = HttpClient(
            system="rally",
            base_url=BASE_URL,
            headers={"X-Api-Key": self.sandbox.rally.keys.secret("read")},
            transport=SandboxTransport(self.sandbox),
            budget=HeaderBudget(clock=clock),
            clock=clock,
            random=Random(self._seed * 1000 + self.lives),
            step=self.step,
            limits=LIMITS,
        )
        self.mirror = RallyMirror(
            self.warehouse, RallyClient(self.http, clock=clock), self.policy, clock=clock
        )
        self.mirror.prepare()

    def step(self, name: str) -> None:
        """The hook of every call and commit."""
        if self.dead:
            raise Crash(name)
        self._hook(self, name)

    def keep_time(self, seconds: float) -> None:
        """The server's clock was put back by so much; the local one goes on."""
        self.skew_seconds += seconds
        self.local_clock.skew_seconds += seconds

    def die(self, name: str) -> None:
        """End here.

        Raises:
            Crash: always.
        """
        self.dead = True
        raise Crash(name)

    def restart(self) -> None:
        """A new process in the place of this one."""
        self.warehouse.close()
        self.open()

    @property
    def in_transaction(self) -> bool:
        """Whether a write transaction is open."""
        return bool(getattr(self.warehouse._sessions._local, "writing", False))

    def parts_of_cycle(self) -> list[Callable[[], object]]:
        """A full cycle as an orchestrator runs it, each part on its own: extracts that are due, the feed, the looks."""
        due = [entity for entity in self._entities if self.mirror.snapshot_required(entity)]
        parts: list[Callable[[], object]] = [lambda e=entity: self.mirror.extract(e) for entity in due]  # type: ignore[misc]
        parts.append(self._read_feed)
        parts += [lambda e=entity: self._settle(e) for entity in Entity]  # type: ignore[misc]
        return parts

    def _settle(self, entity: Entity) -> None:
        """An entity without records is looked at only where an odd entry of the feed named it."""
        if entity in self._entities or any(mark[0] == entity.singular for mark in self.marks()):
            self.mirror.settle(entity)

    def _read_feed(self) -> None:
        if self.mirror.read_changes().snapshot_required:
            for entity in self._entities:
                self.mirror.extract(entity)
