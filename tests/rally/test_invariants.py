"""Each invariant of the Rally mirror, broken on purpose: the run stops, names it, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally import extract, looks, marks
from rally_pipeline.rally.changes import ChangeReader
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_log import FeedLog
from rally_pipeline.rally.feed_state import FeedState
from rally_pipeline.rally.looks import Settler
from rally_pipeline.rally.passes import ListPass, PassState
from rally_pipeline.rally.rows import PageWriter, Written
from rally_pipeline.warehouse.values import instant_text, parse_instant
from tests.contents import contents
from tests.rally.conftest import MakeWorld
from tests.rally.world import Crash, World

CONTACTS = Entity.CONTACTS
Patch = pytest.MonkeyPatch


def stops(world: World, name: str, act: Callable[[], object]) -> str:
    """The message of the violation; what was written before the broken step is still there, and nothing more."""
    committed: list[dict[str, list[tuple[Any, ...]]]] = [contents(world.warehouse)]
    step = world.step

    def watch(step_name: str) -> None:
        step(step_name)
        if step_name.endswith(":after-commit") and not step_name.startswith("lease."):
            committed.append(contents(world.warehouse))

    world.warehouse._step = watch
    with pytest.raises(InvariantViolation, match=f"invariant {name} does not hold") as stopped:
        act()
    assert stopped.value.name == name
    assert contents(world.warehouse) == committed[-1]
    return str(stopped.value)


def change(world: World, count: int = 5) -> list[str]:
    ids = [record["id"] for record in world.sandbox.rally.records("contacts")][:count]
    for place, contact in enumerate(ids):
        world.sandbox.rally.update("contacts", contact, {"lastName": f"Changed {place}"})
    return ids


def delete_some(world: World, count: int = 1) -> list[str]:
    ids = [record["id"] for record in world.sandbox.rally.records("contacts")][:count]
    for contact in ids:
        world.sandbox.rally.delete("contacts", contact)
    return ids


@pytest.mark.invariant("SN1")
def test_a_list_row_over_an_open_mark_stops_the_pass(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    change(world)
    world.mirror.read_changes()
    monkeypatch.setattr(marks, "marked_among", lambda *_: set())
    message = stops(world, "SN1", lambda: world.mirror.extract(CONTACTS))
    assert "5 contacts" in message
    assert "please report" in message
    stops(world, "SN1", lambda: world.mirror.extract_updated(CONTACTS))


@pytest.mark.invariant("SN2")
def test_a_page_without_an_anchor_stops_the_pass(make_sqlite_world: MakeWorld, monkeypatch: Patch) -> None:
    world = make_sqlite_world(records={"contacts": 60}, policy={"page_limit": 20})
    world.sandbox.before(2, lambda: delete_some(world, 20), path="/contacts")
    monkeypatch.setattr(ListPass, "_find_repeated", lambda *_: {b"any"})
    assert "shares no unchanged row" in stops(world, "SN2", lambda: world.mirror.extract(CONTACTS))


@pytest.mark.invariant("SN2")
def test_a_full_page_as_the_end_stops_the_pass(make_sqlite_world: MakeWorld, monkeypatch: Patch) -> None:
    world = make_sqlite_world(records={"contacts": 60}, policy={"page_limit": 20})
    recognise = ListPass._recognise

    def ended(self: ListPass, answer: Any) -> Any:
        page = recognise(self, answer)
        return page and replace(page, last=True)

    monkeypatch.setattr(ListPass, "_recognise", ended)
    assert "ends with a full page" in stops(world, "SN2", lambda: world.mirror.extract(CONTACTS))


@pytest.mark.invariant("SN3")
def test_a_delete_by_a_look_that_began_too_early_is_stopped(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world(records={"contacts": 30}, policy={"staleness_seconds": 30})
    world.extract([CONTACTS])
    delete_some(world)
    world.mirror.read_changes()
    hurry(monkeypatch)
    stops(world, "SN3", lambda: world.mirror.settle(CONTACTS, wait=False))
    assert len(world.rows(CONTACTS)) == 30


def hurry(monkeypatch: Patch) -> None:
    """The settler takes every mark for settled, in both places where it asks."""
    due = marks.due_marks

    def all_due(tx: Any, entity: Entity, *, seen_until: Any, now: Any, limit: int) -> Any:
        return due(tx, entity, seen_until=now.replace(year=9999), now=now, limit=limit)

    def unfiltered(self: Settler, found: Any) -> None:
        begun = self._client.server_floor()
        self._commit_looks([self._look(mark) for mark in found], begun)

    monkeypatch.setattr(marks, "due_marks", all_due)
    monkeypatch.setattr(Settler, "_look_by_pages", lambda *_: set())
    monkeypatch.setattr(Settler, "_look_singly", unfiltered)


@pytest.mark.invariant("SN4")
def test_a_page_that_does_not_follow_the_stored_pass_is_stopped(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world(records={"contacts": 60}, policy={"page_limit": 20})
    monkeypatch.setattr(PassState, "from_dict", staticmethod(lambda _: PassState()))
    world.sandbox.before(3, lambda: world.crash_at(1), path="/contacts")
    with pytest.raises(Crash):
        world.mirror.extract(CONTACTS)
    world.restart()
    assert 0 < len(world.rows(CONTACTS)) < 60
    message = stops(world, "SN4", lambda: world.mirror.extract(CONTACTS))
    assert "does not follow what is stored" in message


@pytest.mark.invariant("SN5")
@pytest.mark.parametrize("late", [False, True], ids=["no-base", "base-after-the-start"])
def test_a_pass_without_a_base_in_the_feed_is_stopped(
    make_sqlite_world: MakeWorld, monkeypatch: Patch, late: bool
) -> None:
    world = make_sqlite_world(records={"contacts": 30})

    def wrong_base(warehouse: Any, started: Any, *_: Any, **__: Any) -> None:
        with warehouse.transaction("base") as tx:
            FeedState(cursor=instant_text(started), base=instant_text(started)).store(tx)

    monkeypatch.setattr(extract, "ensure_base", wrong_base if late else lambda *_, **__: None)
    stops(world, "SN5", lambda: world.mirror.extract(CONTACTS))
    assert not world.rows(CONTACTS)
    assert world.requests("/contacts") == 0


@pytest.mark.invariant("FD1")
def test_a_cursor_from_the_end_of_the_read_is_stopped(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    world.pass_time(600)
    close = ChangeReader._close

    def from_the_end(self: ChangeReader, state: FeedState) -> None:
        world.pass_time(30)
        self._client._leads.clear()
        state.read_started = instant_text(self._client.server_floor())
        close(self, state)

    monkeypatch.setattr(ChangeReader, "_close", from_the_end)
    assert "the cursor would move to" in stops(world, "FD1", world.mirror.read_changes)


@pytest.mark.invariant("FD1")
def test_a_step_over_a_group_that_may_be_cut_is_stopped(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world(records={"contacts": 30}, policy={"feed_capacity_floor": 5}, feed_max_limit=5)
    world.extract([CONTACTS])
    world.pass_time(600)
    change(world, 12)
    monkeypatch.setattr(ChangeReader, "_kept", lambda _self, _state, page, _position: page.entries)
    assert "may have cut" in stops(world, "FD1", world.mirror.read_changes)
    assert not world.marks()


@pytest.mark.invariant("FD2")
def test_entries_without_their_marks_are_stopped(make_sqlite_world: MakeWorld, monkeypatch: Patch) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    world.pass_time(600)
    change(world)
    monkeypatch.setattr(FeedLog, "mark", lambda *_: None)
    assert "name 5 contact objects, 0 are marked" in stops(world, "FD2", world.mirror.read_changes)


@pytest.mark.invariant("FD3")
def test_a_mark_is_not_cleared_by_a_look_that_began_too_early(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world(records={"contacts": 30}, policy={"staleness_seconds": 30})
    world.extract([CONTACTS])
    change(world, 1)
    world.mirror.read_changes()
    hurry(monkeypatch)
    stops(world, "FD3", lambda: world.mirror.settle(CONTACTS, wait=False))
    assert len(world.marks()) == 1


@pytest.mark.invariant("FD4")
def test_a_mark_is_not_cleared_when_the_look_was_not_written(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    change(world)
    world.mirror.read_changes()
    monkeypatch.setattr(PageWriter, "write", lambda *_, **__: Written())
    stops(world, "FD4", lambda: world.mirror.settle(CONTACTS))
    assert len(world.marks()) == 5


@pytest.mark.invariant("FD4")
def test_a_mark_is_not_cleared_when_the_deleted_row_is_still_there(
    make_sqlite_world: MakeWorld, monkeypatch: Patch
) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    delete_some(world)
    world.mirror.read_changes()
    monkeypatch.setattr(looks, "remove", lambda *_, **__: 1)
    assert "1 are left" in stops(world, "FD4", lambda: world.mirror.settle(CONTACTS))
    assert len(world.marks()) == 1


@pytest.mark.invariant("FD5")
def test_a_read_that_does_not_move_on_is_stopped(make_sqlite_world: MakeWorld, monkeypatch: Patch) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    world.pass_time(600)
    change(world)
    monkeypatch.setattr(ChangeReader, "_kept", lambda *_: [])
    stops(world, "FD5", world.mirror.read_changes)
    assert world.requests("/sync/changes") < 10


def test_a_cursor_ahead_of_the_servers_clock_is_moved_back_before_a_pass(
    make_sqlite_world: MakeWorld,
) -> None:
    """The server's clock was set back: what it stamps during the pass would lie behind the cursor for ever."""
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    with world.warehouse.transaction("ahead") as tx:
        state = FeedState.load(tx)
        state.cursor = instant_text(world.clock.now() + timedelta(hours=1))
        state.store(tx)
    world.extract([CONTACTS])
    with world.warehouse.reading() as tx:
        cursor = parse_instant(FeedState.load(tx).cursor or "")
    assert cursor <= world.clock.now() - world.policy.overlap
    change(world, 3)
    world.pass_time(120)
    world.catch_up()
    assert world.differences() == []
