"""Steering a sandbox that runs elsewhere: the control routes and their client."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from rally_pipeline.sandbox import ControlError, Sandbox, SandboxControl, SandboxServer
from rally_pipeline.sandbox.rally.steering import Steering
from tests.sandbox.talk import Talk


@pytest.fixture
def talk() -> Talk:
    return Talk(Sandbox(seed=3, records=60, apis=["rally"], limit_per_minute=None, keep_history=True))


@pytest.fixture
def control(talk: Talk) -> Iterator[SandboxControl]:
    with SandboxServer(talk.sandbox) as server, SandboxControl(server.url) as client:
        yield client


def test_state_tells_how_to_use_the_sandbox(control: SandboxControl, talk: Talk) -> None:
    state = control.state()
    assert state["seed"] == 3
    assert state["apis"] == {"rally": "/rally"}
    assert control.environment()["RALLY_API_KEY"] == talk.rally.key("write")
    assert control.environment()["RALLY_API_URL"].startswith("http://127.0.0.1:")


def test_truth_is_streamed_as_it_was_when_asked_for(control: SandboxControl, talk: Talk) -> None:
    found = list(control.truth("rally"))
    expected = talk.rally.truth()
    assert {kind for kind, _ in found} == set(expected)
    for kind in expected:
        assert [record["id"] for each, record in found if each == kind] == [
            row["id"] for row in expected[kind]
        ]
    assert len(list(control.truth("rally", "deals"))) == talk.rally.counts()["deals"]


def test_truth_keeps_the_state_of_the_call_while_records_change(talk: Talk) -> None:
    lines = talk.rally.truth_lines("contacts")
    before = talk.rally.ids("contacts")
    talk.rally.mutate(200, ["delete", "insert"], ["contacts"])
    assert [json.loads(line)["record"]["id"] for line in lines] == before


def test_truth_of_what_is_not_there(control: SandboxControl) -> None:
    with pytest.raises(ControlError, match="ask for /_sandbox/truth/ and one of rally"):
        list(control.truth("hubspot"))
    with pytest.raises(ControlError, match="no entity 'quotes'"):
        list(control.truth("rally", "quotes"))


def test_mutations_switches_and_verbs(control: SandboxControl, talk: Talk) -> None:
    assert sum(control.mutate(10, kinds=["insert"], entities=["deals"]).values()) == 10
    assert control.switch(envelope="data", late_seconds=1.5)["envelope"] == "data"
    assert talk.rally.store.switches.late_seconds == 1.5
    made = control.call("rally", "create", entity="companies", fields={"name": "N", "annualRevenue": 1.25})
    assert control.call("rally", "record", entity="companies", id=made["id"])["name"] == "N"
    control.call("rally", "delete", entity="companies", id=made["id"])
    assert control.call("rally", "record", entity="companies", id=made["id"]) is None
    assert len(control.call("rally", "history", entity="companies", id=made["id"])) == 2
    assert control.call("rally", "counts") == talk.rally.counts()


def test_wrong_use_is_one_clear_line(control: SandboxControl) -> None:
    for verb, arguments, message in (
        ("explode", {}, "no control verb 'explode'"),
        ("mutate", {"number": 1}, "unexpected keyword argument 'number'"),
        ("mutate", {"kinds": ["x"]}, "kinds of changes are"),
        ("delete", {"entity": "deals", "id": "x"}, "Deal not found"),
        ("switch", {"envelope": "x"}, "Invalid enum value 'x'"),
        ("entry", {"entity_type": "deal", "entity_id": "x", "changed_at": "now"}, "not an ISO 8601 instant"),
    ):
        with pytest.raises(ControlError, match=message):
            control.call("rally", verb, **arguments)
    with pytest.raises(ControlError, match="no API 'x'"):
        control.call("x", "y")
    with pytest.raises(ControlError, match="no control route PUT"):
        control._ask("PUT", "/log")
    with pytest.raises(ControlError, match="is a JSON object"):
        control._ask("POST", "/clock", [])
    with pytest.raises(ControlError, match="not the root of a sandbox"):
        SandboxControl("nonsense")


def test_every_public_test_interface_is_a_control_verb(talk: Talk) -> None:
    public = {
        name
        for name, member in vars(Steering).items()
        if callable(member) and not name.startswith("_") and name not in ("control", "apply_switches")
    }
    assert public <= set(talk.rally._verbs())


def test_log_is_read_and_cleared(control: SandboxControl, talk: Talk) -> None:
    talk.get("/contacts")
    talk.get("/deals?limit=1")
    assert [entry["path"] for entry in control.log(path="/deals")] == ["/rally/api/v1/deals"]
    assert [entry["query"] for entry in control.log(after=1, api="rally", method="GET")] == [{"limit": ["1"]}]
    control.clear_log()
    assert control.log() == []


def test_faults_are_added_listed_and_removed(control: SandboxControl, talk: Talk) -> None:
    rule = control.fault("stall", path="/contacts", times=2, parameters={"seconds": 0.01})
    assert (rule["fault"], rule["parameters"]) == ("stall", {"seconds": 0.01})
    control.fault("status_503", for_seconds=60)
    assert talk.get("/deals").status == 503
    assert len(control.fault_profile("flaky")) == 12
    control._ask("DELETE", f"/faults/{rule['no']}")
    assert len(control._ask("GET", "/faults")) == 13
    control.clear_faults()
    assert control.state()["faults"] == []
    for body in ({}, {"fault": "stall", "when": 1}, {"fault": "nothing"}, {"profile": "sunny"}):
        with pytest.raises(ControlError):
            control._ask("POST", "/faults", body)


def test_script_changes_the_source_before_a_request(control: SandboxControl, talk: Talk) -> None:
    record_id = talk.rally.ids("deals")[0]
    control.before(
        2,
        [{"verb": "delete", "entity": "deals", "id": record_id}, {"advance": 30}],
        path="/deals/*",
        method="GET",
    )
    assert len(control._ask("GET", "/scripts")) == 1
    answers = [talk.get(f"/deals/{record_id}") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 404]
    assert answers[1].headers["Date"].endswith("08:00:30 GMT")
    control.clear_scripts()
    assert control.state()["scripts"] == []
    with pytest.raises(ControlError, match="a script needs"):
        control.before(1, [])
    with pytest.raises(ControlError, match="unexpected keyword"):
        control.before(1, [{"advance": 1}], when="now")


def test_clock_is_read_moved_set_and_sped_up(control: SandboxControl, talk: Talk) -> None:
    assert control.clock() == {"now": "2026-03-02T08:00:00+00:00", "elapsed": 0.0, "speed": 0.0}
    assert control.advance(90)["elapsed"] == 90
    assert control.set_clock("2026-03-02T07:00:00Z")["now"] == "2026-03-02T07:00:00+00:00"
    control._ask("POST", "/clock", {"speed": 1000})
    assert not talk.sandbox.clock.is_virtual
    for body in ({}, {"back": 1}, {"advance": -1}, {"set": "2026-03-02T07:00:00"}):
        with pytest.raises(ControlError):
            control._ask("POST", "/clock", body)
