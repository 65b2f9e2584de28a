"""Whatever the documentation leaves open may be either way: extract, changes, feed and looks end at the truth."""

from __future__ import annotations

from typing import Any

import pytest

from rally_pipeline.rally.entities import Entity
from tests.rally.conftest import MakeWorld

READINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "wrapped_in_data": {"envelope": "data", "total_key": "total"},
    "wrapped_in_items_with_a_lying_total": {"envelope": "items", "total_key": "totalCount", "total_error": 7},
    "wrapped_in_results": {"envelope": "results"},
    "pages_capped_at_7": {"max_limit": 7},
    "pages_capped_at_50": {"max_limit": 50},
    "large_limit_refused": {"max_limit": 250, "over_limit": "refuse"},
    "pages_overfilled": {"max_limit": 20, "overfill": 3},
    "order_by_id": {"list_order": "id", "max_limit": 20},
    "order_by_creation_descending": {"list_order": "-createdAt", "max_limit": 20},
    "order_by_update": {"list_order": "updatedAt", "max_limit": 20},
    "order_by_update_descending": {"list_order": "-updatedAt", "max_limit": 20},
    "empty_pages_in_between": {"max_limit": 10, "empty_page_every": 3},
    "repeated_pages_in_between": {"max_limit": 10, "repeat_page_every": 4},
    "rows_doubled": {"max_limit": 20, "duplicate_row_share": 0.2},
    "updated_since_exclusive": {"updated_since": "exclusive"},
    "updated_since_without_creates": {"updated_since_counts_creates": False},
    "replica_lag": {"replica_lag_seconds": 20, "replica_share": 0.5},
    "replica_lag_everywhere": {"replica_lag_seconds": 25},
    "nulls_left_out": {"nulls": "absent"},
    "decimals_as_strings": {"decimals": "string"},
    "seven_digits": {"record_digits": 7, "feed_digits": 7, "feed_compare_digits": 7},
    "three_digits": {"record_digits": 3, "feed_digits": 3, "feed_compare_digits": 3},
    "compared_finer_than_printed": {"feed_digits": 0, "feed_compare_digits": 7},
    "custom_fields_flat": {"custom_fields": "flat"},
    "custom_fields_object": {"custom_fields": "object"},
    "unknown_fields": {"extra_fields": {"customer tier": "gold", "score": 1.5}},
    "contact_details": {"contact_details": True},
    "gone_is_410": {"gone_status": 410},
    "updated_at_frozen": {"frozen_updated_at_share": 0.5},
    "cascades_touch": {"cascade": "entry"},
    "copied_names_follow": {"rename_copies": "entry"},
    "feed_capped_at_120": {"feed_max_limit": 120},
    "feed_inclusive": {"feed_since": "inclusive"},
    "feed_ties_shuffled": {"feed_ties": "shuffled"},
    "feed_ties_reversed": {"feed_ties": "reversed"},
    "feed_page_shuffled": {"feed_page_order": "shuffled"},
    "feed_doubled": {"feed_duplicate_share": 0.3},
    "feed_late": {"late_seconds": 40, "late_share": 0.3},
    "feed_delayed": {"feed_delay_seconds": 20},
    "feed_ahead": {"ahead_seconds": 3600, "ahead_share": 0.1},
    "feed_ids_by_change": {"feed_ids": "change", "late_seconds": 30, "late_share": 0.3},
    "feed_ids_with_gaps": {"feed_id_gap": 50},
    "feed_merged": {"merge_entries": True},
    "feed_unknown_entries": {"unknown_entry_share": 0.1},
    "naive_since_refused": {"feed_naive_since": "refuse"},
    "offset_since_misread": {"feed_offset_since": "misread"},
    "problem_in_html": {"error_shape": "html"},
}


@pytest.mark.fault("B7", "B8", "B9", "B10", "B13", "B15", "B17", "B19", "H23", "C2")
@pytest.mark.fault("F3", "F5", "F6", "F7", "F12", "F13", "V1", "V3", "V11")
@pytest.mark.parametrize("reading", READINGS)
def test_the_warehouse_ends_equal_to_the_source(make_sqlite_world: MakeWorld, reading: str) -> None:
    world = make_sqlite_world(
        records=160, policy={"staleness_seconds": 30, "overlap_seconds": 120}, **READINGS[reading]
    )
    world.extract()
    for _ in range(3):
        world.sandbox.rally.mutate(60, over_seconds=30)
        world.pass_time(45)
        world.catch_up()
    world.pass_time(200)
    world.catch_up()
    assert world.differences() == []
    assert world.marks() == []


@pytest.mark.fault("V1", "V3", "C2", "H23")
@pytest.mark.parametrize(
    "reading", ["plain", "nulls_left_out", "custom_fields_flat", "seven_digits", "gone_is_410"]
)
def test_both_databases_end_equal(make_world: MakeWorld, reading: str) -> None:
    world = make_world(records=120, **READINGS[reading])
    world.extract()
    world.sandbox.rally.mutate(60, over_seconds=30)
    world.pass_time(120)
    world.catch_up()
    assert world.differences() == []


@pytest.mark.fault("R10")
def test_a_second_run_on_a_quiet_source_writes_nothing(make_world: MakeWorld) -> None:
    world = make_world(records=200)
    world.extract()
    world.sandbox.rally.mutate(50, over_seconds=30)
    world.pass_time(300)
    world.catch_up()
    world.pass_time(300)
    before = {entity: world.rows(entity) for entity in Entity}
    results = [*world.extract().values(), world.catch_up()[0], *world.catch_up()[1].values()]
    for result in results:
        counts = result.counts()
        assert counts.get("inserted", 0) == counts.get("updated", 0) == counts.get("deleted", 0) == 0
        assert counts.get("recorded", 0) == 0
    assert {entity: world.rows(entity) for entity in Entity} == before


@pytest.mark.fault("B16")
def test_a_list_in_random_order_is_read_until_passes_agree_and_is_reported_as_unverified(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(records=120, list_order="random", max_limit=25)
    results = world.extract()
    assert not results[Entity.CONTACTS].verified
    assert world.differences() == []


@pytest.mark.fault("B11")
def test_a_server_that_ignores_offset_is_noticed(make_sqlite_world: MakeWorld) -> None:
    from rally_pipeline.rally.passes import EndlessList

    world = make_sqlite_world(records=400, ignore_offset=True, max_limit=20)
    with pytest.raises(EndlessList, match="ignore offset"):
        world.extract([Entity.CONTACTS])


def test_soft_delete_keeps_the_row_and_a_revival_clears_the_mark(make_world: MakeWorld) -> None:
    from rally_pipeline.settings import DeleteMode

    world = make_world(records=40, policy={"delete_mode": DeleteMode.SOFT})
    world.extract()
    victim = next(iter(world.rows(Entity.COMPANIES)))
    world.sandbox.rally.delete("companies", victim)
    world.pass_time(60)
    world.catch_up()
    assert world.rows(Entity.COMPANIES)[victim]["_deleted_at"] is not None
    assert world.differences() == []
    world.sandbox.rally.revive("companies", victim)
    world.pass_time(60)
    world.catch_up()
    assert world.rows(Entity.COMPANIES)[victim]["_deleted_at"] is None
    assert world.differences() == []
