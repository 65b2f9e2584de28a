"""What the benchmarks say about a contestant is what it did."""

from __future__ import annotations

import pytest

from benchmarks.measuring.contestant import ContestantFailed, NotFinished, Sample, run_contestant
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.report import Goal, Report, Series

HERE = "tests.benchmarks.contestants"


def test_a_contestant_is_measured_in_a_process_of_its_own() -> None:
    sample = run_contestant(f"{HERE}:work", {"megabytes": 60}, limit=60)
    assert sample.facts == {"alone": True}
    assert 55 < sample.work_mb < 75
    assert sample.cpu > 0
    assert sample.wall > 0


def test_a_contestant_is_ended_at_its_limit() -> None:
    with pytest.raises(NotFinished) as ended:
        run_contestant(f"{HERE}:never_end", {}, limit=1.5)
    assert ended.value.limit == 1.5


def test_a_failing_contestant_says_why() -> None:
    with pytest.raises(ContestantFailed, match="no table"):
        run_contestant(f"{HERE}:fail", {}, limit=60)


def series(name: str, *walls: float, note: str = "", limit: float | None = None) -> Series:
    return Series("case", name, [Sample(wall, wall / 2, 90.0, 60.0) for wall in walls], note, limit)


def report(*listed: Series) -> Report:
    return Report("test", {}, Machine.look(), list(listed))


def test_a_ratio_is_of_medians() -> None:
    [goal] = report(series("ours", 1.0, 9.0, 2.0), series("floor", 1.0)).ratio(
        "case", "ours", "floor", 1.5, at_most=True
    )
    assert goal.value == 2.0
    assert goal.met is False


def test_a_peer_that_was_ended_counts_with_its_limit() -> None:
    ended = series("dlt", note="not finished in 100 s", limit=100.0)
    [goal] = report(series("ours", 2.0), ended).ratio("case", "dlt", "ours", 25, at_most=False)
    assert (goal.value, goal.floor_only, goal.met) == (50.0, True, True)
    assert goal.line()[1] == "> 50 ×"


def test_who_did_not_take_part_has_no_ratio() -> None:
    assert report(series("ours", 2.0)).ratio("case", "dlt", "ours", 25, at_most=False) == []
    assert report(series("dlt", 2.0)).ratio("case", "dlt", "ours", 25, at_most=False) == []


def test_a_figure_that_is_missing_is_neither_met_nor_missed() -> None:
    assert Goal("memory", None, 120, at_most=True).met is None
