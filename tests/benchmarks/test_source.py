"""The benchmarks' server sends what a Rally tenant with these records would."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.source.contacts import FIELDS, contact
from benchmarks.source.running import RunningSource, running_source
from rally_pipeline.rally.client import connect
from rally_pipeline.rally.entities import Entity
from rally_pipeline.settings import load_settings

ROWS = 250


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSource]:
    with running_source(ROWS) as source:
        yield source


@pytest.fixture
def source(running: RunningSource) -> RunningSource:
    running.reset()
    return running


def ask(source: RunningSource, target: str) -> Any:
    with urllib.request.urlopen(source.url + target, timeout=10) as answer:
        return json.load(answer)


def test_the_pages_hold_every_record_once_in_one_order(source: RunningSource) -> None:
    rows = [row for offset in range(0, 300, 60) for row in ask(source, f"/contacts?limit=60&offset={offset}")]
    assert rows == [contact(number) for number in range(ROWS)]
    assert len({row["id"] for row in rows}) == ROWS
    assert tuple(rows[0]) == FIELDS
    assert len(FIELDS) == 22


def test_the_package_reads_it_with_its_own_client(source: RunningSource) -> None:
    client = connect(load_settings(rally_api_url=source.url, rally_api_key="rk_test"))
    with client.http:
        page = client.list_page(Entity.CONTACTS, offset=248, limit=100)
        record = client.get_record(Entity.CONTACTS, contact(7)["id"])
    assert page.ids == [contact(248)["id"], contact(249)["id"]]
    assert record is not None
    assert json.loads(record) == contact(7)


def test_changes_show_in_the_feed_in_the_list_and_by_updated_since(source: RunningSource) -> None:
    source.change(10, 15)
    entries = ask(source, "/sync/changes?since=2000-01-01T00:00:00Z&limit=1000")
    changed = {contact(number)["id"] for number in range(0, ROWS, 25)}
    assert len(entries) == 15
    assert {entry["entityId"] for entry in entries} == changed
    assert [entry["changedAt"] for entry in entries] == sorted({entry["changedAt"] for entry in entries})
    since = entries[0]["changedAt"][:19] + "Z"
    assert {row["id"] for row in ask(source, f"/contacts?limit=1000&updatedSince={since}")} == changed
    rows = ask(source, "/contacts?limit=1000")
    assert {row["id"] for row in rows if row["email"].endswith(".1@example.org")} == changed
    assert ask(source, f"/sync/changes?since={entries[9]['changedAt']}&limit=3") == entries[10:13]


def test_it_counts_requests_but_not_those_of_the_benchmark(source: RunningSource) -> None:
    ask(source, "/contacts?limit=1")
    ask(source, "/companies")
    source.change(1)
    assert source.requests() == 2
    assert source.sent() > 500
