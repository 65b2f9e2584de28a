"""Plays one history of the Sell queue with the real engines."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from rally_pipeline.http.errors import ApiError
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.sell.errors import RefusalError
from rally_pipeline.sandbox.sell.sessions import Device
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.errors import DeviceMismatch
from rally_pipeline.sell.results import DrainResult
from rally_pipeline.sell.tables import ENTITY_TABLES, failed_objects, queue_items, suspects, tombstones
from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse import WarehouseError
from tests.sell.world import Crash, World
from tests.simulation.script import Event, Script, Verdict, digest_of
from tests.simulation.sell.generator import DEFAULTS
from tests.simulation.sell.visible import VisibleStates
from tests.simulation.storage import dump, quick_storage

ACCOUNT_OPTIONS = (
    "page_size", "shuffle", "duplicate_share", "older_share", "fixed_at", "grows", "counts_lie",
    "ack_delay_seconds", "ack_limit", "empty_every", "session_limit", "limit_per_second", "lag_seconds",
)  # fmt: skip
DUMPED = (*ENTITY_TABLES.values(), queue_items, suspects, failed_objects, tombstones)
MOST_CYCLES = 6


def play(script: Script, folder: Path) -> Verdict:
    """Play the events, then let everything rest and compare."""
    with quick_storage(script.seed):
        history = History(script, folder)
        try:
            return history.play()
        finally:
            history.close()


class ObservedWorld(World):
    """A world that is looked at after each commit, and in which a second process may come between."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self.on_commit: Callable[[], None] | None = None
        self.between: tuple[int, Callable[[], None]] | None = None
        super().__init__(*given, **options)

    def step(self, name: str) -> None:
        if self.on_commit is not None and name.endswith((".page:after-commit", ".look:after-commit")):
            self.on_commit()
        super().step(name)
        # Never within a transaction: there the second process would wait in real time for the database's lock.
        if self.between is not None and len(self.steps) >= self.between[0] and not name.endswith("-commit"):
            (_, action), self.between = self.between, None
            action()

    def let_go(self) -> None:
        """Nothing is planned any more for this process."""
        self._crash_at = None
        self.commits_to_fail = 0
        self.between = None


