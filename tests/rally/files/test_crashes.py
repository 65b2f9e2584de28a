"""A process that dies anywhere in an import: the next one finishes it, and each row is there once."""

from __future__ import annotations

import pytest

from rally_pipeline.rally.entities import Entity
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.desk import NAMES, ROWS, Desk, activities, contacts
from tests.rally.world import Crash

ROWS_IN_CHUNK = 2


def _rows(entity: Entity, start: int) -> list[dict[str, str]]:
    """Three uploads of rows, one of them refused before sending."""
    rows = ROWS[entity](3 * ROWS_IN_CHUNK, start=start)
    return [*rows[:3], {}, {next(iter(rows[0])): "only this"}, *rows[3:]]


def _run_until_crash(desk: Desk, entity: Entity, rows: list[dict[str, str]], name: str, step: int) -> bool:
    path = desk.write(entity, rows, name=name)
    desk.crash_at(step)
    try:
        desk.run(entity, path)
    except Crash:
        desk.restart()
        return True
    desk.survive()
    return False


@pytest.mark.fault("I4")
@pytest.mark.parametrize("entity", [Entity.CONTACTS, Entity.ACTIVITIES])
def test_a_crash_at_any_step_leaves_each_row_once_after_one_more_run(
    make_sqlite_desk: MakeDesk, entity: Entity
) -> None:
    desk = make_sqlite_desk(policy={"max_rows": ROWS_IN_CHUNK})
    column, field = NAMES[entity]
    sent: dict[str, int] = {}
    step, crashed = 0, True
    while crashed:
        step += 1
        desk.pass_time(400)  # beyond the overlap, so that a read-back meets this import alone
        rows = _rows(entity, 1 + 100 * step)
        crashed = _run_until_crash(desk, entity, rows, f"{step}.csv", step)
        path = desk.folder / f"{step}.csv"
        report = desk.run(entity, path)
        sent |= {row[column]: 1 for row in rows if len(row) > 1}
        assert desk.values(entity, field) == sent, f"crash at step {step}"
        assert (report.imported, report.refused, report.rows) == (3 * ROWS_IN_CHUNK, 1, 3 * ROWS_IN_CHUNK + 1)
    assert step > 50


@pytest.mark.fault("I4")
def test_a_crash_while_recovering_is_recovered_from(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(policy={"max_rows": ROWS_IN_CHUNK}, lost="half", lost_uploads=[2])
    sent: dict[str, int] = {}
    for first in range(14, 32, 6):
        for second in (4, 13):
            desk.files.switch()
            rows = activities(12, start=1 + 1_000 * first + 20 * second)
            path = desk.write(Entity.ACTIVITIES, rows, name=f"{first}-{second}.csv")
            for step in (first, second):
                desk.crash_at(step)
                try:
                    desk.run(Entity.ACTIVITIES, path)
                except Crash:
                    desk.restart()
                desk.survive()
            report = desk.run(Entity.ACTIVITIES, path)
            sent |= {row["subject"]: 1 for row in rows}
            assert desk.values(Entity.ACTIVITIES, "subject") == sent, (first, second)
            assert report.imported == 12


def test_after_a_crash_before_sending_nothing_of_the_first_attempt_is_left(
    make_sqlite_desk: MakeDesk,
) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 2})
    path = desk.write(Entity.CONTACTS, [*contacts(5), {"email": "x"}])
    steps = 0
    while True:
        steps += 1
        desk.crash_at(steps)
        try:
            desk.run(Entity.CONTACTS, path)
        except Crash as crash:
            desk.restart()
            if str(crash).endswith("stage:after-commit"):
                break
    assert desk.file_row()["status"] == "staging"
    report = desk.run(Entity.CONTACTS, path)
    assert (report.imported, report.refused, report.uploads) == (5, 1, 3)
    assert [state for _, state, _, _ in desk.chunks()] == ["done"] * 3


def test_the_uploads_are_stored_with_their_hash_before_the_first_is_sent(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 2})
    path = desk.write(Entity.CONTACTS, contacts(5))

    def look() -> None:
        raise Crash("first upload")

    desk.sandbox.before(1, look, path="/import")
    with pytest.raises(Crash):
        desk.run(Entity.CONTACTS, path)
    desk.restart()
    chunks = desk.chunks()
    assert [(number, state, rows) for number, state, rows, _ in chunks] == [
        (1, "sending", 2),
        (2, "planned", 2),
        (3, "planned", 1),
    ]
    assert desk.stored_hashes_hold()
    assert desk.run(Entity.CONTACTS, path).imported == 5
    assert desk.stored_bodies() == [None, None, None, None]
