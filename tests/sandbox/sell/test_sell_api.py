"""The simulated Sell API: each behaviour that the fact sheet asks for, and its switch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rally_pipeline.sandbox.api import ControlError
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.sell import SellApi


class Caller:
    """A plain client of the simulation: no retries, no opinion."""

    def __init__(self, **options: Any) -> None:
        self.sandbox = Sandbox(
            seed=1, apis=["sell"], sell={"records": 40, "page_size": 8, "limit_per_second": None, **options}
        )
        self.api: SellApi = self.sandbox.sell
        self.headers = {"Authorization": f"Bearer {self.api.token}", "User-Agent": "test"}

    def call(
        self, method: str, path: str, *, device: str | None = "d1", body: object = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        sent = {**self.headers, **({"X-Basecrm-Device-UUID": device} if device else {}), **headers}
        content = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            sent["Content-Type"] = "application/json"
        answer = self.sandbox.handle(self.sandbox.call(method, f"/sell{path}", sent, content))
        return answer.status, json.loads(answer.body) if answer.body else None, answer.headers

    def start(self, device: str = "d1") -> str | None:
        status, body, _ = self.call("POST", "/v2/sync/start", device=device)
        assert status in (201, 204)
        return body["data"]["id"] if body else None

    def fetch(self, session: str, device: str = "d1") -> dict[str, Any] | None:
        status, body, _ = self.call("GET", f"/v2/sync/{session}/queues/main", device=device)
        assert status in (200, 204)
        return body

    def ack(self, items: list[dict[str, Any]], device: str = "d1") -> int:
        keys = [item["meta"]["sync"]["ack_key"] for item in items]
        return self.call("POST", "/v2/sync/ack", device=device, body={"data": {"ack_keys": keys}})[0]

    def drain(self, device: str = "d1", *, ack: bool = True) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        session = self.start(device)
        while session is not None and (page := self.fetch(session, device)) is not None:
            seen += page["items"]
            if ack and page["items"]:
                assert self.ack(page["items"], device) == 202
        return seen


def test_a_device_gets_everything_once_and_another_device_everything_again() -> None:
    caller = Caller()
    first = caller.drain()
    assert len(first) == sum(len(rows) for rows in caller.api.truth().values())
    assert {item["meta"]["sync"]["event_type"] for item in first} == {"created"}
    assert caller.start() is None
    assert len(caller.drain("d2")) == len(first)


def test_unacknowledged_items_come_again_in_a_later_session_only() -> None:
    caller = Caller()
    session = caller.start()
    assert session is not None
    first = caller.fetch(session)
    rest = []
    while (page := caller.fetch(session)) is not None:
        rest += page["items"]
        caller.ack(page["items"])
    keys = {item["meta"]["sync"]["ack_key"] for item in (first or {})["items"]}
    assert keys.isdisjoint(item["meta"]["sync"]["ack_key"] for item in rest)
    assert {item["meta"]["sync"]["ack_key"] for item in caller.drain()} == keys


def test_only_the_freshest_state_is_queued_and_revisions_rise() -> None:
    caller = Caller()
    before = {
        i["data"].get("id"): i["meta"]["sync"]["revision"]
        for i in caller.drain()
        if i["meta"]["type"] == "lead"
    }
    lead = next(caller.api.world.live("lead"))
    for name in ("A", "B"):
        caller.api.world.update("lead", lead.id, {"first_name": name})
    (item,) = caller.drain()
    assert item["data"]["first_name"] == "B"
    assert item["meta"]["sync"]["event_type"] == "updated"
    assert item["meta"]["sync"]["revision"] > before[int(lead.id)]


def test_ack_keys_have_their_own_number_and_deletes_carry_revision_0() -> None:
    caller = Caller()
    for item in caller.drain():
        kind, number, revision = item["meta"]["sync"]["ack_key"].split("-")
        assert kind.lower() == item["meta"]["type"].replace("_", "")
        assert number != str(item["data"].get("id"))
        assert revision == str(item["meta"]["sync"]["revision"])
    lead = next(caller.api.world.live("lead"))
    caller.api.world.delete("lead", lead.id)
    (item,) = caller.drain()
    assert item["data"] == {"id": int(lead.id)}
    assert item["meta"]["sync"]["revision"] == 0
    assert item["meta"]["sync"]["ack_key"].endswith("-0")


def test_deletes_of_objects_never_seen_and_of_the_time_before_the_device() -> None:
    caller = Caller()
    early = caller.api.world.create("lead", {})
    caller.api.world.delete("lead", early.id)
    assert all(item["meta"]["sync"]["event_type"] != "deleted" for item in caller.drain())
    late = caller.api.world.create("lead", {})
    caller.api.world.delete("lead", late.id)
    assert [item["data"] for item in caller.drain()] == [{"id": int(late.id)}]
    caller.api.switch(delete_unknown=False)
    later = caller.api.world.create("lead", {})
    caller.api.world.delete("lead", later.id)
    assert caller.drain() == []


def test_acknowledgements_take_effect_after_their_delay() -> None:
    caller = Caller(ack_delay_seconds=30)
    everything = caller.drain()
    assert len(caller.drain()) == len(everything)
    caller.sandbox.clock.advance(31)
    assert caller.start() is None


@pytest.mark.parametrize("applied", [False, True])
def test_acknowledgements_fail_before_or_after_they_are_applied(applied: bool) -> None:
    caller = Caller()
    session = caller.start()
    page = caller.fetch(session or "")
    caller.api.refuse(500, path="/v2/sync/ack", applied=applied)
    assert caller.ack((page or {})["items"]) == 500
    known = len(caller.api.sync.devices["d1"].memory)
    assert known == (len((page or {})["items"]) if applied else 0)


def test_empty_pages_duplicates_and_order() -> None:
    caller = Caller(empty_every=2, duplicate_share=0.3)
    session = caller.start() or ""
    sizes = []
    while (page := caller.fetch(session)) is not None:
        sizes.append(len(page["items"]))
    assert 0 in sizes
    assert sum(sizes) > 42
    orders = [
        [item["meta"]["sync"]["ack_key"] for item in Caller(shuffle=shuffle).drain()]
        for shuffle in (False, True)
    ]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_failed_objects_are_listed_without_a_key() -> None:
    caller = Caller(page_size=100)
    lead = next(caller.api.world.live("lead"))
    caller.sandbox.control("sell", "fail", {"type": "lead", "id": lead.id})
    session = caller.start() or ""
    page = caller.fetch(session) or {}
    assert page["meta"]["failed_objects"] == [{"type": "lead", "id": int(lead.id)}]
    assert all(item["data"].get("id") != int(lead.id) for item in page["items"])
    caller.ack(page["items"])
    assert caller.fetch(session) is None
    assert caller.drain() == []
    again = Caller(page_size=100, redeliver_failed=True)
    again.sandbox.control("sell", "fail", {"type": "lead", "id": lead.id})
    again.drain()
    assert [item["data"]["id"] for item in again.drain()] == [int(lead.id)]


def test_sessions_expire_by_age_and_by_fetches() -> None:
    caller = Caller(session_seconds=60, session_fetches=2, lost_session_status=410)
    session = caller.start()
    assert caller.fetch(session or "") is not None
    assert caller.fetch(session or "") is not None
    assert caller.call("GET", f"/v2/sync/{session}/queues/main")[0] == 410
    session = caller.start()
    caller.sandbox.clock.advance(61)
    assert caller.call("GET", f"/v2/sync/{session}/queues/main")[0] == 410


def test_another_devices_session_is_no_session() -> None:
    caller = Caller()
    assert caller.call("GET", f"/v2/sync/{caller.start()}/queues/main", device="d2")[0] == 404


def test_the_hundred_and_first_session_is_refused() -> None:
    caller = Caller()
    for _ in range(100):
        assert caller.start() is not None
    status, body, _ = caller.call("POST", "/v2/sync/start")
    assert status == 429
    assert "100 active" in body["errors"][0]["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "device", "options", "status", "code"),
    [
        ({"Authorization": "Bearer nope"}, "d", {}, 401, "unauthorized"),
        ({"Authorization": ""}, "d", {}, 401, "unauthorized"),
        ({}, None, {}, 400, "invalid_header"),
        ({"User-Agent": ""}, "d", {}, 400, "invalid_user_agent"),
        ({"Accept": "text/csv"}, "d", {}, 406, "invalid_header"),
        ({}, "d", {"scopes": ["read"]}, 403, "insufficient_scope"),
        ({}, "d", {"retired": True}, 410, "gone"),
    ],
)
def test_refusals_come_in_the_documented_envelope(
    headers: dict[str, str], device: str | None, options: dict[str, Any], status: int, code: str
) -> None:
    caller = Caller(**options)
    found, body, answered = caller.call("POST", "/v2/sync/start", device=device, **headers)
    assert found == status
    assert body["errors"][0]["error"]["code"] == code
    assert body["errors"][0]["error"]["message"]
    assert body["meta"]["http_status"].startswith(str(status))
    assert body["meta"]["logref"] == answered["X-Request-Id"]


def test_empty_answers_carry_no_json_type() -> None:
    caller = Caller()
    session = caller.start() or ""
    page = caller.fetch(session) or {}
    keys = [item["meta"]["sync"]["ack_key"] for item in page["items"]]
    _, body, headers = caller.call("POST", "/v2/sync/ack", body={"data": {"ack_keys": keys}})
    assert body is None
    assert "Content-Type" not in headers


@pytest.mark.parametrize("body", [{"ack_keys": ["a"]}, {"data": {}}, {"data": {"ack_keys": [1]}}, [], 5])
def test_an_acknowledgement_needs_its_envelope(body: object) -> None:
    assert Caller().call("POST", "/v2/sync/ack", body=body)[0] == 422


def test_unknown_keys_are_accepted_and_noted() -> None:
    caller = Caller()
    assert caller.call("POST", "/v2/sync/ack", body={"data": {"ack_keys": ["Lead-1-1"]}})[0] == 202
    assert caller.sandbox.control("sell", "report")["unknown_keys"] == ["Lead-1-1"]  # type: ignore[index]


def test_rate_limits_say_nothing_unless_asked_to() -> None:
    caller = Caller(limit_per_second=3)
    answers = [caller.call("GET", "/v2/leads") for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429]
    assert not any(name.lower().startswith(("x-rate", "retry")) for name in answers[-1][2])
    caller.api.switch(retry_after=True)
    assert caller.call("GET", "/v2/leads")[2]["Retry-After"] == "2"


def test_reads_show_the_present_the_past_or_nothing() -> None:
    caller = Caller()
    lead = next(caller.api.world.live("lead"))
    caller.sandbox.clock.advance(100)
    caller.api.world.update("lead", lead.id, {"first_name": "Fresh"})
    path = f"/v2/leads/{lead.id}"
    assert caller.call("GET", path)[1]["data"]["first_name"] == "Fresh"
    caller.api.switch(lag_seconds=50)
    assert caller.call("GET", path)[1]["data"]["first_name"] != "Fresh"
    caller.sandbox.control("sell", "hide", {"type": "lead", "id": lead.id})
    assert caller.call("GET", path)[0] == 404
    assert caller.call("GET", f"/v2/leads?ids={lead.id}")[1]["items"] == []


def test_pipelines_have_lists_only_and_carry_their_stages() -> None:
    caller = Caller()
    pipeline = next(caller.api.world.live("pipeline"))
    assert caller.call("GET", f"/v2/pipelines/{pipeline.id}")[0] == 404
    (found,) = caller.call("GET", f"/v2/pipelines?ids={pipeline.id}")[1]["items"]
    stages = [stage["data"] for stage in found["data"]["stages"]["items"]]
    assert len(stages) == 6
    assert {stage["pipeline_id"] for stage in stages} == {int(pipeline.id)}


def test_amounts_are_whole_numbers_or_texts() -> None:
    kinds = {type(deal["value"]) for deal in Caller(records=400).api.truth()["deals"]}
    assert kinds == {int, str}


def test_the_same_seed_tells_the_same_story() -> None:
    told = [Caller().drain() for _ in range(2)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "options", [{"page_size": 0}, {"colour": 1}, {"shuffle": 1}, {"fixed_at": "noon"}, {"scopes": ["all"]}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ControlError):
        Caller(**options)


def test_wrong_verbs_and_values_are_refused() -> None:
    caller = Caller()
    for verb, body in (
        ("dance", {}),
        ("update", {"type": "lead", "id": 1}),
        ("mutate", {}),
        ("switch", {"x": 1}),
    ):
        with pytest.raises(ControlError):
            caller.sandbox.control("sell", verb, body)
