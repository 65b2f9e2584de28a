"""What an item may do to a row, case by case."""

from __future__ import annotations

import pytest

from rally_pipeline.sell.judgement import Incoming, Stored, Verdict, judge

OLD, SAME, NEW = "2031-01-01T00:00:00.000000Z", "2031-01-02T00:00:00.000000Z", "2031-01-03T00:00:00.000000Z"
ROW = Stored(10, SAME)
GONE = Stored(10, None, is_tombstone=True)


def item(revision: int | None = 10, updated_at: str | None = SAME, **more: object) -> Incoming:
    values = {"is_delete": False, "is_known_event": True, "is_bare": False, **more}
    return Incoming(revision=revision, updated_at=updated_at, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("incoming", "stored", "verdict"),
    [
        (item(), None, Verdict.APPLY),
        (item(), ROW, Verdict.APPLY),
        (item(11, NEW), ROW, Verdict.APPLY),
        (item(11, SAME), ROW, Verdict.APPLY),
        (item(11, None), ROW, Verdict.APPLY),
        (item(11, OLD), ROW, Verdict.SUSPECT),
        (item(9, OLD), ROW, Verdict.IGNORE),
        (item(9, SAME), ROW, Verdict.IGNORE),
        (item(9, None), ROW, Verdict.IGNORE),
        (item(9, NEW), ROW, Verdict.SUSPECT),
        (item(None, NEW), ROW, Verdict.APPLY),
        (item(None, OLD), ROW, Verdict.SUSPECT),
        (item(9, NEW), Stored(None, SAME), Verdict.APPLY),
        (item(9, OLD), Stored(None, SAME), Verdict.SUSPECT),
        (item(11, NEW), GONE, Verdict.SUSPECT),
        (item(9, OLD), GONE, Verdict.SUSPECT),
        (item(0, None, is_delete=True), ROW, Verdict.DELETE),
        (item(0, None, is_delete=True), None, Verdict.DELETE),
        (item(0, None, is_delete=True), GONE, Verdict.IGNORE),
        (item(99, NEW, is_delete=True), ROW, Verdict.DELETE),
        (item(11, None, is_bare=True), ROW, Verdict.SUSPECT),
        (item(11, NEW, is_known_event=False), ROW, Verdict.SUSPECT),
        (item(11, NEW, kind="lead"), Stored(10, SAME, kind="deal"), Verdict.SUSPECT),
        (item(11, NEW, kind="deal"), Stored(10, SAME, kind="deal"), Verdict.APPLY),
        (item(11, NEW), Stored(10, SAME, kind="deal"), Verdict.APPLY),
    ],
)
def test_verdicts(incoming: Incoming, stored: Stored | None, verdict: Verdict) -> None:
    assert judge(incoming, stored)[0] is verdict
