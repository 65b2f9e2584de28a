"""Values and shapes of records, on both databases: stored exactly, kept in JSON, or put aside with a reason; never
lost, and never in the way of the other records."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from rally_pipeline.http.errors import OversizedAnswer
from rally_pipeline.http.transport import Limits
from rally_pipeline.rally import records
from rally_pipeline.rally.entities import Entity
from rally_pipeline.sandbox.application import Sandbox
from tests.faults.cycles import case
from tests.postgres import PostgresServer
from tests.rally.conftest import MakeWorld
from tests.rally.world import World

PUT_ASIDE = "put aside"
"""Stands for a record that goes to quarantine."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Six companies, mirrored; one world on each database for all values."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('values') / 'warehouse.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.connect() as connection:
            connection.execute("CREATE SCHEMA fault_values")
        url = server.url(schema="fault_values")
    made = World(url, Sandbox(records={"companies": 6}, seed=1, limit_per_minute=None, apis=["rally"]))
    made.extract()
    yield made
    made.close()
    if request.param == "postgresql":
        with server.connect() as connection:
            connection.execute("SET client_min_messages = error; DROP SCHEMA fault_values CASCADE")


def raw(**fields: str) -> dict[str, Any]:
    """Members as literal JSON text."""
    return {"raw": fields}


HOSTILE_NAMES = {"select": 1, '"; DROP TABLE rally_companies; --': 2, "": 3, "x" * 1_000: 4, "😀": 5, "%s": 6}
CLASHING_NAMES = {"A b": 1, "a_b": 2, "a B": 3, "A_B": 4, "a b": 5}
DIGITS = "123456789012345678901234567890.123456789012345678901234567890"

VALUES = [
    case("B2", "name", {"append": '"name":"twice"'}, PUT_ASIDE),
    case("B2", "nested", raw(more='{"a":1,"a":2}'), PUT_ASIDE),
    case("B3", "NaN", raw(annualRevenue="NaN"), PUT_ASIDE),
    case("B3", "Infinity", raw(annualRevenue="-Infinity"), PUT_ASIDE),
    case("B3", "1e999", raw(annualRevenue="1e999"), {"annual_revenue": Decimal("1e999")}),
    case("B4", "5,000 digits", raw(score="9" * 5_000), PUT_ASIDE),
    case("B5", "100,000 deep", raw(more="[" * 100_000 + "]" * 100_000), PUT_ASIDE),
    case("B18", "no name", {"drop": ["name"]}, {"name": None}),
    case("B18", "id null", raw(id="null"), PUT_ASIDE),
    case("B18", "id a list", raw(id='["x"]'), PUT_ASIDE),
    case("D11", "10,000 fields", {"set": {f"field {n}": n for n in range(10_000)}}, "extra"),
    case("D13", "names", {"set": CLASHING_NAMES}, "extra"),
    case("V1", "new field", {"set": {"customerTier": "gold"}}, {"extra": {"customerTier": "gold"}}),
    case("V3", "absent", {"drop": ["industry"]}, {"industry": None, "extra": None}),
    case("V3", "null", raw(industry="null"), {"industry": None, "extra": None}),
    case("V4", "text for integer", {"set": {"employeeCount": "many"}}, "extra"),
    case("V4", "object for text", {"set": {"name": {"first": "A"}}}, "extra"),
    case("V4", "text for list", {"set": {"tags": "red"}}, {"tags": "red", "extra": None}),
    case("V5", "null", raw(name="null"), {"name": None, "extra": None}),
    case("V6", "new value", {"set": {"industry": "Alchemy"}}, {"industry": "Alchemy"}),
    case("V7", "U+0000", raw(name=r'"a\u0000b"'), {"name": "a\ufffdb"}),
    case("V8", "surrogate", raw(name=r'"a\ud800b"'), {"name": "a\ufffdb"}),
    case(
        "V9",
        "texts",
        {"set": {"name": "👩‍👩‍👧 \u202eabc\u202c e\u0301 ﬀ"}},
        {"name": "👩‍👩‍👧 \u202eabc\u202c e\u0301 ﬀ"},
    ),
    case("V10", "2^63", {"set": {"employeeCount": 2**63}}, "extra"),
    case("V10", "2^70", {"set": {"employeeCount": 2**70}}, "extra"),
    case("V10", "2^64 as amount", raw(annualRevenue=str(2**64)), {"annual_revenue": Decimal(2**64)}),
    case("V11", "number", raw(annualRevenue=DIGITS), {"annual_revenue": Decimal(DIGITS)}),
    case("V11", "text", raw(annualRevenue=f'"{DIGITS}"'), {"annual_revenue": Decimal(DIGITS)}),
    case("V12", "a megabyte", {"set": {"notes": "x" * 1_000_000}}, {"notes": "x" * 1_000_000}),
    case("V13", "names", {"set": HOSTILE_NAMES}, "extra"),
    case("V14", "true", {"set": {"employeeCount": True}}, "extra"),
    case("V14", "1 for text", {"set": {"name": 1}}, "extra"),
    case("V15", "empty text", {"set": {"notes": "", "phone": None}}, {"notes": "", "phone": None}),
]


