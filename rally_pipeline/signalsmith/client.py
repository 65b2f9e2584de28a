"""The SignalSmith API as typed calls. The only module that knows its paths and envelopes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from rally_pipeline.clock import Clock, Step, SystemClock, no_step
from rally_pipeline.http.answers import bad_answer
from rally_pipeline.http.budget import TokenBudget
from rally_pipeline.http.client import DEFAULT_POLICY, HttpClient, quote_segment
from rally_pipeline.http.envelope import decode, read_rows
from rally_pipeline.http.errors import BadAnswer, Forbidden, NotFound
from rally_pipeline.http.redaction import escape, redact
from rally_pipeline.http.retry import RetryBucket
from rally_pipeline.http.shortage import shared_shortages
from rally_pipeline.settings import Settings, SettingsError
from rally_pipeline.signalsmith.records import (
    DamagedRow,
    RecordError,
    Run,
    Sync,
    newest_first,
    read_run,
    read_sync,
)

if TYPE_CHECKING:
    from random import Random

    from rally_pipeline.http.retry import RetryPolicy
    from rally_pipeline.http.transport import Response, Transport

PAGE_SIZE = 100
MOST_PAGES = 500
LONGEST_ERROR = 2_000
"""Characters of a run's error text that are kept."""

RATES = ((100, 60.0), (20, 1.0))
"""Requests and seconds: the limits of a workspace, shared by all its users."""

RATE_FILE = "signalsmith_rate.json"

Enough = Callable[[list[object]], bool]
"""Whether a page is the last one that matters."""

_ZONE_KEYS = ("timezone", "time_zone", "timeZone", "default_timezone", "defaultTimezone", "tz")


class _Pagination(msgspec.Struct):
    page: int | None = None
    page_size: int | None = None
    total: int | None = None


class _Page(msgspec.Struct):
    pagination: _Pagination | None = None


