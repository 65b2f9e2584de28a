"""What a user can get wrong about the warehouse: one clear line each, no secret, nothing changed."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from rally_pipeline.warehouse import (
    Warehouse,
    WarehouseDamaged,
    WarehouseError,
    WarehouseNewer,
    WarehouseUnavailable,
    tables,
)
from rally_pipeline.warehouse.opening import parse_url
from tests.postgres import PostgresServer
from tests.warehouse.people import COLUMNS, metadata, people, person

SECRET = "canary-pass-word"


def refusal(url: str, schema: str | None = None) -> str:
    with pytest.raises(WarehouseError) as caught:
        Warehouse.open(url, schema=schema)
    line = str(caught.value)
    assert "\n" not in line
    assert SECRET not in line
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return line


@pytest.mark.parametrize(
    ("url", "part"),
    [
        (f"this is no url {SECRET}", "WAREHOUSE_URL is not a database URL"),
        ("", "WAREHOUSE_URL is not a database URL"),
        (f"postgresql://u:{SECRET}@host:port/db", "WAREHOUSE_URL is not a database URL"),
        (f"mysql://u:{SECRET}@host/db", "'mysql' is not supported"),
        (f"postgresql+psycopg2://u:{SECRET}@host/db", "'postgresql+psycopg2' is not supported"),
        (f"postgresql://u:{SECRET}@host/", "the database's name is missing after host:5432/"),
        (f"postgres://u:{SECRET}@host", "the database's name is missing"),
        (f"postgresql://u:left@{SECRET}@host/db", "write an @ in the user, the password or an option as %40"),
        (f"postgresql://u@{SECRET}:pw@host/db", "write an @ in the user, the password or an option as %40"),
        (f"postgresql://u:p@a?b{SECRET}@host/db", "write an @ in the user, the password or an option as %40"),
        (f"postgresql://u:{SECRET}@host:99999/db", "the port is not between 1 and 65535"),
        (f"postgresql://u:{SECRET}@host:0/db", "the port is not between 1 and 65535"),
        (f"postgresql://u:{SECRET}/db", "WAREHOUSE_URL is not a database URL"),
        (f"postgresql://u:{SECRET}@host/db?schema=mirror", "the tables' schema is named by WAREHOUSE_SCHEMA"),
        (f"postgresql://u:{SECRET}@host/db?currentSchema=x", "'currentSchema' is no option"),
        (f"mssql+pyodbc://u:{SECRET}@host/db", "'mssql+pyodbc' is not supported"),
        (f"{SECRET}", "WAREHOUSE_URL is not a database URL"),
        ("sqlite://", "needs a plain file"),
        ("sqlite://warehouse.db", "needs a plain file"),
        ("SQLite:///:memory:", "needs a plain file"),
        ("sqlite:///:memory:", "needs a plain file"),
        ("sqlite:///file:x?mode=ro&uri=true", "needs a plain file"),
        ("sqlite:////tmp/x.db?timeout=5", "options after '?' are not supported"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_one_line(url: str, part: str) -> None:
    assert part in refusal(url)


@pytest.mark.parametrize(
    "scheme", ["postgresql+psycopg", "postgresql", "postgres", "POSTGRESQL", " postgres"]
)
def test_every_usual_scheme_means_the_driver_that_comes_with_the_package(
    postgres_url: str, scheme: str
) -> None:
    with Warehouse.open(postgres_url.replace("postgresql+psycopg", scheme)) as store:
        assert store.dialect == "postgresql"
    with Warehouse.open(postgres_url) as store:
        assert not store.identity().moved


def test_a_password_of_any_characters_reaches_the_server_as_it_is_written() -> None:
    """Only an @ has to be encoded."""
    for typed, meant in {
        "p/a?b#c": "p/a?b#c",
        "p%40ss": "p@ss",
        "a[b]:c": "a[b]:c",
        "100%25": "100%",
    }.items():
        parsed = parse_url(f"postgresql://user:{typed}@db.example/crm")
        assert (parsed.password, parsed.host, parsed.database) == (meant, "db.example", "crm")


def test_a_relative_file_lies_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Warehouse.open("sqlite:///data/warehouse.db").close()
    Warehouse.open("sqlite:///data/with%20blank%3F.db").close()
    made = {path.name for path in (tmp_path / "data").iterdir() if path.suffix == ".db"}
    assert made == {"warehouse.db", "with blank?.db"}


@pytest.mark.security("20")
@pytest.mark.parametrize("schema", ["a b", 'a"; drop table x; --', "pg_catalog", "1st", "ä", "x" * 64, ""])
def test_a_schema_name_that_is_not_a_plain_name_is_refused(postgres_url: str, schema: str) -> None:
    assert "WAREHOUSE_SCHEMA must be a plain name" in refusal(postgres_url, schema)


def test_an_unreachable_server_is_named_without_the_password() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    line = refusal(f"postgresql+psycopg://user:{SECRET}@127.0.0.1:{port}/crm")
    assert line == (
        f"the warehouse 127.0.0.1:{port}/crm: nobody answers there: is the server running, and are host and port right?"
    )
    assert "cannot be resolved" in refusal(f"postgresql+psycopg://user:{SECRET}@no-such-host.invalid/crm")


def test_a_database_or_user_that_does_not_exist_is_said_so(postgres_server: PostgresServer) -> None:
    assert "does not exist" in refusal(postgres_server.url(database="nowhere"))
    assert "does not exist" in refusal(postgres_server.url().replace("postgres@", f"nobody:{SECRET}@"))


def test_a_role_without_rights_is_told_what_it_needs(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with postgres_server.connect() as admin:
        admin.execute("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN")
    url = postgres_url.replace("postgres@", "reader@")
    assert "set WAREHOUSE_SCHEMA" in refusal(url)
    assert "lacks a permission" in refusal(url, "brand_new")
    with postgres_server.connect() as admin:
        schema = postgres_url.rpartition("%3D")[2]
        admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO reader")
    assert "lacks a permission" in refusal(url)


@pytest.mark.security("45")
def test_a_role_that_owns_only_its_schema_is_enough(postgres_server: PostgresServer) -> None:
    with postgres_server.connect() as admin:
        admin.execute("CREATE ROLE owner_of_one LOGIN; CREATE SCHEMA owned AUTHORIZATION owner_of_one")
    with Warehouse.open(postgres_server.url().replace("postgres@", "owner_of_one@"), schema="owned") as store:
        store.create_tables(metadata)
        with store.transaction("test") as tx:
            assert tx.upsert(people, COLUMNS, [person("a")]).inserted == 1
    with postgres_server.connect() as admin:
        admin.execute("SET client_min_messages = error; DROP SCHEMA owned CASCADE; DROP ROLE owner_of_one")


def test_a_read_only_server_is_refused(postgres_url: str) -> None:
    assert "read-only" in refusal(
        postgres_url.replace("options=", "options=-cdefault_transaction_read_only%3Don%20")
    )


def test_the_schema_is_created_and_everything_lives_in_it(postgres_server: PostgresServer) -> None:
    with Warehouse.open(postgres_server.url(), schema="Mixed_Case") as store:
        store.create_tables(metadata)
        with store.transaction("test") as tx:
            tx.upsert(people, COLUMNS, [person("a")])
            schemas = "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('people', 'leases')"
            assert ("Mixed_Case",) in tx.rows(sa.text(schemas))
    with Warehouse.open(postgres_server.url(), schema="Mixed_Case") as store, store.reading() as tx:
        assert tx.count(people) == 1
    with postgres_server.connect() as admin:
        admin.execute('SET client_min_messages = error; DROP SCHEMA "Mixed_Case" CASCADE')


@pytest.mark.security("46")
def test_folder_and_files_are_made_private(tmp_path: Path) -> None:
    file = tmp_path / "new" / "deep" / "warehouse.db"
    with Warehouse.open(f"sqlite:///{file}") as store:
        store.create_tables(metadata)
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert set(modes) == {"warehouse.db", "warehouse.db-wal", "warehouse.db-shm", "warehouse.db.witness"}
    assert set(modes.values()) == {0o600}


@pytest.mark.security("46")
def test_a_file_that_others_could_read_is_closed_to_them_and_its_folder_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "warehouse.db"
    Warehouse.open(f"sqlite:///{file}").close()
    file.chmod(0o644)
    Warehouse.open(f"sqlite:///{file}").close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def open_as_nobody(url: str) -> str:
    """What a user without rights to the files is told (root may do everything)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            Warehouse.open(url).close()
        except WarehouseError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as said:
        return said.read()


