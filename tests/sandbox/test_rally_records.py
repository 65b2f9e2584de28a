"""Single records, writes, bulk, pipelines and keys of the simulated Rally, with the switches that change them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from rally_pipeline.sandbox import ControlError
from rally_pipeline.sandbox.rally import RallyError
from tests.sandbox.talk import Talk, new_contact, small

NOWHERE = "00000000-0000-4000-8000-000000000000"


def stages(talk: Talk) -> tuple[str, dict[str, str]]:
    """The default pipeline and its stages by name."""
    pipeline = talk.rows("/pipelines")[0]
    return pipeline["id"], {stage["name"]: stage["id"] for stage in pipeline["stages"]}


def new_deal(talk: Talk, **fields: Any) -> dict[str, Any]:
    pipeline, stage = stages(talk)
    return {"name": "Renewal", "pipelineId": pipeline, "stageId": stage["Lead"], **fields}


# -- reading ----------------------------------------------------------------------------------------------------


def test_record_is_the_row_of_the_list() -> None:
    talk = small()
    for entity in ("contacts", "companies", "deals", "activities"):
        (row,) = talk.rows(f"/{entity}?limit=1")
        assert talk.json("GET", f"/{entity}/{row['id']}") == row
        assert talk.json("GET", f"/{entity}/{row['id'].upper()}") == row


@pytest.mark.parametrize("status", [404, 410])
def test_gone_status_is_for_records_that_were_there(status: int) -> None:
    talk = small(gone_status=status)
    record_id = talk.rally.ids("deals")[0]
    talk.rally.delete("deals", record_id)
    for method in ("GET", "DELETE"):
        assert talk.send(method, f"/deals/{record_id}").status == status
        assert talk.send(method, f"/deals/{NOWHERE}").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/quotes", 404),
        ("GET", "/contacts/a/b/c", 404),
        ("PATCH", "/contacts", 405),
        ("POST", "/sync/changes", 405),
        ("PUT", "/activities/upsert", 404),
        ("DELETE", "/deals", 405),
        ("GET", "/deals/bulk", 405),
    ],
)
def test_unknown_paths_and_methods(method: str, path: str, status: int) -> None:
    answer = small().send(method, path)
    assert answer.status == status
    if status == 405:
        assert answer.headers["Allow"]


def test_path_outside_the_api_is_404_and_not_logged() -> None:
    talk = small()
    for path in ("/", "/rallyx/api/v1/contacts", "/sell/nothing"):
        assert talk.sandbox.handle(talk.sandbox.call("GET", path)).status == 404
    assert len(talk.sandbox.log) == 0
    assert talk.sandbox.handle(talk.sandbox.call("GET", "/rally/elsewhere")).status == 404
    assert len(talk.sandbox.log) == 1


# -- creating ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201])
def test_create_answers_with_the_record(status: int) -> None:
    talk = small(create_status=status)
    made = talk.json("POST", "/contacts", new_contact(leadScore=61, unknown=1, id="mine"), status=status)
    assert made["fullName"] == "Ines Okafor"
    assert made["lifecycleStage"] == "lead"
    assert made["leadScore"] == 61
    assert made["id"] != "mine"
    assert made["createdAt"] == made["updatedAt"] == "2026-03-02T08:00:00Z"
    assert talk.json("GET", f"/contacts/{made['id']}") == made


def test_values_are_kept_exactly() -> None:
    talk = small()
    text = "Zoë 🙂 \u202e\t\"\\ \x00 '; DROP TABLE"
    made = talk.json(
        "POST",
        "/companies",
        {"name": text, "annualRevenue": Decimal("0.10"), "tags": ["a", "ü", ""], "employeeCount": 0},
        status=201,
    )
    assert (made["name"], made["tags"], made["employeeCount"]) == (text, ["a", "ü", ""], 0)
    answer = talk.send("POST", "/companies", b'{"name":"N","annualRevenue":12400000.50}')
    assert b'"annualRevenue":12400000.50' in answer.body


def test_times_are_normalised_to_utc() -> None:
    talk = small()
    for given, shown in (
        ("2026-06-30", "2026-06-30T00:00:00Z"),
        ("2026-06-30T02:00:00+02:00", "2026-06-30T00:00:00Z"),
        ("2026-06-30T00:00:00.25Z", "2026-06-30T00:00:00.2500000Z"),
    ):
        made = talk.json("POST", "/deals", new_deal(talk, expectedCloseDate=given), status=201)
        assert made["expectedCloseDate"] == shown


@pytest.mark.parametrize(
    ("entity", "change", "field"),
    [
        ("contacts", {"email": None}, "email"),
        ("contacts", {"email": "nobody"}, "email"),
        ("contacts", {"email": 5}, "email"),
        ("contacts", {"firstName": "  "}, "firstName"),
        ("contacts", {"leadScore": 101}, "leadScore"),
        ("contacts", {"leadScore": True}, "leadScore"),
        ("contacts", {"leadScore": 5.5}, "leadScore"),
        ("contacts", {"companyId": "x"}, "companyId"),
        ("contacts", {"companyId": NOWHERE}, "companyId"),
        ("contacts", {"lastName": "\ud800"}, "lastName"),
        ("contacts", {"tags": ["a"]}, "tags"),
        ("companies", {"name": ""}, "name"),
        ("companies", {"tags": "a,b"}, "tags"),
        ("companies", {"annualRevenue": "much"}, "annualRevenue"),
        ("companies", {"annualRevenue": True}, "annualRevenue"),
        ("companies", {"annualRevenue": "1e99"}, "annualRevenue"),
        ("companies", {"annualRevenue": "NaN"}, "annualRevenue"),
        ("deals", {"stageId": NOWHERE}, "stageId"),
        ("deals", {"probability": -1}, "probability"),
        ("deals", {"expectedCloseDate": "soon"}, "expectedCloseDate"),
        ("deals", {"expectedCloseDate": "2026-02-30"}, "expectedCloseDate"),
        ("deals", {"expectedCloseDate": 5}, "expectedCloseDate"),
        ("activities", {"activityType": "email"}, "activityType"),
        ("activities", {"subject": None}, "subject"),
        ("activities", {"priority": "top"}, "priority"),
        ("activities", {"dealId": NOWHERE}, "dealId"),
    ],
)
def test_wrong_value_is_refused_and_its_field_named(entity: str, change: dict[str, Any], field: str) -> None:
    talk = small()
    body = {
        "contacts": new_contact(),
        "companies": {"name": "N"},
        "deals": new_deal(talk),
        "activities": {"activityType": "call", "subject": "S"},
    }[entity]
    before = talk.rally.counts()
    problem = talk.json("POST", f"/{entity}", {**body, **change}, status=400)
    assert list(problem["errors"]) == [field]
    assert talk.rally.counts() == before


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'"x"', b"\xff\xfe"])
def test_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert small().send("POST", "/contacts", body).status == 400


def test_body_must_be_json() -> None:
    talk = small()
    answer = talk.send("POST", "/contacts", new_contact(), **{"Content-Type": "text/csv"})
    assert answer.status == 415
    assert talk.send("POST", "/contacts", new_contact(), **{"Content-Type": "application/json"}).status == 201


def test_links_may_go_unchecked() -> None:
    talk = small(check_links=False)
    assert talk.json("POST", "/contacts", new_contact(companyId=NOWHERE), status=201)["companyId"] == NOWHERE


def test_email_is_unique_unless_switched_off() -> None:
    talk = small()
    talk.json("POST", "/contacts", new_contact(), status=201)
    assert talk.send("POST", "/contacts", new_contact(email="INES@example.org")).status == 409
    other = talk.json("POST", "/contacts", new_contact(email="other@example.org"), status=201)
    assert talk.send("PUT", f"/contacts/{other['id']}", new_contact()).status == 409
    talk.rally.switch(unique_emails=False)
    assert talk.send("POST", "/contacts", new_contact()).status == 201


def test_email_match_may_be_exact() -> None:
    talk = small(email_match="exact")
    talk.json("POST", "/contacts", new_contact(), status=201)
    assert talk.send("POST", "/contacts", new_contact(email="INES@example.org")).status == 201
    assert talk.send("POST", "/contacts", new_contact()).status == 409


# -- updating and deleting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "title"), [("replace", None), ("merge", "Buyer")])
def test_put_mode_decides_over_fields_that_are_not_sent(mode: str, title: str | None) -> None:
    talk = small(put_mode=mode, contact_details=True)
    made = talk.json("POST", "/contacts", new_contact(title="Buyer", city="Köln"), status=201)
    talk.sandbox.clock.advance(5)
    changed = talk.json("PUT", f"/contacts/{made['id']}", new_contact(lastName="Weiss"))
    assert (changed["fullName"], changed["title"]) == ("Ines Weiss", title)
    assert (changed["city"] is None) == (mode == "replace")
    assert changed["createdAt"] == "2026-03-02T08:00:00Z"
    assert changed["updatedAt"] == "2026-03-02T08:00:05Z"
    assert talk.send("PUT", f"/contacts/{NOWHERE}", new_contact()).status == 404


def test_put_replace_needs_the_required_fields_and_merge_does_not() -> None:
    talk = small()
    record_id = talk.rally.ids("contacts")[0]
    assert talk.send("PUT", f"/contacts/{record_id}", {"title": "x"}).status == 400
    talk.rally.switch(put_mode="merge")
    assert talk.send("PUT", f"/contacts/{record_id}", {"title": "x"}).status == 200


@pytest.mark.parametrize("status", [200, 204])
def test_delete(status: int) -> None:
    talk = small(delete_status=status)
    record_id = talk.rally.ids("contacts")[0]
    answer = talk.send("DELETE", f"/contacts/{record_id}")
    assert answer.status == status
    assert answer.body == (
        b"" if status == 204 else json.dumps({"id": record_id}, separators=(",", ":")).encode()
    )
    assert talk.rally.record("contacts", record_id) is None


def test_deleted_record_can_come_back_under_its_id() -> None:
    talk = small()
    before = talk.json("GET", f"/contacts/{talk.rally.ids('contacts')[0]}")
    talk.rally.delete("contacts", before["id"])
    talk.sandbox.clock.advance(5)
    back = talk.rally.revive("contacts", before["id"])
    assert back == {**before, "createdAt": "2026-03-02T08:00:05Z", "updatedAt": "2026-03-02T08:00:05Z"}
    with pytest.raises(RallyError, match="No deleted record"):
        talk.rally.revive("contacts", before["id"])


# -- deals and activities ---------------------------------------------------------------------------------------


def test_deal_copies_names_and_follows_its_stage() -> None:
    talk = small()
    company = talk.json("POST", "/companies", {"name": "Harbour"}, status=201)["id"]
    pipeline, stage = stages(talk)
    deal = talk.json("POST", "/deals", new_deal(talk, companyId=company), status=201)
    assert (deal["stageName"], deal["status"], deal["probability"]) == ("Lead", "open", 10)
    assert (deal["companyName"], deal["contactName"], deal["currency"]) == ("Harbour", None, "USD")
    won = talk.json("PATCH", f"/deals/{deal['id']}/stage", {"stageId": stage["Closed Won"]})
    assert (won["stageName"], won["status"], won["probability"]) == ("Closed Won", "won", 100)
    assert won["actualCloseDate"] == "2026-03-02T08:00:00Z"
    other = talk.rows("/pipelines")[1]
    moved = talk.json("PATCH", f"/deals/{deal['id']}/stage", {"stageId": other["stages"][0]["id"]})
    assert (moved["pipelineId"], moved["status"], moved["actualCloseDate"]) == (other["id"], "open", None)
    assert talk.json("GET", f"/pipelines/{pipeline}")["id"] == pipeline


@pytest.mark.parametrize("body", [{}, {"stageId": NOWHERE}, [], {"stageId": 5}])
def test_stage_must_exist(body: Any) -> None:
    talk = small()
    assert talk.send("PATCH", f"/deals/{talk.rally.ids('deals')[0]}/stage", body).status == 400


def test_stage_of_what_is_no_deal() -> None:
    talk = small()
    _, stage = stages(talk)
    assert talk.send("PATCH", f"/deals/{NOWHERE}/stage", {"stageId": stage["Lead"]}).status == 404
    assert talk.send("GET", f"/pipelines/{NOWHERE}").status == 404


def test_stage_of_another_pipeline_is_refused() -> None:
    talk = small()
    other = talk.rows("/pipelines")[1]["stages"][0]["id"]
    assert talk.send("POST", "/deals", new_deal(talk, stageId=other)).status == 400


def test_bant_scores() -> None:
    talk = small()
    deal = talk.rally.ids("deals")[0]
    empty = {"dealId": deal, "budget": None, "authority": None, "need": None, "timeline": None, "score": None}
    assert talk.json("GET", f"/deals/{deal}/bant") == empty
    assert talk.json("PUT", f"/deals/{deal}/bant", {"budget": 10, "need": 31})["score"] == 20
    assert talk.send("PUT", f"/deals/{deal}/bant", {"budget": 101}).status == 400
    assert talk.send("PUT", f"/deals/{deal}/bant", []).status == 400
    assert talk.send("GET", f"/deals/{NOWHERE}/bant").status == 404


def test_activity_is_completed_when_its_status_says_so() -> None:
    talk = small()
    made = talk.json("POST", "/activities", {"activityType": "task", "subject": "S"}, status=201)
    assert (made["status"], made["completedAt"]) == ("pending", None)
    body = {"activityType": "task", "subject": "S", "status": "completed"}
    assert talk.json("PUT", f"/activities/{made['id']}", body)["completedAt"] == "2026-03-02T08:00:00Z"
    talk.sandbox.clock.advance(5)
    assert talk.json("PUT", f"/activities/{made['id']}", body)["completedAt"] == "2026-03-02T08:00:00Z"


# -- upsert -----------------------------------------------------------------------------------------------------


def test_upsert_creates_and_then_updates() -> None:
    talk = small()
    made = talk.json("PUT", "/contacts/upsert", new_contact(title="Buyer"), status=201)
    again = talk.json("PUT", "/contacts/upsert", new_contact(email="INES@example.org", notes="n"))
    assert again["id"] == made["id"]
    assert (again["title"], again["notes"], again["email"]) == ("Buyer", "n", "INES@example.org")


def test_upsert_may_replace() -> None:
    talk = small(upsert_mode="replace")
    talk.json("PUT", "/contacts/upsert", new_contact(title="Buyer"), status=201)
    assert talk.json("PUT", "/contacts/upsert", new_contact())["title"] is None


def test_upsert_of_companies_goes_by_domain() -> None:
    talk = small()
    made = talk.json("PUT", "/companies/upsert", {"name": "A", "domain": "a.example"}, status=201)
    assert talk.json("PUT", "/companies/upsert", {"name": "B", "domain": "a.example"})["id"] == made["id"]
    talk.json("PUT", "/companies/upsert", {"name": "B", "domain": "b.example"}, status=201)


@pytest.mark.parametrize(("rule", "status"), [("refuse", 400), ("create", 201)])
def test_upsert_without_key(rule: str, status: int) -> None:
    talk = small(upsert_without_key=rule)
    for _ in range(2):
        assert talk.send("PUT", "/companies/upsert", {"name": "A"}).status == status


def test_upsert_of_deals_goes_by_name_within_the_pipeline() -> None:
    talk = small()
    made = talk.json("PUT", "/deals/upsert", new_deal(talk), status=201)
    assert talk.json("PUT", "/deals/upsert", new_deal(talk, notes="n"))["id"] == made["id"]
    other = talk.rows("/pipelines")[1]
    body = new_deal(talk, pipelineId=other["id"], stageId=other["stages"][0]["id"])
    talk.json("PUT", "/deals/upsert", body, status=201)


def test_oldest_of_several_matches_is_updated() -> None:
    talk = small()
    first = talk.json("POST", "/deals", new_deal(talk), status=201)
    second = talk.json("POST", "/deals", new_deal(talk), status=201)
    assert talk.json("PUT", "/deals/upsert", new_deal(talk))["id"] == first["id"]
    talk.rally.delete("deals", first["id"])
    assert talk.json("PUT", "/deals/upsert", new_deal(talk))["id"] == second["id"]
    talk.rally.delete("deals", second["id"])
    talk.json("PUT", "/deals/upsert", new_deal(talk), status=201)


# -- bulk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [None, "contacts", "items"])
def test_bulk_creates_each_row_that_it_can(wrapped: str | None) -> None:
    talk = small()
    rows: list[Any] = [
        new_contact(),
        new_contact(),
        {"firstName": "x"},
        5,
        new_contact(email="b@example.org"),
    ]
    report = talk.json("POST", "/contacts/bulk", {wrapped: rows} if wrapped else rows, status=201)
    assert (report["total"], report["created"], report["failed"]) == (5, 2, 3)
    assert [(error["index"], error["status"]) for error in report["errors"]] == [(1, 409), (2, 400), (3, 400)]
    assert [item["email"] for item in report["items"]] == ["ines@example.org", "b@example.org"]


def test_bulk_mode_may_be_all_or_nothing() -> None:
    talk = small(bulk_mode="all_or_nothing")
    before = talk.rally.counts()
    rows = [new_contact(), new_contact(), {"firstName": "x"}]
    problem = talk.json("POST", "/contacts/bulk", rows, status=400)
    assert list(problem["errors"]) == ["[1]", "[2]"]
    assert talk.rally.counts() == before
    assert talk.json("POST", "/contacts/bulk", rows[:1], status=201)["created"] == 1


def test_bulk_max_and_deals_bulk_max() -> None:
    talk = small(bulk_max=2)
    assert talk.send("POST", "/companies/bulk", [{"name": "N"}] * 3).status == 400
    assert talk.send("POST", "/companies/bulk", [{"name": "N"}] * 2).status == 201
    assert talk.send("POST", "/deals/bulk", [new_deal(talk)] * 150).status == 201
    talk.rally.switch(deals_bulk_max=100)
    assert talk.send("POST", "/deals/bulk", [new_deal(talk)] * 101).status == 400


def test_bulk_of_nothing_usable() -> None:
    talk = small()
    assert talk.json("POST", "/contacts/bulk", [{}])["created"] == 0
    assert talk.send("POST", "/contacts/bulk", {"rows": []}).status == 400


# -- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["problem", "message", "error", "errors", "text", "html", "empty"])
def test_error_shape(shape: str) -> None:
    talk = small(error_shape=shape)
    answers = [talk.get(f"/contacts/{NOWHERE}"), talk.send("POST", "/contacts", {})]
    assert [answer.status for answer in answers] == [404, 400]
    if shape in ("problem", "message", "error", "errors"):
        key = {"problem": "title"}.get(shape, shape)
        assert all(key in answer.decoded() for answer in answers)
    elif shape == "text":
        assert b"firstName: The field is required." in answers[1].body
    elif shape == "html":
        assert answers[0].headers["Content-Type"].startswith("text/html")
    else:
        assert answers[0].body == b""


# -- keys and scopes --------------------------------------------------------------------------------------------


def ask(talk: Talk, scope: str, method: str, path: str, body: Any = None) -> int:
    return talk.send(method, path, body, **{"X-Api-Key": talk.rally.key(scope)}).status  # type: ignore[arg-type]


def test_scopes_are_cumulative() -> None:
    talk = small()
    statuses = {
        scope: (
            ask(talk, scope, "GET", "/contacts"),
            ask(talk, scope, "GET", f"/sync/changes?since={'2026-01-01'}"),
            ask(talk, scope, "POST", "/companies", {"name": "N"}),
            ask(talk, scope, "GET", "/api-keys"),
        )
        for scope in ("read", "write", "admin")
    }
    assert statuses == {
        "read": (200, 200, 403, 403),
        "write": (200, 200, 201, 403),
        "admin": (200, 200, 201, 200),
    }


def test_missing_unknown_revoked_and_expired_keys_are_refused() -> None:
    talk = small()
    call = talk.sandbox.call("GET", "/rally/api/v1/contacts")
    assert talk.sandbox.handle(call).status == 401
    assert talk.send("GET", "/contacts", **{"X-Api-Key": "rk_live_guess"}).status == 401
    talk.rally.key("read", active=False)
    assert ask(talk, "read", "GET", "/contacts") == 401
    talk.rally.key("read", active=True)
    assert ask(talk, "read", "GET", "/contacts") == 200
    talk.rally.key("read", expires_in=10)
    talk.sandbox.clock.advance(9.9)
    assert ask(talk, "read", "GET", "/contacts") == 200
    talk.sandbox.clock.advance(0.1)
    assert ask(talk, "read", "GET", "/contacts") == 401


def test_keys_are_managed_and_their_secret_is_shown_once() -> None:
    talk = small()
    made = talk.json("POST", "/api-keys", {"name": "loader", "scopes": "read,write"}, status=201)
    assert made["key"].startswith(made["keyPrefix"]) is True
    assert (made["scopes"], made["isActive"], made["expiresAt"]) == ("read,write", True, None)
    listed = {key["id"]: key for key in talk.rows("/api-keys")}
    assert "key" not in listed[made["id"]]
    assert len(listed) == 4
    secret = {"X-Api-Key": made["key"]}
    assert talk.send("POST", "/companies", {"name": "N"}, **secret).status == 201
    changed = talk.json("PATCH", f"/api-keys/{made['id']}", {"scopes": "read", "name": "reader"})
    assert (changed["scopes"], changed["name"], changed["lastUsedAt"]) == (
        "read",
        "reader",
        "2026-03-02T08:00:00Z",
    )
    assert talk.send("POST", "/companies", {"name": "N"}, **secret).status == 403
    assert talk.send("DELETE", f"/api-keys/{made['id']}").status == 204
    assert talk.send("GET", "/companies", **secret).status == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": " "},
        {"name": "n", "scopes": "root"},
        {"name": "n", "scopes": 5},
        {"name": "n", "expiresAt": "x"},
        [],
    ],
)
def test_wrong_key_request_is_refused(body: Any) -> None:
    talk = small()
    assert talk.send("POST", "/api-keys", body).status == 400


def test_unknown_key_is_404() -> None:
    talk = small()
    assert talk.send("PATCH", f"/api-keys/{NOWHERE}", {"name": "n"}).status == 404
    assert talk.send("DELETE", f"/api-keys/{NOWHERE}").status == 404


def test_key_may_expire_by_its_request() -> None:
    talk = small()
    body = {"name": "short", "expiresAt": "2026-03-02T08:00:10Z"}
    secret = {"X-Api-Key": talk.json("POST", "/api-keys", body, status=201)["key"]}
    assert talk.send("GET", "/companies", **secret).status == 200
    talk.sandbox.clock.advance(10)
    assert talk.send("GET", "/companies", **secret).status == 401


# -- rate limit -------------------------------------------------------------------------------------------------


def test_limit_per_minute_is_announced_and_enforced() -> None:
    talk = small(limit_per_minute=3)
    answers = [talk.get("/pipelines") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0", "0"]
    assert answers[0].headers["X-RateLimit-Limit"] == "3"
    assert answers[0].headers["X-RateLimit-Reset"] == "1772438460"
    assert answers[4].decoded()["title"] == "Too Many Requests"
    talk.sandbox.clock.advance(60)
    assert talk.get("/pipelines").status == 200


def test_rate_switches_reach_the_limiter() -> None:
    talk = small(
        limit_per_minute=1,
        rate_window_seconds=10,
        rate_aligned=False,
        rate_reset_unit="delta",
        rate_retry_after="seconds",
    )
    talk.sandbox.clock.advance(7)
    assert talk.get("/pipelines").headers["X-RateLimit-Reset"] == "10"
    assert talk.get("/pipelines").headers["Retry-After"] == "10"
    talk.sandbox.clock.advance(10)
    assert talk.get("/pipelines").status == 200
    talk.rally.switch(rate_headers=False, limit_per_minute=1000)
    assert "X-RateLimit-Limit" not in talk.get("/pipelines").headers
    talk.rally.switch(limit_per_minute=None)
    assert all(talk.get("/pipelines").status == 200 for _ in range(1100))


def test_other_integrations_spend_the_same_budget() -> None:
    talk = small(limit_per_minute=100, foreign_per_second=1)
    assert talk.get("/pipelines").headers["X-RateLimit-Remaining"] == "99"
    talk.sandbox.clock.advance(10)
    assert talk.get("/pipelines").headers["X-RateLimit-Remaining"] == "88"
    talk.rally.spend(88)
    assert talk.get("/pipelines").status == 429


# -- switches and steering --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"no_such": 1}, "no_such"),
        ({"envelope": "page"}, "envelope"),
        ({"overfill": "x"}, "overfill"),
        ({"late_share": 1.5}, "share between 0 and 1"),
        ({"late_seconds": -1}, "cannot be negative"),
        ({"feed_digits": 4}, "feed_digits"),
    ],
)
def test_wrong_switch_is_refused_in_one_line(switches: dict[str, Any], message: str) -> None:
    talk = small()
    before = talk.rally.switch()
    with pytest.raises(ControlError, match=message):
        talk.rally.switch(**switches)
    assert talk.rally.switch() == before


def test_mutate_does_so_many_changes_of_the_kinds_asked_for() -> None:
    talk = small()
    assert sum(talk.rally.mutate(30).values()) == 30
    assert set(talk.rally.mutate(30, ["update"], ["deals"])) == {"deals.update"}
    assert talk.rally.mutate(5, {"insert": 1, "delete": 0}, ["contacts"]) == {"contacts.insert": 5}
    talk.rally.mutate(5, ["delete"], ["contacts"])
    assert talk.rally.mutate(3, ["revive"], ["contacts"]) == {"contacts.revive": 3}


def test_hostile_records_are_legal_and_arrive_as_they_are() -> None:
    talk = small(records=0, contact_details=True)
    assert sum(talk.rally.mutate(200, ["hostile"]).values()) == 200
    rows = [row for rows in talk.rally.truth().values() for row in rows]
    texts = {value for row in rows for value in row.values() if isinstance(value, str)}
    assert {"NUL \x00 inside", "", "'; DROP TABLE rally_contacts; --"} <= texts
    assert any(len(text) > 20_000 for text in texts)
    assert Decimal("0.0000000000000000000000000001") in {row.get("value") for row in rows}
    assert "9999-12-31T23:59:59.9999999Z" in texts
    for entity in talk.rally.counts():
        assert {row["id"]: row for row in talk.rows(f"/{entity}?limit=1000")} == {
            row["id"]: row for row in talk.rally.records(entity)
        }


def test_mutate_on_nothing_inserts() -> None:
    talk = small(records=0)
    assert talk.rally.mutate(1, ["delete"], ["deals"]) == {"deals.insert": 1}
    assert talk.rally.mutate(1, ["revive"], ["contacts"]) == {"contacts.insert": 1}


def test_mutate_lets_time_pass_with_ties() -> None:
    talk = small(feed_digits=7, feed_compare_digits=7)
    talk.rally.mutate(100, over_seconds=60, tie_share=0.4)
    assert talk.sandbox.clock.monotonic() == pytest.approx(60)
    times = [entry["changedAt"] for entry in talk.changes("2026-03-02T07:59:59Z")]
    assert len(times) == 100
    assert 45 < len(set(times)) < 75


@pytest.mark.parametrize("kinds", [["explode"], []])
def test_unknown_kind_of_change_is_refused(kinds: list[str]) -> None:
    with pytest.raises(ControlError, match="kinds of changes are"):
        small().rally.mutate(1, kinds)


def test_unknown_entity_is_refused() -> None:
    with pytest.raises(ControlError, match="no entity 'quotes'"):
        small().rally.ids("quotes")


def test_source_lives_by_itself_while_time_passes() -> None:
    talk = small(changes_per_second=2, life_weights={"insert": 1})
    before = sum(talk.rally.counts().values())
    talk.get("/pipelines")
    talk.sandbox.clock.advance(30)
    assert len(talk.changes("2026-03-02T08:00:00Z")) > 55
    assert sum(talk.rally.counts().values()) == before + 60
    times = [entry["changedAt"] for entry in talk.changes("2026-03-02T08:00:00Z")]
    assert times[0] <= "2026-03-02T08:00:05Z"
    assert times[-1] >= "2026-03-02T08:00:25Z"
    talk.rally.switch(changes_per_second=0)
    talk.sandbox.clock.advance(30)
    assert sum(len(rows) for rows in talk.rally.truth().values()) == before + 60


def test_history_holds_every_state() -> None:
    talk = small(keep_history=True)
    record_id = talk.rally.ids("deals")[0]
    first = talk.rally.record("deals", record_id)
    second = talk.rally.update("deals", record_id, {"notes": "x"})
    talk.rally.delete("deals", record_id)
    third = talk.rally.revive("deals", record_id)
    assert talk.rally.history("deals", record_id) == [first, second, None, third]
    talk.rally.delete("deals", record_id)
    assert record_id not in talk.rally.ids("deals")
    assert record_id in talk.rally.known_ids("deals")
    with pytest.raises(ControlError, match="keep_history"):
        small().rally.history("deals", record_id)


def test_everything_that_a_mirror_may_hold_is_in_the_history() -> None:
    talk = small(keep_history=True)
    seen: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(10):
        talk.rally.mutate(10, over_seconds=5)
        for entity in talk.rally.counts():
            for row in talk.rows(f"/{entity}?limit=1000"):
                seen.setdefault((entity, row["id"]), []).append(row)
    for (entity, record_id), rows in seen.items():
        states = talk.rally.history(entity, record_id)
        assert all(row in states for row in rows)
