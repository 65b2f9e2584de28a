"""Calls of the API: both list shapes, opaque ids, headers, and what is never repeated."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from rally_pipeline.http.errors import (
    ApiError,
    BadAnswer,
    Forbidden,
    NoAnswer,
    NotFound,
    ServerFailed,
    Unauthorized,
)
from rally_pipeline.settings import SettingsError, load_settings
from rally_pipeline.signalsmith.client import connect
from rally_pipeline.signalsmith.records import RecordError, newest_first, read_run, read_sync
from tests.signalsmith.bench import Bench

MakeBench = Callable[..., Bench]


def test_all_eight_sync_endpoints(bench: Bench) -> None:
    client = bench.client
    fields = {
        "name": "Made", "model_id": next(iter(bench.api.models)), "sync_mode": "upsert", "primary_key": "id",
        "destination_id": next(iter(bench.api.destinations)), "schedule": "0 3 * * *",
        "field_mapping": [{"source_column": "id", "destination_field": "ref", "type_cast": "number"}],
    }  # fmt: skip
    made = client.create_sync(fields)
    assert made is not None
    assert made.field_mapping[0].type_cast == "number"
    assert client.get_sync(made.id) == made
    assert len(client.list_syncs()) == 3
    assert client.update_sync(made.id, {"status": "paused"}).status == "paused"
    run = client.trigger(made.id)
    assert (run.status, run.completed_at, run.error_message) == ("pending", None, "")
    assert [found.id for found in client.list_runs(made.id)] == [run.id]
    assert client.get_run(made.id, run.id).sync_id == made.id
    client.delete_sync(made.id)
    client.delete_sync(made.id)  # gone already
    with pytest.raises(NotFound):
        client.get_sync(made.id)


def test_health_settings_and_models(make_bench: MakeBench) -> None:
    bench = make_bench(timezone="Asia/Kathmandu")
    assert bench.client.sync_health()["total_syncs"] == 2
    assert bench.client.workspace_timezone() == "Asia/Kathmandu"
    assert len(bench.client.list_models()) == 2


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 40, 100, 101, 250])
def test_both_list_shapes_give_every_row_once(make_bench: MakeBench, count: int) -> None:
    bare = make_bench(syncs=count)
    paged = make_bench(syncs=count, switches={"paginate": True})
    for bench in (bare, paged):
        rows = bench.client.list_syncs()
        assert len({row["id"] for row in rows}) == len(rows) == count  # type: ignore[index]
    assert len(bare.requests()) == 1


def test_a_bare_list_is_asked_for_without_page_parameters(bench: Bench) -> None:
    bench.client.list_syncs()
    assert bench.sandbox.log[0].query == {}


def test_after_the_first_object_lists_are_read_in_the_largest_pages(make_bench: MakeBench) -> None:
    bench = make_bench(syncs=250, switches={"paginate": True})
    bench.client.list_syncs()
    before = len(bench.requests())
    bench.client.list_syncs()
    assert len(bench.requests()) - before == 3
    assert bench.sandbox.log[-1].query["page_size"] == ["100"]


def test_a_long_run_list_is_read_only_as_far_back_as_needed(make_bench: MakeBench) -> None:
    bench = make_bench(switches={"paginate": True, "scheduler": True})
    bench.clock.advance(5 * 86400)
    sync_id = bench.sync_id(0)
    since = bench.clock.now() - timedelta(hours=2)
    runs = bench.client.list_runs(sync_id, since=since)
    assert {found.id for found in runs} >= {
        run.id for run in bench.api.engine.runs.values() if run.sync_id == sync_id and run.created >= since
    }
    assert len(bench.requests()) == 1


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
def test_runs_come_newest_first_whatever_the_order_of_the_list(make_bench: MakeBench, order: str) -> None:
    bench = make_bench(switches={"run_order": order, "paginate": True})
    bench.clock.advance(86400)
    created = [run.created_at for run in bench.client.list_runs(bench.sync_id(0), since=bench.clock.now())]
    assert created == sorted(created, reverse=True)  # type: ignore[type-var]
    if order != "newest":
        assert len(created) == len(bench.run_ids(bench.sync_id(0)))


def test_token_and_workspace_travel_in_headers_and_never_in_an_error(bench: Bench) -> None:
    seen: list[dict[str, str]] = []
    bench.sandbox.before(1, lambda call: seen.append(call.headers))
    bench.client.list_syncs()
    assert seen[0]["x-workspace-id"] == bench.client.workspace_id
    secret = seen[0]["authorization"].removeprefix("Bearer ")
    bench.sandbox.faults.add("unauthorized", times=None)
    with pytest.raises(Unauthorized) as caught:
        bench.client.list_syncs()
    assert secret not in f"{caught.value!r} {caught.value}"


def test_another_workspace_is_forbidden(bench: Bench) -> None:
    environment = {
        name.lower(): value for name, value in bench.sandbox.environment("http://127.0.0.1:9").items()
    }
    environment["signalsmith_workspace_id"] = "another"
    client = connect(load_settings(**environment), clock=bench.clock, transport=bench.transport)
    with pytest.raises(Forbidden, match="no access to this workspace"):
        client.list_syncs()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match="SIGNALSMITH_API_TOKEN and SIGNALSMITH_WORKSPACE_ID"):
        connect(
            load_settings(
                signalsmith_api_url="https://acme.signalsmith.example/api/v1",
                signalsmith_api_token=None,
                signalsmith_workspace_id=None,
            )
        )


@pytest.mark.parametrize("fault", ["status_500", "reset_before_headers", "throttle"])
def test_a_read_is_repeated_and_a_trigger_never(bench: Bench, fault: str) -> None:
    bench.sandbox.faults.add(fault, method="GET")
    assert len(bench.client.list_syncs()) == 2
    bench.sandbox.faults.add(fault, method="POST")
    with pytest.raises((NoAnswer, ServerFailed, ApiError)):
        bench.client.trigger(bench.sync_id(0))
    assert len(bench.requests("trigger")) == 1


@pytest.mark.parametrize(
    "fault", ["html_200", "empty_200", "error_200", "wrong_shape", "null_200", "cut_json"]
)
def test_an_answer_that_is_no_list_is_never_an_empty_one(bench: Bench, fault: str) -> None:
    bench.sandbox.faults.add(fault, times=None)
    with pytest.raises(BadAnswer):
        bench.client.list_syncs()
    bench.sandbox.faults.clear()
    bench.sandbox.faults.add(fault)
    assert len(bench.client.list_syncs()) == 2


def test_a_row_that_cannot_be_decoded_costs_only_itself(bench: Bench) -> None:
    rows = bench.client.http.get(f"/workspaces/{bench.client.workspace_id}/syncs").body
    from rally_pipeline.http.transport import Response
    from rally_pipeline.signalsmith.client import _decoded

    bad = rows[:-1] + b',{"id": "x", "name": "\\ud83d"}]'
    assert len(_decoded(Response(200, {}, bad))) == 3


@pytest.mark.parametrize("sync_id", ["a/b", "a b", "?x=1", "#", "é", "..%2f", "a" * 500])
def test_any_id_is_one_segment_of_the_path(bench: Bench, sync_id: str) -> None:
    bench.make_sync(id=sync_id)
    assert bench.client.get_sync(sync_id).id == sync_id


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "the row is null"), ([], "the row is a list"), ({}, "its id is null"), ({"id": ""}, "its id is empty"),
        ({"id": True}, "its id is a boolean"), ({"id": {}}, "its id is an object"), ({"id": ".."}, "part of a path"),
        ({"id": "a\nb"}, "part of a path"), ({"id": "x" * 600}, "part of a path"),
    ],
)  # fmt: skip
def test_a_row_without_a_usable_id_is_no_sync(row: object, reason: str) -> None:
    with pytest.raises(RecordError, match=re.escape(reason)):
        read_sync(row)


def test_odd_values_are_noted_and_cost_nothing_else() -> None:
    sync = read_sync(
        {"id": 7, "name": 5, "schedule": None, "config": "x", "field_mapping": [1, {"source_column": "a"}],
         "created_at": "yesterday", "status": "active", "updated_at": "2026-03-02T08:00:00"}
    )  # fmt: skip
    assert (sync.id, sync.name, sync.schedule, sync.status) == ("7", "", "", "active")
    assert len(sync.oddities) == 5
    assert sync.updated_at is not None
    assert sync.updated_at.isoformat() == "2026-03-02T08:00:00+00:00"


def test_queued_is_another_word_for_pending_and_missing_fields_are_absent() -> None:
    run = read_run({"id": "r", "status": "Queued"}, sync_id="s")
    assert (run.status, run.completed_at, run.rows_synced, run.error_message) == ("pending", None, 0, "")
    assert not run.is_terminal
    assert run.seconds is None
    with pytest.raises(RecordError, match="another sync"):
        read_run({"id": "r", "sync_id": "other"}, sync_id="s")


def test_runs_of_one_second_have_a_stable_order() -> None:
    rows = [read_run({"id": name, "created_at": "2026-03-02T08:00:00Z"}, sync_id="s") for name in "bca"]
    assert [run.id for run in newest_first(rows)] == ["c", "b", "a"]