class SignalSmithClient:
    """Calls of one workspace. Source: reference pages "syncs", "workspaces", "models", "insights"."""

    def __init__(self, http: HttpClient, workspace_id: str, *, secrets: Sequence[str] = ()) -> None:
        self.http = http
        self._secrets = tuple(secrets)
        self.workspace_id = workspace_id
        self._root = f"/workspaces/{quote_segment(workspace_id)}"
        self._paginated = False

    @property
    def server_time(self) -> datetime | None:
        """The `Date` of the answer received last; None before the first."""
        return self.http.server_time

    def list_syncs(self) -> list[object]:
        """Every row of the list as it is, to be read one by one with `records.read_sync`."""
        return self._list(f"{self._root}/syncs")

    def get_sync(self, sync_id: str) -> Sync:
        """Raises `NotFound` where it does not exist."""
        return self.http.read(self._sync_path(sync_id), self._read_sync)[1]

    def create_sync(self, fields: Mapping[str, Any]) -> Sync | None:
        """The new sync, or None where the answer does not show it. Never repeated.

        Raises:
            NoAnswer, ServerFailed: the sync may exist; look before creating it again.
        """
        return self._written(self.http.post(f"{self._root}/syncs", json=dict(fields)))

    def update_sync(self, sync_id: str, changes: Mapping[str, Any]) -> Sync:
        """The sync after changing just these fields, read back where the answer does not show it."""
        response = self.http.put(self._sync_path(sync_id), json=dict(changes))
        return self._written(response) or self.get_sync(sync_id)

    def delete_sync(self, sync_id: str) -> None:
        """Delete the sync; one that is gone already counts as deleted."""
        try:
            self.http.delete(self._sync_path(sync_id))
        except NotFound:
            return

    def trigger(self, sync_id: str) -> Run:
        """Start a run and return it. Never repeated: a trigger is not idempotent.

        Raises:
            NoAnswer, ServerFailed, BadAnswer: the run may exist; look before triggering again.
        """
        return self._read_run(self.http.post(f"{self._sync_path(sync_id)}/trigger"), sync_id)

    def list_runs(self, sync_id: str, *, since: datetime | None = None) -> list[Run]:
        """Runs, the newest first. With `since`, pages that hold only older runs may be left out."""
        rows = self._list(
            f"{self._sync_path(sync_id)}/runs", enough=lambda page: _reaches(page, sync_id, since)
        )
        runs = {}
        for row in rows:
            try:
                run = self._masked(read_run(row, sync_id=sync_id))
            except RecordError:
                continue  # a row without an id can be neither attached to nor mistaken for another
            runs[run.id] = run
        return newest_first(runs.values())

    def get_run(self, sync_id: str, run_id: str) -> Run:
        """Raises `NotFound` where it does not exist (any more)."""
        path = f"{self._sync_path(sync_id)}/runs/{quote_segment(run_id)}"
        return self.http.read(path, lambda response: self._read_run(response, sync_id))[1]

    def list_models(self) -> list[Mapping[str, Any]]:
        """Models with their SQL; empty where the token may not read them."""
        try:
            rows = self._list(f"{self._root}/models")
        except (Forbidden, NotFound):
            return []
        return [row for row in rows if isinstance(row, Mapping)]

    def workspace_timezone(self) -> str | None:
        """The workspace's zone, wherever its settings keep it; None where they do not tell."""
        try:
            settings = self.http.read(f"{self._root}/settings", _read_object)[1]
        except (Forbidden, NotFound):
            return None
        return _find_zone(settings)

    def sync_health(self, days: int = 7) -> dict[str, Any]:
        """Success rates and last run states of all syncs over the last `days`."""
        return self.http.read(f"{self._root}/insights/sync-health", _read_object, params={"days": days})[1]

    def _sync_path(self, sync_id: str) -> str:
        return f"{self._root}/syncs/{quote_segment(sync_id)}"

    def _read_sync(self, response: Response) -> Sync:
        try:
            return read_sync(_read_object(response))
        except RecordError as error:
            raise bad_answer(response, f"not a sync: {error}") from None

    def _read_run(self, response: Response, sync_id: str) -> Run:
        try:
            return self._masked(read_run(_read_object(response), sync_id=sync_id))
        except RecordError as error:
            raise bad_answer(response, f"not a run: {error}") from None

    def _masked(self, run: Run) -> Run:
        """The run with an error text that may be shown and logged: the remote's words can echo tokens."""
        if not run.error_message:
            return run
        text = " ".join(redact(run.error_message[:LONGEST_ERROR], self._secrets).split())
        return replace(run, error_message=escape(text))

    def _written(self, response: Response) -> Sync | None:
        """The sync in the answer to a write; such answers are not documented."""
        try:
            return self._read_sync(response)
        except BadAnswer:
            return None

    def _list(self, path: str, *, enough: Enough | None = None) -> list[object]:
        """All rows, whichever of the two documented shapes the server uses.

        Pages can shift while they are read. A row that shows twice counts once; a row that a shift has hidden
        is given away by the total, so then the pages are read once more.
        """
        found = _Found()
        for _ in range(2):
            if self._read_pages(path, found, enough):
                break
        return found.rows

    def _read_pages(self, path: str, found: _Found, enough: Enough | None) -> bool:
        """One pass; False where the total says that something was missed."""
        params: dict[str, str | int] = {"page": 1, "page_size": PAGE_SIZE} if self._paginated else {}
        totals: set[int | None] = set()
        page = 0
        while True:
            page += 1
            response, rows = self.http.read(path, _decoded, params=params)
            pagination = _pagination(response)
            found.add(rows)
            if pagination is None:
                return True  # a bare array is the whole list
            self._paginated = True
            size = pagination.page_size or len(rows)
            totals.add(pagination.total)
            if enough is not None and enough(rows):
                return True
            covered = pagination.total is not None and page * size >= pagination.total
            if not rows or covered or page >= MOST_PAGES:
                return len(totals) == 1 and len(found.rows) >= (pagination.total or 0)
            params = {"page": page + 1, "page_size": size}


