"""The simulated tenant, and how it changes: each change is decided by its own seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any

import msgspec

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.rally.errors import RallyError
from tests.simulation.rally.settings import switches_of


class Source:
    """One tenant in a sandbox on a virtual clock, with every state that it ever had."""

    def __init__(self, seed: int, settings: Mapping[str, Any]) -> None:
        records = {"contacts": 0, "companies": 0, "deals": 0, "activities": 0, **settings["records"]}
        self.sandbox = Sandbox(
            seed=seed,
            records=records,
            keep_history=True,
            request_seconds=settings["request_seconds"],
            limit_per_minute=settings["limit_per_minute"],
            apis=["rally"],
            rally=switches_of(settings),
        )
        self.api = self.sandbox.rally
        self.entities = tuple(settings["records"])
        self._order = settings["list_order"]
        self._latest = settings["late_seconds"]

    def change(
        self,
        *,
        kind: str,
        entity: str,
        seed: int,
        n: int = 1,
        first: bool = False,
        over: float = 0.0,
        late: list[float] | None = None,
    ) -> None:
        """`n` changes of one kind, `over` so many seconds (0: all at the same moment).

        `first`: of the records that lists show first, else of any. `late`: how late the entries of the parts of the
        change appear, in turn (never beyond the bound). Kinds: insert, update, delete, revive, and reborn (a delete,
        then the same id again).
        """
        dice = Random(seed)
        self._reseed(seed)
        lateness = iter([min(seconds, self._latest) for seconds in late or ()] * (2 * n))
        for number, entity_id in enumerate(self._chosen(kind, entity, n, first, dice)):
            if over and number:
                self.sandbox.clock.advance(over / n)
            parts = ("delete", "revive") if kind == "reborn" else (kind,)
            for part in parts:
                with self._entry_late(next(lateness, None)):
                    self._change_one(part, entity, entity_id)

    def _chosen(self, kind: str, entity: str, n: int, first: bool, dice: Random) -> list[str]:
        """Ids to change; empty texts for inserts."""
        if kind == "insert":
            return [""] * n
        if kind == "revive":
            ids = sorted(self.api.store.deleted[entity])
            return dice.sample(ids, min(n, len(ids)))
        if first:
            return self._listed(entity)[:n]
        ids = self.api.ids(entity)
        if kind in ("delete", "reborn"):
            return dice.sample(ids, min(n, len(ids)))
        return [dice.choice(ids) for _ in range(n)] if ids else []

    def _listed(self, entity: str) -> list[str]:
        field = self._order.removeprefix("-")
        ids = [record.id for record in self.api.store.collections[entity].view(field)]
        return ids[::-1] if self._order.startswith("-") else ids

    def _change_one(self, part: str, entity: str, entity_id: str) -> None:
        api = self.api
        try:
            if part == "insert":
                api.mutator.mutate(1, {"insert": 1.0}, entities=[entity])
            elif part == "update":
                api.update(entity, entity_id, api.mutator._inventor.change(entity))
            elif part == "delete":
                api.delete(entity, entity_id)
            else:
                api.revive(entity, entity_id)
        except RallyError:
            # The product would refuse it too (an address that is taken, a record that is gone): nothing happens.
            return

    @contextmanager
    def _entry_late(self, seconds: float | None) -> Iterator[None]:
        """The entries made meanwhile appear exactly so late; None: as the switches say."""
        feed = self.api.store.feed
        before = feed.switches
        if seconds is not None:
            feed.switches = msgspec.structs.replace(
                before, feed_delay_seconds=float(seconds), late_seconds=0.0
            )
        try:
            yield
        finally:
            feed.switches = before

    def _reseed(self, seed: int) -> None:
        """What the sandbox decides by dice from here on follows from the event's seed, whatever came before."""
        api = self.api
        parts = (api.store, api.store.feed, api.writer, api.mutator, api.mutator._inventor, api.lists)
        for number, part in enumerate(parts):
            dice = part.__dict__.get("_dice") or part.__dict__["dice"]
            dice.seed(seed * 10 + number)
