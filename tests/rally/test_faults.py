"""Whatever goes wrong on the way, the run may fail; the next run ends row-for-row equal and nothing is left over."""

from __future__ import annotations

import pytest

from rally_pipeline.http.errors import ApiError, Forbidden, NotFound, Unauthorized
from rally_pipeline.rally.entities import Entity
from rally_pipeline.sandbox.faults import FAULTS
from rally_pipeline.sandbox.profiles import PROFILES
from tests.rally.conftest import MakeWorld
from tests.rally.world import World

LASTING = {"unauthorized", "forbidden", "hidden", "always_429"}
"""Faults that make no sense for one request only; they have tests of their own."""
ONE_REQUEST = sorted(FAULTS.keys() - LASTING)


def run_once(world: World) -> list[ApiError]:
    """One cycle as an orchestrator runs it: each part on its own, failures noted."""
    failures: list[ApiError] = []
    for entity in Entity:
        if world.mirror.snapshot_required(entity):
            failures += _attempt(lambda entity=entity: world.mirror.extract(entity))  # type: ignore[misc]
    failures += _attempt(world.mirror.read_changes)
    for entity in Entity:
        failures += _attempt(lambda entity=entity: world.mirror.settle(entity))  # type: ignore[misc]
    return failures


def _attempt(action: object) -> list[ApiError]:
    try:
        action()  # type: ignore[operator]
    except ApiError as error:
        return [error]
    return []


@pytest.mark.parametrize("fault", ONE_REQUEST)
def test_a_fault_at_any_early_request_is_healed_by_the_next_run(
    make_sqlite_world: MakeWorld, fault: str
) -> None:
    world = make_sqlite_world(records=60, max_limit=20)
    # The list pages, the feed and the looks each meet the fault in turn.
    for path in ("/contacts", "/companies", "/sync/changes", "/contacts/*"):
        world.sandbox.faults.add(fault, path=path, after=1, times=1)
    run_once(world)
    world.sandbox.rally.mutate(40, over_seconds=20)
    world.pass_time(100)
    run_once(world)
    world.sandbox.faults.clear()
    for _ in range(2):
        world.pass_time(400)
        run_once(world)
    world.pass_time(400)
    if fault in {"huge_number", "long_integer", "many_keys"}:
        # The answer itself was well-formed and wrong, for one row of one page: the comparison finds and repairs it.
        for entity in Entity:
            world.mirror.verify(entity, heal=True)
    assert world.differences() == []
    assert world.marks() == []


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_rain_of_faults_ends_equal_when_it_stops(make_sqlite_world: MakeWorld, profile: str) -> None:
    world = make_sqlite_world(records=120, max_limit=20)
    world.sandbox.faults.use_profile(profile)
    for _ in range(4):
        run_once(world)
        world.sandbox.rally.mutate(30, over_seconds=20)
        world.pass_time(300)
    world.sandbox.faults.clear()
    for _ in range(3):
        world.pass_time(3_700)
        run_once(world)
    for entity in Entity:
        world.mirror.verify(entity, heal=True)
    assert world.differences() == []
    assert world.marks() == []


@pytest.mark.fault("H19")
def test_a_refused_key_stops_the_run_and_moves_nothing(make_world: MakeWorld) -> None:
    world = make_world(records=60)
    world.extract()
    world.sandbox.rally.mutate(20, over_seconds=20)
    world.pass_time(100)
    before = world.mirror.status()
    rule = world.sandbox.faults.add("unauthorized", times=None)
    with pytest.raises(Unauthorized) as caught:
        world.mirror.read_changes()
    assert "rk_test" not in str(caught.value)
    assert world.mirror.status().synced_through == before.synced_through
    world.sandbox.faults.remove(rule.no)
    world.catch_up()
    assert world.differences() == []