@pytest.mark.fault("D5")
def test_an_unwritable_folder_or_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    open_folder = tmp_path / "open"
    Warehouse.open(f"sqlite:///{open_folder}/warehouse.db").close()
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    line = open_as_nobody(f"sqlite:///{locked}/warehouse.db")
    assert line == (
        f"the warehouse file {locked}/warehouse.db cannot be created or written: Permission denied; "
        "check the folder's permissions"
    )
    assert "cannot be created or written" in open_as_nobody(f"sqlite:///{locked}/sub/warehouse.db")
    open_folder.chmod(0o755)
    (open_folder / "warehouse.db").chmod(0o444)
    assert "cannot be created or written: Permission denied" in open_as_nobody(
        f"sqlite:///{open_folder}/warehouse.db"
    )
    (open_folder / "warehouse.db").chmod(0o666)
    assert "is not writable: SQLite keeps its log beside" in open_as_nobody(
        f"sqlite:///{open_folder}/warehouse.db"
    )


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "is not a file" in refusal(f"sqlite:///{tmp_path}")
    (tmp_path / "plain").touch()
    assert "cannot be created" in refusal(f"sqlite:///{tmp_path}/plain/warehouse.db")


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "warehouse.db"
    content = b"this is a letter to my aunt, not a database " * 100
    file.write_bytes(content)
    assert "is not a SQLite database" in refusal(f"sqlite:///{file}")
    assert file.read_bytes() == content


