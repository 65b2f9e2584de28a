"""The full extract: complete while the list moves, resumable anywhere, sparing with requests, never deleting."""

from __future__ import annotations

import itertools
from datetime import timedelta
from functools import partial

import pytest

from rally_pipeline.http.errors import Unauthorized
from rally_pipeline.rally.deletes import MassDeleteSuspected
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.tenant import WrongTenant
from tests.rally.conftest import MakeWorld
from tests.rally.world import Crash, World

PAGE = 5


def small_world(make: MakeWorld, order: str, *, rows: int = 14) -> World:
    world = make(records={"companies": rows}, max_limit=PAGE, list_order=order)
    world.pass_time(500)
    return world


def company_ids(world: World) -> list[str]:
    return [record["id"] for record in world.sandbox.rally.truth()["companies"]]


@pytest.mark.fault("B14")
@pytest.mark.parametrize("order", ["id", "createdAt", "updatedAt", "-updatedAt"])
@pytest.mark.parametrize("request_number", [2, 3, 4, 5, 6])
def test_a_delete_between_any_two_pages_loses_no_row(
    make_sqlite_world: MakeWorld, order: str, request_number: int
) -> None:
    """A delete ahead of the offset moves a live, unchanged row into a page that was already read."""
    for place in range(0, 14, 2):
        world = small_world(make_sqlite_world, order)
        victim = company_ids(world)[place]
        world.sandbox.before(
            request_number, partial(world.sandbox.rally.delete, "companies", victim), path="/companies"
        )
        world.forget()
        world.mirror.extract(Entity.COMPANIES)
        missing = [text for text in world.differences() if "missing" in text]
        assert missing == [], f"deleting row {place} before list request {request_number}"


@pytest.mark.fault("B14", "B15")
@pytest.mark.parametrize("order", ["id", "createdAt", "updatedAt", "-updatedAt", "-createdAt"])
def test_changes_during_the_extract_are_there_after_the_next_look(
    make_sqlite_world: MakeWorld, order: str
) -> None:
    world = make_sqlite_world(records=120, max_limit=10, list_order=order)
    world.sandbox.before(None, lambda: world.sandbox.rally.mutate(2, over_seconds=3), predicate=_is_list)
    world.extract()
    world.sandbox.clear_scripts()
    world.pass_time(200)
    world.catch_up()
    assert world.differences() == []
    assert world.marks() == []


def _is_list(call: object) -> bool:
    path: str = call.path  # type: ignore[attr-defined]
    return path.rsplit("/", 1)[-1] in {entity.value for entity in Entity}


@pytest.mark.fault("P1")
@pytest.mark.parametrize("together", [1, 2])
def test_a_crash_at_any_step_repeats_at_most_the_pages_of_one_commit(
    make_sqlite_world: MakeWorld, together: int
) -> None:
    world = make_sqlite_world(records={"companies": 24}, max_limit=6, policy={"commit_pages": together})
    reference = _requests_of_a_clean_extract(world)
    for step in itertools.count(1):
        world.sandbox.log.clear()
        world.crash_at(step)
        try:
            world.mirror.extract(Entity.COMPANIES, restart=True)
        except Crash:
            world.restart()
            if world.mirror.status().tables[1].extract_open:
                world.mirror.extract(Entity.COMPANIES)
        else:
            break
        assert world.differences() == []
        # What is asked again is what was not committed.
        assert world.requests("/companies") <= reference + together, f"crash at step {step}"
    world.survive()
    assert step > 20


def test_pages_that_came_together_are_one_transaction(make_world: MakeWorld) -> None:
    world = make_world(records={"companies": 60}, max_limit=6, policy={"commit_pages": 4})
    world.steps.clear()
    result = world.mirror.extract(Entity.COMPANIES)
    commits = world.steps.count("rally.companies.page:after-commit")
    assert (result.pages, commits) == (15, 4)
    assert (result.received, result.inserted, result.unchanged) == (60 + 14 * 2, 60, 14 * 2)
    assert world.differences() == []


