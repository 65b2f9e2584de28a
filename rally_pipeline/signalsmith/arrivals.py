"""Notice runs that were started elsewhere: by SignalSmith's schedule, by a person in its UI, by another program.

The table `signalsmith_runs` is an outbox: every run that ended and is not known to be shown in Dagster is in it. What
is new comes from one list call, whatever the number of syncs; only syncs whose last run changed cost a further one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from rally_pipeline.clock import Clock
from rally_pipeline.http.errors import ApiError, NotFound
from rally_pipeline.signalsmith.catalog import read_rows
from rally_pipeline.signalsmith.client import SignalSmithClient
from rally_pipeline.signalsmith.records import TERMINAL, Run, Sync
from rally_pipeline.signalsmith.run_history import RunHistory
from rally_pipeline.signalsmith.run_request import ELSEWHERE

MOST_LOOKS = 30
"""Further requests a tick: the rate limit of 100 a minute belongs to all who follow runs, too."""

HEALTH_FROM = 5
"""From so many unfinished runs on, one call of the sync health says which of them have ended."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What one look found: syncs whose last run was new or unfinished, looks spent, and syncs left for later."""

    moved: int
    looks: int
    postponed: int


def collect_arrivals(
    client: SignalSmithClient,
    history: RunHistory,
    sync_ids: Collection[str],
    *,
    clock: Clock,
    budget_seconds: float,
) -> Arrivals:
    """Record new runs and new states of the syncs `sync_ids`.

    Raises:
        ApiError: the list of syncs cannot be read. Trouble with a single sync leaves it for the next time.
    """
    end = clock.monotonic() + budget_seconds
    syncs, _ = read_rows(client.list_syncs())
    begun = history.watching_since(client.server_time or clock.now())
    last = {sync.id: sync.last_run_id for sync in syncs if sync.id in sync_ids and sync.last_run_id}
    ended = history.ended({sync_id: run_id for sync_id, run_id in last.items() if run_id})
    moved = [sync for sync in syncs if sync.id in last and sync.id not in ended]
    looks = 0
    due = _due(client, history, moved)
    for number, sync in enumerate(due):
        if looks >= MOST_LOOKS or clock.monotonic() >= end:
            return Arrivals(len(moved), looks, len(due) - number)
        looks += 1
        try:
            history.record(_look(client, history, sync, begun), origin=ELSEWHERE)
        except ApiError:
            continue  # it is looked at again at the next tick
    return Arrivals(len(moved), looks, 0)


def _look(client: SignalSmithClient, history: RunHistory, sync: Sync, begun: datetime | None) -> list[Run]:
    """Runs since the newest recorded one, or since the watching began; before that only the last one counts, not
    the whole past of the sync."""
    since = history.newest(sync.id) or begun
    if since is None:
        return [client.get_run(sync.id, str(sync.last_run_id))]
    try:
        runs = client.list_runs(sync.id, since=since)
    except NotFound:
        return []
    return [
        run for run in runs if run.created_at is None or run.created_at >= since or run.id == sync.last_run_id
    ]


def _due(client: SignalSmithClient, history: RunHistory, moved: list[Sync]) -> list[Sync]:
    """Syncs to look at: where many runs are under way, only those that the health says have ended, or new ones."""
    waiting = [sync for sync in moved if history.is_recorded(sync.id, str(sync.last_run_id))]
    if len(waiting) < HEALTH_FROM:
        return moved
    try:
        rows = client.sync_health(days=1).get("syncs", [])
    except ApiError:
        return moved
    ended = {
        row.get("sync_id") for row in rows if isinstance(row, dict) and row.get("last_run_status") in TERMINAL
    }
    held = {sync.id for sync in waiting} - ended
    return [sync for sync in moved if sync.id not in held]
