"""Remote names never become SQL identifiers, and keys from outside are checked before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from rally_pipeline.orchestration.cursor import RequestCursor
from rally_pipeline.orchestration.windows import window_start
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.folders import find_by_hash
from tests.rally.conftest import MakeWorld
from tests.rally.world import World

NAMES = [
    'x"; DROP TABLE rally_contacts; --',
    "x'; DELETE FROM sync_state; --",
    "id",
    "ID ",
    "_version",
    "_deleted_at",
    "extra",
    "select",
    "",
    " ",
    "a\x00b",
    "a\nb",
    "%(id)s",
    ":id",
    "?",
    "$1",
    "\u202eemail",
    "еmail",  # the first letter is Cyrillic
    "e" * 5_000,
    "😀",
    "[x]",
    "`x`",
    "x) VALUES (1); --",
]


def catalogue(world: World) -> dict[str, Any]:
    with world.warehouse.reading() as tx:
        found = inspect(tx.connection)
        return {
            table: [(column["name"], str(column["type"])) for column in found.get_columns(table)]
            for table in sorted(found.get_table_names())
        }


@pytest.mark.security("19")
def test_field_names_of_the_source_change_no_table(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 5})
    before = catalogue(world)
    contact = next(record["id"] for record in world.sandbox.rally.records("contacts"))
    fields = {name: f"value {place}" for place, name in enumerate(NAMES) if name not in ("id", "\x00")}
    world.sandbox.rally.distort("contacts", contact, set=fields)
    world.extract([Entity.CONTACTS])
    assert catalogue(world) == before
    assert len(world.rows(Entity.CONTACTS)) == 5
    kept = world.rows(Entity.CONTACTS)[contact]["extra"]
    assert kept['x"; DROP TABLE rally_contacts; --'] == "value 0"
    assert {"select", "_version", "_deleted_at", "extra", "😀", "еmail"} <= kept.keys()
    assert world.rows(Entity.CONTACTS)[contact]["_deleted_at"] is None


@pytest.mark.security("19")
def test_names_in_a_feed_entry_are_data(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 5})
    world.extract([Entity.CONTACTS])
    before = catalogue(world)
    world.pass_time(60)
    for name in NAMES:
        world.sandbox.rally.entry(entity_type=name or "x", entity_id=name or "x", action=name or "x")
    world.pass_time(60)
    world.catch_up()
    assert catalogue(world) == before
    assert world.differences() == []


HOSTILE_KEYS = [
    "../../etc/passwd",
    "'; DROP TABLE x; --",
    "2026-01-01-00:00' OR '1'='1",
    "",
    "a" * 10_000,
    "..",
    "*",
]


@pytest.mark.security("21")
@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_a_hostile_partition_key_is_refused_before_it_is_used(tmp_path: Path, key: str) -> None:
    (tmp_path / "rows.csv").write_text("x")
    (tmp_path.parent / "outside.csv").write_text("x")
    assert find_by_hash(tmp_path, key) is None
    with pytest.raises(ValueError, match=r"does not match format|unconverted data"):
        window_start(key)


@pytest.mark.security("21")
@pytest.mark.parametrize(
    "cursor", [*HOSTILE_KEYS, "{", "null", "[" * 100_000, '{"a": "' + "x" * 100_000 + '"}']
)
def test_a_hostile_sensor_cursor_is_an_empty_one(cursor: str) -> None:
    assert RequestCursor.read(cursor) == RequestCursor()
