"""The warehouse was restored or copied, a person says: what is forgotten, what is renewed, and a kill in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from rally_pipeline.rally import tables as rally_tables
from rally_pipeline.rally.deletes import allow_deletes, allowed_deletes
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FeedState, requirements
from rally_pipeline.rally.files import tables as file_tables
from rally_pipeline.rally.files.tables import import_chunks, import_files
from rally_pipeline.rally.restored import REASON
from rally_pipeline.restored import Restored, declare_restored
from rally_pipeline.sell import device as devices
from rally_pipeline.sell import tables as sell_tables
from rally_pipeline.sell.tables import pending_acks
from rally_pipeline.settings import Settings, load_settings
from rally_pipeline.warehouse import FenceLost, Warehouse
from rally_pipeline.warehouse.evolution import existing_columns
from rally_pipeline.warehouse.identity import Witness

CURSOR = "2026-03-03T10:00:00.000000Z"
AT = datetime(2026, 3, 3, 12, tzinfo=UTC)


@pytest.fixture
def settings(warehouse_url: str, tmp_path: Path) -> Settings:
    return load_settings(rally_pipeline_home=tmp_path / "home", warehouse_url=warehouse_url)


def opened(settings: Settings) -> Warehouse:
    return Warehouse.open(settings.warehouse, home=settings.home_path)


def fill(settings: Settings) -> None:
    """A warehouse in the middle of everything: a feed read, a scan, a mass delete allowed, a Sell session."""
    with opened(settings) as warehouse:
        warehouse.create_tables(rally_tables.metadata)
        warehouse.create_tables(sell_tables.metadata)
        with warehouse.transaction("fill") as tx:
            FeedState(
                cursor=CURSOR, base=CURSOR, position=CURSOR, read_started=CURSOR, last_opened_at=CURSOR
            ).store(tx)
            tx.set_state(
                Entity.DEALS.stream, {"generation": 3, "pass": {"generation": 3}, "last_pass": {"pages": 1}}
            )
            allow_deletes(tx, Entity.DEALS, 500)
            tx.set_state(devices.SESSION_STREAM, {"id": "open"})
            tx.execute(insert(pending_acks).values(page=1, lineage=1, ack_keys=["k"], committed_at=AT))
            tx.witness()


def add_import(settings: Settings, status: str, sha256: str) -> None:
    counts = dict.fromkeys(("rows", "imported", "duplicate", "refused", "unknown", "chunks", "uploads"), 1)
    file: dict[str, Any] = {"entity": "deals", "sha256": sha256, "file_name": f"{status}.csv", "bytes": 9}
    chunk: dict[str, Any] = {"chunk": 1, "round": 0, "state": "planned", "rows": 1, "bytes": 9}
    packed = {"body_sha256": "x", "body": b"name\nA\n", "row_numbers": b"", "row_keys": b""}
    with opened(settings) as warehouse:
        warehouse.create_tables(file_tables.metadata)
        with warehouse.transaction("import") as tx:
            tx.execute(insert(import_files).values(**file, **counts, status=status, started_at=AT))
            tx.execute(insert(import_chunks).values(entity="deals", sha256=sha256, **chunk, **packed))


def statuses(settings: Settings) -> dict[str, str]:
    with opened(settings) as warehouse, warehouse.reading() as tx:
        return {row[0]: row[1] for row in tx.rows(select(import_files.c.file_name, import_files.c.status))}


def drop_file(settings: Settings, name: str, text: str = "name\nA\n") -> None:
    path = settings.imports_path / "deals" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def check_anew(settings: Settings, done: Restored) -> None:
    """Nothing of the old life is left."""
    with opened(settings) as warehouse, warehouse.reading() as tx:
        identity, device = tx.identity(), devices.read_device(tx)
        assert (identity.id, identity.moved) == (done.warehouse, False)
        assert device is not None
        assert (device.uuid, device.warehouse, device.proven) == (done.device_uuid, identity.id, False)
        assert tx.state(devices.SESSION_STREAM) == {}
        assert tx.count(pending_acks) == 0
        feed = FeedState.load(tx)
        assert (feed.cursor, feed.position, feed.read_started, feed.last_opened_at) == (
            CURSOR,
            None,
            None,
            None,
        )
        required = {name: found.reason for name, found in requirements(tx).items()}
        assert required == dict.fromkeys((entity.singular for entity in Entity), REASON)
        state = tx.state(Entity.DEALS.stream) or {}
        assert (state["generation"], state["pass"]) == (3, None)
        assert allowed_deletes(tx, Entity.DEALS) == 0


def test_a_warehouse_begins_anew_though_nothing_shows_that_it_was_copied(settings: Settings) -> None:
    fill(settings)
    with opened(settings) as warehouse:
        before = warehouse.identity()
    done = declare_restored(settings)
    assert not before.moved
    assert done.reasons == ()
    assert done.warehouse != before.id
    assert done.feed_from == datetime(2026, 3, 3, 10, tzinfo=UTC)
    check_anew(settings, done)
    again = declare_restored(settings)
    assert again.device_uuid != done.device_uuid
    check_anew(settings, again)


def test_whoever_wrote_before_cannot_go_on(settings: Settings) -> None:
    fill(settings)
    with opened(settings) as warehouse, warehouse.lease("rally.deals") as lease:
        declare_restored(settings)
        with pytest.raises(FenceLost), warehouse.transaction("late", lease):
            pass


def test_an_older_state_is_recognised_and_said(settings: Settings) -> None:
    fill(settings)
    with opened(settings) as warehouse, warehouse.transaction("restore") as tx:
        tx.connection.exec_driver_sql("UPDATE warehouse_identity SET witness_count = 0")
    done = declare_restored(settings)
    assert done.reasons == ("an older state was restored: count 0, but 1 was witnessed",)
    check_anew(settings, done)


def test_a_witness_that_cannot_be_read_is_renewed(settings: Settings) -> None:
    fill(settings)
    folder = Path(settings.warehouse.removeprefix("sqlite:///")).parent
    folder = folder if folder.is_dir() else settings.home_path
    (witness,) = folder.glob("*.witness")
    witness.write_text("{")
    done = declare_restored(settings)
    assert "cannot be read" in done.reasons[0]
    check_anew(settings, done)


class Killed(BaseException):
    """The process ends here."""


def test_killed_at_any_step_the_same_command_goes_on(settings: Settings) -> None:
    fill(settings)
    drop_file(settings, "deals.csv")
    declare_restored(settings)  # makes the tables of the imports
    steps: list[str] = []
    declare_restored(settings, step=steps.append)
    assert steps == ["restored:begin", "restored:before-commit", "restored:after-commit"]
    for last in range(1, len(steps) + 1):
        with pytest.raises(Killed):
            declare_restored(settings, step=_die_at(last))
        check_anew(settings, declare_restored(settings))
        assert statuses(settings) == {"deals.csv": "assumed"}


def _die_at(last: int) -> Callable[[str], None]:
    left = [last]

    def step(_name: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    return step


def test_killed_before_the_witness_was_told_the_next_commit_tells_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings)

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Witness, "restart", die)
        with pytest.raises(Killed):
            declare_restored(settings)
    with opened(settings) as warehouse:
        with warehouse.transaction("acknowledge") as tx:
            tx.witness()
        with warehouse.transaction("restore") as tx:
            tx.connection.exec_driver_sql("UPDATE warehouse_identity SET witness_count = 0")
        assert warehouse.identity().reasons == ("an older state was restored: count 0, but 1 was witnessed",)
    check_anew(settings, declare_restored(settings))


def test_files_of_the_inbox_and_imports_in_progress_count_as_imported(settings: Settings) -> None:
    for number, status in enumerate(("staging", "open", "done", "refused")):
        add_import(settings, status, f"{number:064d}")
    drop_file(settings, "later.csv")
    done = declare_restored(settings)
    assert [name for _, name in done.files] == ["later.csv", "open.csv", "staging.csv"]
    assert statuses(settings) == {
        "staging.csv": "assumed",
        "open.csv": "assumed",
        "done.csv": "done",
        "refused.csv": "refused",
        "later.csv": "assumed",
    }
    with opened(settings) as warehouse, warehouse.reading() as tx:
        kept = tx.rows(select(import_chunks.c.sha256).where(import_chunks.c.body.is_not(None)))
    assert {row[0][-1] for row in kept} == {"2", "3"}


def test_a_warehouse_without_sell_gets_no_sell_tables(settings: Settings) -> None:
    with opened(settings) as warehouse:
        warehouse.create_tables(rally_tables.metadata)
    done = declare_restored(settings)
    assert (done.device_uuid, done.feed_from, done.files) == (None, None, ())
    with opened(settings) as warehouse, warehouse.reading() as tx:
        assert existing_columns(tx.connection).keys().isdisjoint(sell_tables.metadata.tables)
        assert requirements(tx) == {}
