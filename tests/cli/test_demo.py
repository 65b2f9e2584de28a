"""The demo: the jobs that people run, in Dagster, on the sandbox; every figure that it shows is measured."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus

from rally_pipeline.cli.demo import sell
from rally_pipeline.cli.demo.comparing import agrees, count_differences
from rally_pipeline.cli.demo.measuring import TableWatch
from rally_pipeline.cli.demo.stage import demo_environment
from rally_pipeline.cli.dev.services import exclusive
from rally_pipeline.sell.entities import Entity
from rally_pipeline.settings import Settings, load_settings
from tests.cli.conftest import Shell

JOBS = {
    "rally_full_extract",
    "rally_incremental",
    "rally_import",
    "rally_export",
    "reconcile",
    "sell_drain",
    "signalsmith_catalog",
    "signalsmith_contacts_to_newsletter",
    "signalsmith_deals_to_finance",
}


def figures(output: str, name: str) -> list[int | float]:
    """The numbers of one line of the summary."""
    (line,) = [line for line in output.splitlines() if line.split()[:1] == [name]]
    return [float(text) if "." in text else int(text) for text in line.replace(",", "").split()[1:]]


def only(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr("rally_pipeline.cli.demo.PARTS", (f"rally_pipeline.cli.demo.{part}",))


def test_the_demo_needs_no_account_runs_the_jobs_and_agrees(shell: Shell) -> None:
    elsewhere = shell.folder / "production"
    done = shell.say(
        "demo",
        *("--records", "400", "--seed", "3"),
        # Nothing of the user's counts, and nothing of it is touched.
        DAGSTER_HOME=str(elsewhere),
        IMPORTS_DIR=str(elsewhere / "imports"),
        WAREHOUSE_URL=f"sqlite:///{elsewhere}/warehouse.db",
        DELETE_MODE="soft",
    )
    assert done.exit_code == 0, done.output
    assert "agree row by row" in done.stdout
    assert not elsewhere.exists()
    assert not (shell.home / "warehouse.db").exists()
    assert (shell.home / "demo" / "warehouse.db").exists()

    # `dev --sandbox` keeps its history in the same place.
    with DagsterInstance.from_config(str(shell.home / "sandbox" / "dagster")) as instance:
        runs = instance.get_runs()
    assert {run.job_name for run in runs} == JOBS
    assert {run.status for run in runs} == {DagsterRunStatus.SUCCESS}
    for job in JOBS:
        ran, requests, least, _ = figures(done.stdout, job)
        assert ran == sum(run.job_name == job for run in runs)
        assert requests >= least > 0

    tables = [entity.table_name for entity in Entity]
    inserted = updated = deleted = 0
    with closing(sqlite3.connect(shell.home / "demo" / "warehouse.db")) as warehouse:
        for table in tables:
            shown = figures(done.stdout, table)
            (stored,) = warehouse.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert shown[0] == stored == shown[1] - shown[3] == shown[4]
            inserted, updated, deleted = inserted + shown[1], updated + shown[2], deleted + shown[3]
    assert min(inserted, updated, deleted) > 0


def test_the_smallest_demo_agrees_too(shell: Shell) -> None:
    done = shell.say("demo", "--records", "4", "--seed", "7")
    assert done.exit_code == 0, done.output


def test_a_value_of_sell_that_was_altered_in_the_warehouse_is_a_difference(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "sell")
    queue = sell._compare_queue

    def spoil(stage):  # type: ignore[no-untyped-def]
        with closing(sqlite3.connect(stage.warehouse_path)) as warehouse, warehouse:
            warehouse.execute(
                "UPDATE sell_leads SET last_name = 'x' WHERE id = (SELECT min(id) FROM sell_leads)"
            )
            warehouse.execute("DELETE FROM sell_notes WHERE id = (SELECT min(id) FROM sell_notes)")
            warehouse.execute("DELETE FROM sell_queue_items WHERE type = 'deal'")
        stage.tables.look()
        return queue(stage)

    monkeypatch.setattr(sell, "_compare_queue", spoil)
    done = shell.say("demo", "--records", "40")
    assert done.exit_code == 1
    assert figures(done.stdout, "sell_leads")[-1] == 1
    assert figures(done.stdout, "sell_notes")[-1] == 1
    assert figures(done.stdout, "sell_queue_items")[-1] > 0
    assert figures(done.stdout, "sell_contacts")[-1] == 0
    assert "rows differ between source and warehouse" in " ".join(done.stderr.split())


def test_a_job_that_fails_ends_the_demo_with_its_reason(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "signalsmith")

    def perform(stage):  # type: ignore[no-untyped-def]
        stage.sandbox.faults.add("forbidden", api="signalsmith", times=None)
        stage.session.run("signalsmith_catalog")
        return []

    monkeypatch.setattr("rally_pipeline.cli.demo.signalsmith.perform", perform)
    done = shell.say("demo", "--records", "40")
    assert done.exit_code == 1
    assert "signalsmith__catalog: " in " ".join(done.stderr.split())


def test_the_demo_leaves_services_on_the_same_history_alone(shell: Shell) -> None:
    (shell.home / "sandbox").mkdir(parents=True)
    with exclusive(shell.home / "sandbox"):
        done = shell.say("demo", "--records", "40")
    assert done.exit_code == 2
    assert "stop it first" in " ".join(done.stderr.split())


def test_the_demo_sets_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = demo_environment(tmp_path, {"RALLY_PIPELINE_SANDBOX": "true"})
    assert variables.keys() >= {name.upper() for name in Settings.model_fields}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seen, usual = load_settings(), Settings.model_construct()
    own = {
        "rally_pipeline_home",
        "rally_pipeline_sandbox",
        "syncs_dir",
        "imports_dir",
        "exports_dir",
    }
    for name in Settings.model_fields.keys() - own:
        assert getattr(seen, name) == getattr(usual, name), name


# -- comparing ----------------------------------------------------------------------------------------------------

RECORD = {
    "id": "a",
    "linkedInUrl": "https://x.example",
    "value": Decimal("12.50"),
    "isOpen": True,
    "tags": ["b", {"n": 1.5}],
    "createdAt": "2026-01-02T03:04:05Z",
    "notes": None,
    "newField": 7,
}
ROW = {
    "id": "a",
    "linked_in_url": "https://x.example",
    "value": "12.5",
    "is_open": 1,
    "tags": '["b",{"n":1.5}]',
    "created_at": "2026-01-02T03:04:05.000000Z",
    "notes": None,
    "title": None,
    "extra": '{"newField":7}',
    "_version": 3,
    "_synced_at": "2026-01-02T03:04:06.000000Z",
    "_deleted_at": None,
}


def test_a_row_that_says_what_the_record_says_agrees() -> None:
    assert agrees(RECORD, ROW)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("linked_in_url", "https://y.example"),
        ("linked_in_url", None),
        ("value", "12.51"),
        ("is_open", 0),
        ("tags", '["b",{"n":1.6}]'),
        ("tags", '["b"]'),
        ("created_at", "2026-01-02T03:04:06.000000Z"),
        ("notes", "a note"),
        ("title", "a title"),
        ("extra", None),
        ("extra", '{"newField":8}'),
        ("extra", '{"newField":7,"other":1}'),
    ],
)
def test_any_other_value_is_a_difference(column: str, value: object) -> None:
    assert not agrees(RECORD, ROW | {column: value})


def test_rows_that_are_missing_or_too_many_are_differences() -> None:
    assert count_differences({"a": RECORD}, {"a": ROW}) == 0
    assert count_differences({"a": RECORD}, {"b": ROW}) == 2
    assert count_differences({}, {"a": ROW}) == 1


def test_what_happens_to_a_table_between_two_looks_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.db"
    watch = TableWatch(path)
    watch.look()
    with closing(sqlite3.connect(path, isolation_level=None)) as warehouse:
        warehouse.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, _synced_at TEXT)")
        warehouse.execute("INSERT INTO t VALUES (1, 'a', ''), (2, 'b', ''), (3, 'c', '')")
        watch.look()
        warehouse.execute("UPDATE t SET name = 'z' WHERE id = 1")
        warehouse.execute("UPDATE t SET _synced_at = 'later' WHERE id = 2")
        warehouse.execute("DELETE FROM t WHERE id = 3")
        watch.look()
    assert (watch.changes["t"], watch.rows("t")) == ({"inserted": 3, "updated": 1, "deleted": 1}, 2)


def test_the_summary_of_the_readme_is_one_of_the_demo() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    shown = set(
        re.findall(r"^ (rally_\w+|sell_\w+|signalsmith_\w+|import_files|reconcile) ", readme, re.MULTILINE)
    )
    known = JOBS | {entity.table_name for entity in Entity}
    known |= {"rally_contacts", "rally_companies", "rally_deals", "rally_activities", "rally_changes"}
    known |= {"sell_queue_items", "import_files", "signalsmith_syncs", "signalsmith_runs"}
    assert shown
    assert shown <= known
