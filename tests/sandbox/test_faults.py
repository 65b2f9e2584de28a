"""Faults: which request meets which, what each does to the answer, named profiles."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from rally_pipeline.sandbox import Answer, ControlError, RequestMatch, Sandbox
from rally_pipeline.sandbox.content_faults import CONTENT_FAULTS
from rally_pipeline.sandbox.faults import FAULTS
from rally_pipeline.sandbox.profiles import PROFILES
from rally_pipeline.sandbox.status_faults import STATUS_FAULTS
from tests.sandbox.talk import BASE, Talk, new_contact, small


def meet(fault: str, path: str = "/contacts?limit=2", **parameters: Any) -> Answer:
    talk = small()
    talk.sandbox.faults.add(fault, **parameters)
    return talk.get(path)


# -- which request ----------------------------------------------------------------------------------------------


def test_rule_plays_once_and_then_leaves_requests_alone() -> None:
    talk = small()
    talk.sandbox.faults.add("status_503")
    assert [talk.get("/contacts").status for _ in range(3)] == [503, 200, 200]
    assert [entry.fault for entry in talk.sandbox.log] == ["status_503", "", ""]


def test_rule_leaves_the_first_requests_alone_and_plays_so_many_times() -> None:
    talk = small()
    talk.sandbox.faults.add("status_500", path="/contacts", after=1, times=2)
    statuses = [
        talk.get(path).status for path in ("/contacts", "/deals", "/contacts", "/contacts", "/contacts")
    ]
    assert statuses == [200, 200, 500, 500, 200]


def test_rule_is_meant_for_api_method_path_and_query() -> None:
    talk = small()
    talk.sandbox.faults.add("status_500", api="sell", times=None)
    talk.sandbox.faults.add("status_501", method="POST", times=None)
    talk.sandbox.faults.add("status_502", path="/contacts/*", times=None)
    talk.sandbox.faults.add("status_503", query={"offset": "20"}, times=None)
    talk.sandbox.faults.add(
        "status_504", match=RequestMatch(predicate=lambda call: "slow" in call.query), times=None
    )
    assert talk.get("/contacts").status == 200
    assert talk.send("POST", "/contacts", new_contact()).status == 501
    assert talk.get("/contacts/x").status == 502
    assert talk.get("/contacts?offset=20").status == 503
    assert talk.get("/deals?slow=1").status == 504


def test_probability_is_rolled_with_dice_of_the_seed() -> None:
    def statuses(seed: int) -> list[int]:
        talk = small(seed=seed)
        talk.sandbox.faults.add("status_500", probability=0.5, times=None)
        return [talk.get("/pipelines").status for _ in range(40)]

    assert statuses(1) == statuses(1)
    assert statuses(1) != statuses(2)
    assert 5 < statuses(1).count(500) < 35


def test_rule_ends_after_so_much_sandbox_time() -> None:
    talk = small()
    talk.sandbox.faults.add("status_503", for_seconds=600, times=None)
    assert talk.get("/contacts").status == 503
    talk.sandbox.clock.advance(600)
    assert talk.get("/contacts").status == 200


def test_rules_can_be_removed_and_cleared() -> None:
    talk = small()
    first = talk.sandbox.faults.add("status_500", times=None)
    talk.sandbox.faults.add("status_501", times=None)
    talk.sandbox.faults.remove(first.no)
    assert talk.get("/contacts").status == 501
    talk.sandbox.faults.clear()
    assert talk.get("/contacts").status == 200
    with pytest.raises(ControlError, match="no fault rule number 1"):
        talk.sandbox.faults.remove(first.no)


@pytest.mark.parametrize(
    ("fault", "parameters", "message"),
    [
        ("earthquake", {}, "no fault 'earthquake'"),
        ("status_99", {}, "no fault"),
        ("status_600", {}, "no fault"),
        ("stall", {"minutes": 1}, "no parameter minutes"),
        ("stall", {"probability": 2}, "between 0 and 1"),
    ],
)
def test_wrong_rule_is_refused_in_one_line(fault: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ControlError, match=message):
        small().sandbox.faults.add(fault, **parameters)


# -- status and headers -----------------------------------------------------------------------------------------


def test_status_fault_does_not_apply_the_request_and_applied_does() -> None:
    talk = small()
    before = talk.rally.counts()["contacts"]
    talk.sandbox.faults.add("status_500", body="html")
    answer = talk.send("POST", "/contacts", new_contact())
    assert answer.status == 500
    assert answer.body.startswith(b"<html>")
    assert talk.rally.counts()["contacts"] == before
    talk.sandbox.faults.add("applied_500", body="empty")
    answer = talk.send("POST", "/contacts", new_contact())
    assert (answer.status, answer.body) == (500, b"")
    assert talk.rally.counts()["contacts"] == before + 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("html_503", 503),
        ("unauthorized", 401),
        ("forbidden", 403),
        ("hidden", 404),
        ("always_429", 429),
        ("not_found_page", 404),
        ("status_409", 409),
        ("status_413", 413),
    ],
)
def test_named_status_faults(fault: str, status: int) -> None:
    assert meet(fault).status == status


def test_text_body_of_an_error() -> None:
    assert meet("status_502", body="text").body == b"Bad Gateway"


def test_redirect_leads_elsewhere() -> None:
    answer = meet("redirect", status=307, location="https://evil.example/x")
    assert (answer.status, answer.headers["Location"]) == (307, "https://evil.example/x")


@pytest.mark.parametrize(
    ("form", "header", "value"),
    [
        ("seconds", "Retry-After", "7"),
        ("date", "Retry-After", "Mon, 02 Mar 2026 08:00:07 GMT"),
        ("reset", "X-RateLimit-Reset", "1772438407"),
        ("reset_ms", "X-RateLimit-Reset", "1772438407000"),
        ("reset_past", "X-RateLimit-Reset", "1772438393"),
        ("reset_delta", "X-RateLimit-Reset", "7"),
    ],
)
def test_throttle_tells_the_wait_in_one_way(form: str, header: str, value: str) -> None:
    talk = small(limit_per_minute=1000)
    talk.sandbox.faults.add("throttle", form=form)
    answer = talk.get("/contacts")
    assert answer.status == 429
    assert answer.headers[header] == value


def test_throttle_without_a_word_and_with_nonsense() -> None:
    talk = small(limit_per_minute=1000)
    talk.sandbox.faults.add("throttle", form="nothing")
    assert not {"Retry-After", "X-RateLimit-Reset"} & set(talk.get("/contacts").headers)
    talk.sandbox.faults.add("throttle", retry_after="-5")
    assert talk.get("/contacts").headers["Retry-After"] == "-5"
    talk.sandbox.faults.add("throttle", form="as_announced")
    assert "X-RateLimit-Reset" in talk.get("/contacts").headers


def test_faults_of_the_common_headers() -> None:
    talk = small(limit_per_minute=1000)
    for fault in ("date_skew", "bad_date", "no_date", "no_rate_headers", "bad_rate_headers", "unmarked"):
        talk.sandbox.faults.add(fault)
    answers = [talk.get("/contacts") for _ in range(7)]
    assert answers[0].headers["Date"] == "Mon, 02 Mar 2026 10:00:00 GMT"
    assert answers[1].headers["Date"] == "yesterday"
    assert "Date" not in answers[2].headers
    assert "X-RateLimit-Remaining" not in answers[3].headers
    assert answers[4].headers["X-RateLimit-Remaining"] == "many"
    assert "X-Sandbox" not in answers[5].headers
    assert answers[6].headers["X-Sandbox"] == "rally_pipeline"
    assert all(answer.status == 200 for answer in answers)


# -- content ----------------------------------------------------------------------------------------------------


def test_answers_that_are_no_data() -> None:
    assert meet("html_200").body.startswith(b"<!DOCTYPE html>")
    assert meet("empty_200").body == b""
    assert "error" in meet("error_200").decoded()
    assert meet("null_200").decoded() is None
    assert meet("wrong_shape").decoded().keys() == {"rows"}
    assert isinstance(meet("wrong_shape", "/sync/changes?since=2026-03-02T08:00:00Z").decoded(), dict)


def test_right_body_may_come_under_another_success() -> None:
    answer = meet("odd_success", status=203)
    assert (answer.status, answer.body) == (203, small().get("/contacts?limit=2").body)
    assert (meet("status_204").status, meet("status_204").body) == (204, b"")


def test_object_becomes_an_array() -> None:
    talk = small()
    contact = talk.rally.ids("contacts")[0]
    talk.sandbox.faults.add("wrong_shape")
    assert talk.get(f"/contacts/{contact}").decoded()[0]["id"] == contact


def test_wrong_types_and_encodings() -> None:
    assert meet("wrong_type").headers["Content-Type"] == "text/plain"
    assert "Content-Type" not in meet("no_type").headers
    assert meet("byte_order_mark").body.startswith(b"\xef\xbb\xbf[")
    assert json.loads(meet("utf_16").body.decode("utf-16"))
    with pytest.raises(UnicodeDecodeError):
        meet("latin_1").body.decode()


@pytest.mark.parametrize("at", [0, 1, 17, 100])
def test_json_is_cut_at_the_byte_asked_for(at: int) -> None:
    whole = small().get("/contacts?limit=2").body
    assert meet("cut_json", at=at).body == whole[:at]
    assert meet("cut_json").body == whole[: len(whole) // 2]


def test_hostile_members_stand_in_the_first_object() -> None:
    assert meet("duplicate_keys").body.count(b'"id":') == 3
    assert b'"score":NaN,' in meet("nan").body
    assert b'"score":-Infinity,' in meet("nan", literal="-Infinity").body
    assert b'"score":1e999,' in meet("huge_number").body
    assert b'"score":' + b"9" * 5000 in meet("long_integer").body
    assert len(meet("many_keys", keys=500).decoded()[0]) > 500


def test_hostile_member_needs_no_record() -> None:
    assert meet("nan", "/contacts?offset=999").body == b'[{"score":NaN}]'


def test_deep_json_is_well_formed() -> None:
    body = meet("deep_json", depth=1000).body
    assert body == b"[" * 1000 + b"]" * 1000


def test_compressed_bodies() -> None:
    plain = small().get("/contacts?limit=2").body
    packed = meet("gzip_body")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain
    assert meet("wrong_gzip").body == plain
    with pytest.raises(EOFError):
        gzip.decompress(meet("cut_gzip").body)


def test_gzip_bomb_is_small_and_unpacks_to_its_size() -> None:
    body = meet("gzip_bomb", size=5_000_000).body
    assert len(body) < 50_000
    assert len(zlib.decompress(body, zlib.MAX_WBITS | 16)) == 5_000_000


@pytest.mark.parametrize("fault", sorted({**CONTENT_FAULTS, **STATUS_FAULTS}))
def test_every_fault_is_logged_under_its_name(fault: str) -> None:
    talk = small()
    talk.sandbox.faults.add(fault, **({"size": 10_000} if fault == "gzip_bomb" else {}))
    talk.get("/contacts")
    assert [entry.fault for entry in talk.sandbox.log] == [fault]


def test_fault_names_are_those_of_their_functions() -> None:
    assert all(play.__name__ == name and play.__doc__ for name, play in FAULTS.items())


# -- profiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_profile_can_be_used(profile: str) -> None:
    sandbox = Sandbox(seed=1, records=20, apis=["rally"], limit_per_minute=None, faults=profile)
    assert len(sandbox.faults.describe()) == len(PROFILES[profile])


def test_profile_strikes_a_small_share() -> None:
    sandbox = Sandbox(seed=1, records=20, apis=["rally"], limit_per_minute=None, faults="flaky")
    talk = Talk(sandbox)
    for _ in range(1000):
        talk.get("/pipelines")
    struck = sum(bool(entry.fault) for entry in sandbox.log)
    assert 5 <= struck <= 50


def test_storm_fails_everything_for_ten_minutes() -> None:
    sandbox = Sandbox(seed=1, records=20, apis=["rally"], limit_per_minute=None, faults="storm")
    talk = Talk(sandbox)
    assert all(talk.get("/pipelines").status in (0, 503) for _ in range(50))
    sandbox.clock.advance(601)
    assert talk.get("/pipelines").status == 200


def test_unknown_profile_is_refused() -> None:
    with pytest.raises(ControlError, match="no fault profile 'sunny'"):
        small().sandbox.faults.use_profile("sunny")


def test_faults_describe_themselves() -> None:
    talk = small()
    talk.sandbox.faults.add("stall", path="/contacts", seconds=5, times=2)
    talk.get("/contacts")
    (described,) = talk.sandbox.faults.describe()
    assert described["fault"] == "stall"
    assert described["path"] == "/contacts"
    assert described["played"] == 1
    assert BASE == "/rally/api/v1"
