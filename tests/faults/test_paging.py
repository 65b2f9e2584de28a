"""List pages that move under the reader, and links and sizes that mislead it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from rally_pipeline.http.errors import TooLarge
from rally_pipeline.http.transport import Limits
from rally_pipeline.rally.entities import Entity
from tests.faults.cycles import ENTITY, assert_equal
from tests.rally.conftest import MakeWorld
from tests.rally.world import World

ROWS, PAGE = 6, 3


@pytest.mark.fault("B12")
@pytest.mark.parametrize("link", ["right", "self", "back", "foreign"])
def test_links_in_answers_are_not_followed(make_sqlite_world: MakeWorld, link: str) -> None:
    world = make_sqlite_world(records={"companies": 12}, max_limit=5, envelope="data", next_link=link)
    world.extract([ENTITY])
    assert world.differences() == []
    lists = world.sandbox.log.matching(path="/companies")
    offsets = [int(entry.query["offset"][0]) for entry in lists]
    assert offsets == sorted(offsets)
    assert len(lists) <= 6
    assert {entry.path.rpartition("/")[2] for entry in world.sandbox.log} == {"companies", "changes"}


@pytest.mark.fault("B14", "B15")
@pytest.mark.parametrize(
    ("order", "places"),
    [("id", [0]), ("createdAt", [5]), ("updatedAt", range(ROWS)), ("-updatedAt", range(ROWS))],
)
def test_any_insert_or_update_between_any_two_pages_is_there_afterwards(
    make_sqlite_world: MakeWorld, order: str, places: Sequence[int]
) -> None:
    """In a list ordered by time of update, each row in turn jumps over the reader."""
    world = make_sqlite_world(records={"companies": ROWS}, max_limit=PAGE, list_order=order)
    rally = world.sandbox.rally

    def update(place: int) -> None:
        rally.update("companies", rally.ids("companies")[place], {"notes": f"row {place}"})

    acts: list[Callable[[], object]] = [partial(rally.create, "companies", {"name": "New"})]
    acts += [partial(update, place) for place in places]
    for request in range(2, 6):
        for act in acts:
            world.pass_time(5)
            world.sandbox.before(request, act, path="/companies")
            world.mirror.extract(ENTITY)
            world.sandbox.clear_scripts()
            world.pass_time(70)
            world.mirror.read_changes()
            world.mirror.settle(ENTITY)
            assert_equal(world)
            refill(world)


def refill(world: World) -> None:
    """As many rows as before."""
    rally = world.sandbox.rally
    while len(present := rally.ids("companies")) > ROWS:
        rally.delete("companies", present[-1])
    while len(present) < ROWS:
        present.append(rally.create("companies", {"name": f"Company {world.clock.now()}"})["id"])


@pytest.mark.fault("H25")
@pytest.mark.parametrize("status", [413, 414])
def test_a_page_size_that_is_too_large_is_made_smaller(make_sqlite_world: MakeWorld, status: int) -> None:
    world = make_sqlite_world(records={"companies": 300})
    for limit in ("1000", "500", "250"):
        world.sandbox.faults.add(f"status_{status}", path="/companies", times=None, query={"limit": limit})
    world.extract([ENTITY])
    assert world.differences() == []
    assert {entry.query["limit"][0] for entry in world.sandbox.log.matching(path="/companies")} == {
        "1000", "500", "250", "125",
    }  # fmt: skip


@pytest.mark.fault("H25", "H29", "V12")
@pytest.mark.parametrize("order", ["createdAt", "random"])
def test_pages_that_become_too_large_in_the_middle_of_a_pass_are_no_end_of_it(
    make_sqlite_world: MakeWorld, order: str
) -> None:
    """The newest records are so large that a page of the size before cannot be read."""
    world = make_sqlite_world(records={"companies": 100}, list_order=order, policy={"page_limit": 40})
    world.http._limits = Limits(max_body_bytes=100_000)
    records = sorted(world.sandbox.rally.records("companies"), key=lambda record: record["createdAt"])
    for record in records[50:]:
        world.sandbox.rally.update("companies", record["id"], {"notes": "x" * 5_000})
    world.extract([ENTITY])
    sizes = [int(entry.query["limit"][0]) for entry in world.sandbox.log.matching(path="/companies")]
    assert (sizes[0], min(sizes)) == (40, 10 if order == "createdAt" else 20)
    assert world.differences() == []


@pytest.mark.fault("H25")
def test_a_server_that_finds_every_page_too_large_is_an_error(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"companies": 10})
    world.sandbox.faults.add("status_413", path="/companies", times=None)
    with pytest.raises(TooLarge):
        world.mirror.extract(ENTITY)
    assert world.requests("/companies") <= 5
    world.sandbox.faults.clear()
    world.extract([ENTITY])
    assert world.differences() == []


@pytest.mark.fault("H30")
@pytest.mark.parametrize(
    "parameters", [{"seconds": 7_200.0}, {"seconds": -7_200.0}], ids=["two hours ahead", "two hours behind"]
)
def test_dates_of_single_answers_that_are_hours_off_move_no_cursor_wrongly(
    make_sqlite_world: MakeWorld, parameters: dict[str, Any]
) -> None:
    world = make_sqlite_world(records={"companies": 10}, max_limit=5)
    world.extract([ENTITY])
    for after in range(5):
        before = world.mirror.status().synced_through
        world.sandbox.rally.mutate(3, entities=["companies"], over_seconds=5)
        world.pass_time(100)
        world.sandbox.faults.add("date_skew", after=after, **parameters)
        result, _ = world.catch_up()
        world.sandbox.faults.clear()
        reached = world.mirror.status().synced_through
        assert reached is not None
        assert before is not None
        # A date in the past may be true: then everything is read anew.
        assert reached >= before or (result.snapshot_required and parameters["seconds"] < 0)
        assert (world.clock.now() - reached).total_seconds() >= world.policy.overlap_seconds
        world.pass_time(200)
        world.sandbox.faults.add("date_skew", after=after, **parameters)
        world.mirror.extract(ENTITY)
        world.sandbox.faults.clear()
        world.catch_up()
        assert_equal(world)


@pytest.mark.fault("H30")
@pytest.mark.parametrize("fault", ["no_date", "bad_date"])
def test_without_any_date_nothing_is_read_and_nothing_moves(make_sqlite_world: MakeWorld, fault: str) -> None:
    world = make_sqlite_world(records={"companies": 10}, max_limit=5)
    world.sandbox.faults.add(fault, times=None)
    for read in (world.mirror.read_changes, partial(world.mirror.extract, Entity.COMPANIES)):
        with pytest.raises(Exception, match="no usable Date header"):
            read()
    assert world.rows(ENTITY) == {}
    assert world.mirror.status().synced_through is None
    world.sandbox.faults.clear()
    world.extract([ENTITY])
    world.pass_time(100)
    world.catch_up()
    assert_equal(world)


@pytest.mark.fault("C6")
def test_a_local_clock_that_is_wrong_and_jumps_has_no_effect_on_cursors(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"companies": 20}, max_limit=8)
    right = world.clock
    wrong = right.skewed(0)
    world.close()
    world.clock = wrong  # type: ignore[assignment]
    world.open()
    world.clock = right
    world.extract([ENTITY])
    for skew in (7_200, -7_200, 3_600, -86_400, 0, 400 * 86_400):
        wrong.skew_seconds = skew
        world.sandbox.rally.mutate(4, entities=["companies"], over_seconds=5)
        world.pass_time(100)
        world.catch_up()
        wrong.skew_seconds = -skew
        world.catch_up()
        reached = world.mirror.status().synced_through
        assert reached is not None
        behind = (right.now() - reached).total_seconds()
        assert world.policy.overlap_seconds <= behind <= world.policy.overlap_seconds + 10
        assert_equal(world)