class _Found:
    """Rows of several pages. An id on a later page replaces the same id of an earlier one, because pages shift;
    twice on one page are two rows, for the reader to complain about."""

    def __init__(self) -> None:
        self._by_key: dict[str, object] = {}

    def add(self, rows: list[object]) -> None:
        """Take in one page."""
        seen: Counter[str] = Counter()
        for row in rows:
            name = f"id {row['id']}" if isinstance(row, Mapping) and "id" in row else "no id"
            seen[name] += 1
            self._by_key[f"{name} {seen[name]}"] = row

    @property
    def rows(self) -> list[object]:
        return list(self._by_key.values())


def connect(
    settings: Settings,
    *,
    clock: Clock | None = None,
    random: Random | None = None,
    step: Step = no_step,
    transport: Transport | None = None,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> SignalSmithClient:
    """A client for the workspace that the settings name; its rate budget is shared by all processes of the home.

    `retry` bounds each of its calls.

    Raises:
        SettingsError: a variable is missing.
    """
    missing = settings.missing("signalsmith")
    url, token, workspace = (
        settings.signalsmith_api_url,
        settings.signalsmith_api_token,
        settings.signalsmith_workspace_id,
    )
    if url is None or token is None or workspace is None:
        raise SettingsError(f"SignalSmith is not configured: set {' and '.join(missing)}")
    secret = token.get_secret_value()
    refusals = shared_shortages(url, secret)[1] if clock is None else None
    shared = settings.home_path / RATE_FILE if clock is None else None
    clock = clock or SystemClock()
    http = HttpClient(
        system="signalsmith",
        base_url=url,
        headers={"Authorization": f"Bearer {secret}", "X-Workspace-ID": workspace},
        secrets=[secret],
        sandbox=settings.rally_pipeline_sandbox,
        read_only=settings.rally_pipeline_read_only,
        budget=TokenBudget(RATES, clock=clock, state_path=shared, system="signalsmith"),
        bucket=RetryBucket(refusals=refusals),
        policy=retry,
        clock=clock,
        random=random,
        step=step,
        transport=transport,
    )
    return SignalSmithClient(http, workspace, secrets=[secret])


def _read_object(response: Response) -> dict[str, Any]:
    return decode(response, dict[str, Any])


def _decoded(response: Response) -> list[object]:
    """The rows of a list; one that cannot be decoded keeps its place, so that it can be named and skipped."""
    rows: list[object] = []
    for raw in read_rows(response):
        try:
            rows.append(msgspec.json.decode(raw))
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            rows.append(DamagedRow(f"the row cannot be decoded ({str(error)[:80]})"))
    return rows


def _pagination(response: Response) -> _Pagination | None:
    """How the list is paginated; None for a bare array, which is the whole list."""
    if response.body.lstrip()[:1] == b"[":
        return None
    try:
        return msgspec.json.decode(response.body, type=_Page).pagination or _Pagination()
    except (msgspec.MsgspecError, RecursionError):
        return _Pagination()


def _reaches(page: list[object], sync_id: str, since: datetime | None) -> bool:
    """Whether the page is in order, newest first, and ends before `since`, so that later pages are older still."""
    if since is None or not page:
        return False
    created = []
    for row in page:
        try:
            created.append(read_run(row, sync_id=sync_id).created_at)
        except RecordError:
            return False
    known = [at for at in created if at is not None]
    return len(known) == len(created) and known == sorted(known, reverse=True) and known[-1] < since


def _find_zone(settings: Mapping[str, Any], depth: int = 2) -> str | None:
    for key in _ZONE_KEYS:
        value = settings.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    if depth:
        for value in settings.values():
            if isinstance(value, Mapping) and (found := _find_zone(value, depth - 1)):
                return found
    return None
