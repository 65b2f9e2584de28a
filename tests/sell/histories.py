"""Random histories: an account that changes, a queue that misbehaves, a process that dies; then calm, and a look."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import msgspec

from rally_pipeline.http.errors import ApiError
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.tables import ENTITY_TABLES
from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse import WarehouseError
from tests.sell.world import Crash, World, comparable, expected

STEPS = 14
FAULTS = ("lost_answer", "cut_close_delimited", "applied_500", "html_200", "status_503", "cut_chunked")


class History:
    """One history; the same seed tells the same one."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.dice = dice = Random(seed)
        lag = dice.choice((0, 0, 20))
        options: dict[str, Any] = {
            "records": 30,
            "page_size": dice.choice((1, 3, 7, 40)) if dice.random() < 0.5 else 9,
            "shuffle": dice.random() < 0.8,
            "duplicate_share": dice.choice((0.0, 0.3)),
            "fixed_at": dice.choice(("start", "fetch")),
            "grows": dice.random() < 0.3,
            "ack_delay_seconds": dice.choice((0, 0, 20, 200)),
            "empty_every": dice.choice((0, 0, 3)),
            "redeliver_failed": True,
            "lag_seconds": lag,
            "limit_per_second": None,
        }
        policy = {
            "staleness_seconds": 25 if lag else 0,
            "delete_mode": dice.choice(list(DeleteMode)),
        }
        sandbox = Sandbox(seed=seed, apis=["sell"], sell=options)
        self.world = World(f"sqlite:///{folder}/{seed}.db", sandbox, **policy)
        self.problems: list[str] = []

    def play(self) -> list[str]:
        """Everything that went wrong; empty for a good history."""
        # An old state says `updated`, which in an unfinished first sync is taken for a device used elsewhere.
        while self.world.mirror.status().synced_through is None:
            self.survive(self.world.drain)
            self.world.clock.advance(5)
        for _ in range(STEPS):
            self.step()
        self.calm_down()
        self.problems += self.world.differences() + self.world.unsettled()
        self.world.close()
        return self.problems

    def step(self) -> None:
        """One event, chosen at random."""
        world, dice = self.world, self.dice
        event = dice.choices(
            (
                self.change,
                self.drain,
                self.settle,
                self.repeat_old_state,
                self.fail_object,
                self.break_something,
            ),
            weights=(5, 5, 2, 2, 1, 2),
        )[0]
        event()
        if dice.random() < 0.5:
            world.clock.advance(dice.randrange(1, 40))

    def change(self) -> None:
        """The account changes; now and then an object goes and comes back at once."""
        things = self.world.api.world
        things.mutate(self.dice.randrange(1, 6))
        if self.dice.random() < 0.3:
            thing = self.dice.choice(list(things.live("lead")) or list(things.live("user")))
            things.delete(*thing.reference)
            if self.dice.random() < 0.5:
                things.revive(*thing.reference)

    def drain(self) -> None:
        """A drain, which may die."""
        if self.dice.random() < 0.5:
            self.world.crash_at(self.dice.randrange(1, 60))
        self.survive(self.world.drain)
        self.check_states()

    def settle(self) -> None:
        """Looks, during which the process may die."""
        if self.dice.random() < 0.3:
            self.world.crash_at(self.dice.randrange(1, 20))
        wait = self.dice.random() < 0.5
        self.survive(lambda: self.world.settle(wait=wait))

    def repeat_old_state(self) -> None:
        """A session of long ago delivers a state that is over."""
        world = self.world.api.world
        old = [thing for thing in world.things.values() if len(thing.versions) > 1]
        if old:
            thing = self.dice.choice(old)
            self.world.api.sync.redeliver(thing, back=self.dice.randrange(1, len(thing.versions)))

    def fail_object(self) -> None:
        """An object cannot be loaded the next time."""
        thing = self.dice.choice(list(self.world.api.world.live()))
        self.world.api.sync.failing[thing.reference] = 1

    def break_something(self) -> None:
        """The next few calls meet a fault."""
        path = self.dice.choice(("/v2/sync/*/queues/main", "/v2/sync/ack", "/v2/sync/start", "/v2/leads*"))
        self.world.sandbox.faults.add(
            self.dice.choice(FAULTS), api="sell", path=path, times=self.dice.randrange(1, 4)
        )

    def survive(self, work: Any) -> None:
        """Do it; if the process dies or gives up, start another one."""
        self.world.commits_to_fail = self.dice.choice((0, 0, 0, 1))
        try:
            work()
        except Crash:
            self.world.reopen()
        except ApiError:
            self.world.clock.advance(30)
        except WarehouseError:
            self.world.clock.advance(1)
        self.world.commits_to_fail = 0
        self.world._crash_at = None

    def calm_down(self) -> None:
        """Faults stop and the account rests: two cycles have to be enough."""
        world = self.world
        world.sandbox.faults.clear()
        world.api.switch(ack_delay_seconds=0, empty_every=0, duplicate_share=0.0, grows=False)
        world.clock.advance(600)
        for _ in range(2):
            world.catch_up()
            world.clock.advance(60)

    def check_states(self) -> None:
        """Every stored row is a state that the account really had."""
        known: dict[tuple[Entity, str], list[dict[str, Any]]] = {}
        for thing in self.world.api.world.things.values():
            entity = Entity.of_singular(thing.kind)
            if entity is not None:
                states = [msgspec.json.decode(version.data) for version in thing.versions if version.data]
                known[entity, thing.id] = [expected(entity, state) for state in states]
        for entity in Entity:
            for row in self.world.rows(ENTITY_TABLES[entity]):
                stored = comparable(row)
                states = known[entity, str(row["id"])]
                if not any(all(stored[name] == value for name, value in state.items()) for state in states):
                    self.problems.append(f"{entity} {row['id']} holds a state that never was")
