"""Reference syncs of the Sell queue: a first drain, changes of every kind, looks, a new device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sell.device import read_device
from rally_pipeline.settings import DeleteMode
from tests.sell.world import Crash, World
from tests.simulation.script import Passage, Reference
from tests.simulation.sell.history import ObservedWorld
from tests.simulation.sell.visible import VisibleStates
from tests.simulation.storage import quick_storage

Life = Callable[[World], None]
"""What one process does from its beginning to its end."""


def _first_drain_and_changes(world: World) -> None:
    """A first sync and a second one with deletes, a revival, a failed object and an old state."""
    world.catch_up()
    _change_once(world)
    world.catch_up()


def _full_resend(world: World) -> None:
    """A first sync, then a new device: everything again, and a sweep of what did not come."""
    _use_stored_device(world)
    world.catch_up()
    _change_once(world)
    if _stored_lineage(world) == 1:
        world.mirror.new_device()
        _use_stored_device(world)
    world.catch_up()


def _use_stored_device(world: World) -> None:
    """The operator puts the new UUID, which every refusal names, into the settings: another client."""
    with world.warehouse.reading() as tx:
        device = read_device(tx)
    if device is not None and device.uuid != world.uuid:
        world.close()
        world.uuid = device.uuid
        world.open()


def _stored_lineage(world: World) -> int:
    with world.warehouse.reading() as tx:
        device = read_device(tx)
    return 1 if device is None else device.lineage


def _change_once(world: World) -> None:
    """The account changes, once, whatever became of the process that saw it first."""
    account, sync = world.api.world, world.api.sync
    if any(len(thing.versions) > 1 for thing in account.things.values()):
        return
    leads, contacts = list(account.live("lead")), list(account.live("contact"))
    account.delete(*leads[0].reference)
    account.delete(*contacts[0].reference)
    account.revive(*contacts[0].reference)
    account.update(*contacts[-1].reference)
    account.create("deal", {})
    account.update(*leads[1].reference)
    sync.redeliver(leads[1])
    sync.failing[leads[1].reference] = 1
    account.update(*next(account.live("stage")).reference)


def _reference(life: Life, policy: Mapping[str, Any], **options: Any) -> Reference:
    # A server that forgets a failed object at once loses it with a page that was never committed.
    given = {"records": 36, "page_size": 12, "limit_per_second": None, "redeliver_failed": True, **options}

    def live(folder: Path, crashes: Sequence[int]) -> Passage:
        with quick_storage(0):
            sandbox = Sandbox(seed=1, apis=["sell"], sell=given)
            file = folder / "warehouse.db"
            world = ObservedWorld(f"sqlite:///{file}", sandbox, home=folder / "home", **policy)
            visible = VisibleStates(file, world.api.world)
            world.on_commit = visible.look
            try:
                return _passage(world, visible, life, crashes)
            finally:
                visible.close()
                world.close()

    return live


def _passage(world: World, visible: VisibleStates, life: Life, crashes: Sequence[int]) -> Passage:
    lived: list[int] = []
    names: tuple[str, ...] = ()
    for crash in (*crashes, 0):
        before = len(world.steps)
        if crash:
            world.crash_at(crash)
        with suppress(Crash):  # the next process begins from the beginning
            life(world)
        lived.append(len(world.steps) - before)
        names = names or tuple(world.steps[before:])
        world.reopen()
    world.catch_up()
    sync = world.api.sync
    world.clock.advance(60)
    sync.settle(world.clock.now())
    left = [str(thing) for thing in sync.pending(sync.devices[world.uuid])]
    differences = [*world.differences(), *world.unsettled(), *visible.problems]
    if left:
        differences.append(f"{len(left)} objects are not acknowledged")
    # Only a crash between a start and the note of it can leave a session behind.
    if len(sync.active(world.clock.now())) > len(crashes):
        differences.append(f"{len(sync.active(world.clock.now()))} sessions are left open")
    return Passage(tuple(lived), names, tuple(differences))


REFERENCES: dict[str, Reference] = {
    "drain": _reference(_first_drain_and_changes, {}),
    "fixed-states": _reference(
        _first_drain_and_changes,
        {"delete_mode": DeleteMode.SOFT},
        page_size=6,
        fixed_at="start",
        duplicate_share=0.3,
        empty_every=3,
    ),
    "lag": _reference(
        _first_drain_and_changes, {"staleness_seconds": 25}, lag_seconds=20.0, ack_delay_seconds=20.0
    ),
    "new-device": _reference(_full_resend, {}),
}
"""By name; each is a whole life of a warehouse."""