class History:
    """One account, one warehouse, and what happens to them."""

    def __init__(self, script: Script, folder: Path) -> None:
        self.script = script
        self.folder = folder
        settings = {**DEFAULTS, **script.settings}
        options = {name: settings[name] for name in ACCOUNT_OPTIONS}
        # A server that forgets a failed object at once loses it with a page that was never committed.
        options |= {"records": settings["objects"], "redeliver_failed": True}
        guard = {"guard_absolute": 1, "guard_share": 0.0} if settings["guard"] else {}
        lag = settings["lag_seconds"]
        self.sandbox = Sandbox(seed=script.seed, apis=["sell"], sell=options)
        self.file = folder / "warehouse.db"
        self.backup = folder / "backup.db"
        self.world = ObservedWorld(
            f"sqlite:///{self.file}",
            self.sandbox,
            home=folder / "home",
            staleness_seconds=lag + 5 if lag else 0,
            delete_mode=DeleteMode(settings["delete_mode"]),
            **guard,
        )
        self.account = self.world.api.world
        self.visible = VisibleStates(self.file, self.account)
        self.world.on_commit = self.visible.look
        self.crashes = 0
        self.problems: list[str] = []
        self.was_restored = False

    def close(self) -> None:
        self.visible.close()
        self.world.close()

    def play(self) -> Verdict:
        for event in self.script.events:
            self.happen(event)
        self.calm_down()
        world = self.world
        problems = [*self.problems, *self.visible.problems, *world.differences(), *world.unsettled()]
        left = self.world.api.sync.pending(self.device())
        problems += [f"{len(left)} objects are not acknowledged"] if left else []
        requests = (f"{entry.method} {entry.path} {entry.query} {entry.status}" for entry in self.sandbox.log)
        digest = digest_of(requests, dump(self.file, DUMPED))
        return Verdict(problems, digest, self.sandbox.log.total, self.crashes, len(world.steps))

    def device(self) -> Device:
        """What the server knows of the present device."""
        devices: dict[str, Device] = self.world.api.sync.devices
        return devices.setdefault(self.world.uuid, Device(self.world.uuid, self.account.revision))

    # ------------------------------------------------------------------ events

    def happen(self, event: Event) -> None:
        """Play one event."""
        arguments = event.arguments
        if "seed" in arguments:
            self.world.api._dice.seed(arguments["seed"])
        handler: Callable[[Mapping[str, Any], Random], None] = getattr(self, f"on_{event.name}")
        handler(arguments, Random(arguments.get("seed", 0)))

    def on_change(self, arguments: Mapping[str, Any], _dice: Random) -> None:
        self.account.mutate(arguments["count"])

    def on_delete(self, arguments: Mapping[str, Any], dice: Random) -> None:
        """An object goes; `back`: and comes back at once."""
        kind = dice.choice(("lead", "contact", "deal", "note", "task"))
        present = list(self.account.live(kind))
        if present:
            thing = dice.choice(present)
            self.account.delete(*thing.reference)
            if arguments["back"]:
                self.account.revive(*thing.reference)

    def on_configure(self, arguments: Mapping[str, Any], dice: Random) -> None:
        """Types that no random change touches: stages, pipelines, sources, users."""
        for _ in range(arguments["count"]):
            kind = dice.choice(("stage", "pipeline", "source", "user", "loss_reason"))
            present = list(self.account.live(kind))
            if kind in ("stage", "source") and dice.random() < 0.4:
                self.account.create(kind, {})
            elif kind == "stage" and len(present) > 2 and dice.random() < 0.3:
                self.account.delete(*dice.choice(present).reference)
            elif present:
                self.account.update(*dice.choice(present).reference)

    def on_drain(self, arguments: Mapping[str, Any], _dice: Random) -> None:
        self.plan(arguments)
        result = self.survive(self.world.drain)
        if isinstance(result, DrainResult) and result.synced_through is not None and not result.sweep_held:
            self.visible.check_complete(result.synced_through)

    def on_settle(self, arguments: Mapping[str, Any], _dice: Random) -> None:
        self.plan(arguments)
        self.survive(lambda: self.world.settle(wait=arguments["wait"]))

    def on_old_state(self, arguments: Mapping[str, Any], dice: Random) -> None:
        """A session of long ago delivers a state that this device has acknowledged since; or an older one yet."""
        memory = self.device().memory
        old = []
        for thing in self.account.things.values():
            acknowledged = memory.get(thing.reference, 0)
            backs = [
                back
                for back in range(1, len(thing.versions))
                if thing.versions[-1 - back].data is not None
                and thing.versions[-1 - back].number <= acknowledged
            ]
            if backs and (not arguments["deleted"] or not thing.is_live):
                old.append((thing, backs))
        if old:
            thing, backs = dice.choice(old)
            self.world.api.sync.redeliver(thing, back=dice.choice(backs))

    def on_failed_object(self, arguments: Mapping[str, Any], dice: Random) -> None:
        """An object of a known type cannot be loaded; of another type nobody could look at it afterwards."""
        known = [thing for thing in self.account.live() if Entity.of_singular(thing.kind) is not None]
        self.world.api.sync.failing[dice.choice(known).reference] = arguments["times"]

    def on_fault(self, arguments: Mapping[str, Any], _dice: Random) -> None:
        chosen = {name: arguments[name] for name in ("path", "after", "times")}
        self.sandbox.faults.add(arguments["fault"], api="sell", **chosen)

    def on_outage(self, arguments: Mapping[str, Any], _dice: Random) -> None:
        """The server is away for a while, and two drains meet that."""
        transport: Any = self.world.http._transport
        if arguments["refused"]:
            transport.refusing = True
        else:
            self.sandbox.faults.add("status_503", api="sell", times=None, for_seconds=arguments["seconds"])
        self.survive(self.world.drain)
        self.world.clock.advance(arguments["seconds"])
        transport.refusing = False

    def on_lose_sessions(self, _arguments: Mapping[str, Any], _dice: Random) -> None:
        self.world.api.sync.sessions.clear()

    def on_open_sessions(self, arguments: Mapping[str, Any], _dice: Random) -> None:
        """Sessions that nobody drains: what a crash loop without memory would leave."""
        for _ in range(min(arguments["count"], self.world.api.options.session_limit)):
            try:
                self.world.api.sync.start(self.world.uuid, self.world.clock.now())
            except RefusalError:
                return

    def on_second_drain(self, arguments: Mapping[str, Any], dice: Random) -> None:
        """In the middle of a drain another process drains; with a pause, after the first one's lease ran out."""
        self.world.between = (
            len(self.world.steps) + arguments["at"],
            lambda: self.drain_beside(arguments["pause"]),
        )
        self.on_drain({}, dice)

    def drain_beside(self, pause: float) -> None:
        self.world.clock.advance(pause)
        second = World(self.world.url, self.sandbox, uuid=self.world.uuid, home=self.world.home)
        second.mirror._policy = self.world.policy
        try:
            second.drain()
        except (ApiError, WarehouseError, DeviceMismatch):
            pass  # refused the lease, or met what the first one would have met
        finally:
            second.close()

    def on_second_warehouse(self, _arguments: Mapping[str, Any], _dice: Random) -> None:
        """Somebody points another warehouse of this machine at the same device."""
        claims = self.folder / "home" / "sell-devices"
        if not (claims / f"{self.world.uuid}.json").exists():
            return
        url = f"sqlite:///{self.folder / 'second.db'}"
        second = World(url, self.sandbox, uuid=self.world.uuid, home=self.world.home)
        try:
            second.drain()
        except (ApiError, WarehouseError, DeviceMismatch):
            pass  # DeviceMismatch is what has to come; if it does not, the first warehouse will miss something
        finally:
            second.close()

    def on_backup(self, _arguments: Mapping[str, Any], _dice: Random) -> None:
        self.world.close()
        self.visible.close()
        shutil.copyfile(self.file, self.backup)
        self.world.reopen()

    def on_restore(self, arguments: Mapping[str, Any], _dice: Random) -> None:
        """The backup is put back: into the same file, or as a new file in its place."""
        if not self.backup.exists():
            return
        self.world.close()
        self.visible.close()
        for log in self.folder.glob("warehouse.db-*"):
            log.unlink()
        if arguments["in_place"]:
            shutil.copyfile(self.backup, self.file)
        else:
            shutil.copyfile(self.backup, self.folder / "restored.db")
            (self.folder / "restored.db").replace(self.file)
        self.visible.forget()
        self.was_restored = True
        self.world.reopen()

    def on_wait(self, arguments: Mapping[str, Any], _dice: Random) -> None:
        self.world.clock.advance(arguments["seconds"])

    # ------------------------------------------------------------------ processes

    def plan(self, arguments: Mapping[str, Any]) -> None:
        """What is to befall the process that begins now."""
        if arguments.get("crash"):
            self.world.crash_at(arguments["crash"])
        self.world.commits_to_fail = arguments.get("fail_commit", 0)

    def survive(self, work: Callable[[], object]) -> object:
        """Do it; if the process dies or gives up, start another one. None unless it came to its end."""
        try:
            return work()
        except Crash:
            self.crashes += 1
            self.world.reopen()
        except DeviceMismatch as error:
            self.choose_new_device(error)
        except ApiError:
            self.world.clock.advance(30)
        except WarehouseError:
            self.world.clock.advance(1)
        finally:
            self.world.let_go()
        return None

    def choose_new_device(self, refusal: DeviceMismatch) -> None:
        """The choice that a person has after a restored backup. In any other case nobody should have to choose."""
        if not self.was_restored:
            self.problems.append(f"refused without a reason: {str(refusal)[:120]}")
        self.world.let_go()
        self.world.reopen(uuid=self.world.mirror.new_device().uuid)
        # What an old session delivers, it delivers to the old device.
        self.device().injected.update(item.number for item in self.world.api.sync.injected)

    def calm_down(self) -> None:
        """Faults stop and the account rests: two cycles have to be enough.

        Some more where a person is asked, and for an object that nobody announced as deleted: it has to be missed by
        several runs.
        """
        world = self.world
        self.sandbox.faults.clear()
        world.api.sync.failing.clear()
        calm = {
            "ack_delay_seconds": 0,
            "empty_every": 0,
            "duplicate_share": 0.0,
            "older_share": 0.0,
            "grows": False,
        }
        world.api.switch(**calm, session_limit=100)
        world.clock.advance(4_000)
        cycles = 0
        for _ in range(MOST_CYCLES):
            try:
                result = world.catch_up()
            except DeviceMismatch as error:
                self.choose_new_device(error)
                continue
            world.clock.advance(60)
            cycles += 1
            if result.sweep_held:
                world.mirror.allow_sweep(result.unresent)
            elif cycles >= 2 and not self._is_missed():
                return

    def _is_missed(self) -> bool:
        """Whether an open object waits for more runs that do not find it."""
        return any(row["absences"] for table in (suspects, failed_objects) for row in self.world.rows(table))
