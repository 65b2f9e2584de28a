"""The Rally API as typed calls. The only module that knows its paths and parameters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import msgspec

from rally_pipeline.clock import Clock, Step, SystemClock, no_step
from rally_pipeline.http.answers import bad_answer
from rally_pipeline.http.budget import HeaderBudget
from rally_pipeline.http.client import DEFAULT_LIMITS, DEFAULT_POLICY, HttpClient, quote_segment
from rally_pipeline.http.envelope import read_rows
from rally_pipeline.http.errors import ApiError, BadAnswer, NotFound, OversizedAnswer, Rejected, TooLarge
from rally_pipeline.http.retry import RetryBucket
from rally_pipeline.http.shortage import shared_shortages
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.records import Head, read_id
from rally_pipeline.settings import Settings, SettingsError
from rally_pipeline.warehouse.values import clean_text, instant_text

if TYPE_CHECKING:
    from random import Random

    from rally_pipeline.http.retry import RetryPolicy
    from rally_pipeline.http.transport import Limits, Response, Transport

T = TypeVar("T")

_SMALLEST_PAGE = 100
_FEWEST_ROWS = 10
_SIZE_REFUSED = (400, 413, 414, 422)
_DATES_REMEMBERED = 8
CEILING_LEAD = timedelta(seconds=2)
"""Of the server's clock over what its dates allow at least: `Date` cuts off a second, and dates differ by one."""
_read_head = msgspec.json.Decoder(Head).decode


class _EntryFields(msgspec.Struct, gc=False):
    id: int
    entityType: str  # noqa: N815 (names of the API)
    entityId: str  # noqa: N815
    action: str
    changedAt: str  # noqa: N815
    changedBy: str | None = None  # noqa: N815


_read_entry = msgspec.json.Decoder(_EntryFields).decode


@dataclass(frozen=True, slots=True)
class ListPage:
    """One answer of a list endpoint: rows as received, in order, and when it was asked for (server time, floored)."""

    rows: list[msgspec.Raw]
    ids: list[str | None]
    """The id of each row; None where a row has no usable one."""
    begun: datetime
    asked: int
    """Rows that were asked for, which a server that gave more before will not exceed now."""


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """One entry of the change feed; `changed_at` in canonical text, which sorts."""

    id: int
    entity_type: str
    entity_id: str
    action: str
    changed_at: str
    changed_by: str | None


@dataclass(frozen=True, slots=True)
class ChangePage:
    """One answer of the feed, sorted by (`changed_at`, `id`), with the entries that could not be read."""

    entries: list[ChangeEntry]
    unreadable: list[tuple[bytes, str]]
    dated: datetime | None
    """The answer's `Date`."""
    answered: datetime
    """Server time, rounded up: not earlier than the moment when the answer's state was seen."""

    @property
    def received(self) -> int:
        return len(self.entries) + len(self.unreadable)


class RallyClient:
    """Calls of one tenant. Source: API pages "overview", "sync", and one page an entity."""

    def __init__(self, http: HttpClient, *, clock: Clock | None = None) -> None:
        self.http = http
        self.clock = clock or SystemClock()
        self._leads: deque[tuple[datetime, float]] = deque(maxlen=_DATES_REMEMBERED)
        self._page_limit: int | None = None

    def server_floor(self) -> datetime:
        """A time that the server's clock has certainly passed: the least that the latest answers' dates allow.

        One answer with a wrong date so does no harm, unless it is the only one (`confirm_server_time`).
        Costs one request where nothing has been received yet.
        """
        if not self._leads:
            self._ask_time()
        now = self.clock.monotonic()
        return min(date + timedelta(seconds=max(0.0, now - at)) for date, at in self._leads)

    def server_ceiling(self) -> datetime:
        """A time that the server's clock has hardly passed."""
        return self.server_floor() + CEILING_LEAD

    def confirm_server_time(self) -> datetime:
        """`server_floor` from two answers at least, for what must not rest on one date alone."""
        while len(self._leads) < 2:
            self._ask_time()
        return self.server_floor()

    @property
    def has_server_time(self) -> bool:
        """Whether `server_floor` costs no request."""
        return bool(self._leads)

    def _ask_time(self) -> None:
        before = len(self._leads)
        query: dict[str, str | int] = {"since": "9999-01-01T00:00:00Z", "limit": 1}
        response, _ = self._read("/sync/changes", read_rows, query)
        if len(self._leads) == before:
            raise BadAnswer(
                "rally",
                "GET",
                "/sync/changes",
                status=response.status,
                detail="no usable Date header in the answer, so the server's time is unknown",
            )

    def _read(
        self, path: str, decode: Callable[[Response], T], params: dict[str, str | int] | None = None
    ) -> tuple[Response, T]:
        response, content = self.http.read(path, decode, params=params)
        if response.server_time is not None:
            # Not the time now: the process may have been stopped since, while others went on.
            self._leads.append((response.server_time, response.received_at))
        return response, content

    def list_page(
        self, entity: Entity, *, offset: int, limit: int, updated_since: datetime | None = None
    ) -> ListPage:
        """One page of a list. Where a page is too large, for the server or to be read, smaller ones are asked for."""
        begun = self.server_floor()
        size = min(limit, self._page_limit or limit)
        params: dict[str, str | int] = {"limit": size, "offset": offset}
        if updated_since is not None:
            params["updatedSince"] = _since(updated_since)
        try:
            _, rows = self._read(f"/{entity.value}", read_rows, params)
        except (Rejected, TooLarge, OversizedAnswer) as error:
            smaller = _smaller_page(error, size)
            if smaller is None:
                raise
            self._page_limit = smaller
            return self.list_page(entity, offset=offset, limit=limit, updated_since=updated_since)
        return ListPage(rows, [_id_of(raw) for raw in rows], begun, size)

    def get_record(self, entity: Entity, entity_id: str) -> bytes | None:
        """The record as received, or None where the server says 404 or 410."""
        try:
            path = f"/{entity.value}/{quote_segment(entity_id)}"
        except ValueError as error:
            raise BadAnswer(
                "rally", "GET", f"/{entity.value}", detail=f"an id that no URL can hold: {error}"
            ) from None
        try:
            return self._read(path, lambda response: _record_of(response, entity_id))[1]
        except NotFound:
            return None

    def changes(self, since: datetime, *, limit: int, entities: Sequence[Entity] = ()) -> ChangePage:
        """One page of the change feed: entries after `since`, oldest first."""
        params: dict[str, str | int] = {"since": _since(since), "limit": limit}
        if entities:
            params["entities"] = ",".join(entity.value for entity in entities)
        response, rows = self._read("/sync/changes", read_rows, params)
        entries: list[ChangeEntry] = []
        unreadable: list[tuple[bytes, str]] = []
        for raw in rows:
            try:
                entries.append(_entry_of(raw))
            except (msgspec.MsgspecError, ValueError) as error:
                unreadable.append((bytes(memoryview(raw)), f"unreadable feed entry: {error}"))
        entries.sort(key=lambda entry: (entry.changed_at, entry.id))
        return ChangePage(entries, unreadable, response.server_time, self.server_ceiling())


