"""A record becomes a row: nothing that was in it is lost, and only nonsense is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.records import RecordDecoder, RecordError, key_of, keys_of, version_of, versions_of

ID = "5b0e3f1c-77d2-4a55-8f0e-2c9a4d6b1e90"


def decode(raw: bytes | dict[str, Any], entity: Entity = Entity.DEALS) -> dict[str, Any]:
    body = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    decoder = RecordDecoder(entity)
    return dict(zip(decoder.columns, decoder.decode(body, synced_at="now"), strict=True))


@pytest.mark.fault("V11")
@pytest.mark.parametrize(
    ("written", "stored"),
    [
        (b"48250.75", "48250.75"),
        (b'"48250.75"', "48250.75"),
        (b"12.500", "12.5"),
        (b"12345678901234567890123.456789012345", "12345678901234567890123.456789012345"),
        (b"1e5", "100000"),
        (b"-0.0", "0"),
        (b"null", None),
    ],
)
def test_money_is_exact_whether_it_comes_as_a_number_or_as_a_text(written: bytes, stored: str | None) -> None:
    assert decode(b'{"id":"%s","value":%s}' % (ID.encode(), written))["value"] == stored


@pytest.mark.fault("C1", "C2", "C5")
@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("2025-03-04T09:08:07Z", "2025-03-04T09:08:07.000000Z"),
        ("2025-03-04T09:08:07.5Z", "2025-03-04T09:08:07.500000Z"),
        ("2025-03-04T09:08:07.1234567Z", "2025-03-04T09:08:07.123456Z"),
        ("2025-03-04T14:38:07+05:30", "2025-03-04T09:08:07.000000Z"),
        ("2025-03-04T09:08:07", "2025-03-04T09:08:07.000000Z"),
        ("9999-12-31T00:00:00Z", "9999-12-31T00:00:00.000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_times_become_utc_and_are_floored_to_microseconds(written: str, stored: str) -> None:
    assert decode({"id": ID, "updatedAt": written})["updated_at"] == stored


@pytest.mark.fault("V4", "V10", "V14", "C5")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", True),
        ("value", {"amount": 1}),
        ("value", "a lot"),
        ("probability", 0.5),
        ("probability", 2**70),
        ("updatedAt", "yesterday"),
        ("updatedAt", "2025-02-30T00:00:00Z"),
        ("updatedAt", "2025-03-04T23:59:60Z"),
        ("name", ["a", "list"]),
        ("name", 5),
    ],
)
def test_a_value_that_does_not_fit_its_column_is_kept_whole_in_extra(field: str, value: Any) -> None:
    row = decode({"id": ID, field: value})
    assert row["extra"] is not None
    assert json.loads(row["extra"]) == {field: value}


@pytest.mark.fault("V3")
def test_an_absent_field_and_a_null_are_the_same() -> None:
    everything = {field.name: None for field in Entity.DEALS.fields} | {"id": ID}
    bare = decode({"id": ID})
    full = decode(everything)
    del bare["_version"], full["_version"]
    assert bare == full


def test_a_field_without_a_column_is_kept_in_extra_with_its_digits() -> None:
    row = decode(b'{"id":"x","customScore":1.10,"custom":{"b":1,"a":[1,2]}}')
    assert row["extra"] == '{"custom":{"a":[1,2],"b":1},"customScore":1.10}'


def test_fields_learnt_from_earlier_records_do_not_appear_in_later_ones() -> None:
    decoder = RecordDecoder(Entity.CONTACTS)
    place = decoder.columns.index("extra")
    first = decoder.decode(b'{"id":"a","color":"red"}', synced_at="now")
    second = decoder.decode(b'{"id":"b"}', synced_at="now")
    third = decoder.decode(b'{"id":"c","color":null,"size":3}', synced_at="now")
    assert [row[place] for row in (first, second, third)] == [
        '{"color":"red"}',
        None,
        '{"color":null,"size":3}',
    ]


@pytest.mark.fault("V7", "V8")
@pytest.mark.parametrize("text", [r"\u0000", r"a\u0000b", r"\ud800", r"\udfff tail"])
def test_what_databases_refuse_becomes_the_replacement_character(text: str) -> None:
    row = decode(b'{"id":"x","name":"%s","custom":"%s"}' % (text.encode(), text.encode()))
    assert "�" in row["name"]
    assert "�" in json.loads(row["extra"])["custom"]


@pytest.mark.fault("B3", "B4", "B5", "B18")
@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b'"text"',
        b"{}",
        b'{"id":null}',
        b'{"id":""}',
        b'{"id":["x"]}',
        b'{"id":"x"',
        b'{"id":"x","value":NaN}',
        b'{"id":"x","value":Infinity}',
        b'{"id":"x","n":' + b"9" * 5_000 + b"}",
        b'{"id":"x","deep":' + b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_nonsense_is_refused_with_a_reason(raw: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        decode(raw)
    assert len(str(caught.value)) < 250


def test_one_bad_record_does_not_disturb_the_others() -> None:
    raws = [msgspec.Raw(raw) for raw in (b'{"id":"a"}', b'{"id":"b","x":NaN}', b'{"id":"c"}')]
    versions = [version_of(memoryview(raw)) for raw in raws]
    rows, places, refused = RecordDecoder(Entity.CONTACTS).decode_rows(raws, versions, synced_at="now")
    assert [row[0] for row in rows] == ["a", "c"]
    assert places == [0, 2]
    assert [place for place, _ in refused] == [1]


@pytest.mark.fault("B2")
@pytest.mark.parametrize("colon", [":", ": ", " : ", "\t:", "\n :"])
def test_a_record_with_a_key_twice_is_refused_however_the_writer_sets_its_colons(colon: str) -> None:
    members = (
        ['"id":"a"', '"name":"x"'],
        ['"id":"b"', '"name":"x"', '"name":"y"'],
        ['"id":"c"', '"name":null'],
    )
    texts = ["{" + ",".join(record).replace(":", colon) + "}" for record in members]
    raws = [msgspec.Raw(text.encode()) for text in texts]
    rows, _, refused = RecordDecoder(Entity.DEALS).decode_rows(raws, versions_of(raws), synced_at="now")
    assert [row[0] for row in rows] == ["a", "c"]
    assert refused == [(1, "the key 'name' stands twice in one object of the record")]


def test_an_id_that_is_a_number_is_stored_as_text() -> None:
    assert decode(b'{"id":17}')["id"] == "17"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.decimals(allow_nan=False, allow_infinity=False, places=4).map(float),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([field.name for field in Entity.DEALS.fields[1:]]) | st.text(
    min_size=1, max_size=12
).filter(lambda name: name != "id")


@pytest.mark.parametrize(
    "name", ["__0", "__dict__", "__class__", "_x", "class", "learnt_0", "with space", "größe", 'q"']
)
def test_any_name_of_a_custom_field_is_learnt_or_read_carefully(name: str) -> None:
    decoder = RecordDecoder(Entity.DEALS)
    raws = [msgspec.Raw(json.dumps({"id": f"{n}", name: n}).encode()) for n in range(3)]
    for _ in range(2):
        rows = decoder.decode_rows(raws, versions_of(raws), synced_at="now").rows
        assert [json.loads(row[-4]) for row in rows] == [{name: n} for n in range(3)]


@given(st.lists(st.dictionaries(names, json_values, max_size=8), min_size=1, max_size=4))
def test_the_quick_reader_and_the_careful_reader_give_the_same_row(records: list[dict[str, Any]]) -> None:
    """The first decoder learns as it goes; a fresh one with U+0000 in sight reads carefully. Both must agree."""
    quick = RecordDecoder(Entity.DEALS)
    for record in records:
        raw = json.dumps({"id": ID, **record}).encode()
        careful = RecordDecoder(Entity.DEALS)._decode_carefully(raw)
        assert list(quick.decode(raw, synced_at="now"))[:-3] == careful


ids = st.uuids().map(str) | st.text(max_size=50) | st.text("0123456789abcdef- ", min_size=36, max_size=36)


@given(st.lists(ids, max_size=5))
def test_the_key_of_an_id_has_sixteen_bytes_alone_and_among_others(entity_ids: list[str]) -> None:
    assert all(len(key_of(entity_id)) == 16 for entity_id in entity_ids)
    assert keys_of(entity_ids) == [key_of(entity_id) for entity_id in entity_ids]


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_versions_are_the_same_alone_and_among_others(contents: list[bytes]) -> None:
    raws = [msgspec.Raw(json.dumps(content.hex()).encode()) for content in contents]
    assert versions_of(raws) == [version_of(memoryview(raw)) for raw in raws]


def test_different_ids_have_different_keys() -> None:
    assert len({key_of(ID), key_of(ID[:-1] + "1"), key_of("1"), key_of("2"), key_of("")}) == 5
