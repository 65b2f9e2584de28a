"""One device UUID, one warehouse: differences, copies, restored backups, shared UUIDs, and the ways on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.errors import DeviceMismatch, WrongAccount
from rally_pipeline.sell.tables import pending_acks, suspects
from rally_pipeline.warehouse import Warehouse
from tests.sell.conftest import MakeWorld
from tests.sell.world import World, new_uuid


def assert_settled(world: World) -> None:
    assert world.differences() == []
    assert world.unsettled() == []


def requests(world: World) -> int:
    return len(world.sandbox.log)


def test_a_uuid_that_differs_from_the_stored_one_stops_the_run_with_the_choice(make_world: MakeWorld) -> None:
    world = make_world()
    world.catch_up()
    stored, before = world.uuid, requests(world)
    world.reopen(uuid=new_uuid())
    with pytest.raises(DeviceMismatch, match=f"SELL_DEVICE_UUID={stored}.*new-device.*adopt-device"):
        world.drain()
    assert requests(world) == before


def test_something_that_is_no_uuid_is_refused(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(uuid="warehouse-host-1")
    with pytest.raises(DeviceMismatch, match="is not a UUID"):
        world.drain()
    assert requests(world) == 0


def test_a_new_device_gets_everything_again_and_rows_that_went_meanwhile_go(make_world: MakeWorld) -> None:
    world = make_world()
    world.catch_up()
    leads = list(world.api.world.live("lead"))
    world.api.world.delete("lead", leads[0].id)
    world.api.world.update("lead", leads[1].id)
    device = world.mirror.new_device()
    world.reopen(uuid=device.uuid)
    result = world.drain()
    assert result.tally.items == sum(1 for _ in world.api.world.live())
    assert result.unresent == 1
    assert [(row["id"], row["reason"]) for row in world.rows(suspects)] == [(leads[0].id, "not sent again")]
    assert world.row(Entity.LEADS, leads[0].id) is not None
    world.settle()
    assert world.row(Entity.LEADS, leads[0].id) is None
    assert_settled(world)


def test_the_sweep_of_many_rows_waits_for_the_exact_number(make_world: MakeWorld) -> None:
    world = make_world(records=90, policy={"guard_absolute": 3, "guard_share": 0.02})
    world.catch_up()
    gone = list(world.api.world.live("lead"))[:8]
    for lead in gone:
        world.api.world.delete("lead", lead.id)
    world.reopen(uuid=world.mirror.new_device().uuid)
    result = world.drain()
    assert result.sweep_held
    assert result.unresent == 8
    world.settle()
    assert world.row(Entity.LEADS, gone[0].id) is not None
    assert world.mirror.status().sweep_held == 8
    assert world.mirror.unresent()[Entity.LEADS] == 8
    world.mirror.allow_sweep(7)
    assert world.drain().sweep_held
    world.mirror.allow_sweep(8)
    assert not world.catch_up().sweep_held
    assert_settled(world)


@pytest.mark.fault("S11")
def test_a_copied_warehouse_is_recognised_and_cannot_acknowledge(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.catch_up()
    file = Path(world.url.removeprefix("sqlite:///"))
    copy = file.with_name("copy.db")
    world.close()
    shutil.copy(file, copy)
    other = World(f"sqlite:///{copy}", world.sandbox)
    before = requests(world)
    with pytest.raises(DeviceMismatch, match="copy or an older state"):
        other.drain()
    assert requests(world) == before
    other.close()


@pytest.mark.security("38")
@pytest.mark.fault("S12")
def test_a_restored_backup_gets_a_new_uuid_and_everything_again(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.drain()
    file = Path(world.url.removeprefix("sqlite:///"))
    world.close()
    backup = file.with_name("backup.db")
    shutil.copy(file, backup)
    world.open()
    world.api.world.mutate(20)
    world.catch_up()
    world.close()
    for log in file.parent.glob("warehouse.db-*"):
        log.unlink()
    shutil.copyfile(backup, file)
    world.reopen()
    with pytest.raises(DeviceMismatch, match="older state was restored"):
        world.drain()
    world.reopen(uuid=world.mirror.new_device().uuid)
    world.catch_up()
    assert_settled(world)


@pytest.mark.fault("S12")
def test_a_restored_postgresql_schema_is_recognised(make_postgres_world: MakeWorld, tmp_path: Path) -> None:
    world = make_postgres_world(home=tmp_path)
    world.catch_up()
    with world.warehouse.transaction("restore") as tx:
        tx.connection.exec_driver_sql("UPDATE warehouse_identity SET witness_count = witness_count - 2")
    with pytest.raises(DeviceMismatch, match="older state was restored"):
        world.drain()
    world.reopen(uuid=world.mirror.new_device().uuid)
    world.catch_up()
    assert_settled(world)


def test_a_moved_warehouse_goes_on_after_adopting_its_device(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.catch_up()
    file = Path(world.url.removeprefix("sqlite:///"))
    world.close()
    moved = file.with_name("moved.db")
    shutil.copy(file, moved)
    file.unlink()
    other = World(f"sqlite:///{moved}", world.sandbox)
    with pytest.raises(DeviceMismatch):
        other.drain()
    other.mirror.adopt_device()
    other.api.world.mutate(10)
    result = other.catch_up()
    assert 0 < result.tally.items <= 10
    assert_settled(other)
    other.close()


@pytest.mark.fault("S11")
def test_two_warehouses_of_one_home_cannot_share_a_uuid(
    make_sqlite_worlds: MakeWorld, tmp_path: Path
) -> None:
    world = make_sqlite_worlds(home=tmp_path)
    world.catch_up()
    before = requests(world)
    other = make_sqlite_worlds(sandbox=world.sandbox, home=tmp_path)
    with pytest.raises(DeviceMismatch, match="in use by another warehouse"):
        other.drain()
    assert requests(world) == before


@pytest.mark.fault("S11")
def test_a_uuid_that_acknowledged_everything_elsewhere_is_noticed_at_the_start(
    make_sqlite_worlds: MakeWorld,
) -> None:
    world = make_sqlite_worlds()
    world.catch_up()
    other = make_sqlite_worlds(sandbox=world.sandbox)
    with pytest.raises(DeviceMismatch, match="although this warehouse never received anything"):
        other.drain()


def test_a_uuid_that_acknowledged_much_elsewhere_is_noticed_before_anything_is_acknowledged(
    make_sqlite_worlds: MakeWorld,
) -> None:
    world = make_sqlite_worlds()
    world.catch_up()
    world.api.world.update("lead", next(world.api.world.live("lead")).id)
    acks = len(world.api.sync.acks)
    other = make_sqlite_worlds(sandbox=world.sandbox)
    with pytest.raises(DeviceMismatch, match="never received"):
        other.drain()
    assert len(world.api.sync.acks) == acks
    world.clock.advance(400)
    world.catch_up()
    assert_settled(world)


def test_a_new_device_drops_what_was_pending_for_the_old_one(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.api.refuse(500, path="/v2/sync/ack", times=None)
    world.drain()
    assert world.count(pending_acks) > 0
    world.api.forgive()
    world.clock.advance(60)
    world.reopen(uuid=world.mirror.new_device().uuid)
    assert world.count(pending_acks) == 0
    world.catch_up()
    assert world.api.sync.unknown_keys == []
    assert_settled(world)


@pytest.mark.security("35")
def test_a_token_of_another_account_is_noticed_when_its_account_arrives(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records=30, page_size=100)
    world.catch_up()
    account = next(world.api.world.live("account"))
    item = {
        "data": {"id": int(account.id) + 1, "name": "Somebody else"},
        "meta": {
            "type": "account",
            "sync": {"event_type": "created", "ack_key": "Account-9-9", "revision": 9},
        },
    }
    world.sandbox.control("sell", "inject", {"item": item, "ack_key": "Account-9-9"})
    with pytest.raises(WrongAccount, match="belongs to Sell account"):
        world.drain()
    assert world.row(Entity.ACCOUNTS, int(account.id) + 1) is None


def test_an_unreadable_witness_stops_before_anything_is_fetched(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.catch_up()
    file = Path(world.url.removeprefix("sqlite:///"))
    file.with_name(f"{file.name}.witness").write_text("{")
    before = requests(world)
    with pytest.raises(Exception, match="cannot be read"):
        world.drain()
    assert requests(world) == before
    assert isinstance(world.warehouse, Warehouse)
