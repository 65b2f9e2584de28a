"""The list endpoints of the simulated Rally and every switch that changes them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.sandbox.talk import Talk, small


def keys(talk: Talk, name: str, query: str = "") -> list[str]:
    return [row[name] for row in talk.rows(f"/contacts?limit=1000{query}")]


# -- paging -----------------------------------------------------------------------------------------------------


def test_pages_cover_the_list_once() -> None:
    talk = small()
    for entity, count in talk.rally.counts().items():
        ids = talk.crawl(entity, limit=7)
        assert len(ids) == len(set(ids)) == count
        assert sorted(ids) == talk.rally.ids(entity)


def test_limit_has_a_default_and_a_silent_cap() -> None:
    talk = small(records={"contacts": 30}, default_limit=5, max_limit=8)
    assert len(talk.rows("/contacts")) == 5
    assert len(talk.rows("/contacts?limit=6")) == 6
    assert len(talk.rows("/contacts?limit=500")) == 8


def test_limit_over_the_cap_can_be_refused() -> None:
    talk = small(max_limit=8, over_limit="refuse")
    assert talk.get("/contacts?limit=8").status == 200
    assert talk.get("/contacts?limit=9").status == 400


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=abc",
        "limit=",
        "limit=1e3",
        "limit=9999999999",
        "offset=-1",
        "offset=x",
        "limit=٣",
        "updatedSince=yesterday",
    ],
)
def test_parameters_that_make_no_sense_are_refused(query: str) -> None:
    assert small().get(f"/contacts?{query}").status == 400


def test_unversioned_path_is_the_same() -> None:
    talk = small()
    call = talk.sandbox.call("GET", "/rally/api/contacts?limit=3", talk.headers)
    assert talk.sandbox.handle(call).body == talk.get("/contacts?limit=3").body


@pytest.mark.parametrize(
    ("order", "name", "descending"),
    [
        ("id", "id", False),
        ("-id", "id", True),
        ("createdAt", "createdAt", False),
        ("-createdAt", "createdAt", True),
        ("updatedAt", "updatedAt", False),
        ("-updatedAt", "updatedAt", True),
    ],
)
def test_list_order(order: str, name: str, descending: bool) -> None:
    talk = small(list_order=order)
    found = keys(talk, name)
    assert found == sorted(found, reverse=descending)
    assert talk.crawl("contacts", limit=7) == keys(talk, "id")


def test_order_stays_right_while_records_change() -> None:
    talk = small(list_order="-updatedAt", record_digits=7)
    talk.rows("/contacts")
    talk.rally.mutate(200, over_seconds=100, entities=["contacts"])
    found = keys(talk, "updatedAt")
    assert found == sorted(found, reverse=True)
    assert sorted(keys(talk, "id")) == talk.rally.ids("contacts")


def test_random_order_is_new_for_each_answer_and_holds_every_row() -> None:
    talk = small(list_order="random")
    first, second = keys(talk, "id"), keys(talk, "id")
    assert first != second
    assert sorted(first) == sorted(second) == talk.rally.ids("contacts")
    assert talk.rows("/contacts?offset=1000") == []


@pytest.mark.parametrize("order", ["createdAt", "-createdAt", "updatedAt", "-updatedAt"])
def test_list_ties_may_be_unstable_but_times_stay_in_order(order: str) -> None:
    talk = small(records=0, list_order=order, list_ties="unstable")
    for second in range(3):
        talk.rally.mutate(10, ["insert"], entities=["companies"])
        talk.sandbox.clock.advance(second + 1)
    pages = [talk.rows("/companies?limit=9&offset=6") for _ in range(5)]
    assert len({tuple(row["id"] for row in page) for page in pages}) > 1
    for page in pages:
        times = [row[order.removeprefix("-")] for row in page]
        assert times == sorted(times, reverse=order.startswith("-"))
        assert len(page) == 9
    assert len(set(talk.ids("/companies?limit=100"))) == 30
    assert talk.rows("/companies?offset=30") == []


def test_page_may_be_overfilled() -> None:
    talk = small(records={"contacts": 30}, overfill=3)
    assert len(talk.rows("/contacts?limit=10")) == 13


def test_offset_may_be_ignored() -> None:
    talk = small(ignore_offset=True)
    assert talk.ids("/contacts?limit=5&offset=10") == talk.ids("/contacts?limit=5")


def test_page_in_the_middle_may_be_empty() -> None:
    talk = small(records={"contacts": 30}, empty_page_every=2)
    sizes = [len(talk.rows("/contacts?limit=5&offset=5")) for _ in range(4)]
    assert sizes == [5, 0, 5, 0]
    assert len(talk.rows("/contacts?limit=5")) == 5


def test_page_may_be_the_one_before_again() -> None:
    talk = small(records={"contacts": 30}, repeat_page_every=2)
    first = talk.ids("/contacts?limit=5&offset=5")
    assert talk.ids("/contacts?limit=5&offset=10") == first
    assert talk.ids("/contacts?limit=5&offset=10") != first


def test_rows_may_come_twice() -> None:
    talk = small(records={"contacts": 100}, duplicate_row_share=0.5)
    ids = talk.ids("/contacts?limit=100")
    assert len(set(ids)) == 100
    assert 120 < len(ids) < 180


# -- envelope ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("envelope", ["data", "items", "results"])
def test_rows_may_stand_in_an_envelope(envelope: str) -> None:
    talk = small(envelope=envelope)
    answer = talk.json("GET", "/contacts?limit=3")
    assert list(answer) == [envelope]
    assert len(answer[envelope]) == 3


def test_envelope_may_carry_a_total_that_may_lie() -> None:
    talk = small(records={"contacts": 30}, envelope="data", total_key="totalCount")
    assert talk.json("GET", "/contacts?limit=3")["totalCount"] == 30
    talk.rally.switch(total_key="total", total_error=-7)
    assert talk.json("GET", "/contacts?limit=3")["total"] == 23


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        ("right", "http://127.0.0.1/rally/api/v1/contacts?fields=id&limit=5&offset=15"),
        ("self", "http://127.0.0.1/rally/api/v1/contacts?fields=id&limit=5&offset=10"),
        ("back", "http://127.0.0.1/rally/api/v1/contacts?fields=id&limit=5&offset=5"),
        ("foreign", "https://evil.example/rally/api/v1/contacts?fields=id&limit=5&offset=15"),
    ],
)
def test_envelope_may_carry_a_next_link_that_leads_astray(kind: str, link: str) -> None:
    talk = small(envelope="data", next_link=kind)
    assert talk.json("GET", "/contacts?limit=5&offset=10&fields=id")["next"] == link


# -- updatedSince and fields ------------------------------------------------------------------------------------


def test_updated_since_leaves_out_what_did_not_change() -> None:
    talk = small(record_digits=3)
    for order in ("createdAt", "-updatedAt", "id"):
        talk.rally.switch(list_order=order)
        times = {row["id"]: row["updatedAt"] for row in talk.rows("/contacts?limit=1000")}
        middle = sorted(times.values())[12]
        found = talk.crawl("contacts", limit=5, query=f"&updatedSince={middle}")
        assert sorted(found) == sorted(each for each, time in times.items() if time >= middle)
        in_order = [each for each in keys(talk, "id") if each in found]
        assert found == in_order


@pytest.mark.parametrize(("reading", "count"), [("inclusive", 2), ("exclusive", 1)])
def test_updated_since_is_inclusive_or_exclusive(reading: str, count: int) -> None:
    talk = small(records=0, updated_since=reading)
    talk.rally.mutate(1, ["insert"], entities=["companies"])
    talk.sandbox.clock.advance(1)
    talk.rally.mutate(1, ["insert"], entities=["companies"])
    assert len(talk.rows("/companies?updatedSince=2026-03-02T08:00:00Z")) == count


@pytest.mark.parametrize(("digits", "count"), [(0, 0), (3, 1), (7, 1)])
def test_updated_since_is_compared_at_a_precision(digits: int, count: int) -> None:
    talk = small(records=0, updated_since="exclusive", updated_since_digits=digits)
    talk.sandbox.clock.advance(0.5)
    talk.rally.mutate(1, ["insert"], entities=["companies"])
    assert len(talk.rows("/companies?updatedSince=2026-03-02T08:00:00Z")) == count


def test_updated_since_may_leave_out_creates() -> None:
    talk = small(records=0, updated_since_counts_creates=False)
    talk.rally.mutate(2, ["insert"], entities=["companies"])
    talk.sandbox.clock.advance(1)
    changed = talk.rally.ids("companies")[0]
    talk.rally.update("companies", changed, {"notes": "x"})
    assert talk.ids("/companies?updatedSince=2026-01-01T00:00:00Z") == [changed]


def test_filtered_list_follows_changes() -> None:
    talk = small(list_order="id")
    since = "&updatedSince=2026-03-02T08:00:00Z"
    assert talk.crawl("contacts", query=since) == []
    for _ in range(5):
        talk.sandbox.clock.advance(1)
        talk.rally.mutate(20, entities=["contacts"])
        truth = [row["id"] for row in talk.rally.records("contacts") if row["updatedAt"] >= "2026-03-02T08"]
        assert talk.crawl("contacts", query=since) == truth


def test_more_filters_than_are_kept_are_still_right() -> None:
    talk = small()
    for day in range(1, 25):
        bound = f"2026-02-{day:02d}T00:00:00Z"
        truth = {row["id"] for row in talk.rally.records("contacts") if row["updatedAt"] >= bound}
        assert set(talk.ids(f"/contacts?limit=1000&updatedSince={bound}")) == truth


def test_fields_choose_members_and_id_is_always_there() -> None:
    talk = small()
    (row,) = talk.rows("/contacts?limit=1&fields=lastName,%20email,nonsense")
    assert list(row) == ["id", "lastName", "email"]


# -- stale answers ----------------------------------------------------------------------------------------------


def test_replica_answers_from_the_past() -> None:
    talk = small(replica_lag_seconds=30)
    before = talk.crawl("contacts")
    new = talk.rally.create("contacts", {"firstName": "A", "lastName": "B", "email": "new@example.org"})["id"]
    gone = before[0]
    talk.rally.delete("contacts", gone)
    talk.sandbox.clock.advance(29.9)
    assert talk.crawl("contacts") == before
    assert talk.get(f"/contacts/{gone}").status == 200
    assert talk.get(f"/contacts/{new}").status == 404
    assert talk.changes("2026-03-02T07:59:00Z") == []
    talk.sandbox.clock.advance(0.1)
    assert talk.crawl("contacts") == [*before[1:], new]
    assert talk.get(f"/contacts/{gone}").status == 404
    assert len(talk.changes("2026-03-02T07:59:00Z")) == 2


def test_replica_shows_exactly_the_state_of_so_long_ago() -> None:
    talk = small(replica_lag_seconds=20, replica_serves=["lists"], list_order="id")
    states: list[tuple[float, dict[str, Any]]] = []
    for _ in range(30):
        states.append((talk.sandbox.clock.monotonic(), talk.rally.truth()))
        seen_until = talk.sandbox.clock.monotonic() - 20
        old = [state for at, state in states if at <= seen_until]
        for entity in ("contacts", "deals"):
            rows = talk.rows(f"/{entity}?limit=1000")
            assert rows == (old[-1] if old else states[0][1])[entity]
        talk.sandbox.clock.advance(7)
        talk.rally.mutate(10, ["insert", "update", "delete", "revive"])


def test_replica_serves_what_it_is_told_to() -> None:
    talk = small(replica_lag_seconds=30, replica_serves=["records"])
    new = talk.rally.create("contacts", {"firstName": "A", "lastName": "B", "email": "new@example.org"})["id"]
    assert new in talk.crawl("contacts")
    assert talk.get(f"/contacts/{new}").status == 404
    assert len(talk.changes("2026-03-02T07:59:00Z")) == 1


def test_replica_answers_a_share_of_the_requests() -> None:
    talk = small(replica_lag_seconds=30, replica_share=0.5)
    new = talk.rally.create("contacts", {"firstName": "A", "lastName": "B", "email": "new@example.org"})["id"]
    statuses = [talk.get(f"/contacts/{new}").status for _ in range(50)]
    assert 10 < statuses.count(404) < 40


def test_replica_that_is_switched_off_and_on_starts_from_the_present() -> None:
    talk = small(replica_lag_seconds=30)
    talk.rally.mutate(10)
    talk.rally.switch(replica_lag_seconds=0)
    talk.rally.mutate(10)
    assert sorted(talk.crawl("contacts")) == talk.rally.ids("contacts")
    talk.rally.switch(replica_lag_seconds=10)
    assert sorted(talk.crawl("contacts")) == talk.rally.ids("contacts")


# -- how a record is written ------------------------------------------------------------------------------------

CONTACT = [
    *(
        "id",
        "tenantId",
        "firstName",
        "lastName",
        "fullName",
        "email",
        "phone",
        "mobile",
        "title",
        "department",
    ),
    *("companyId", "lifecycleStage", "leadSource", "leadScore", "tags", "notes", "ownerId"),
    *("createdAt", "updatedAt"),
]


def test_contact_has_the_documented_members_in_order() -> None:
    (row,) = small().rows("/contacts?limit=1")
    assert list(row) == CONTACT
    assert row["fullName"] == f"{row['firstName']} {row['lastName']}"


def test_contact_details_may_be_shown() -> None:
    (row,) = small(contact_details=True).rows("/contacts?limit=1")
    details = ["linkedInUrl", "twitterHandle", "address", "city", "state", "country", "postalCode"]
    assert list(row) == [*CONTACT[:-2], *details, *CONTACT[-2:]]


def test_nulls_may_be_absent() -> None:
    plain, sparse = small(), small(nulls="absent")
    for entity in ("contacts", "companies", "deals", "activities"):
        full = plain.rows(f"/{entity}?limit=1000")
        assert sparse.rows(f"/{entity}?limit=1000") == [
            {name: value for name, value in row.items() if value is not None} for row in full
        ]


def test_absent_nulls_leave_texts_alone() -> None:
    talk = small(nulls="absent")
    text = 'x,"notes":null,"tags":null,y'
    made = talk.rally.create("contacts", {"firstName": "A", "lastName": text, "email": "t@example.org"})
    assert made["lastName"] == text
    assert "notes" not in made


def test_decimals_are_numbers_or_strings_and_exact() -> None:
    fields = {"name": "N", "annualRevenue": Decimal("12345678901234567890.10")}
    assert small().rally.create("companies", fields)["annualRevenue"] == Decimal("12345678901234567890.10")
    talk = small(decimals="string")
    assert talk.rally.create("companies", fields)["annualRevenue"] == "12345678901234567890.10"
    assert talk.rally.create("companies", {"name": "N"})["annualRevenue"] is None


@pytest.mark.parametrize(("digits", "text"), [(0, "00Z"), (3, "00.123Z"), (7, "00.1234560Z")])
def test_times_have_so_many_digits(digits: int, text: str) -> None:
    talk = small(record_digits=digits)
    talk.sandbox.clock.advance(0.123456)
    assert talk.rally.create("companies", {"name": "N"})["createdAt"] == f"2026-03-02T08:00:{text}"


def test_custom_fields_may_stand_flat_or_in_an_object() -> None:
    (flat,) = small(custom_fields="flat").rows("/deals?limit=1")
    (nested,) = small(custom_fields="object").rows("/deals?limit=1")
    assert {"cfRegion", "cfScore", "cfVip"} <= flat.keys()
    assert nested["customFields"] == {name: flat[name] for name in ("cfRegion", "cfScore", "cfVip")}


def test_members_may_be_added_and_left_out() -> None:
    extra: dict[str, Any] = {"100% new": {"a": [1, "50%"]}, "x": None}
    talk = small(extra_fields=extra)
    (row,) = talk.rows("/deals?limit=1")
    assert {name: row[name] for name in extra} == extra
    for name in ("id", "tenantId", "createdAt", "updatedAt", "value", "stageName"):
        talk.rally.switch(extra_fields={}, missing_fields=[name])
        (fewer,) = talk.rows("/deals?limit=1")
        assert fewer == {member: value for member, value in row.items() if member not in (name, *extra)}


def test_contact_may_lack_its_computed_name() -> None:
    (row,) = small(missing_fields=["fullName", "createdAt"]).rows("/contacts?limit=1")
    assert list(row) == [name for name in CONTACT if name not in ("fullName", "createdAt")]


def test_distorted_record_shows_what_it_was_told_to() -> None:
    talk = small()
    record_id, other = talk.rally.ids("deals")[:2]
    talk.rally.distort(
        "deals",
        record_id,
        set={"stageName": 5, "new": [1]},
        raw={"value": "1e999"},
        drop=["name"],
        append='"id":"twice"',
    )
    body = talk.get(f"/deals/{record_id}").body
    assert b'"stageName":5' in body
    assert b'"new":[1]' in body
    assert b'"value":1e999' in body
    assert b'"name":' not in body
    assert body.endswith(b',"id":"twice"}')
    assert talk.rally.record("deals", other) == talk.json("GET", f"/deals/{other}")
    talk.rally.switch(nulls="absent")
    assert b'"new":[1]' in talk.get(f"/deals/{record_id}").body
    talk.rally.restore("deals", record_id)
    assert b'"new"' not in talk.get(f"/deals/{record_id}").body


def test_lone_surrogates_and_nul_can_be_sent() -> None:
    talk = small()
    record_id = talk.rally.ids("deals")[0]
    talk.rally.distort("deals", record_id, raw={"notes": '"\\ud800 \\u0000"'})
    assert talk.json("GET", f"/deals/{record_id}")["notes"] == "\ud800 \x00"


def test_pages_stay_right_when_more_records_are_read_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rally_pipeline.sandbox.rally.records.MOST_KEPT", 5)
    talk = small(list_order="id")
    for _ in range(3):
        assert talk.rows("/contacts?limit=1000") == list(talk.rally.records("contacts"))
        talk.rally.mutate(20, ["update"], ["contacts"], over_seconds=5)


# -- population -------------------------------------------------------------------------------------------------


def test_population_is_realistic_and_consistent() -> None:
    talk = small(records=400)
    truth = talk.rally.truth()
    assert sum(len(rows) for rows in truth.values()) == 400
    contacts = {row["id"]: row for row in truth["contacts"]}
    companies = {row["id"]: row for row in truth["companies"]}
    deals = {row["id"]: row for row in truth["deals"]}
    assert len({row["email"] for row in contacts.values()}) == len(contacts)
    assert len({row["domain"] for row in companies.values()}) == len(companies)
    stages = {
        stage["id"]: stage["name"] for pipeline in talk.rows("/pipelines") for stage in pipeline["stages"]
    }
    for deal in deals.values():
        assert deal["stageName"] == stages[deal["stageId"]]
        assert deal["companyName"] == (companies[deal["companyId"]]["name"] if deal["companyId"] else None)
        assert deal["contactName"] == (contacts[deal["contactId"]]["fullName"] if deal["contactId"] else None)
    for activity in truth["activities"]:
        assert activity["dealId"] is None or activity["dealId"] in deals
        assert (activity["completedAt"] is None) == (activity["status"] == "pending")
    for rows in truth.values():
        for row in rows:
            assert datetime.fromisoformat(row["createdAt"]) <= datetime.fromisoformat(row["updatedAt"])
            assert row["updatedAt"] <= "2026-03-02T07:00:00Z"
    assert any(not row["lastName"].isascii() for row in contacts.values())
    assert any(row["value"] is not None and row["value"] % 1 for row in deals.values())


def test_population_can_be_given_for_each_entity() -> None:
    talk = small(records={"deals": 3, "contacts": 2})
    assert talk.rally.counts() == {"companies": 0, "contacts": 2, "deals": 3, "activities": 0}
