"""The database as the doctor sees it: tried, and left as it was."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from rally_pipeline.doctor.finding import Finding, Verdict, bounded
from rally_pipeline.doctor.warehouse import Facts, examine_warehouse
from rally_pipeline.sell import device as devices
from rally_pipeline.settings import Settings, load_settings
from rally_pipeline.warehouse import Warehouse
from tests.postgres import PostgresServer


def look(settings: Settings, facts: Facts | None = None) -> list[Finding]:
    return bounded(
        "warehouse",
        lambda: examine_warehouse(settings, facts or Facts()),
        seconds=60,
        secrets=settings.secrets(),
    )


@pytest.fixture
def settings(warehouse_url: str, tmp_path: Path) -> Settings:
    return load_settings(rally_pipeline_home=tmp_path / "home", warehouse_url=warehouse_url)


def test_a_fresh_database_can_be_used_and_nothing_is_left(settings: Settings, tmp_path: Path) -> None:
    (found,) = look(settings)
    assert found.verdict is Verdict.OK, found
    assert "tables can be made, altered and dropped" in found.text
    assert ("SQLite 3." in found.text) or ("PostgreSQL " in found.text)
    assert list(tmp_path.iterdir()) == []


def test_what_a_warehouse_knows_is_told_to_the_other_checks(settings: Settings) -> None:
    with Warehouse.open(settings.warehouse, home=settings.home_path) as warehouse:
        with warehouse.transaction("fill") as tx:
            tx.set_state("rally.tenant", {"tenant_id": "t"})
            tx.set_state("sell.account", {"id": 7})
            devices.Device("u", 1, "w", proven=True).save(tx)
        identity = warehouse.identity()
    facts = Facts()
    found = look(settings, facts)
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.OK]
    assert "cp -a" in found[-1].text
    assert (facts.identity, facts.tenant, facts.account) == (identity.id, "t", "7")
    assert facts.device is not None
    assert facts.device.uuid == "u"


def test_a_restored_warehouse_is_a_problem_that_names_the_command(settings: Settings) -> None:
    with Warehouse.open(settings.warehouse, home=settings.home_path) as warehouse:
        with warehouse.transaction("one") as tx:
            tx.witness()
        with warehouse.transaction("restore") as tx:
            tx.connection.exec_driver_sql("UPDATE warehouse_identity SET witness_count = 0")
    found = look(settings)[-1]
    assert found.verdict is Verdict.PROBLEM
    assert "an older state" in found.text
    assert "rally-pipeline restored" in found.advice


def test_an_older_warehouse_is_not_migrated(settings: Settings) -> None:
    with Warehouse.open(settings.warehouse) as warehouse, warehouse.transaction("age") as tx:
        tx.connection.exec_driver_sql("UPDATE warehouse_identity SET schema_version = 0")
        tx.connection.exec_driver_sql("DROP TABLE quarantine")
    assert [one.verdict for one in look(settings)] == [Verdict.OK]
    url = settings.warehouse.removeprefix("sqlite:///")
    if url != settings.warehouse:
        with sqlite3.connect(url) as connection:
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        assert "quarantine" not in names


def test_a_newer_warehouse_is_a_problem(settings: Settings) -> None:
    with Warehouse.open(settings.warehouse) as warehouse, warehouse.transaction("new") as tx:
        tx.connection.exec_driver_sql("UPDATE warehouse_identity SET schema_version = 99")
    found = look(settings)[-1]
    assert found.verdict is Verdict.PROBLEM
    assert "upgrade the package" in found.text


def test_a_file_that_another_process_writes_is_a_warning(sqlite_url: str, tmp_path: Path) -> None:
    with Warehouse.open(sqlite_url) as warehouse, warehouse.transaction("busy"):
        found = look(load_settings(rally_pipeline_home=tmp_path, warehouse_url=sqlite_url))
    assert [one.verdict for one in found] == [Verdict.WARNING]
    assert "rights were not tried" in found[0].text


def test_a_file_that_is_no_database_is_a_problem(sqlite_url: str, tmp_path: Path) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    file.parent.mkdir()
    file.write_text("no database " * 1_000)
    (found,) = look(load_settings(rally_pipeline_home=tmp_path, warehouse_url=sqlite_url))
    assert found.verdict is Verdict.PROBLEM
    assert "is not a SQLite database" in found.text


def test_a_role_without_rights_is_a_problem(postgres_server: PostgresServer, tmp_path: Path) -> None:
    with postgres_server.connect() as admin:
        admin.execute("DROP ROLE IF EXISTS only_reads")
        admin.execute("CREATE ROLE only_reads LOGIN")
    url = postgres_server.url().replace("postgres@", "only_reads@")
    (found,) = look(load_settings(rally_pipeline_home=tmp_path, warehouse_url=url))
    assert found.verdict is Verdict.PROBLEM
    assert "lacks a permission" in found.text


def test_a_missing_schema_is_tried_and_not_made(postgres_server: PostgresServer, tmp_path: Path) -> None:
    settings = load_settings(
        rally_pipeline_home=tmp_path, warehouse_url=postgres_server.url(), warehouse_schema="not_made"
    )
    (found,) = look(settings)
    assert found.verdict is Verdict.OK, found
    assert "made by the first sync" in found.text
    with postgres_server.connect() as admin:
        assert not admin.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'not_made'").fetchall()


def test_nobody_there_is_a_problem_without_the_password(tmp_path: Path) -> None:
    url = "postgresql+psycopg://user:canary-pass-word@127.0.0.1:1/db"
    (found,) = look(load_settings(rally_pipeline_home=tmp_path, warehouse_url=url))
    assert found.verdict is Verdict.PROBLEM
    assert "nobody answers there" in found.text
    assert "canary" not in found.text