def test_pages_before_a_failed_request_are_committed(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"companies": 60}, max_limit=6, policy={"commit_pages": 10})
    world.sandbox.faults.add("unauthorized", path="/companies", after=3, times=None)
    with pytest.raises(Unauthorized):
        world.mirror.extract(Entity.COMPANIES)
    assert len(world.rows(Entity.COMPANIES)) == 6 + 2 * 4


def test_a_record_that_changed_between_two_pages_of_a_transaction_has_its_newest_state(
    make_world: MakeWorld,
) -> None:
    world = make_world(
        records={"companies": 14}, max_limit=PAGE, list_order="updatedAt", policy={"commit_pages": 10}
    )
    world.pass_time(500)
    first = company_ids(world)[0]
    change = partial(world.sandbox.rally.update, "companies", first, {"name": "Newest"})
    world.sandbox.before(3, change, path="/companies")
    result = world.mirror.extract(Entity.COMPANIES)
    assert world.rows(Entity.COMPANIES)[first]["name"] == "Newest"
    assert (result.inserted, result.updated) == (14, 1)


def test_a_pause_after_an_answer_does_not_make_it_younger(make_sqlite_world: MakeWorld) -> None:
    """Found by `python -m tests.simulation rally`, seeds 3658 and 4108: another process read the feed meanwhile."""
    world = make_sqlite_world(records={"companies": 3})

    def stop_for_a_while(name: str) -> None:
        if name == "rally:GET /companies:after":
            world.pass_time(65)

    world.http._step = stop_for_a_while
    world.mirror.client.list_page(Entity.COMPANIES, offset=0, limit=10)
    assert world.clock.now() - world.mirror.client.server_floor() < timedelta(seconds=2)


def test_an_answer_that_was_long_on_its_way_does_not_stop_a_pass(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"companies": 3})
    world.extract()
    world.pass_time(600)
    world.catch_up()
    leads = world.mirror.client._leads
    leads.append((world.clock.now() - timedelta(seconds=120), world.clock.monotonic()))
    world.mirror.extract(Entity.COMPANIES)
    assert world.differences() == []


def test_reading_ahead_gives_the_same_rows(make_world: MakeWorld) -> None:
    world = make_world(records={"companies": 60}, max_limit=6, policy={"prefetch": True, "commit_pages": 3})
    result = world.mirror.extract(Entity.COMPANIES)
    assert (result.pages, result.inserted) == (15, 60)
    assert world.differences() == []


def _requests_of_a_clean_extract(world: World) -> int:
    world.mirror.extract(Entity.COMPANIES)
    found = world.requests("/companies")
    world.sandbox.log.clear()
    return found


def test_rows_that_a_pass_does_not_meet_are_marked_and_looked_at_not_deleted(make_world: MakeWorld) -> None:
    world = make_world(records={"companies": 30})
    world.extract()
    gone = company_ids(world)[:3]
    world.sandbox.rally.switch(no_entry_share=1.0)
    for victim in gone:
        world.sandbox.rally.delete("companies", victim)
    world.pass_time(60)
    result = world.mirror.extract(Entity.COMPANIES)
    assert result.unmet == 3
    assert len(world.rows(Entity.COMPANIES)) == 30
    settled = world.mirror.settle(Entity.COMPANIES)
    assert settled.deleted == 3
    assert world.differences() == []


@pytest.mark.fault("R7")
def test_a_mass_delete_by_accident_is_stopped_and_a_person_can_allow_it_once(make_world: MakeWorld) -> None:
    world = make_world(records={"companies": 300})
    world.extract([Entity.COMPANIES])
    world.sandbox.rally.switch(no_entry_share=1.0)
    for victim in company_ids(world)[:150]:
        world.sandbox.rally.delete("companies", victim)
    world.pass_time(60)
    world.mirror.extract(Entity.COMPANIES)
    with pytest.raises(MassDeleteSuspected, match=r"150 of 300 rows .* allow-deletes companies 150"):
        world.mirror.settle(Entity.COMPANIES)
    assert len(world.rows(Entity.COMPANIES)) == 300
    world.mirror.allow_deletes(Entity.COMPANIES, 150)
    assert world.mirror.settle(Entity.COMPANIES).deleted == 150
    assert world.differences() == []
    with world.warehouse.reading() as tx:
        assert (tx.state(Entity.COMPANIES.stream) or {})["allowed_deletes"] == 0


