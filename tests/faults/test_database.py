"""The warehouse fails under the engines, at any commit and any step: no page is half there, and the next run ends
equal."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from rally_pipeline.warehouse import (
    CommitUnknown,
    WarehouseBusy,
    WarehouseError,
    WarehouseFull,
    WarehouseUnavailable,
)
from tests.faults.cycles import ENTITY, SMALL, assert_equal, case, change
from tests.postgres import PostgresServer
from tests.rally.conftest import MakeWorld
from tests.rally.world import World


class CommitFailure:
    """The `at`-th commit from now fails with a code of SQLite, before or after the driver has committed."""

    def __init__(self, world: World, at: int, code: str, *, after: bool) -> None:
        self._dialect: Any = world.warehouse._sessions.engine.dialect
        self._commit = self._dialect.do_commit
        self._left = at
        self._code = code
        self._after = after
        self._dialect.do_commit = self  # type: ignore[method-assign, assignment]

    @property
    def was_met(self) -> bool:
        return self._left <= 0

    def end(self) -> None:
        self._dialect.do_commit = self._commit

    def __call__(self, connection: Any) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise self._error()
        self._commit(connection)
        if self._left == 0:
            raise self._error()

    def _error(self) -> sqlite3.OperationalError:
        error = sqlite3.OperationalError("made by a test")
        error.sqlite_errorname = self._code
        return error


def run(world: World) -> None:
    """One cycle as one job: the first failure ends it."""
    world.mirror.extract(ENTITY)
    world.mirror.read_changes()
    world.mirror.settle(ENTITY)


COMMITS = [
    case("D1", "lost before", "SQLITE_IOERR_FSYNC", False, {WarehouseUnavailable, CommitUnknown}),
    case("D1", "lost after", "SQLITE_IOERR_FSYNC", True, {CommitUnknown}),
    case("D3", "busy", "SQLITE_BUSY", False, {WarehouseBusy}),
    case("D4", "full", "SQLITE_FULL", False, {WarehouseFull}),
]


@pytest.mark.parametrize(("name", "code", "after", "kinds"), COMMITS)
def test_a_commit_that_fails_at_any_place_of_a_cycle_costs_that_page_at_most(
    make_sqlite_world: MakeWorld, name: str, code: str, after: bool, kinds: set[type[WarehouseError]]
) -> None:
    world = make_sqlite_world(**SMALL)
    failures: list[WarehouseError] = []
    for at in range(1, 200, 4):
        change(world)
        failure = CommitFailure(world, at, code, after=after)
        try:
            run(world)
        except WarehouseError as error:
            failures.append(error)
        failure.end()
        if not failure.was_met:
            break
        world.pass_time(100)
        world.sandbox.log.clear()
        run(world)
        assert world.requests() <= 20, "more than a cycle and a page"
        assert_equal(world)
    assert at > 20
    # What became of a commit is found out by the lease; only taking the lease itself leaves it unknown.
    assert {type(error) for error in failures} == kinds
    assert not [str(error) for error in failures if "\n" in str(error)]


@pytest.mark.fault("D7", "D8")
def test_sessions_ended_at_any_step_of_a_cycle_cost_that_run_at_most(
    make_postgres_world: Callable[..., World], postgres_server: PostgresServer
) -> None:
    world = make_postgres_world(**SMALL)
    with postgres_server.connect() as admin:
        for at in range(0, 400, 14):
            change(world)
            end_sessions_at(world, admin, at)
            try:
                run(world)
            except WarehouseUnavailable as error:
                assert "\n" not in str(error)  # noqa: PT017 (its words are checked where it is made)
            else:
                if len(world.steps) <= at:
                    break
            world.step = lambda name: None  # type: ignore[method-assign]
            restart(world)
            world.pass_time(100)
            run(world)
            assert_equal(world)
    assert at > 60


def end_sessions_at(world: World, admin: Any, at: int) -> None:
    """Let the administrator end every session of the warehouse at the `at`-th step from now."""
    world.steps.clear()

    def step(name: str) -> None:
        world.steps.append(name)
        if len(world.steps) == at + 1:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'rally_pipeline' AND pid <> pg_backend_pid()"
            )

    world.step = step  # type: ignore[method-assign]
    restart(world)


def restart(world: World) -> None:
    """A new process with the hook in force."""
    steps = list(world.steps)
    world.restart()
    world.steps[:] = steps