def filled(file: Path) -> str:
    url = f"sqlite:///{file}"
    with Warehouse.open(url) as store:
        store.create_tables(metadata)
        with store.transaction("fill") as tx:
            tx.upsert(people, COLUMNS, [person(f"k{n}") for n in range(2_000)])
    return url


@pytest.mark.fault("D9")
def test_a_corrupt_page_is_found_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "warehouse.db"
    url = filled(file)
    content = bytearray(file.read_bytes())
    for page in range(len(content) // 8192 // 2, len(content) // 8192):
        content[page * 8192 : page * 8192 + 100] = b"\xa5" * 100
    file.write_bytes(content)
    with pytest.raises(WarehouseDamaged, match=r"is corrupt: restore a backup, or move the file away"):
        Warehouse.open(url)
    assert file.read_bytes() == content


@pytest.mark.fault("D9")
@pytest.mark.parametrize("size", [100, 8192, 100_000])
def test_a_file_cut_short_is_found_at_the_start(tmp_path: Path, size: int) -> None:
    file = tmp_path / "warehouse.db"
    url = filled(file)
    os.truncate(file, size)
    with pytest.raises(WarehouseDamaged):
        Warehouse.open(url)


def test_an_emptied_file_is_not_taken_for_a_new_warehouse(tmp_path: Path) -> None:
    file = tmp_path / "warehouse.db"
    url = filled(file)
    os.truncate(file, 0)
    with pytest.raises(WarehouseDamaged, match=r"is empty although a warehouse was kept in it"):
        Warehouse.open(url)
    file.unlink()
    Warehouse.open(url).close()


@pytest.mark.fault("D9")
def test_a_log_without_its_database_is_not_taken_for_a_new_warehouse(tmp_path: Path) -> None:
    file = tmp_path / "warehouse.db"
    with Warehouse.open(f"sqlite:///{file}") as store:
        store.create_tables(metadata)
        shutil.copy(f"{file}-wal", tmp_path / "kept")
    file.unlink()
    shutil.move(tmp_path / "kept", f"{file}-wal")
    with pytest.raises(WarehouseDamaged, match=r"is missing or empty but its log warehouse.db-wal is not"):
        Warehouse.open(f"sqlite:///{file}")
    assert not file.exists()


@pytest.mark.fault("D10", "P9")
def test_a_warehouse_written_by_a_newer_version_is_refused_and_left_alone(warehouse_url: str) -> None:
    with Warehouse.open(warehouse_url) as store, store.transaction("test") as tx:
        tx.execute(tables.warehouse_identity.update().values(schema_version=tables.SCHEMA_VERSION + 1))
    with pytest.raises(WarehouseNewer, match=r"was migrated by a newer version .* upgrade the package here"):
        Warehouse.open(warehouse_url)


@pytest.mark.fault("D10")
@pytest.mark.parametrize("lost", ["sync_state", "leases", "warehouse_identity"])
def test_a_warehouse_that_lost_an_own_table_is_not_repaired_silently(warehouse_url: str, lost: str) -> None:
    with Warehouse.open(warehouse_url) as store, store.transaction("test") as tx:
        tx.execute(sa.text(f"DROP TABLE {lost}"))
    with pytest.raises(WarehouseDamaged, match=r"is incomplete: .* is missing beside"):
        Warehouse.open(warehouse_url)


@pytest.mark.fault("D10")
def test_an_older_warehouse_is_migrated_in_one_transaction(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Warehouse.open(warehouse_url) as store, store.transaction("test") as tx:
        tx.set_state("rally.feed", {"cursor": "x"})
        tx.execute(sa.text("ALTER TABLE leases DROP COLUMN taken_at"))
        tx.execute(sa.text("DROP TABLE quarantine"))
    from rally_pipeline.warehouse import opening

    monkeypatch.setattr(opening, "SCHEMA_VERSION", tables.SCHEMA_VERSION + 1)
    with Warehouse.open(warehouse_url) as store, store.lease("rally.feed"), store.reading() as tx:
        assert tx.state("rally.feed") == {"cursor": "x"}
        assert tx.quarantined() == []
        version = tx.scalar(sa.select(tables.warehouse_identity.c.schema_version))
        assert version == tables.SCHEMA_VERSION + 1
    monkeypatch.undo()
    with pytest.raises(WarehouseNewer):
        Warehouse.open(warehouse_url)


def test_other_peoples_tables_in_the_same_database_are_no_hindrance(tmp_path: Path) -> None:
    file = tmp_path / "shared.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE invoices (id)")
    with Warehouse.open(f"sqlite:///{file}") as store:
        assert not store.identity().moved


def test_sqlite_connections_keep_the_storage_rules(sqlite_url: str) -> None:
    with Warehouse.open(sqlite_url, lock_wait_seconds=7) as store, store.transaction("test") as tx:
        pragmas = {
            name: tx.scalar(sa.text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "secure_delete", "busy_timeout", "foreign_keys")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "secure_delete": 1,
        "busy_timeout": 7_000,
        "foreign_keys": 0,
    }


def test_postgresql_connections_keep_the_storage_rules(postgres_url: str) -> None:
    url = postgres_url.replace("options=", "options=-csynchronous_commit%3Doff%20-cTimeZone%3DAsia/Tokyo%20")
    with Warehouse.open(url, lock_wait_seconds=7) as store, store.transaction("test") as tx:
        shown = [
            tx.scalar(sa.text(f"SHOW {name}")) for name in ("synchronous_commit", "TimeZone", "lock_timeout")
        ]
    assert shown == ["on", "UTC", "7s"]


def test_a_server_that_goes_away_is_told_apart_from_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(WarehouseUnavailable):
        Warehouse.open(f"postgresql+psycopg://postgres@/postgres?host={tmp_path}")