def connect(
    settings: Settings,
    *,
    clock: Clock | None = None,
    random: Random | None = None,
    step: Step = no_step,
    transport: Transport | None = None,
    retry: RetryPolicy = DEFAULT_POLICY,
    limits: Limits = DEFAULT_LIMITS,
) -> RallyClient:
    """A client for the tenant that the settings name; `retry` and `limits` bound each of its calls.

    Raises:
        SettingsError: a variable is missing.
    """
    missing = settings.missing("rally")
    if missing or settings.rally_api_url is None or settings.rally_api_key is None:
        raise SettingsError(f"Rally is not configured: set {' and '.join(missing)}")
    key = settings.rally_api_key.get_secret_value()
    few, refusals = shared_shortages(settings.rally_api_url, key) if clock is None else (None, None)
    clock = clock or SystemClock()
    http = HttpClient(
        system="rally",
        base_url=settings.rally_api_url,
        headers={"X-Api-Key": key},
        secrets=[key],
        sandbox=settings.rally_pipeline_sandbox,
        read_only=settings.rally_pipeline_read_only,
        budget=HeaderBudget(clock=clock, system="rally", shortage=few),
        bucket=RetryBucket(refusals=refusals),
        clock=clock,
        random=random,
        step=step,
        transport=transport,
        policy=retry,
        limits=limits,
    )
    return RallyClient(http, clock=clock)


def _smaller_page(error: ApiError, size: int) -> int | None:
    """The page size to try next; None where the error is not about size, or no smaller one makes sense."""
    if isinstance(error, OversizedAnswer):
        least = _FEWEST_ROWS
    elif error.status in _SIZE_REFUSED:
        least = _SMALLEST_PAGE
    else:
        return None
    return max(least, size // 2) if size > least else None


def _record_of(response: Response, entity_id: str) -> bytes:
    """The body of the record that was asked for, as received.

    Raises:
        BadAnswer: it is something else.
    """
    raw = bytes(response.body)
    found = read_id(raw)
    if found is None or found.lower() != entity_id.lower():
        raise bad_answer(response, "the answer is not the record that was asked for")
    return raw


def _id_of(raw: msgspec.Raw) -> str | None:
    try:
        return _read_head(raw).id or None
    except (msgspec.MsgspecError, RecursionError):
        return read_id(memoryview(raw))


def _entry_of(raw: msgspec.Raw) -> ChangeEntry:
    fields = _read_entry(raw)
    if not -(2**63) <= fields.id < 2**63:
        raise ValueError("the id is beyond 64 bits")
    quote_segment(clean_text(fields.entityId))
    return ChangeEntry(
        fields.id,
        clean_text(fields.entityType),
        clean_text(fields.entityId),
        clean_text(fields.action),
        instant_text(fields.changedAt),
        None if fields.changedBy is None else clean_text(fields.changedBy),
    )


def _since(moment: datetime) -> str:
    """ISO 8601 in UTC with `Z`; a fraction only where there is one, since a coarse server may refuse it."""
    if moment.microsecond:
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
