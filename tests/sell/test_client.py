"""The calls: what they carry, how refusals read, how fast they go, and where the token never goes."""

from __future__ import annotations

import pytest

from rally_pipeline.http.errors import ApiError, Forbidden, Unauthorized
from rally_pipeline.sell.client import RATES, SellClient, connect
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.errors import ApiRetired
from rally_pipeline.settings import SettingsError, load_settings
from tests.sell.conftest import MakeWorld
from tests.sell.world import World


def nothing_unstored_is_acknowledged(world: World) -> None:
    device = world.api.sync.devices.get(world.uuid)
    stored = {(entity.singular, str(row["id"])) for entity in Entity for row in world.rows(_table(entity))}
    raw = {("call_outcome", thing.id) for thing in world.api.world.live("call_outcome")}
    assert set(device.memory if device else ()) <= stored | raw


def _table(entity: Entity):  # type: ignore[no-untyped-def]
    from rally_pipeline.sell.tables import ENTITY_TABLES

    return ENTITY_TABLES[entity]


# ---------------------------------------------------------------------- bad input


def test_a_wrong_token_is_one_clear_line_without_the_token(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.api.token = "x" * 64
    with pytest.raises(Unauthorized) as caught:
        world.drain()
    assert "401" in str(caught.value)
    assert "test_sell" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert world.requests() == 1


def test_a_token_without_the_sync_scope_names_the_scope(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(scopes=["read", "profile"])
    with pytest.raises(Forbidden, match="lacks the scope `sync`"):
        world.drain()
    assert world.requests() == 1


@pytest.mark.fault("H21", "H19")
@pytest.mark.parametrize("after", range(1, 12, 2))
def test_a_token_that_expires_in_the_middle_loses_nothing(make_sqlite_world: MakeWorld, after: int) -> None:
    world = make_sqlite_world(page_size=10)
    world.api.expire_token(after_requests=after)
    with pytest.raises(Unauthorized):
        world.drain()
    nothing_unstored_is_acknowledged(world)
    world.api.forgive()
    world.reopen()
    world.catch_up()
    assert world.differences() == []
    assert world.unsettled() == []


def test_a_retired_api_is_told_as_such(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.catch_up()
    world.api.world.delete("lead", next(world.api.world.live("lead")).id)
    world.drain()
    world.api.switch(retired=True)
    with pytest.raises(ApiRetired, match="retired"):
        world.drain()
    rows = {entity: world.count(_table(entity)) for entity in Entity}
    with pytest.raises(ApiError):
        world.drain()
    world.mirror.settle(Entity, wait=False)
    assert rows == {entity: world.count(_table(entity)) for entity in Entity}


def test_a_missing_uuid_is_a_setting_to_make() -> None:
    settings = load_settings(sell_access_token="t" * 64, sell_device_uuid=None)
    with pytest.raises(SettingsError, match="set SELL_DEVICE_UUID"):
        connect(settings)


@pytest.mark.parametrize(
    "spelling",
    [
        "5C1D5A0E-0000-4000-8000-000000000001",
        "{5c1d5a0e-0000-4000-8000-000000000001}",
        "urn:uuid:5c1d5a0e-0000-4000-8000-000000000001",
        "5c1d5a0e000040008000000000000001",
        ' "5c1d5a0e-0000-4000-8000-000000000001"\r\n',
    ],
)
def test_the_server_hears_one_spelling_of_the_uuid(spelling: str) -> None:
    client = connect(load_settings(sell_access_token="t" * 64, sell_device_uuid=spelling))
    assert client.device_uuid == "5c1d5a0e-0000-4000-8000-000000000001"
    client.http.close()


def test_a_missing_read_scope_keeps_marks_open_and_says_so(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(scopes=["sync"])
    world.catch_up()
    lead = next(world.api.world.live("lead"))
    world.api.world.delete("lead", lead.id)
    world.drain()
    assert world.row(Entity.LEADS, lead.id) is None
    result = world.settle()[Entity.LEADS]
    assert result.scope_missing
    assert result.waiting == 1
    world.api.switch(scopes=["sync", "read", "profile"])
    world.reopen()
    world.settle()
    assert world.unsettled() == []


# ---------------------------------------------------------------------- throttling


def test_the_rate_of_the_token_is_never_exceeded(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records=400, page_size=10, limit_per_second=10, limit_per_hour=36_000)
    result = world.drain()
    assert result.cost.throttled == 0
    assert result.cost.requests == 2 * result.pages + 2
    times = [entry.at for entry in world.sandbox.log]
    for count, seconds in RATES:
        for first, last in zip(times, times[count:], strict=False):
            assert (last - first).total_seconds() > seconds
    assert world.differences() == []


def test_the_hourly_rate_is_kept_too() -> None:
    assert (36_000, 3600.0) in RATES
    assert (10, 1.0) in RATES


@pytest.mark.parametrize("retry_after", [None, 7])
def test_a_429_is_waited_for_and_costs_nothing(make_sqlite_world: MakeWorld, retry_after: int | None) -> None:
    world = make_sqlite_world()
    for path in ("/v2/sync/start", "/v2/sync/*/queues/main", "/v2/sync/ack"):
        world.api.refuse(429, path=path, retry_after=retry_after)
    begun = world.clock.monotonic()
    result = world.catch_up()
    assert result.is_complete
    assert result.cost.throttled == 3
    assert result.sessions == 1
    assert world.clock.monotonic() - begun >= 3 * (retry_after or 1)
    assert world.differences() == []


@pytest.mark.fault("H24")
def test_a_409_is_taken_for_throttling_where_it_reads(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.api.refuse(409, path="/v2/sync/*/queues/main", after=1, times=2)
    assert world.catch_up().is_complete
    assert world.differences() == []


@pytest.mark.fault("H26")
def test_a_server_that_is_down_is_left_alone_soon(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.sandbox.faults.add("html_503", api="sell", times=None)
    with pytest.raises(ApiError, match="503"):
        world.drain()
    assert world.requests() <= 3
    world.sandbox.faults.clear()
    world.clock.advance(60)
    world.catch_up()
    assert world.differences() == []


# ---------------------------------------------------------------------- what is sent


def test_urls_come_from_the_configuration_and_never_from_an_answer(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    hosts: list[str] = []
    send = world.http._transport.send

    def watch(request, limits):  # type: ignore[no-untyped-def]
        hosts.append(request.url)
        return send(request, limits)

    world.http._transport.send = watch  # type: ignore[method-assign]
    world.catch_up()
    world.api.world.mutate(30)
    world.catch_up()
    assert hosts
    assert all(url.startswith("http://127.0.0.1/sell/v2/") for url in hosts)


def test_a_redirect_is_not_followed(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.sandbox.faults.add("redirect", api="sell", path="/v2/sync/start")
    with pytest.raises(ApiError, match="redirect"):
        world.drain()
    assert world.requests() == 1


def test_every_sync_call_carries_the_documented_headers(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    seen: dict[str, dict[str, str]] = {}
    world.sandbox.before(
        None, lambda call: seen.setdefault(call.path.rsplit("/", 1)[-1], call.headers), api="sell"
    )
    world.drain()
    assert set(seen) == {"start", "main", "ack"}
    for headers in seen.values():
        assert headers["authorization"].startswith("Bearer ")
        assert headers["x-basecrm-device-uuid"] == world.uuid
        assert headers["user-agent"]
    assert "content-type" not in seen["start"]
    assert seen["ack"]["content-type"] == "application/json"


def test_odd_ids_cannot_leave_their_path(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    client = SellClient(world.http, device_uuid=world.uuid, clock=world.clock)
    for odd in ("../users/self", "1?x=2", "http://elsewhere.invalid/1"):
        assert client.read_one(Entity.LEADS, odd) is None
    assert {entry.path for entry in world.sandbox.log if "elsewhere" not in entry.path} <= {
        "/sell/v2/leads",
        "/sell/v2/leads/..%2Fusers%2Fself",
        "/sell/v2/leads/1%3Fx%3D2",
    }


# ---------------------------------------------------------------------- reads for repair


def test_many_objects_are_read_by_one_request(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records=400)
    world.catch_up()
    gone = list(world.api.world.live("lead"))[:40]
    for lead in gone:
        world.api.world.delete("lead", lead.id)
    world.drain()
    before = world.requests()
    world.settle()
    assert world.requests() - before == 1
    assert world.unsettled() == []
    assert world.differences() == []


def test_a_server_without_the_ids_filter_is_read_one_by_one(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records=100, ids_filter=False)
    world.catch_up()
    for kind in ("lead", "stage"):
        for thing in list(world.api.world.live(kind))[:3]:
            world.api.world.delete(kind, thing.id)
    world.catch_up()
    assert world.differences() == []
    assert world.unsettled() == []


@pytest.mark.parametrize("kind", [entity.singular for entity in Entity if entity is not Entity.ACCOUNTS])
def test_every_type_can_be_repaired_and_proven_gone(make_sqlite_world: MakeWorld, kind: str) -> None:
    world = make_sqlite_world(records=60)
    things = list(world.api.world.live(kind))[:2]
    world.api.sync.failing[things[0].reference] = 1
    world.catch_up()
    assert world.differences() == []
    for thing in things:
        world.api.world.delete(kind, thing.id)
    world.catch_up()
    assert world.differences() == []
    assert world.unsettled() == []


def test_the_account_is_repaired_too(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.api.sync.failing[next(world.api.world.live("account")).reference] = 1
    world.catch_up()
    assert world.differences() == []
    assert world.unsettled() == []


def test_sources_of_deals_and_of_leads_with_one_id_are_not_mixed(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    source = next(world.api.world.live("source"))
    world.catch_up()
    kept = world.row(Entity.SOURCES, source.id)
    other = "lead" if kept["resource_type"] == "deal" else "deal"  # type: ignore[index]
    item = {
        "data": {"id": int(source.id), "name": "twin", "resource_type": other},
        "meta": {"type": "source", "sync": {"event_type": "created", "ack_key": "S-2-2", "revision": 2**41}},
    }
    world.sandbox.control("sell", "inject", {"item": item, "ack_key": "S-2-2"})
    assert world.drain().tally.suspected == 1
    world.settle()
    assert world.row(Entity.SOURCES, source.id) == kept
