"""Each invariant of the Sell drain, broken on purpose: the run stops, names it, and leaves nothing of the page."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.sell import apply, drain, landing, marks
from rally_pipeline.sell.apply import PageApplier
from rally_pipeline.sell.device import Device
from rally_pipeline.sell.drain import QueueDrain
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.judgement import Verdict
from rally_pipeline.sell.records import RecordDecoder
from rally_pipeline.sell.tables import queue_items, suspects
from tests.contents import contents
from tests.sell.conftest import MakeWorld
from tests.sell.world import World

Patch = pytest.MonkeyPatch


def stops(world: World, name: str) -> str:
    """The message of the violation; the page that broke it was neither stored nor acknowledged."""
    pages: list[Any] = []

    def watch(step_name: str) -> None:
        if step_name == "sell.page:begin":
            pages.append(contents(world.warehouse))

    world.warehouse._step = watch
    acknowledged = world.requests("/sync/ack")
    with pytest.raises(InvariantViolation, match=f"invariant {name} does not hold") as stopped:
        world.drain()
    assert contents(world.warehouse) == pages[-1]
    assert len(pages) == 1
    assert world.requests("/sync/ack") == acknowledged
    return str(stopped.value)


@pytest.mark.invariant("SQ1")
def test_keys_are_not_sent_before_their_page_is_committed(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world()
    running: list[QueueDrain] = []
    run, remember = QueueDrain.run, landing.remember_keys

    def noted(self: QueueDrain) -> Any:
        running.append(self)
        return run(self)

    def eager(tx: Any, page: Any, keys: Any) -> None:
        remember(tx, page, keys)
        running[0]._acknowledge(page.number, list(keys))

    monkeypatch.setattr(QueueDrain, "run", noted)
    monkeypatch.setattr(landing, "remember_keys", eager)
    assert "the last committed one is 0" in stops(world, "SQ1")


@pytest.mark.invariant("SQ1")
def test_keys_of_items_that_were_not_landed_are_not_sent(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world()
    read = PageApplier._read

    def forgetful(self: PageApplier, items: Any) -> Any:
        found = read(self, items)
        self._landed.pop()
        return found

    monkeypatch.setattr(PageApplier, "_read", forgetful)
    assert "were landed before its keys" in stops(world, "SQ1")


@pytest.mark.invariant("SQ2")
def test_a_page_of_another_device_is_not_stored(make_sqlite_world: MakeWorld, monkeypatch: Patch) -> None:
    world = make_sqlite_world()
    world.catch_up()
    world.api.world.mutate(5)
    other = Device("00000000-0000-4000-8000-000000000001", 7, "elsewhere", proven=True)
    monkeypatch.setattr(drain, "read_device", lambda _: other)
    assert "(lineage 7)" in stops(world, "SQ2")


@pytest.mark.invariant("SQ3")
def test_a_lower_revision_is_not_written_over_a_higher_one(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world()
    lead = next(world.api.world.live("lead"))
    world.catch_up()
    world.clock.advance(10)
    world.api.world.update("lead", lead.id, {"first_name": "Newest"})
    world.catch_up()
    world.api.sync.redeliver(lead)
    monkeypatch.setattr(apply, "judge", lambda *_: (Verdict.APPLY, ""))
    assert "would be written over revision" in stops(world, "SQ3")
    assert world.row(Entity.LEADS, lead.id)["first_name"] == "Newest"  # type: ignore[index]


@pytest.mark.invariant("SQ3")
def test_a_deleted_object_does_not_come_back_without_a_look(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world()
    lead = next(world.api.world.live("lead"))
    world.catch_up()
    world.api.world.delete("lead", lead.id)
    world.catch_up()
    world.api.world.revive("lead", lead.id)
    monkeypatch.setattr(apply, "judge", lambda *_: (Verdict.APPLY, ""))
    assert "over a tombstone" in stops(world, "SQ3")


@pytest.mark.invariant("SQ3")
def test_a_delete_without_a_look_is_stopped(make_sqlite_world: MakeWorld, monkeypatch: Patch) -> None:
    world = make_sqlite_world()
    lead = next(world.api.world.live("lead"))
    world.catch_up()
    world.api.world.delete("lead", lead.id)
    judge = PageApplier._judge

    def unlooked(self: PageApplier, objects: Any) -> None:
        judge(self, objects)
        self._suspects.clear()

    monkeypatch.setattr(PageApplier, "_judge", unlooked)
    assert "would go without a look" in stops(world, "SQ3")
    assert world.row(Entity.LEADS, lead.id) is not None


@pytest.mark.invariant("SQ4")
def test_a_page_whose_failed_objects_are_not_recorded_is_stopped(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world()
    world.catch_up()
    lead = next(world.api.world.live("lead"))
    world.api.world.update("lead", lead.id, {"first_name": "New"})
    world.sandbox.control("sell", "fail", {"type": "lead", "id": int(lead.id)})
    opened = marks.open_marks

    def only_suspects(tx: Any, table: Any, hints: Any, **more: Any) -> None:
        if table is suspects:
            opened(tx, table, hints, **more)

    monkeypatch.setattr(marks, "open_marks", only_suspects)
    assert "1 of 1 failed objects are not recorded" in stops(world, "SQ4")


@pytest.mark.invariant("SQ5")
def test_a_repeated_page_that_changes_rows_is_stopped(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world()
    world.catch_up()
    world.api.sync.devices[world.uuid].memory.clear()
    row, numbers = RecordDecoder.row, itertools.count()

    def restless(self: RecordDecoder, record: Any, **more: Any) -> Any:
        values = list(row(self, record, **more))
        values[self.columns.index("extra")] = f'{{"read": {next(numbers)}}}'
        return tuple(values)

    landed = world.count(queue_items)
    monkeypatch.setattr(RecordDecoder, "row", restless)
    assert "of a repeated page changed" in stops(world, "SQ5")
    assert world.count(queue_items) == landed