@pytest.mark.parametrize(("name", "distortion", "expected"), VALUES)
def test_a_value_is_stored_or_put_aside_and_disturbs_no_other_record(
    world: World, name: str, distortion: dict[str, Any], expected: Any
) -> None:
    rally, mirror = world.sandbox.rally, world.mirror
    world.pass_time(100)
    others = world.rows(Entity.COMPANIES)
    victim = rally.ids("companies")[0]
    before = others.pop(victim)
    rally.distort("companies", victim, **distortion)
    result = mirror.extract(Entity.COMPANIES)
    rows = world.rows(Entity.COMPANIES)
    stored = rows.pop(victim)
    assert rows == others
    with world.warehouse.reading() as tx:
        held = tx.quarantined(Entity.COMPANIES.stream)
    if expected == PUT_ASIDE:
        assert (stored, result.quarantined) == (before, 1)
        assert len(held) == 1
        assert 0 < len(held[0].reason) < 300
    else:
        assert (held, result.quarantined) == ([], 0)
        if expected == "extra":
            expected = {"extra": distortion["set"]}
        assert {column: stored[column] for column in expected} == expected

    rally.restore("companies", victim)
    mend(world)
    assert world.differences() == []
    assert world.marks() == []
    with world.warehouse.reading() as tx:
        assert tx.quarantined(Entity.COMPANIES.stream) == []


def mend(world: World) -> None:
    """Replay what was put aside and read on. What has no id was nobody's record: a person takes it out."""
    world.mirror.replay_quarantine()
    with world.warehouse.transaction("a person") as tx:
        for held in tx.quarantined(Entity.COMPANIES.stream):
            if held.key.startswith("hash:"):
                tx.release(Entity.COMPANIES.stream, held.key)
    world.pass_time(100)
    world.mirror.extract(Entity.COMPANIES)
    world.mirror.settle(Entity.COMPANIES)


@pytest.mark.fault("B18")
def test_an_id_that_is_a_number_is_a_row_of_its_own_until_it_is_mended(world: World) -> None:
    victim = world.sandbox.rally.ids("companies")[0]
    before = world.rows(Entity.COMPANIES)
    world.sandbox.rally.distort("companies", victim, raw={"id": "17"})
    world.mirror.extract(Entity.COMPANIES)
    rows = world.rows(Entity.COMPANIES)
    assert rows.pop("17")["name"] == before[victim]["name"]
    assert rows == before
    world.sandbox.rally.restore("companies", victim)
    mend(world)
    assert world.differences() == []
    assert world.marks() == []


@pytest.mark.fault("V2")
def test_a_field_that_vanishes_becomes_null_and_its_column_stays(make_world: MakeWorld) -> None:
    world = make_world(records={"companies": 6})
    world.extract()
    assert any(row["industry"] for row in world.rows(Entity.COMPANIES).values())
    world.sandbox.rally.switch(missing_fields=["industry"])
    world.pass_time(100)
    assert world.mirror.extract(Entity.COMPANIES).updated > 0
    assert {row["industry"] for row in world.rows(Entity.COMPANIES).values()} == {None}
    world.sandbox.rally.switch(missing_fields=[])
    world.mirror.extract(Entity.COMPANIES)
    assert world.differences() == []


@pytest.mark.fault("R9")
def test_another_rule_of_conversion_writes_every_row_anew_and_deletes_none(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(records={"companies": 20})
    world.extract()
    with world.warehouse.transaction("an older rule") as tx:
        from rally_pipeline.rally.tables import ENTITY_TABLES

        tx.execute(ENTITY_TABLES[Entity.COMPANIES].update().values(notes="as an older version read it"))
    monkeypatch.setattr(records, "DECODER_REVISION", records.DECODER_REVISION + 1)
    world.pass_time(100)
    result = world.mirror.extract(Entity.COMPANIES)
    assert (result.updated, result.unmet, result.inserted) == (20, 0, 0)
    assert world.differences() == []
    assert world.mirror.settle(Entity.COMPANIES).deleted == 0
    assert world.mirror.extract(Entity.COMPANIES).updated == 0


@pytest.mark.fault("V12", "H29")
def test_a_record_beyond_the_cap_is_refused_in_one_line_and_nothing_is_lost(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(records={"companies": 6, "contacts": 4})
    world.http._limits = Limits(max_body_bytes=1_000_000)
    world.extract()
    before = world.rows(Entity.COMPANIES)
    victim = world.sandbox.rally.ids("companies")[0]
    world.sandbox.rally.distort("companies", victim, set={"notes": "x" * 1_000_000})
    with pytest.raises(
        OversizedAnswer, match=r"/companies: 200: the body is larger than \d+ bytes"
    ) as caught:
        world.mirror.extract(Entity.COMPANIES)
    assert len(str(caught.value)) < 200
    assert world.rows(Entity.COMPANIES) == before
    assert world.mirror.extract(Entity.CONTACTS).received >= 4
    world.sandbox.rally.restore("companies", victim)
    world.mirror.extract(Entity.COMPANIES)
    assert world.differences() == []
