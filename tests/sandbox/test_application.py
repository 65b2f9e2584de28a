"""The sandbox as a whole: log, scripts, common headers, determinism, registration."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from rally_pipeline.sandbox import (
    Admission,
    Answer,
    Call,
    ControlError,
    Limiter,
    Sandbox,
    SandboxClock,
    Unlimited,
    lines_of,
)
from rally_pipeline.sandbox.application import find_api_class
from tests.sandbox.talk import BASE, Talk, new_contact, small

# -- common headers and log -------------------------------------------------------------------------------------


def test_every_answer_carries_date_marker_and_rate() -> None:
    talk = small(limit_per_minute=5)
    paths = ["/contacts", "/contacts?limit=x", "/nowhere", "/deals", "/deals", "/deals"]
    answers = [talk.get(path) for path in paths]
    assert [answer.status for answer in answers] == [200, 400, 404, 200, 200, 429]
    for answer in answers:
        assert parsedate_to_datetime(answer.headers["Date"]) == talk.sandbox.clock.now()
        assert answer.headers["X-Sandbox"] == "rally_pipeline"
        assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= answer.headers.keys()


def test_date_follows_the_sandbox_clock_and_is_floored() -> None:
    talk = small()
    talk.sandbox.clock.advance(61.999)
    assert talk.get("/contacts").headers["Date"] == "Mon, 02 Mar 2026 08:01:01 GMT"


def test_log_numbers_requests_and_can_be_searched() -> None:
    talk = small()
    talk.get("/contacts?limit=3&offset=3")
    talk.sandbox.clock.advance(1)
    talk.send("POST", "/companies", {"name": "N"})
    talk.get(f"/contacts/{talk.rally.ids('contacts')[0]}")
    log = talk.sandbox.log
    assert [(entry.no, entry.api, entry.method, entry.status) for entry in log] == [
        (1, "rally", "GET", 200),
        (2, "rally", "POST", 201),
        (3, "rally", "GET", 200),
    ]
    assert log[0].query == {"limit": ["3"], "offset": ["3"]}
    assert (log[1].at - log[0].at).total_seconds() == 1
    assert [entry.no for entry in log.matching(path="/contacts")] == [1]
    assert [entry.no for entry in log.matching(path="/contacts/*")] == [3]
    assert [entry.no for entry in log.matching(path="*contacts*", after=1)] == [3]
    assert [entry.no for entry in log.matching(method="POST", status=201, api="rally")] == [2]
    assert log.matching(api="sell") == []
    log.clear()
    talk.get("/deals")
    assert [entry.no for entry in log] == [4]
    assert (len(log), log.total) == (1, 4)


def test_log_may_be_bounded() -> None:
    sandbox = Sandbox(records=0, apis=["rally"], log_limit=2)
    talk = Talk(sandbox)
    for _ in range(5):
        talk.get("/deals")
    assert [entry.no for entry in sandbox.log] == [4, 5]


def test_each_request_may_take_time() -> None:
    sandbox = Sandbox(records=0, apis=["rally"], request_seconds=0.25)
    talk = Talk(sandbox)
    for _ in range(4):
        talk.get("/deals")
    assert sandbox.clock.monotonic() == 1
    assert [entry.at.microsecond for entry in sandbox.log] == [250_000, 500_000, 750_000, 0]


# -- scripts ----------------------------------------------------------------------------------------------------


def test_script_deletes_a_record_right_before_the_third_page() -> None:
    talk = small(records={"contacts": 30})
    order = talk.crawl("contacts", limit=100)
    talk.sandbox.before(3, lambda: talk.rally.delete("contacts", order[0]), path="/contacts")
    ids: list[str] = []
    while page := talk.ids(f"/contacts?limit=10&offset={len(ids)}"):
        ids += page
    assert set(order) - set(ids) == {order[20]}


def test_script_may_see_the_call_run_several_times_or_always() -> None:
    talk = small()
    seen: list[str] = []

    def note(call: Call) -> None:
        seen.append(call.path.removeprefix(BASE))

    talk.sandbox.before(2, note, method="GET", times=2)
    script = talk.sandbox.before(
        None, lambda: seen.append("always"), predicate=lambda call: "deals" in call.path
    )
    for path in ("/contacts", "/deals", "/companies", "/activities"):
        talk.get(path)
    assert seen == ["/deals", "always", "/companies"]
    assert (script.seen, script.played) == (1, 1)
    assert [found.no for found in talk.sandbox.scripts] == [1, 2]
    assert script.describe()["predicate"] == "<lambda>"
    talk.sandbox.clear_scripts()
    talk.get("/deals")
    assert len(seen) == 3


def test_script_may_move_the_clock_before_the_answer() -> None:
    talk = small()
    talk.sandbox.before(1, lambda: talk.sandbox.clock.advance(3600), api="rally", query={"limit": "1"})
    assert talk.get("/contacts?limit=2").headers["Date"].endswith("08:00:00 GMT")
    assert talk.get("/contacts?limit=1").headers["Date"].endswith("09:00:00 GMT")


# -- determinism ------------------------------------------------------------------------------------------------


def play(seed: int) -> list[bytes]:
    """A long conversation with everything random in it; all bytes of all answers."""
    sandbox = Sandbox(
        seed=seed,
        records=120,
        apis=["rally"],
        faults="everything",
        request_seconds=0.05,
        rally={"late_seconds": 10, "feed_ties": "shuffled", "list_order": "random", "changes_per_second": 3},
    )
    talk = Talk(sandbox)
    heard: list[bytes] = []
    for number in range(60):
        sandbox.rally.mutate(2)
        for path in (
            f"/contacts?offset={number}",
            "/sync/changes?since=2026-03-02T00:00:00Z",
            "/deals?limit=3",
        ):
            answer = talk.get(path)
            if len(answer.body) < 1_000_000:
                heard += [
                    repr(sorted(answer.headers.items())).encode(),
                    answer.body,
                    repr(answer.fault).encode(),
                ]
        heard.append(talk.send("POST", "/companies", {"name": str(number)}).body)
    heard += list(sandbox.rally.truth_lines())
    heard.append(repr(list(sandbox.log)).encode())
    return heard


def test_same_seed_gives_the_same_bytes() -> None:
    assert play(5) == play(5)


def test_other_seed_gives_other_records() -> None:
    assert small(seed=1).rally.truth() != small(seed=2).rally.truth()


def test_records_do_not_depend_on_the_rate_limit_or_the_faults() -> None:
    plain = Sandbox(seed=4, records=50, apis=["rally"])
    other = Sandbox(seed=4, records=50, apis=["rally"], limit_per_minute=5, faults="flaky")
    assert plain.rally.truth() == other.rally.truth()
    assert plain.environment("http://h") == other.environment("http://h")


# -- registration -----------------------------------------------------------------------------------------------


class Echo:
    """The least API."""

    prefix = "/echo"

    def __init__(self) -> None:
        self.limiter: Limiter = Unlimited()

    def handle(self, call: Call) -> Answer:
        return Answer.json({"path": call.path, "body": call.body.decode()})

    def throttled(self, call: Call, admission: Admission) -> Answer:
        return Answer.empty(429)

    def truth(self) -> dict[str, Any]:
        return {"words": [{"id": 1}, {"id": 2}], "none": []}

    def truth_lines(self, kind: str | None = None) -> Any:
        return lines_of(self.truth(), kind)

    def control(self, verb: str, body: dict[str, Any]) -> object:
        return [verb, body]

    def environment(self, url: str) -> dict[str, str]:
        return {"ECHO_URL": f"{url}/echo"}


def test_any_api_can_be_registered_and_gets_faults_log_and_control() -> None:
    sandbox = Sandbox(records=0, apis=["rally"])
    sandbox.register("echo", Echo())
    sandbox.faults.add("status_503", api="echo")
    answers = [sandbox.handle(sandbox.call("POST", "/echo/x", body=b"hi")) for _ in range(2)]
    assert [answer.status for answer in answers] == [503, 200]
    assert answers[1].decoded() == {"path": "/echo/x", "body": "hi"}
    assert [entry.api for entry in sandbox.log] == ["echo", "echo"]
    assert sandbox.control("echo", "shout", {"loud": True}) == ["shout", {"loud": True}]
    assert sandbox.environment("http://h/")["ECHO_URL"] == "http://h/echo"
    assert [json.loads(line)["record"]["id"] for line in sandbox.apis["echo"].truth_lines("words")] == [1, 2]


def test_apis_can_be_chosen_and_unknown_ones_are_refused() -> None:
    assert list(Sandbox(records=0, apis=["rally"]).apis) == ["rally"]
    with pytest.raises(ControlError, match="no API hubspot"):
        Sandbox(apis=["hubspot"])
    with pytest.raises(ControlError, match="no API 'hubspot'"):
        small().sandbox.control("hubspot", "x")
    with pytest.raises(ControlError, match="nonsense"):
        Sandbox(apis=["rally"], rally={"nonsense": 1})


def test_api_without_a_package_is_not_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = {"ghost": ("rally_pipeline.sandbox.ghost", "GhostApi")}
    monkeypatch.setattr("rally_pipeline.sandbox.application.API_CLASSES", classes)
    assert find_api_class("ghost") is None


def test_running_sandbox_serves_the_present() -> None:
    sandbox = Sandbox(records=10, apis=["rally"], clock=SandboxClock.running())
    talk = Talk(sandbox)
    made = talk.json("POST", "/contacts", new_contact(), status=201)
    changes = talk.changes(made["createdAt"][:10])
    assert made["id"] in {entry["entityId"] for entry in changes}
