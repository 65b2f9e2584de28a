"""From an item's bytes to a row: every kind of value, and nothing lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rally_pipeline.http.errors import BadAnswer
from rally_pipeline.http.transport import Response
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.queue import QueuePage, read_page
from rally_pipeline.sell.records import RecordError, UnplaceableError, decoder_of, read_record


def row(entity: Entity, raw: str | bytes | dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(raw) if isinstance(raw, dict) else raw
    decoder = decoder_of(entity)
    record = read_record(entity, text.encode() if isinstance(text, str) else text)
    return dict(zip(decoder.columns, decoder.row(record, revision=7, synced_at="now"), strict=True))


def page(body: bytes) -> QueuePage:
    return read_page(Response(200, {"Content-Type": "application/json"}, body))


@pytest.mark.fault("V11")
@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("1200", "1200"),
        ('"1200.50"', "1200.5"),
        ("1200.10", "1200.1"),
        ('"0.00"', "0"),
        ("123456789012345678901234567890.12", "123456789012345678901234567890.12"),
        ("-5", "-5"),
        ("null", None),
    ],
)
def test_a_deals_value_is_exact_from_number_or_text(sent: str, stored: str | None) -> None:
    assert row(Entity.DEALS, f'{{"id":1,"value":{sent}}}')["value"] == stored


@pytest.mark.parametrize("sent", ["true", '"much"', "[1]", '"1,200.50"', "1e999999999"])
def test_a_value_that_does_not_fit_its_column_is_kept_in_extra(sent: str) -> None:
    found = row(Entity.DEALS, f'{{"id":1,"value":{sent}}}')
    assert found["value"] is None
    assert '"value":' in found["extra"]


def test_unknown_fields_are_kept_in_extra() -> None:
    found = row(Entity.LEADS, {"id": 1, "score": 5, "nested": {"b": 1, "a": [None]}})
    assert json.loads(found["extra"]) == {"score": 5, "nested": {"a": [None], "b": 1}}


def test_ids_given_as_text_are_whole_numbers_and_the_support_id_is_text() -> None:
    assert row(Entity.LEADS, {"id": "12", "unqualified_reason_id": "31"})["unqualified_reason_id"] == 31
    assert row(Entity.USERS, {"id": 1, "zendesk_user_id": 9876543210})["zendesk_user_id"] == "9876543210"
    assert row(Entity.USERS, {"id": 1, "zendesk_user_id": "0123"})["zendesk_user_id"] == "0123"


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("2031-05-06", "2031-05-06T00:00:00.000000Z"),
        ("2031-05-06T10:00:00Z", "2031-05-06T10:00:00.000000Z"),
        ("2031-05-06T10:00:00+02:00", "2031-05-06T08:00:00.000000Z"),
        ("9999-12-31T00:00:00Z", "9999-12-31T00:00:00.000000Z"),
        ("4/27/2031", None),
    ],
)
def test_times_in_all_their_forms(sent: str, stored: str | None) -> None:
    found = row(Entity.DEALS, {"id": 1, "estimated_close_date": sent})
    assert found["estimated_close_date"] == stored
    assert (found["extra"] is None) == (stored is not None)


def test_custom_fields_of_both_spellings_are_kept_as_they_are() -> None:
    custom = {"Region": {"id": 1, "name": "Łódź"}, "Old list": "A", "Many": ["x"], "Number": "123.45"}
    assert json.loads(row(Entity.CONTACTS, {"id": 1, "custom_fields": custom})["custom_fields"]) == custom


def test_nul_and_emoji() -> None:
    found = row(Entity.NOTES, b'{"id":1,"content":"a\\u0000b \\ud83d\\udcce"}')
    assert found["content"] == "a\ufffdb 📎"


@pytest.mark.fault("V14")
def test_booleans_are_not_guessed() -> None:
    found = row(Entity.TASKS, {"id": 1, "completed": "true", "overdue": False})
    assert found["completed"] is None
    assert json.loads(found["extra"]) == {"completed": "true"}
    assert found["overdue"] is False


def test_an_associated_contact_is_known_by_its_id_or_by_deal_and_contact() -> None:
    assert row(Entity.ASSOCIATED_CONTACTS, {"id": 5, "deal_id": 1, "contact_id": 2})["id"] == "5"
    assert row(Entity.ASSOCIATED_CONTACTS, {"deal_id": 1, "contact_id": 2})["id"] == "1:2"
    with pytest.raises(UnplaceableError):
        row(Entity.ASSOCIATED_CONTACTS, {"contact_id": 2, "role": "involved"})


@pytest.mark.parametrize("identity", ["null", "true", "1.5", '""', '"x"', "9223372036854775808", "[1]"])
def test_a_record_without_a_usable_id_is_refused(identity: str) -> None:
    with pytest.raises(RecordError):
        row(Entity.LEADS, f'{{"id":{identity}}}')


def test_embedded_stages_are_unfolded_and_leave_nothing_behind() -> None:
    stage = {"id": 311, "name": "Intro", "pipeline_id": 31, "updated_at": "2031-01-01T00:00:00Z", "new": 1}
    raw = {"id": 31, "name": "Main", "stages": {"items": [{"data": stage, "meta": {"type": "stage"}}]}}
    record = read_record(Entity.PIPELINES, json.dumps(raw).encode())
    (embedded,) = record.embedded()
    assert (embedded.entity, embedded.key) == (Entity.STAGES, 311)
    assert row(Entity.PIPELINES, raw)["extra"] is None
    raw["stages"]["items"].append({"data": {"name": "nameless"}})
    assert "nameless" in row(Entity.PIPELINES, raw)["extra"]


# ---------------------------------------------------------------------- pages

ITEM = b'{"data":{"id":1},"meta":{"type":"lead","sync":{"event_type":"created","ack_key":"K","revision":3}}}'


def test_a_page_without_failed_objects_or_meta_is_a_page() -> None:
    found = page(b'{"items":[' + ITEM + b"]}")
    assert [item.ack_key for item in found.items] == ["K"]
    assert found.failed == []
    assert page(b'\xef\xbb\xbf{"items":[],"meta":{}}').is_empty


@pytest.mark.parametrize(
    ("revision", "read"),
    [(b'"12"', 12), (b"null", None), (b'"x"', None), (b"-1", None), (b"9223372036854775808", None)],
)
def test_revisions_in_odd_forms(revision: bytes, read: int | None) -> None:
    assert (
        page(b'{"items":[' + ITEM.replace(b":3}", b":" + revision + b"}") + b"]}").items[0].revision == read
    )


def test_one_bad_item_does_not_take_its_page_down() -> None:
    bad = ITEM.replace(b'"created"', b"5").replace(b'"K"', b'"Bad"')
    lone = ITEM.replace(b'{"id":1}', b'{"id":2,"name":"\\ud800"}')
    deep = ITEM.replace(b'{"id":1}', b'{"id":3,"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}").replace(
        b'"K"', b'"Deep"'
    )
    meta = b'{"failed_objects":[{"type":"deal","id":88},{"type":5}],"count_left":7}'
    found = page(b'{"items":[' + b",".join([ITEM, bad, lone, deep]) + b'],"meta":' + meta + b"}")
    assert [item.ack_key for item in found.items] == ["K", "K"]
    assert [item.ack_key for item in found.unreadable] == ["Bad", "Deep", None]
    assert [(failed.type, failed.id) for failed in found.failed] == [("deal", "88")]
    assert found.count_left == 7


def test_a_key_inside_the_data_is_not_taken_for_the_items_own() -> None:
    bad = ITEM.replace(b'{"id":1}', b'{"id":1,"ack_key":"Foreign"}').replace(b'"created"', b"5")
    assert page(b'{"items":[' + bad + b"]}").unreadable[0].ack_key is None


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'{"items":null}', b'{"items":{}}', b"<html></html>", b'{"items":[', b'{"error":"x"}',
     b'{"items":[7],"meta":[]}'],
)  # fmt: skip
def test_what_is_no_page_is_refused_and_never_empty(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        page(body)


def test_a_page_cut_at_any_byte_is_refused() -> None:
    whole = (
        b'{"items":[' + ITEM + b"," + ITEM + b'],"meta":{"type":"collection","count":2,"failed_objects":[]}}'
    )
    for size in range(len(whole)):
        with pytest.raises(BadAnswer):
            page(whole[:size])
