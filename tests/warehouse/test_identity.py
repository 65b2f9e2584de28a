"""A copied or restored warehouse is recognised before it speaks to a remote queue under its old name."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from rally_pipeline.warehouse import Identity, Transaction, Warehouse, WarehouseError, tables
from tests.postgres import PostgresServer


def acknowledge(url: str, **options: object) -> None:
    """A transaction after which a remote side would forget something."""
    with Warehouse.open(url, **options) as store, store.transaction("ack") as tx:  # type: ignore[arg-type]
        tx.set_state("queue", {"count": (tx.state("queue") or {"count": 0})["count"] + 1})
        tx.witness()


def identity(url: str, **options: object) -> Identity:
    with Warehouse.open(url, **options) as store:  # type: ignore[arg-type]
        return store.identity()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder / "warehouse.db"


def test_a_warehouse_that_stays_where_it_is_keeps_its_identity(warehouse_url: str, tmp_path: Path) -> None:
    first = identity(warehouse_url, home=tmp_path)
    acknowledge(warehouse_url, home=tmp_path)
    acknowledge(warehouse_url, home=tmp_path)
    again = identity(warehouse_url, home=tmp_path)
    assert (again.id, again.created_at, again.moved, again.reasons) == (first.id, first.created_at, False, ())
    assert again.witness_count == 2


def test_a_file_renamed_in_place_is_the_same_warehouse(file: Path) -> None:
    acknowledge(f"sqlite:///{file}")
    other = file.with_name("renamed.db")
    file.rename(other)
    assert not identity(f"sqlite:///{other}").moved


def test_a_copied_file_is_recognised(file: Path, tmp_path: Path) -> None:
    acknowledge(f"sqlite:///{file}")
    copy = tmp_path / "copy.db"
    shutil.copy(file, copy)
    found = identity(f"sqlite:///{copy}")
    assert found.moved
    assert found.reasons == (f"the file {copy} is a copy of, or was restored in place of, {file}",)
    assert not identity(f"sqlite:///{file}").moved


def test_a_backup_put_back_as_a_new_file_is_recognised(file: Path, tmp_path: Path) -> None:
    acknowledge(f"sqlite:///{file}")
    shutil.copy(file, tmp_path / "backup")
    file.rename(tmp_path / "old")
    shutil.copy(tmp_path / "backup", file)
    assert identity(f"sqlite:///{file}").moved


def test_an_older_state_written_into_the_same_file_is_recognised_by_its_witness(
    file: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{file}"
    acknowledge(url)
    with sqlite3.connect(file) as source, sqlite3.connect(tmp_path / "backup.db") as backup:
        source.backup(backup)
    acknowledge(url)
    with sqlite3.connect(tmp_path / "backup.db") as backup, sqlite3.connect(file) as target:
        backup.backup(target)
    found = identity(url)
    assert found.reasons == ("an older state was restored: count 1, but 2 was witnessed",)
    with pytest.raises(
        WarehouseError, match=r"^this warehouse may be a copy or an older state .*count 1, but 2 was"
    ):
        acknowledge(url)
    assert identity(url) == found


def test_a_renewed_identity_may_acknowledge_again(file: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{file}"
    acknowledge(url)
    shutil.copy(file, tmp_path / "backup")
    acknowledge(url)
    shutil.copyfile(tmp_path / "backup", file)
    before = identity(url)
    assert before.moved
    with Warehouse.open(url) as store, store.transaction("renew") as tx:
        new_id = tx.renew_identity()
        tx.witness()
    acknowledge(url)
    after = identity(url)
    assert (after.id, after.moved, after.witness_count) == (new_id, False, 2)
    assert new_id != before.id
    shutil.copyfile(tmp_path / "backup", file)
    assert identity(url).reasons == ("another warehouse was kept at this place before",)


def test_a_new_warehouse_in_the_place_of_a_deleted_one_is_told_so(file: Path) -> None:
    url = f"sqlite:///{file}"
    acknowledge(url)
    first = identity(url)
    file.unlink()
    found = identity(url)
    assert found.id != first.id
    assert found.reasons == ("another warehouse was kept at this place before",)


def test_a_process_killed_between_commit_and_witness_is_not_taken_for_a_restore(
    file: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{file}"
    acknowledge(url)
    witness = file.with_name("warehouse.db.witness")
    before = witness.read_bytes()
    acknowledge(url)
    witness.write_bytes(before)
    assert not identity(url).moved
    acknowledge(url)
    witness.unlink()
    assert not identity(url).moved
    acknowledge(url)
    assert witness.exists()


def test_the_witness_is_told_only_of_commits(file: Path) -> None:
    url = f"sqlite:///{file}"
    acknowledge(url)
    told = file.with_name("warehouse.db.witness").read_bytes()

    def fail(tx: Transaction) -> None:
        tx.witness()
        raise ZeroDivisionError

    with Warehouse.open(url) as store, pytest.raises(ZeroDivisionError):
        store.run("ack", fail)
    assert file.with_name("warehouse.db.witness").read_bytes() == told
    assert not identity(url).moved


def test_a_witness_that_cannot_be_read_is_one_clear_line(file: Path) -> None:
    url = f"sqlite:///{file}"
    acknowledge(url)
    file.with_name("warehouse.db.witness").write_text("{")
    with pytest.raises(
        WarehouseError, match=r"warehouse.db.witness cannot be read: it tells whether the warehouse"
    ):
        identity(url)


def test_a_dump_loaded_into_another_schema_is_recognised(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    acknowledge(postgres_url)
    schema = postgres_url.rpartition("%3D")[2]
    with postgres_server.connect() as admin:
        admin.execute("CREATE SCHEMA loaded")
        for table in tables.metadata.tables:
            admin.execute(f"CREATE TABLE loaded.{table} (LIKE {schema}.{table} INCLUDING ALL)")
            admin.execute(f"INSERT INTO loaded.{table} SELECT * FROM {schema}.{table}")
    found = identity(postgres_server.url(), schema="loaded")
    assert found.reasons == ("another schema", "the tables were created anew")
    with postgres_server.connect() as admin:
        admin.execute("SET client_min_messages = error; DROP SCHEMA loaded CASCADE")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"timeline": 0}, "the cluster was restored or failed over"),
        ({"system": "1"}, "another PostgreSQL cluster"),
        ({"database_oid": 1}, "the database was created anew"),
    ],
)
def test_a_restored_or_promoted_cluster_is_recognised(
    postgres_url: str, changed: dict[str, object], reason: str
) -> None:
    with Warehouse.open(postgres_url) as store, store.transaction("test") as tx:
        place = tx.scalar(sa.select(tables.warehouse_identity.c.place))
        tx.execute(tables.warehouse_identity.update().values(place=place | changed))
    assert identity(postgres_url).reasons == (reason,)


def test_a_server_that_hides_its_cluster_facts_is_no_move(postgres_url: str) -> None:
    with Warehouse.open(postgres_url) as store, store.transaction("test") as tx:
        place = tx.scalar(sa.select(tables.warehouse_identity.c.place))
        assert int(place["system"]) > 0
        tx.execute(
            tables.warehouse_identity.update().values(place=place | {"system": None, "timeline": None})
        )
    assert not identity(postgres_url).moved


def test_older_rows_loaded_into_the_same_tables_are_recognised_from_the_home_folder(
    postgres_url: str, tmp_path: Path
) -> None:
    acknowledge(postgres_url, home=tmp_path)
    acknowledge(postgres_url, home=tmp_path)
    with Warehouse.open(postgres_url) as store, store.transaction("restore") as tx:
        tx.execute(tables.warehouse_identity.update().values(witness_count=1))
    assert identity(postgres_url, home=tmp_path).reasons == (
        "an older state was restored: count 1, but 2 was witnessed",
    )
    assert not identity(postgres_url).moved, "without a home folder nothing outside the database remembers"


@pytest.mark.security("46")
def test_the_witness_file_is_private(file: Path) -> None:
    acknowledge(f"sqlite:///{file}")
    assert os.stat(f"{file}.witness").st_mode & 0o777 == 0o600  # noqa: PTH116


def test_the_witnesses_of_several_machines_follow_a_renewed_identity(
    postgres_url: str, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    acknowledge(postgres_url, home=here)
    acknowledge(postgres_url, home=there)
    with Warehouse.open(postgres_url, home=here) as store, store.transaction("renew") as tx:
        tx.renew_identity()
    assert not identity(postgres_url, home=there).moved
    acknowledge(postgres_url, home=there)
    acknowledge(postgres_url, home=there)
    with Warehouse.open(postgres_url, home=there) as store, store.transaction("restore") as tx:
        tx.connection.exec_driver_sql("UPDATE warehouse_identity SET witness_count = 1")
    assert identity(postgres_url, home=there).reasons == (
        "an older state was restored: count 1, but 2 was witnessed",
    )


def test_a_state_of_before_a_renewal_is_recognised_on_every_machine(
    postgres_url: str, tmp_path: Path
) -> None:
    acknowledge(postgres_url, home=tmp_path)
    with Warehouse.open(postgres_url, home=tmp_path) as store:
        before = store.identity().id
        with store.transaction("renew") as tx:
            tx.renew_identity()
        with store.transaction("restore") as tx:
            tx.execute(tables.warehouse_identity.update().values(id=before, witness_count=1))
            tx.execute(tables.sync_state.delete())
    assert identity(postgres_url, home=tmp_path).reasons == (
        "another warehouse was kept at this place before",
    )