@pytest.mark.fault("H19")
def test_a_key_revoked_in_the_middle_keeps_the_pages_that_were_committed(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(records={"contacts": 100}, max_limit=20)
    world.sandbox.faults.add("unauthorized", path="/contacts", after=2, times=None)
    with pytest.raises(Unauthorized):
        world.mirror.extract(Entity.CONTACTS)
    assert 0 < len(world.rows(Entity.CONTACTS)) < 100
    world.sandbox.faults.clear()
    result = world.mirror.extract(Entity.CONTACTS)
    assert result.resumed
    assert world.differences() == []


@pytest.mark.fault("H20")
def test_an_entity_without_permission_does_not_stop_the_others(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records=60)
    world.sandbox.faults.add("forbidden", path="/deals*", times=None)
    failures = run_once(world)
    assert [type(failure) for failure in failures] == [Forbidden]
    stored = [entity for entity in Entity if world.rows(entity)]
    assert stored == [Entity.CONTACTS, Entity.COMPANIES, Entity.ACTIVITIES]
    world.sandbox.faults.clear()
    world.pass_time(60)
    run_once(world)
    assert world.differences() == []


@pytest.mark.fault("H22")
def test_a_missing_endpoint_is_a_configuration_error_and_deletes_nothing(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 30})
    world.extract()
    victim = next(iter(world.rows(Entity.CONTACTS)))
    world.sandbox.rally.delete("contacts", victim)
    world.pass_time(60)
    world.mirror.read_changes()
    world.sandbox.faults.add("hidden", path="/contacts*", times=None)
    with pytest.raises(NotFound):
        world.mirror.settle(Entity.CONTACTS)
    with pytest.raises(NotFound):
        world.mirror.extract(Entity.CONTACTS)
    assert len(world.rows(Entity.CONTACTS)) == 30
    world.sandbox.faults.clear()
    world.mirror.settle(Entity.CONTACTS)
    assert len(world.rows(Entity.CONTACTS)) == 29


@pytest.mark.fault("F16")
def test_one_record_that_always_fails_keeps_its_mark_and_holds_up_nobody(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(records={"contacts": 40}, updated_since="exclusive")
    world.extract()
    ids = [record["id"] for record in world.sandbox.rally.truth()["contacts"]]
    for entity_id in ids[:6]:
        world.sandbox.rally.delete("contacts", entity_id)
    world.sandbox.faults.add("status_500", path=f"/contacts/{ids[0]}", times=None)
    world.pass_time(100)
    _, settled = world.catch_up()
    assert settled[Entity.CONTACTS].failed == 1
    assert settled[Entity.CONTACTS].deleted == 5
    assert settled[Entity.CONTACTS].waiting == 1
    world.sandbox.faults.clear()
    world.pass_time(100)
    world.catch_up()
    assert world.differences() == []


@pytest.mark.fault("F9", "B17")
def test_a_lagging_replica_that_does_not_know_a_new_record_deletes_nothing(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(
        records={"contacts": 30},
        replica_lag_seconds=25,
        replica_serves=["lists", "records"],
        policy={"staleness_seconds": 30},
    )
    world.extract()
    world.pass_time(100)
    created = world.sandbox.rally.create(
        "contacts", {"firstName": "New", "lastName": "Here", "email": "new.here@example.org"}
    )
    world.pass_time(2)
    world.catch_up()
    assert created["id"] in world.rows(Entity.CONTACTS)
    assert world.differences() == []


@pytest.mark.fault("B1", "T7")
@pytest.mark.parametrize("kind", ["list", "feed"])
def test_a_page_cut_at_any_byte_is_never_used(make_sqlite_world: MakeWorld, kind: str) -> None:
    world = make_sqlite_world(records={"companies": 3})
    if kind == "feed":
        world.extract()
        world.pass_time(30)
        for record in world.sandbox.rally.truth()["companies"]:
            world.sandbox.rally.update("companies", record["id"], {"notes": "x"})
    path = "/companies" if kind == "list" else "/sync/changes"
    whole = len(world.sandbox.handle(_call(world, path)).body)
    for at in range(0, whole, 7 if kind == "list" else 3):
        world.sandbox.faults.add("cut_close_delimited", path=path, at=at, times=None)
        failures = _attempt(
            (lambda: world.mirror.extract(Entity.COMPANIES)) if kind == "list" else world.mirror.read_changes
        )
        assert len(failures) == 1, f"cut at byte {at}"
        world.sandbox.faults.clear()
        world.pass_time(120)
    if kind == "list":
        assert world.rows(Entity.COMPANIES) == {}
        world.mirror.extract(Entity.COMPANIES)
    world.pass_time(120)
    world.catch_up()
    assert world.differences() == []


def _call(world: World, path: str) -> object:
    key = world.sandbox.environment("http://127.0.0.1")["RALLY_API_KEY"]
    through = world.mirror.status().synced_through or world.clock.now()
    since = f"?since={through:%Y-%m-%dT%H:%M:%SZ}" if "changes" in path else ""
    return world.sandbox.call("GET", f"/rally/api/v1{path}{since}", {"x-api-key": key})
