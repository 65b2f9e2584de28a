"""Hours as partitions: keys, ranges, and what a run request says."""

import time
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._serdes import serialize_value

from rally_pipeline.orchestration.windows import (
    WindowRange,
    contiguous_ranges,
    hour_of,
    hourly_partition,
    window_key,
    window_start,
)
from rally_pipeline.settings import FEED_START_FORMAT

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


def dagsters_own(start: datetime) -> dg.HourlyPartitionsDefinition:
    return dg.HourlyPartitionsDefinition(
        start_date=start, timezone="UTC", fmt=FEED_START_FORMAT, end_offset=1
    )


@pytest.mark.parametrize("start", [START, START.replace(minute=20), at(8), at(9), at(10), at(23)])
def test_the_hours_are_listed_as_dagster_lists_them(start):
    with dg.partition_loading_context(effective_dt=at(9, 17)):
        assert hourly_partition(start).get_partition_keys() == list(dagsters_own(start).get_partition_keys())
    later = at(12)
    assert hourly_partition(START).get_partition_keys(later) == list(
        dagsters_own(START).get_partition_keys(later)
    )


def test_the_hours_are_equal_to_dagsters_own_and_stored_alike():
    ours, theirs = hourly_partition(START), dagsters_own(START)
    assert (ours, hash(ours)) == (theirs, hash(theirs))
    assert ours.get_serializable_unique_identifier() == theirs.get_serializable_unique_identifier()
    with dg.partition_loading_context(effective_dt=at(9)):
        subsets = [found.subset_with_all_partitions().to_serializable_subset() for found in (ours, theirs)]
    assert subsets[0] == subsets[1]
    assert serialize_value(subsets[0]) == serialize_value(subsets[1])


def test_ten_years_of_hours_are_listed_in_a_moment():
    """Dagster's own way takes a second, and each step that stands on the feed lists them."""
    with dg.partition_loading_context(effective_dt=START.replace(year=START.year + 10)):
        keys = hourly_partition(START)
        keys.get_partition_keys()
        begun = time.process_time()
        assert len(keys.get_partition_keys()) > 87_000
    assert time.process_time() - begun < 0.5


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