@pytest.mark.security("35")
def test_a_key_of_another_tenant_changes_nothing(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"companies": 10}, seed=1)
    world.extract([Entity.COMPANIES])
    before = world.rows(Entity.COMPANIES)
    other = make_sqlite_world(records={"companies": 10}, seed=2)
    with pytest.raises(WrongTenant, match="RALLY_API_KEY"):
        other.mirror.extract(Entity.COMPANIES)
    assert other.rows(Entity.COMPANIES) == before


@pytest.mark.parametrize("page_size", [100, 250, 1000])
def test_an_extract_costs_hardly_more_requests_than_there_are_pages(
    make_sqlite_world: MakeWorld, page_size: int
) -> None:
    world = make_sqlite_world(records={"contacts": 3_000}, max_limit=page_size)
    world.mirror.extract(Entity.CONTACTS)
    least = -(-3_000 // page_size)
    assert world.requests() <= 1.1 * least + 10
    assert world.differences() == []


def test_an_unchanged_row_is_not_written_again(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 50})
    world.extract([Entity.CONTACTS])
    before = world.rows(Entity.CONTACTS)
    world.pass_time(3_600)
    result = world.mirror.extract(Entity.CONTACTS)
    assert (result.inserted, result.updated, result.unmet) == (0, 0, 0)
    assert world.rows(Entity.CONTACTS) == before


@pytest.mark.fault("B17")
def test_a_list_row_older_than_the_stored_one_is_marked_not_written(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"companies": 10}, replica_lag_seconds=50, replica_share=0.0)
    world.extract([Entity.COMPANIES])
    victim = company_ids(world)[0]
    world.pass_time(100)
    world.sandbox.rally.update("companies", victim, {"notes": "new"})
    world.pass_time(1)
    world.mirror.extract(Entity.COMPANIES)
    world.sandbox.rally.switch(replica_share=1.0)
    world.pass_time(10)
    result = world.mirror.extract(Entity.COMPANIES)
    assert result.older == 1
    assert world.rows(Entity.COMPANIES)[victim]["notes"] == "new"
    world.pass_time(100)
    world.mirror.settle(Entity.COMPANIES)
    assert world.differences() == []
    assert world.marks() == []


@pytest.mark.fault("B3", "B18")
def test_a_record_that_cannot_be_stored_goes_to_quarantine_and_comes_back_on_replay(
    make_world: MakeWorld,
) -> None:
    world = make_world(records={"companies": 10})
    victim = company_ids(world)[4]
    world.sandbox.rally.distort("companies", victim, raw={"annualRevenue": "NaN"})
    result = world.mirror.extract(Entity.COMPANIES)
    assert result.quarantined == 1
    assert len(world.rows(Entity.COMPANIES)) == 9
    with world.warehouse.reading() as tx:
        held = tx.quarantined(Entity.COMPANIES.stream)
    assert [record.key for record in held] == [victim]
    assert "NaN" in held[0].reason
    assert victim in held[0].raw
    world.sandbox.rally.restore("companies", victim)
    assert world.mirror.replay_quarantine().marks == 1
    world.pass_time(5)
    world.mirror.settle(Entity.COMPANIES)
    assert world.differences() == []
    with world.warehouse.reading() as tx:
        assert tx.quarantined(Entity.COMPANIES.stream) == []


def test_the_simple_mode_reads_only_what_was_updated_and_never_deletes(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 60})
    world.mirror.extract_updated(Entity.CONTACTS)
    assert len(world.rows(Entity.CONTACTS)) == 60
    world.pass_time(600)
    ids = [record["id"] for record in world.sandbox.rally.truth()["contacts"]]
    world.sandbox.rally.update("contacts", ids[0], {"notes": "changed"})
    world.sandbox.rally.delete("contacts", ids[1])
    world.pass_time(10)
    result = world.mirror.extract_updated(Entity.CONTACTS)
    assert (result.updated, result.inserted) == (1, 0)
    rows = world.rows(Entity.CONTACTS)
    assert rows[ids[0]]["notes"] == "changed"
    assert ids[1] in rows
