"""The catalog: every row on its own, names kept, vanished syncs kept for a while, a collapse not believed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from rally_pipeline.http.errors import ApiError
from rally_pipeline.signalsmith import catalog_file, tables
from rally_pipeline.signalsmith.catalog import VERSION, Catalog
from rally_pipeline.signalsmith.catalog_file import FILE_NAME, PREVIOUS, SUSPECT, load_catalog
from rally_pipeline.signalsmith.errors import CatalogShrunk
from rally_pipeline.signalsmith.options import OptionsFile
from rally_pipeline.signalsmith.schedules import plan_all
from tests.signalsmith.bench import Bench

MakeBench = Callable[..., Bench]


def entries(bench: Bench) -> dict[str, Any]:
    return {entry.name: entry for entry in load_catalog(bench.home).catalog.entries}


def test_a_refresh_writes_the_file_and_the_table(bench: Bench) -> None:
    result = bench.refresh()
    assert result.changes.counts()["added"] == 2
    assert set(entries(bench)) == {"Contacts to newsletter", "Deals to finance"}
    with bench.warehouse.reading() as transaction:
        rows = transaction.rows(select(tables.syncs.c.slug, tables.syncs.c.dagster_schedule).order_by("slug"))
    assert rows == [("contacts_to_newsletter", "*/15 * * * *"), ("deals_to_finance", "0 * * * *")]
    assert result.usage.requests == 3


def test_a_second_refresh_of_a_quiet_workspace_changes_nothing(bench: Bench) -> None:
    bench.refresh()
    bench.clock.advance(7200)  # runs come and go, and with them last_run_id and last_synced_at
    result = bench.refresh()
    assert not result.changes.any
    assert result.changes.unchanged == 2


def test_added_changed_and_removed_are_reported(bench: Bench) -> None:
    bench.refresh()
    first, second = bench.sync_id(0), bench.sync_id(1)
    bench.control("edit_sync", sync=first, fields={"schedule": "0 5 * * *", "name": "Renamed"})
    bench.control("remove_sync", sync=second)
    bench.make_sync(name="New one")
    changes = bench.refresh().changes
    assert changes.added == ["New one (new_one)"]
    assert changes.changed == ["Renamed (contacts_to_newsletter): name, schedule"]
    assert changes.gone == ["Deals to finance (deals_to_finance)"]


def test_a_renamed_sync_keeps_every_name_in_dagster(bench: Bench) -> None:
    bench.refresh()
    bench.control("edit_sync", sync=bench.sync_id(0), fields={"name": "Something else entirely"})
    bench.refresh()
    assert entries(bench)["Something else entirely"].slug == "contacts_to_newsletter"


def test_slugs_survive_the_loss_of_the_file(bench: Bench) -> None:
    bench.refresh()
    bench.control("edit_sync", sync=bench.sync_id(0), fields={"name": "Something else"})
    bench.refresh()
    for path in bench.home.glob("signalsmith_catalog*"):
        path.unlink()
    bench.refresh()
    assert entries(bench)["Something else"].slug == "contacts_to_newsletter"


def test_a_hostile_list_is_read_row_by_row(make_bench: MakeBench) -> None:
    bench = make_bench(hostile=True)
    result = bench.refresh()
    assert len(result.catalog.skipped) == 9
    assert len({entry.slug for entry in result.catalog.entries}) == len(result.catalog.entries) == 44
    assert {"Twins", "🚀🚀", ""} <= {entry.name for entry in result.catalog.entries}
    assert any("another sync has the same id" in row.reason for row in result.catalog.skipped)
    reasons = dict(result.unscheduled)
    assert "never fires" in next(text for name, text in reasons.items() if name.startswith("Fires never"))
    assert result.scheduled > 20


def test_a_paginated_list_is_read_to_its_end(make_bench: MakeBench) -> None:
    bench = make_bench(syncs=257, switches={"paginate": True})
    assert len(bench.refresh().catalog.present) == 257


def test_a_row_that_a_page_shift_hides_is_found_by_reading_once_more(make_bench: MakeBench) -> None:
    bench = make_bench(syncs=60, switches={"paginate": True})
    first = bench.sync_id(0)
    bench.before_request(2, lambda: bench.control("remove_sync", sync=first), path="*/syncs")
    names = {entry.name for entry in bench.refresh().catalog.present}
    assert {f"Sync number {number}" for number in range(2, 61)} <= names


def test_a_vanished_sync_is_kept_for_a_week_and_three_refreshes(bench: Bench) -> None:
    bench.refresh()
    gone = bench.sync_id(0)
    bench.control("remove_sync", sync=gone)
    bench.refresh()
    kept = entries(bench)["Contacts to newsletter"]
    assert kept.is_gone
    plan = plan_all(load_catalog(bench.home).catalog, OptionsFile())[gone]
    assert plan.cron is not None
    assert "does not list this sync any more" in plan.hold
    bench.clock.advance(timedelta(days=8).total_seconds())
    bench.refresh()
    assert "Contacts to newsletter" in entries(bench)  # two refreshes without it, not three
    result = bench.refresh()
    assert result.changes.removed == ["Contacts to newsletter (contacts_to_newsletter)"]
    assert "Contacts to newsletter" not in entries(bench)
    with bench.warehouse.reading() as transaction:
        assert transaction.count(tables.syncs) == 1


def test_a_sync_that_returns_is_as_it_was(bench: Bench) -> None:
    bench.refresh()
    sync = bench.api.engine.syncs.pop(bench.sync_id(0))
    bench.refresh()
    bench.api.engine.add(sync)
    result = bench.refresh()
    assert result.changes.returned == ["Contacts to newsletter (contacts_to_newsletter)"]
    assert not entries(bench)["Contacts to newsletter"].is_gone


def test_a_paused_sync_keeps_its_schedule_that_skips_with_a_reason(bench: Bench) -> None:
    bench.refresh()
    sync_id = bench.sync_id(0)
    bench.control("edit_sync", sync=sync_id, fields={"status": "paused"})
    bench.refresh()
    plan = plan_all(load_catalog(bench.home).catalog, OptionsFile())[sync_id]
    assert plan.cron is not None
    assert "paused, not active" in plan.hold
    bench.clock.advance(timedelta(days=31).total_seconds())
    bench.refresh()
    assert plan_all(load_catalog(bench.home).catalog, OptionsFile())[sync_id].cron is None


def test_a_sync_in_error_never_had_a_live_schedule_derived_from_it(bench: Bench) -> None:
    sync_id = bench.make_sync(schedule="0 4 * * *", status="error", status_error="login expired")
    bench.refresh()
    plan = plan_all(load_catalog(bench.home).catalog, OptionsFile())[sync_id]
    assert plan.cron is None
    assert "login expired" in plan.reason


@pytest.mark.fault("R7")
def test_a_list_that_lost_more_than_half_is_set_aside_until_it_is_accepted(make_bench: MakeBench) -> None:
    bench = make_bench(syncs=10)
    bench.refresh()
    before = (bench.home / FILE_NAME).read_bytes()
    for sync_id in list(bench.api.engine.syncs)[:6]:
        bench.control("remove_sync", sync=sync_id)
    with pytest.raises(CatalogShrunk, match="4 syncs where it listed 10"):
        bench.refresh()
    assert (bench.home / FILE_NAME).read_bytes() == before
    assert (bench.home / SUSPECT).exists()
    with bench.warehouse.reading() as transaction:
        assert transaction.count(tables.syncs) == 10
    result = bench.refresh(accept_shrink=True)
    assert len(result.catalog.present) == 4
    assert load_catalog(bench.home).problem == ""
    assert not (bench.home / SUSPECT).exists()


@pytest.mark.fault("R7")
def test_an_empty_list_is_never_believed_by_itself(bench: Bench) -> None:
    bench.refresh()
    for sync_id in list(bench.api.engine.syncs):
        bench.control("remove_sync", sync=sync_id)
    with pytest.raises(CatalogShrunk):
        bench.refresh()


@pytest.mark.parametrize(
    "fault", ["html_200", "empty_200", "error_200", "wrong_shape", "cut_json", "status_503"]
)
def test_an_answer_that_is_no_list_leaves_the_catalog_alone(bench: Bench, fault: str) -> None:
    bench.refresh()
    before = (bench.home / FILE_NAME).read_bytes()
    bench.sandbox.faults.add(fault, times=None)
    with pytest.raises(ApiError):
        bench.refresh()
    assert (bench.home / FILE_NAME).read_bytes() == before


def test_models_that_cannot_be_read_cost_no_sync_and_no_known_lineage(bench: Bench) -> None:
    bench.refresh()
    bench.sandbox.faults.add("forbidden", path="*/models", times=None)
    bench.refresh()
    assert entries(bench)["Contacts to newsletter"].tables == ["rally_contacts"]


@pytest.mark.parametrize("key", ["timezone", "time_zone", "defaults.timezone", "regional.defaultTimezone"])
def test_the_zone_of_the_workspace_is_found_wherever_it_is_kept(make_bench: MakeBench, key: str) -> None:
    bench = make_bench(timezone="Europe/Berlin", switches={"timezone_key": key})
    catalog = bench.refresh().catalog
    assert (catalog.timezone, catalog.timezone_source) == ("Europe/Berlin", "workspace setting")


def test_without_any_zone_it_is_utc(make_bench: MakeBench) -> None:
    bench = make_bench(timezone="Europe/Berlin", switches={"timezone_key": ""})
    catalog = bench.refresh().catalog
    assert (catalog.timezone, catalog.timezone_source) == ("UTC", "default")


def test_an_unreadable_zone_stops_schedules_and_says_so(bench: Bench) -> None:
    bench.api.engine.zone = "Mars/Phobos"
    result = bench.refresh()
    assert result.scheduled == 0
    assert (
        "time zone",
        "'Mars/Phobos' is not a time zone: use an IANA name such as Europe/Berlin"
        " (from workspace setting); set SIGNALSMITH_TIMEZONE",
    ) in result.warnings


def test_extra_and_missing_fields_are_tolerated(make_bench: MakeBench) -> None:
    bench = make_bench(switches={"extra_fields": True, "sparse": True})
    assert len(bench.refresh().catalog.present) == 2


def test_the_remote_fingerprint_moves_only_with_what_matters(bench: Bench) -> None:
    from rally_pipeline.signalsmith.refresh import CatalogRefresh

    bench.refresh()
    refresh = CatalogRefresh(bench.settings, bench.client, bench.warehouse, bench.clock)
    stored = load_catalog(bench.home).catalog.fingerprint
    bench.clock.advance(3600)
    assert refresh.remote_fingerprint() == stored
    bench.control("edit_sync", sync=bench.sync_id(0), fields={"schedule": "1 * * * *"})
    assert refresh.remote_fingerprint() != stored


# Files


def write(home: Path, name: str, content: bytes | dict[str, Any]) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def test_a_missing_catalog_loads_empty_with_an_instruction(tmp_path: Path) -> None:
    loaded = load_catalog(tmp_path)
    assert loaded.is_missing
    assert "materialize signalsmith/catalog" in loaded.problem


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\x00\xff", b'{"version": "1"}', b"[" * 100_000]
)
def test_a_damaged_catalog_falls_back_to_the_one_before(bench: Bench, content: bytes) -> None:
    bench.refresh()
    bench.refresh()
    write(bench.home, FILE_NAME, content)
    loaded = load_catalog(bench.home)
    assert len(loaded.catalog.present) == 2
    assert PREVIOUS in loaded.problem
    bench.refresh()  # the damaged file is put aside
    assert load_catalog(bench.home).problem == ""
    assert (bench.home / catalog_file.DAMAGED).read_bytes() == content


def test_a_file_of_a_newer_version_is_not_guessed_at(bench: Bench) -> None:
    bench.refresh()
    bench.refresh()
    content = json.loads((bench.home / FILE_NAME).read_bytes())
    write(bench.home, FILE_NAME, {**content, "version": VERSION + 1})
    loaded = load_catalog(bench.home)
    assert "newer version" in loaded.problem
    assert len(loaded.catalog.present) == 2


def test_a_file_of_an_older_version_lacks_fields_and_is_still_good(tmp_path: Path) -> None:
    entry = {
        "id": "id-1",
        "slug": "contacts",
        "name": "Contacts",
        "schedule": "0 * * * *",
        "status": "active",
    }
    write(tmp_path, FILE_NAME, {"version": 0, "fetched_at": "2025-01-01T00:00:00+00:00", "entries": [entry]})
    loaded = load_catalog(tmp_path)
    assert loaded.problem == ""
    assert [found.slug for found in loaded.catalog.entries] == ["contacts"]


def test_a_file_that_suddenly_holds_fewer_syncs_is_not_believed(make_bench: MakeBench) -> None:
    bench = make_bench(syncs=10)
    bench.refresh()
    bench.refresh()
    content = json.loads((bench.home / FILE_NAME).read_bytes())
    write(bench.home, FILE_NAME, {**content, "entries": content["entries"][:4]})
    loaded = load_catalog(bench.home)
    assert len(loaded.catalog.present) == 10
    assert "not believed" in loaded.problem


def test_one_damaged_entry_takes_no_other_down(bench: Bench) -> None:
    bench.refresh()
    content = json.loads((bench.home / FILE_NAME).read_bytes())
    bad = [
        {"id": 7},
        "x",
        {**content["entries"][0]},
        {**content["entries"][0], "id": "other"},
        {"id": "a", "slug": "../x"},
    ]
    write(bench.home, FILE_NAME, {**content, "entries": [*content["entries"], *bad]})
    loaded = load_catalog(bench.home)
    assert len(loaded.catalog.entries) == 2
    assert len(loaded.catalog.skipped) == 5


def test_a_catalog_of_another_workspace_is_left_alone(bench: Bench) -> None:
    bench.refresh()
    loaded = load_catalog(bench.home, "another-workspace")
    assert loaded.catalog.entries == []
    assert "another-workspace" not in loaded.problem
    assert "not of SIGNALSMITH_WORKSPACE_ID" in loaded.problem


def test_the_file_is_private_and_written_as_a_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.refresh()
    path = bench.home / FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        catalog_file.write_catalog(bench.home, Catalog(fetched_at="2026-01-01T00:00:00+00:00"))
    assert path.read_bytes() == before
    assert not list(bench.home.glob(".*.json.*"))


def test_a_catalog_survives_its_own_round_trip(bench: Bench) -> None:
    written = bench.refresh().catalog
    assert msgspec.to_builtins(load_catalog(bench.home).catalog) == msgspec.to_builtins(written)
