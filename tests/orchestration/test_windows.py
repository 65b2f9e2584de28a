"""Hours as partitions: keys, ranges, and what a run request says."""

from datetime import UTC, datetime

import dagster as dg

from rally_pipeline.orchestration.windows import (
    WindowRange,
    contiguous_ranges,
    hour_of,
    hourly_partition,
    window_key,
    window_start,
)

START = datetime(2026, 3, 1, tzinfo=UTC)


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 2, hour, minute, tzinfo=UTC)


def test_a_key_and_its_hour_are_each_others_inverse():
    assert window_key(at(9)) == "2026-03-02-09:00"
    assert window_start("2026-03-02-09:00") == at(9)
    assert hour_of(at(9, 59)) == at(9)


def test_an_instant_of_another_zone_falls_into_its_utc_hour():
    zoned = datetime.fromisoformat("2026-03-02T23:30:00-05:00")
    assert window_key(hour_of(zoned)) == "2026-03-03-04:00"


def test_the_running_hour_is_a_partition_and_the_next_one_is_not():
    with dg.partition_loading_context(effective_dt=at(9, 17)):
        keys = hourly_partition(START).get_partition_keys()
    assert keys[0] == "2026-03-01-00:00"
    assert keys[-1] == "2026-03-02-09:00"


def test_windows_become_the_fewest_ranges_and_nothing_between_them():
    ranges = list(contiguous_ranges([at(12), at(9), at(10), at(10, 30), at(15)], not_before=START))
    assert ranges == [
        WindowRange(at(9), at(10)),
        WindowRange(at(12), at(12)),
        WindowRange(at(15), at(15)),
    ]
    assert [str(found) for found in ranges][:2] == [
        "2026-03-02-09:00 to 2026-03-02-10:00",
        "2026-03-02-12:00",
    ]
    assert ranges[0].tags == {
        "dagster/asset_partition_range_start": "2026-03-02-09:00",
        "dagster/asset_partition_range_end": "2026-03-02-10:00",
    }


def test_windows_before_the_first_partition_are_left_out():
    assert list(contiguous_ranges([at(9), at(10)], not_before=at(10))) == [WindowRange(at(10), at(10))]
    assert list(contiguous_ranges([at(9)], not_before=at(10))) == []
    assert list(contiguous_ranges([], not_before=START)) == []
