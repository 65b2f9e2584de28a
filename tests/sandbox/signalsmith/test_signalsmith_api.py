"""The simulated SignalSmith API: shapes, errors, and every switch of what the documentation leaves open."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rally_pipeline.sandbox.api import ControlError
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock

ROOT = "/signalsmith/api/v1"
START = datetime(2026, 3, 28, 20, 0, tzinfo=UTC)


class Workspace:
    """A person who knows the token."""

    def __init__(self, *, start: datetime = START, **options: Any) -> None:
        self.clock = SandboxClock(start)
        self.sandbox = Sandbox(seed=3, apis=["signalsmith"], clock=self.clock, signalsmith=options)
        environment = self.sandbox.environment("http://sandbox")
        self.workspace = environment["SIGNALSMITH_WORKSPACE_ID"]
        self.headers = {
            "Authorization": f"Bearer {environment['SIGNALSMITH_API_TOKEN']}",
            "X-Workspace-ID": self.workspace,
            "Content-Type": "application/json",
        }

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        answer = self.answer(method, path, body, headers)
        return answer.status, answer.decoded() if answer.body else None

    def answer(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        target = f"{ROOT}/workspaces/{self.workspace}{path}"
        return self.sandbox.handle(self.sandbox.call(method, target, headers or self.headers, content))

    def control(self, verb: str, **body: Any) -> Any:
        return self.sandbox.control("signalsmith", verb, body)

    def sync_ids(self) -> list[str]:
        return [sync["id"] for sync in self.ask("GET", "/syncs")[1]]

    def own(self, **fields: Any) -> str:
        return str(self.control("add_sync", **{"name": "Own", "schedule": "", **fields})["id"])

    def runs(self, sync_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"/syncs/{sync_id}/runs")[1]
        return found

    def sample(self, **fields: Any) -> dict[str, Any]:
        first = self.ask("GET", "/syncs")[1][0]
        return {
            **{key: first[key] for key in ("model_id", "destination_id", "field_mapping", "sync_mode", "primary_key")},
            "name": "Made", **fields,
        }  # fmt: skip


@pytest.fixture
def space() -> Workspace:
    return Workspace()


def test_lists_are_bare_arrays_and_timestamps_whole_seconds_in_utc(space: Workspace) -> None:
    status, syncs = space.ask("GET", "/syncs")
    assert status == 200
    assert [sync["name"] for sync in syncs] == ["Contacts to newsletter", "Deals to finance"]
    assert syncs[0]["created_at"] == "2026-03-28T20:00:00Z"
    assert set(syncs[0]) == {
        "id", "workspace_id", "model_id", "destination_id", "name", "description", "field_mapping", "sync_mode",
        "schedule", "config", "primary_key", "status", "status_error", "created_by", "created_at", "updated_at",
        "last_synced_at", "last_run_id",
    }  # fmt: skip


def test_errors_are_one_string_and_headers_are_checked(space: Workspace) -> None:
    without = {key: value for key, value in space.headers.items() if key != "Authorization"}
    assert space.ask("GET", "/syncs", headers=without) == (401, {"error": "missing or invalid token"})
    other = {**space.headers, "X-Workspace-ID": "another"}
    assert space.ask("GET", "/syncs", headers=other)[0] == 403
    assert space.ask("GET", "/nothing")[0] == 404
    plain = {**space.headers, "Content-Type": "text/plain"}
    assert space.ask("POST", "/syncs", {}, headers=plain)[0] == 400


def test_a_sync_is_made_changed_in_part_and_deleted_with_a_body(space: Workspace) -> None:
    status, made = space.ask("POST", "/syncs", space.sample(schedule="0 3 * * *", nonsense=1))
    assert (status, made["status"]) == (201, "active")
    assert "nonsense" not in made
    status, changed = space.ask("PUT", f"/syncs/{made['id']}", {"status": "paused"})
    assert (changed["status"], changed["schedule"], changed["name"]) == ("paused", "0 3 * * *", "Made")
    for empty in ("", None):
        assert space.ask("PUT", f"/syncs/{made['id']}", {"schedule": empty})[1]["schedule"] == empty
    assert space.ask("DELETE", f"/syncs/{made['id']}") == (200, {"status": "deleted"})
    assert space.ask("GET", f"/syncs/{made['id']}")[0] == 404


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": ""}, "name is required"), ({"sync_mode": "append"}, "unsupported sync_mode: append"),
        ({"schedule": "0 0 * * MON"}, "bad value in weekday field"), ({"schedule": "@daily"}, "expected 5 fields"),
        ({"schedule": "0 0 * * 7"}, "weekday out of range"), ({"schedule": 5}, "schedule must be a string"),
        ({"model_id": "x"}, "model not found"), ({"destination_id": "x"}, "destination not found"),
        ({"primary_key": "a,b"}, "one column"), ({"config": []}, "config must be an object"),
        ({"field_mapping": {}}, "must be an array"), ({"field_mapping": [{}]}, "need source_column"),
    ],
)  # fmt: skip
def test_a_bad_body_is_refused_with_a_reason(space: Workspace, fields: dict[str, Any], error: str) -> None:
    status, body = space.ask("POST", "/syncs", space.sample(**fields))
    assert status == 400
    assert error in body["error"]


def test_a_run_waits_works_and_ends_with_growing_counts(space: Workspace) -> None:
    sync_id = space.own()
    space.control("plan_run", sync=sync_id, queue_seconds=10, run_seconds=100, rows=1000, failed_rows=10)
    status, run = space.ask("POST", f"/syncs/{sync_id}/trigger")
    assert (status, run["status"], run["started_at"]) == (201, "pending", run["created_at"])
    assert "completed_at" not in run
    assert "error_message" not in run
    seen = []
    for _ in range(13):
        seen.append(space.ask("GET", f"/syncs/{sync_id}/runs/{run['id']}")[1])
        space.clock.advance(10)
    assert [found["status"] for found in seen] == ["pending"] + ["running"] * 10 + ["completed"] * 2
    counts = [found["rows_synced"] for found in seen]
    assert counts == sorted(counts)
    assert (counts[-1], seen[-1]["rows_failed"], seen[-1]["error_message"]) == (990, 10, "")
    assert seen[-1]["completed_at"] == "2026-03-28T20:01:50Z"
    assert len(space.control("row_errors", run=run["id"])) == 10
    assert space.ask("GET", f"/syncs/{sync_id}")[1]["last_synced_at"] == "2026-03-28T20:01:50Z"


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_run_can_fail_and_its_sync_with_it(outcome: str) -> None:
    space = Workspace(switches={"error_after_failure": True})
    sync_id = space.own(schedule="0 * * * *")
    space.control("plan_run", sync=sync_id, outcome=outcome, error="login expired")
    space.ask("POST", f"/syncs/{sync_id}/trigger")
    space.clock.advance(300)
    assert space.runs(sync_id)[0]["status"] == outcome
    sync = space.ask("GET", f"/syncs/{sync_id}")[1]
    assert sync["status"] == ("error" if outcome == "failed" else "active")
    assert sync["last_synced_at"] is None
    space.clock.advance(7200)
    assert len(space.runs(sync_id)) == (1 if outcome == "failed" else 3)  # a sync in error is not scheduled


@pytest.mark.parametrize("stuck", ["pending", "running"])
def test_a_stuck_run_stays_until_a_test_ends_it(space: Workspace, stuck: str) -> None:
    sync_id = space.own()
    space.control("plan_run", sync=sync_id, stuck=stuck)
    run = space.ask("POST", f"/syncs/{sync_id}/trigger")[1]
    space.clock.advance(30 * 86400)
    assert space.runs(sync_id)[0]["status"] == stuck
    space.control("cancel_run", run=run["id"])
    assert space.runs(sync_id)[0]["status"] == "cancelled"


@pytest.mark.parametrize(("busy", "status"), [("queue", 201), ("conflict", 409), ("reject", 400)])
def test_a_trigger_while_a_run_is_under_way(busy: str, status: int) -> None:
    space = Workspace(switches={"busy": busy})
    sync_id = space.own()
    space.ask("POST", f"/syncs/{sync_id}/trigger")
    assert space.ask("POST", f"/syncs/{sync_id}/trigger")[0] == status
    space.clock.advance(300)
    runs = space.runs(sync_id)
    assert len(runs) == (2 if busy == "queue" else 1)
    if busy == "queue":  # never at the same time
        assert runs[0]["completed_at"] > runs[1]["completed_at"]


@pytest.mark.parametrize("sync_status", ["paused", "draft", "error"])
@pytest.mark.parametrize("code", [201, 400, 409])
def test_a_trigger_of_a_sync_that_is_not_active(sync_status: str, code: int) -> None:
    space = Workspace(switches={f"trigger_{sync_status}": code})
    assert space.ask("POST", f"/syncs/{space.own(status=sync_status)}/trigger")[0] == code


@pytest.mark.parametrize(
    ("created", "schedule", "expected"),
    [
        (None, "0 3 * * *", "active"),
        (None, "", "draft"),
        ("draft", "0 3 * * *", "draft"),
        ("active", "", "active"),
    ],
)
def test_the_status_after_a_create(created: str | None, schedule: str, expected: str) -> None:
    space = Workspace(switches={"created_status": created})
    assert space.ask("POST", "/syncs", space.sample(schedule=schedule))[1]["status"] == expected


def test_the_answer_to_a_write_may_be_no_sync() -> None:
    space = Workspace(switches={"write_answer": "status"})
    assert space.ask("POST", "/syncs", space.sample()) == (201, {"status": "ok"})


def test_lists_may_be_paginated_objects() -> None:
    space = Workspace(syncs=45, switches={"paginate": True})
    first = space.ask("GET", "/syncs")[1]
    assert first["pagination"] == {"page": 1, "page_size": 20, "total": 45}
    sizes = [len(space.ask("GET", f"/syncs?page={page}&page_size=1000")[1]["data"]) for page in (1, 2)]
    assert sizes == [45, 0]


@pytest.mark.parametrize(
    ("order", "cap"), [("newest", None), ("oldest", None), ("shuffled", None), ("newest", 5)]
)
def test_the_order_and_length_of_the_run_list(order: str, cap: int | None) -> None:
    space = Workspace(switches={"run_order": order, "run_cap": cap})
    sync_id = space.own(schedule="0 * * * *")
    space.clock.advance(86400)
    created = [run["created_at"] for run in space.runs(sync_id)]
    assert len(created) == (cap or 24)
    if order != "shuffled":
        assert created == sorted(created, reverse=order == "newest")


def test_a_new_run_may_be_missing_from_lists_for_a_while() -> None:
    space = Workspace(switches={"list_lag_seconds": 20.0})
    sync_id = space.own()
    run = space.ask("POST", f"/syncs/{sync_id}/trigger")[1]
    assert space.runs(sync_id) == []
    assert space.ask("GET", f"/syncs/{sync_id}")[1]["last_run_id"] is None
    space.clock.advance(20)
    assert space.runs(sync_id)[0]["id"] == run["id"]
    assert space.ask("GET", f"/syncs/{sync_id}")[1]["last_run_id"] == run["id"]


def test_active_syncs_run_by_themselves_in_the_workspaces_zone() -> None:
    space = Workspace(timezone="Europe/Berlin")
    sync_id = space.own(schedule="30 2 * * *")
    space.clock.advance(timedelta(days=2).total_seconds())
    # 29 March has no half past two: it fires when the clocks jump
    assert [run["created_at"] for run in space.runs(sync_id)] == [
        "2026-03-30T00:30:00Z",
        "2026-03-29T01:00:00Z",
    ]
    assert space.runs(sync_id)[0]["triggered_by"] is None


@pytest.mark.parametrize(
    ("switches", "start", "expected"),
    [
        ({"dst_gap": "skip"}, "2026-03-28", []),
        ({"dst_gap": "shift"}, "2026-03-28", ["01:30"]),
        ({"dst_gap": "end"}, "2026-03-28", ["01:00"]),
        ({"dst_fold": "first"}, "2026-10-24", ["00:30"]),
        ({"dst_fold": "second"}, "2026-10-24", ["01:30"]),
        ({"dst_fold": "both"}, "2026-10-24", ["00:30", "01:30"]),
    ],
)
def test_a_change_of_the_clocks_is_read_as_switched(
    switches: dict[str, str], start: str, expected: list[str]
) -> None:
    begin = datetime.fromisoformat(start).replace(hour=20, tzinfo=UTC)
    space = Workspace(start=begin, timezone="Europe/Berlin", switches=switches)
    sync_id = space.own(schedule="30 2 * * *")
    space.clock.advance(14 * 3600)
    assert sorted(run["created_at"][11:16] for run in space.runs(sync_id)) == expected


def test_the_scheduler_may_be_late_or_asleep_or_say_who_it_is() -> None:
    late = Workspace(switches={"scheduler_delay_seconds": 45.0, "scheduled_by": "schedule"})
    sync_id = late.own(schedule="0 * * * *")
    late.clock.advance(3700)
    (run,) = late.runs(sync_id)
    assert (run["created_at"], run["triggered_by"]) == ("2026-03-28T21:00:45Z", "schedule")
    asleep = Workspace(switches={"scheduler": False})
    sync_id = asleep.own(schedule="* * * * *")
    asleep.clock.advance(3600)
    assert asleep.runs(sync_id) == []


def test_scheduled_runs_never_overlap_and_at_most_one_waits(space: Workspace) -> None:
    sync_id = space.own(schedule="* * * * *")
    space.control("plan_run", sync=sync_id, run_seconds=600, times=2)
    space.clock.advance(620)
    assert [run["status"] for run in space.runs(sync_id)] == ["pending", "running"]


def test_a_jump_of_the_clock_replays_every_tick(space: Workspace) -> None:
    sync_id = space.own(schedule="*/10 * * * *")
    space.clock.advance(7 * 86400)
    assert len(space.runs(sync_id)) == 7 * 144


def test_old_runs_are_forgotten_and_a_single_one_can_be() -> None:
    space = Workspace(switches={"retention_seconds": 7200.0})
    sync_id = space.own(schedule="0 * * * *")
    space.clock.advance(86400)
    assert len(space.runs(sync_id)) == 3
    run_id = space.runs(sync_id)[0]["id"]
    space.control("forget_run", run=run_id)
    assert space.ask("GET", f"/syncs/{sync_id}/runs/{run_id}")[0] == 404


def test_fields_may_be_more_or_fewer_than_documented() -> None:
    space = Workspace(switches={"extra_fields": True, "sparse": True})
    sync = space.ask("GET", "/syncs")[1][0]
    assert "owner" in sync
    assert "status_error" not in sync
    assert "last_run_id" not in sync


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("timezone", {"timezone": "UTC"}), ("time_zone", {"time_zone": "UTC"}), ("", {}),
        ("regional.tz", {"regional": {"tz": "UTC"}}),
    ],
)  # fmt: skip
def test_the_zone_is_kept_where_the_switch_says(key: str, settings: dict[str, Any]) -> None:
    space = Workspace(switches={"timezone_key": key})
    assert space.ask("GET", "/settings")[1] == {"data_retention_days": 30, **settings}


def test_the_zone_can_be_changed(space: Workspace) -> None:
    assert space.ask("PUT", "/settings", {"timezone": "Asia/Kathmandu"})[1]["timezone"] == "Asia/Kathmandu"
    with pytest.raises(ControlError, match="no time zone"):
        space.control("set_timezone", timezone="Mars/Phobos")


def test_the_rate_limit_is_a_hundred_a_minute_and_twenty_a_second_with_a_wait(space: Workspace) -> None:
    statuses = [space.ask("GET", "/settings")[0] for _ in range(25)]
    assert statuses == [200] * 20 + [429] * 5
    answer = space.answer("GET", "/settings")
    assert 1 <= int(answer.headers["Retry-After"]) <= 2
    assert answer.decoded() == {"error": "rate limit exceeded"}
    minute = 0
    for _ in range(10):
        space.clock.advance(1)
        minute += sum(space.ask("GET", "/settings")[0] == 200 for _ in range(20))
    assert minute <= 100
    assert int(space.answer("GET", "/settings").headers["Retry-After"]) > 30
    assert not any(name.startswith("X-RateLimit") for name in space.answer("GET", "/settings").headers)


def test_others_use_the_limit_too_and_the_whole_api_can_be_away(space: Workspace) -> None:
    space.control("spend", requests=100)
    assert space.ask("GET", "/settings")[0] == 429
    space.clock.advance(60)
    space.control("outage", page="<h1>down</h1>")
    assert space.answer("GET", "/settings").status == 503
    space.control("outage", page=None)
    assert space.ask("GET", "/settings")[0] == 200


def test_errors_may_be_html() -> None:
    space = Workspace(switches={"bare_error": True})
    assert space.answer("GET", "/syncs/none").headers["Content-Type"] == "text/html"


def test_a_hostile_workspace_has_a_row_for_every_trap() -> None:
    space = Workspace(hostile=True)
    rows = space.ask("GET", "/syncs")[1]
    assert len(rows) > 50
    assert None in rows
    ids = [row["id"] for row in rows if isinstance(row, dict) and "id" in row]
    assert len(ids) - len({str(found) for found in ids}) >= 1
    space.clock.advance(2 * 86400)  # none of the expressions stops the scheduler
    assert len(space.ask("GET", "/syncs")[1]) == len(rows)


def test_a_thousand_syncs_are_listed(space: Workspace) -> None:
    assert len(Workspace(syncs=1000).ask("GET", "/syncs")[1]) == 1000


def test_the_health_of_all_syncs_in_one_answer(space: Workspace) -> None:
    sync_id = space.own(schedule="0 * * * *")
    space.control("plan_run", sync=sync_id, outcome="failed", error="x")
    space.clock.advance(86400)
    health = space.ask("GET", "/insights/sync-health?days=7")[1]
    (mine,) = [row for row in health["syncs"] if row["sync_id"] == sync_id]
    assert (mine["total_runs"], mine["failed_runs"], mine["last_run_status"]) == (24, 1, "pending")
    assert health["total_syncs"] == 3
    assert space.ask("GET", "/insights/sync-health?days=x")[0] == 400


def test_the_same_seed_and_calls_give_the_same_answers() -> None:
    def play() -> list[bytes]:
        space = Workspace(syncs=20)
        space.clock.advance(86400)
        return [space.answer("GET", path).body for path in ("/syncs", f"/syncs/{space.sync_ids()[0]}/runs")]

    assert play() == play()


def test_unknown_switches_options_and_verbs_are_named(space: Workspace) -> None:
    with pytest.raises(ControlError, match="no switch speed"):
        space.control("switch", speed=1)
    with pytest.raises(ControlError, match="no option size"):
        Workspace(size=1)
    with pytest.raises(ControlError, match="no verb dance"):
        space.control("dance")
    with pytest.raises(ControlError, match="there is no sync"):
        space.control("start_run", sync="none")


def test_truth_names_syncs_runs_models_and_destinations(space: Workspace) -> None:
    space.control("start_run", sync=space.sync_ids()[0])
    kinds = [json.loads(line)["kind"] for line in space.sandbox.signalsmith.truth_lines()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "syncs": 2,
        "runs": 1,
        "models": 2,
        "destinations": 1,
    }
    assert len(list(space.sandbox.signalsmith.truth_lines("runs"))) == 1
    assert space.control("mutate") in space.sync_ids()
