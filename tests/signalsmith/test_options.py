"""Ownership is explicit, and a mistake in the options never starts a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rally_pipeline.signalsmith.options import FILE_NAME, Ownership, SyncOptions, asset_key, read_options


def options_of(folder: Path, text: str, **config: object) -> SyncOptions:
    folder.mkdir(exist_ok=True)
    (folder / FILE_NAME).write_text(text)
    return read_options(folder).of("id-1", "Contacts", config)


def test_without_a_file_dagster_attaches(tmp_path: Path) -> None:
    assert read_options(tmp_path).of("id-1", "Contacts", {}) == SyncOptions()
    assert SyncOptions().ownership is Ownership.ATTACH


def test_the_file_wins_over_the_syncs_own_config_and_that_over_the_defaults(tmp_path: Path) -> None:
    text = """
defaults: {ownership: observe, deadline_minutes: 10, debounce_seconds: 5}
syncs:
  id-1: {deadline_minutes: 30}
"""
    found = options_of(tmp_path, text, rally_pipeline={"ownership": "drive", "deadline_minutes": 20})
    assert (found.ownership, found.deadline_minutes, found.debounce_seconds) == (Ownership.DRIVE, 30, 5)


def test_a_sync_is_named_by_its_id_or_its_name(tmp_path: Path) -> None:
    assert options_of(tmp_path, "syncs: {Contacts: {ownership: drive}}").ownership is Ownership.DRIVE
    assert options_of(tmp_path, "syncs: {id-1: {ownership: drive}}").ownership is Ownership.DRIVE


def test_upstream_takes_asset_keys_and_table_names(tmp_path: Path) -> None:
    found = options_of(
        tmp_path, "syncs: {id-1: {upstream: [rally/contacts, rally_deals, public.sell_leads, a/b/c]}}"
    )
    assert found.upstream == (("rally", "contacts"), ("rally", "deals"), ("sell", "leads"), ("a", "b", "c"))
    assert asset_key("rally_contacts") == asset_key("rally/contacts")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("syncs: {id-1: {ownership: drives}}", "'drives' is not one of attach, drive, observe"),
        ("syncs: {id-1: {owner: drive}}", "unknown option 'owner'"),
        ("syncs: {id-1: {deadline_minutes: 0}}", "from 1 to 10080"),
        ("syncs: {id-1: {deadline_minutes: '60'}}", "must be a whole number"),
        ("syncs: {id-1: {fail_above_share: 7}}", "from 0 to 1"),
        ("syncs: {id-1: {upstream: 7}}", "must be a list of asset keys"),
        ("syncs: {id-1: {cron: '0 0 31 4 *'}}", "never fires"),
        ("syncs: {id-1: 7}", "must be a mapping"),
        ("defaults: {ownership: true}", "is not one of"),
        ("sync: {}", "unknown key sync"),
        ("- a list", "must hold 'defaults:'"),
        ("syncs: [1]", "must be mappings"),
        ("syncs: {id-1: {cron: */5 * * * *}}", "line 1"),
        ("syncs:\n  a: 1\n b: 2", "line 3"),
    ],
)
def test_a_mistake_is_named_and_makes_the_sync_observed(tmp_path: Path, text: str, problem: str) -> None:
    found = options_of(tmp_path, text)
    assert found.ownership is Ownership.OBSERVE
    assert problem in " ".join(found.problems)


def test_a_mistake_of_one_sync_leaves_the_others_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("syncs: {bad: {ownership: x}, id-1: {ownership: drive}}")
    options = read_options(tmp_path)
    assert options.of("id-1", "", {}).ownership is Ownership.DRIVE
    assert options.of("other", "", {}).ownership is Ownership.ATTACH
    assert options.unknown({"id-1"}, {"Contacts"}) == ["bad"]


def test_config_of_any_shape_is_read_or_reported() -> None:
    options = read_options(Path("/does/not/exist"))
    for config in (
        {"rally_pipeline": None},
        {"rally_pipeline": []},
        {"rally_pipeline": 7},
        {"rally_pipeline": {}},
    ):
        assert options.of("id-1", "", config).ownership in (Ownership.ATTACH, Ownership.OBSERVE)


def test_a_file_that_cannot_be_read_makes_every_sync_observed(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe\x00")
    options = read_options(tmp_path)
    assert options.of("id-1", "", {}).ownership is Ownership.OBSERVE
    assert FILE_NAME in options.problem
