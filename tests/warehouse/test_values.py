"""The storage-neutral texts: canonical, exact, and equal for equal values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rally_pipeline.warehouse import UpsertResult, Warehouse
from rally_pipeline.warehouse.values import (
    canonical_json,
    clean_text,
    decimal_text,
    instant_text,
    json_text,
    parse_instant,
    parse_json,
)
from tests.warehouse.people import COLUMNS, people, person


@pytest.mark.fault("C1", "C2", "C5")
@pytest.mark.parametrize(
    ("given_text", "canonical"),
    [
        ("2026-05-01T12:34:56Z", "2026-05-01T12:34:56.000000Z"),
        ("2026-05-01T12:34:56.7Z", "2026-05-01T12:34:56.700000Z"),
        ("2026-05-01T12:34:56.789Z", "2026-05-01T12:34:56.789000Z"),
        ("2026-05-01T12:34:56.123456Z", "2026-05-01T12:34:56.123456Z"),
        ("2026-05-01T12:34:56.1234569Z", "2026-05-01T12:34:56.123456Z"),
        ("2026-05-01T12:34:56.123456789+00:00", "2026-05-01T12:34:56.123456Z"),
        ("2026-05-01T01:00:00+02:00", "2026-04-30T23:00:00.000000Z"),
        ("2026-05-01T12:34:56-05:30", "2026-05-01T18:04:56.000000Z"),
        ("2026-05-01T12:34:56+0000", "2026-05-01T12:34:56.000000Z"),
        ("2026-05-01 12:34:56", "2026-05-01T12:34:56.000000Z"),
        ("2026-05-01", "2026-05-01T00:00:00.000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
        ("20260501T123456Z", "2026-05-01T12:34:56.000000Z"),
        ("2026-W18-5T12:34:56Z", "2026-05-01T12:34:56.000000Z"),
    ],
)
def test_instants_are_floored_to_microseconds_and_brought_to_utc(given_text: str, canonical: str) -> None:
    assert instant_text(given_text) == canonical
    assert instant_text(canonical) == canonical
    assert instant_text(parse_instant(canonical)) == canonical


@pytest.mark.fault("C5")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "soon",
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-05-01T24:00:01Z",
        "2026-05-01T12:34:60Z",
        "0000-00-00T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "1700000000",
        "12:00:00Z",
        "2026-05-01T12:34:56Zjunk",
        "2026-05-01T12:34:56\0Z",
        "２０２６-05-01T12:34:56Z",
        "x" * 10_000,
    ],
)
def test_what_is_no_instant_is_refused_readably(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not an ISO 8601 instant|is outside the years 1 to 9999"
    ) as caught:
        instant_text(text)
    assert len(str(caught.value)) < 100


@pytest.mark.fault("C3")
@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC)),
    st.integers(-840, 840),
)
def test_every_way_to_write_an_instant_has_one_text_and_texts_sort_as_time(
    moment: datetime, minutes: int
) -> None:
    text = instant_text(moment)
    shifted = moment.astimezone(timezone(timedelta(minutes=minutes)))
    assert instant_text(shifted) == instant_text(shifted.isoformat()) == instant_text(text) == text
    assert (len(text), parse_instant(text)) == (27, moment)
    later = moment + timedelta(microseconds=1)
    assert instant_text(later) > text


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ("12.50", "12.5"),
        ("1e3", "1000"),
        ("1.5E-3", "0.0015"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("+7", "7"),
        (".5", "0.5"),
        ("5.", "5"),
        ("007", "7"),
        (" 3 ", "3"),
        (0, "0"),
        (2**64, "18446744073709551616"),
        (
            Decimal("123456789012345678901234567890.123456789012345678901234567890"),
            "123456789012345678901234567890.12345678901234567890123456789",
        ),
        ("1" + "0" * 950, "1" + "0" * 950),
    ],
)
def test_decimals_are_exact_and_have_one_text(value: str | int | Decimal, canonical: str) -> None:
    assert decimal_text(value) == canonical
    assert decimal_text(canonical) == canonical


@pytest.mark.parametrize(
    "value",
    [
        "",
        "abc",
        "1,5",
        "1_000",
        "NaN",
        "Infinity",
        "1e999999",
        "1e-999999",
        "9" * 1_001,
        10**1_000,
        1.5,
        True,
        None,
        Decimal("NaN"),
        Decimal("-Infinity"),
        "１２",
        "0x10",
        "--1",
        "1e",
    ],
)
def test_what_is_no_exact_decimal_is_refused_readably(value: object) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text differs by cause)
        decimal_text(value)  # type: ignore[arg-type]
    assert 0 < len(str(caught.value)) < 100


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40))
def test_a_decimal_keeps_its_value_to_the_last_digit(number: Decimal) -> None:
    text = decimal_text(number)
    assert Decimal(text) == number
    assert decimal_text(str(number)) == text
    assert "E" not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_has_one_text_and_can_be_read_back(value: object) -> None:
    text = json_text(value)
    assert json_text(msgspec.Raw(json.dumps(value).encode())) == text
    assert json_text(parse_json(text)) == text
    assert "\\u0000" not in text
    if "\0" not in json.dumps(value) and "\\u0000" not in json.dumps(value):
        assert parse_json(text) == value


def test_json_keys_are_sorted_and_raw_parts_are_read_anew() -> None:
    assert json_text({"b": 1, "a": {"d": 2, "c": 3}}) == '{"a":{"c":3,"d":2},"b":1}'
    assert json_text({"x": msgspec.Raw(b'{ "b" : 1, "a" : 2 }')}) == '{"x":{"a":2,"b":1}}'
    assert json_text({"k\0": ["\ud800", "ok"]}) == '{"k\ufffd":["\ufffd","ok"]}'
    assert json_text(Decimal("1.10")) == "1.10"
    with pytest.raises(ValueError, match="not a JSON value"):
        json_text(object())


@given(st.text(alphabet=st.characters()))
def test_storable_text_is_passed_through_untouched(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode()
    assert "\0" not in cleaned
    assert len(cleaned) == len(text)
    if cleaned == text:
        assert cleaned is text


TEXTS = [
    "",
    " ",
    "\\",
    "\\N",
    "None",
    "null",
    "\t\r\n\b\f\v\x01\x1f\x7f",
    "a\\nb\\",
    "\"quoted\" 'single' ``",
    "e\u0301 é ﬀ",
    "\u202eright to left\u202c",
    "👩‍👩‍👧‍👦 😀",
    "\ufeff\ufffe\uffff",
    "x" * 1_000_000,
    "\\.",
    "%s %(x)s :x ? $1 {}",
    "2026-01-01T00:00:00Z",
]


@pytest.mark.fault("V9", "V15")
def test_every_text_comes_back_as_it_went_in(store: Warehouse) -> None:
    rows = [person(f"k{number}", name=text, email=text[::-1]) for number, text in enumerate(TEXTS)]
    with store.transaction("test") as tx:
        assert tx.upsert(people, COLUMNS, rows) == UpsertResult(inserted=len(rows))
        assert tx.upsert(people, COLUMNS, rows) == UpsertResult(unchanged=len(rows))
        assert tx.fetch(people, COLUMNS, [row[0] for row in rows]) == {row[0]: row for row in rows}


@pytest.mark.fault("V7", "V8")
def test_cleaned_text_is_storable_everywhere_and_the_same_everywhere(store: Warehouse) -> None:
    dirty = "nul \0, lone \ud800 and \udfff, fine 😀"
    with store.transaction("test") as tx:
        assert tx.upsert(people, COLUMNS, [person("a", name=clean_text(dirty))]).inserted == 1
        tx.set_state("stream", {"dirty": dirty})
        tx.execute(people.update().values(email=dirty))
        clean = "nul \ufffd, lone \ufffd and \ufffd, fine 😀"
        assert tx.fetch(people, ("name", "email"), ["a"]) == {"a": (clean, clean)}
        assert tx.state("stream") == {"dirty": clean}


@pytest.mark.parametrize("number", [0, -1, 2**63 - 1, -(2**63)])
def test_whole_numbers_of_64_bits_come_back(store: Warehouse, number: int) -> None:
    with store.transaction("test") as tx:
        assert tx.upsert(people, COLUMNS, [person("a", age=number)]).inserted == 1
        assert tx.versions(people, ["a"], "age") == {"a": number}


@pytest.mark.fault("V10")
@pytest.mark.parametrize("number", [2**63, 2**64, 2**70, -(2**63) - 1])
def test_larger_whole_numbers_are_refused_in_columns_of_64_bits_and_exact_in_decimals(
    store: Warehouse, number: int
) -> None:
    with store.transaction("test") as tx:
        reason = "column age: the number does not fit into 64 bits"
        assert tx.upsert(people, COLUMNS, [person("a", age=number)]).rejected[0][1] == reason
        assert tx.upsert(people, COLUMNS, [person("b", wealth=decimal_text(number))]).inserted == 1
        assert tx.versions(people, ["b"], "wealth") == {"b": str(number)}
        assert tx.rows(people.select().with_only_columns(people.c.wealth)) == [(Decimal(number),)]


@pytest.mark.fault("V11", "R10")
@given(
    amounts=st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, places=15, min_value=-(10**30), max_value=10**30),
        min_size=1,
        max_size=20,
    )
)
def test_decimals_are_exact_to_the_last_digit_on_both_databases(
    shared_store: Warehouse, amounts: list[Decimal]
) -> None:
    rows = [person(f"k{number}", wealth=decimal_text(amount)) for number, amount in enumerate(amounts)]
    with shared_store.transaction("test") as tx:
        tx.execute(people.delete())
        assert tx.upsert(people, COLUMNS, rows).inserted == len(rows)
        assert tx.upsert(people, COLUMNS, rows).unchanged == len(rows)
        found = tx.rows(people.select().with_only_columns(people.c.id, people.c.wealth))
    assert dict(found) == {f"k{number}": amount for number, amount in enumerate(amounts)}


def test_values_of_small_statements_are_natural_python_values(store: Warehouse) -> None:
    moment = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    with store.transaction("test") as tx:
        tx.execute(
            people.insert().values(
                id="a",
                updated_at=moment.astimezone(timezone(timedelta(hours=9))),
                wealth=Decimal("1.10"),
                tags={"a": [1]},
                is_active=True,
            )
        )
        columns = (people.c.updated_at, people.c.wealth, people.c.tags, people.c.is_active, people.c.name)
        assert tx.rows(people.select().with_only_columns(*columns)) == [
            (moment, Decimal("1.1"), {"a": [1]}, True, None)
        ]
        assert tx.rows(
            people.select().with_only_columns(people.c.id).where(people.c.updated_at == moment.isoformat())
        )
        assert tx.fetch(people, ("updated_at", "wealth", "tags"), ["a"]) == {
            "a": ("2026-03-29T01:30:00.000000Z", "1.1", '{"a":[1]}')
        }


@pytest.mark.parametrize(
    "text", ['{"a":1.10}', f"[{'9' * 40}]", "0.1000000000000000055", "1" + "0" * 400, "9" * 6_000]
)
def test_a_json_text_keeps_every_digit_of_its_numbers(text: str) -> None:
    assert canonical_json(text) == text
