"""One cycle of the Rally engines over a small table, and a fault at each of its requests in turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from rally_pipeline.http.errors import ApiError
from rally_pipeline.rally.entities import Entity
from tests.faults.matrix import ROWS
from tests.rally.world import World

ENTITY = Entity.COMPANIES
SMALL: dict[str, Any] = {"records": {"companies": 12}, "max_limit": 5}
"""Three list pages; with the feed and some looks about ten requests a cycle."""


def case(number: str, *values: object) -> Any:
    """A parameter of a table of faults: the row it plays, and the test's arguments."""
    words = " ".join(str(value) for value in values[:1])
    return pytest.param(*values, id=f"{ROWS[number].label} ({words})", marks=pytest.mark.fault(number))


def run_cycle(world: World, *, extract: bool = True) -> list[ApiError]:
    """Extract (where asked for), feed, looks, each on its own as an orchestrator runs them; the failures."""
    failures: list[ApiError] = []
    parts: list[Callable[[], object]] = [world.mirror.read_changes, lambda: world.mirror.settle(ENTITY)]
    if extract:
        parts.insert(0, lambda: world.mirror.extract(ENTITY))
    for part in parts:
        try:
            part()
        except ApiError as error:
            failures.append(error)
    return failures


def assert_equal(world: World) -> None:
    """The warehouse is the source, and nothing is open."""
    assert world.differences() == []
    assert world.marks() == []


def change(world: World, number: int = 3) -> None:
    """Something to read: changes, and the time for them to be seen."""
    world.sandbox.rally.mutate(number, entities=[ENTITY.value], over_seconds=5)
    world.pass_time(90)


@dataclass
class Played:
    """What came of a fault that was played at the requests of a cycle."""

    requests: int = 0
    failures: list[ApiError] = field(default_factory=list)
    waited: float = 0.0


Arrange = Callable[[int], Callable[[], bool]]
"""Arranges a fault after so many requests; what it returns ends the fault and tells whether it was met."""


def play_from_request_to_request(world: World, arrange: Arrange, *, stride: int = 1) -> Played:
    """Cycle after cycle, let the fault strike `stride` requests later, until a cycle ends before it.

    After each cycle the next one must end equal, and no failure may show the key.
    """
    played = Played()
    for after in range(0, 200, stride):
        change(world)
        end = arrange(after)
        started = world.clock.monotonic()
        failures = run_cycle(world)
        if not end():
            assert failures == []
            break
        played.waited = max(played.waited, world.clock.monotonic() - started)
        played.failures += failures
        played.requests += 1
        world.pass_time(100)
        assert run_cycle(world, extract=bool(failures)) == [], f"after a fault at request {after + 1}"
        assert_equal(world)
    assert played.requests >= 8 // stride
    assert_no_secret(world, played.failures)
    return played


def play_at_every_third_request(world: World, fault: str, **parameters: Any) -> Played:
    """Three cycles: the first meets the fault at requests 1, 4, 7, …, the others begin one request later each."""
    played = Played()
    for first in range(3):
        change(world)
        world.sandbox.before(None, every_third(first, partial(world.sandbox.faults.add, fault, **parameters)))
        started = world.clock.monotonic()
        played.failures += run_cycle(world)
        played.waited = max(played.waited, world.clock.monotonic() - started)
        played.requests += len(world.sandbox.faults.describe())
        world.sandbox.clear_scripts()
        world.sandbox.faults.clear()
        world.pass_time(100)
        assert run_cycle(world, extract=False) == []
        assert_equal(world)
    assert played.requests >= 8
    assert_no_secret(world, played.failures)
    return played


def every_third(first: int, act: Callable[[], object]) -> Callable[[], None]:
    """An action that acts at calls `first`, `first` + 3, … of those made to it, counted from 0."""
    calls = itertools.count()

    def called() -> None:
        if next(calls) % 3 == first:
            act()

    return called


def assert_no_secret(world: World, failures: list[ApiError]) -> None:
    """No message shows the key."""
    key = world.sandbox.environment("http://127.0.0.1")["RALLY_API_KEY"]
    assert not [str(failure) for failure in failures if key in str(failure)]


def fault_after(world: World, fault: str, *, times: int | None = 1, **parameters: Any) -> Arrange:
    """A fault of the sandbox."""

    def arrange(after: int) -> Callable[[], bool]:
        rule = world.sandbox.faults.add(fault, after=after, times=times, **parameters)

        def end() -> bool:
            world.sandbox.faults.clear()
            return rule.played > 0

        return end

    return arrange
