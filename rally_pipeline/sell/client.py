"""The Sell API as typed calls. The only module that knows its paths, headers and parameters.

Every URL is built from the configured base: links in answers are data, and the token goes nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import msgspec

from rally_pipeline.clock import Clock, Step, SystemClock, no_step
from rally_pipeline.http.answers import bad_answer
from rally_pipeline.http.client import HttpClient, Usage, quote_segment
from rally_pipeline.http.envelope import decode, read_rows
from rally_pipeline.http.errors import ApiError, Forbidden, NotFound, Rejected, TooLarge
from rally_pipeline.http.retry import RetryBucket, RetryPolicy
from rally_pipeline.http.shortage import shared_shortages
from rally_pipeline.http.token_budget import TokenBudget
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.errors import explain_scope, explain_start
from rally_pipeline.sell.queue import QueuePage, read_page
from rally_pipeline.settings import Settings, SettingsError

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from rally_pipeline.http.budget import Budget
    from rally_pipeline.http.transport import Response, Transport

RATES = ((10, 1.0), (36_000, 3600.0))
"""Requests and seconds, per token (rate limits page); no header tells how much is left."""
RETRIES = RetryPolicy(max_attempts=3, total_seconds=120.0, also_retry=frozenset({409}))
"""A repeated start may leave a session open, so fewer attempts than usual; 429 may mean too many sessions, which the
schedule waits for, and 409 is said to mean throttling."""
PER_PAGE = 100
QUEUE_ROOT = "/v2/sync/"
"""Below it every call changes the queue: fetching a page takes it out of its session."""
_DEVICE_HEADER = "X-Basecrm-Device-UUID"
_ACCEPTED = 202
_NO_CONTENT = 204


class _SessionBody(msgspec.Struct, gc=False):
    id: str


class _StartBody(msgspec.Struct, gc=False):
    data: _SessionBody


class _Record(msgspec.Struct, gc=False):
    data: msgspec.Raw


class _Identity(msgspec.Struct, gc=False):
    id: int | str | None = None
    contact_id: int | None = None


T = TypeVar("T")

_read_record = msgspec.json.Decoder(_Record).decode
_read_identity = msgspec.json.Decoder(_Identity).decode


@dataclass(frozen=True, slots=True)
class Fetched:
    """One call of the queue. `page` is None at its end (204).

    `repeated` says that an earlier attempt of the call may have taken a page that never arrived: it comes again
    in a later session only.
    """

    page: QueuePage | None
    repeated: bool


@dataclass(frozen=True, slots=True)
class AckResult:
    """What became of an acknowledgement: whether all keys were accepted, and how many accepted calls it took."""

    confirmed: bool
    calls: int


class SellClient:
    """Calls under one token, for one device."""

    def __init__(self, http: HttpClient, *, device_uuid: str, clock: Clock | None = None) -> None:
        self.http = http
        self.device_uuid = device_uuid
        self._clock = clock or SystemClock()
        self._seen: tuple[datetime, float] | None = None
        self._ack_limit: int | None = None
        self._unfiltered: set[str] = set()
        self._proved: set[Entity] = set()

    @property
    def usage(self) -> Usage:
        """What has been spent so far."""
        return self.http.usage

    def server_time(self) -> datetime:
        """A time that the server's clock has certainly passed.

        Costs one request where nothing has been received yet. A server without `Date` is taken at this
        machine's clock, which is only ever compared with itself.
        """
        if self._seen is None:
            try:
                self._read("/v2/users/self", lambda _: None)
            except ApiError as error:
                if error.status is None:
                    raise
                self._note_time(None)
        assert self._seen is not None
        date, at = self._seen
        return date + timedelta(seconds=max(0.0, self._clock.monotonic() - at))

    # ------------------------------------------------------------------ Sync

    def start(self) -> str | None:
        """Start a session and return its id, or None where nothing is pending.

        Raises:
            ApiError: refused; a missing scope, too many sessions and a retired API are said in words.
        """
        try:
            response, session_id = self.http.read(
                "/v2/sync/start", _session_of, method="POST", headers=self._device(), repeat=True
            )
        except ApiError as error:
            raise explain_start(error) from None
        self._note_time(response)
        return session_id

    def fetch(self, session_id: str) -> Fetched:
        """The next page of the session's queue.

        Raises:
            BadAnswer: the answer is no page; whatever it was, it will not come again in this session.
            NotFound, Unauthorized: the session is gone, or the token is.
            ApiError: any other failure.
        """
        before = self.usage
        path = f"/v2/sync/{quote_segment(session_id)}/queues/main"
        try:
            page = self._read(path, _page_of, headers=self._device())
        except Forbidden as error:
            raise explain_scope(error, "sync") from None
        spent = self.usage - before
        return Fetched(page, repeated=spent.retries > spent.throttled)

    def acknowledge(self, keys: Sequence[str]) -> AckResult:
        """Acknowledge keys whose items are committed, in one call unless the server wants fewer at a time.

        Raises:
            ApiError: no answer, or one that says nothing about the keys; acknowledging again is harmless.
        """
        size = min(self._ack_limit or len(keys), len(keys))
        done = calls = 0
        confirmed = True
        while done < len(keys):
            batch = list(keys[done : done + size])
            try:
                confirmed = self._acknowledge(batch) and confirmed
            except (TooLarge, Rejected):
                if len(batch) == 1:
                    raise
                size = self._ack_limit = max(1, len(batch) // 2)
                continue
            calls += 1
            done += len(batch)
        return AckResult(confirmed, calls)

    def _acknowledge(self, keys: list[str]) -> bool:
        """Whether the server accepted them: anything but 202 is not an acknowledgement."""
        body = {"data": {"ack_keys": keys}}
        try:
            response = self.http.post("/v2/sync/ack", json=body, headers=self._device(), repeat=True)
        except Forbidden as error:
            raise explain_scope(error, "sync") from None
        self._note_time(response)
        return response.status == _ACCEPTED

    # ------------------------------------------------------------------ reads for repair

    def read_one(self, entity: Entity, object_id: str) -> bytes | None:
        """The record of one object as the Core API shows it now, or None where it says that there is none.

        Raises:
            Forbidden: the token lacks the scope for this type.
            ApiError: any other failure; also a 404 or 410 that speaks of the path and not of the record.
        """
        name = "self" if entity is Entity.ACCOUNTS else quote_segment(object_id)
        try:
            data = self._read_of(entity, f"/v2/{entity.value}/{name}", _data_of)
        except NotFound as error:
            if error.gone or not entity.list_paths:
                raise
            self._prove(entity)
            return None
        return data if str(_read_identity(data).id) == object_id else None

    def _prove(self, entity: Entity) -> None:
        """A 404 says something of a record only where the endpoint itself answers: a wrong path gives 404 as well."""
        if entity not in self._proved:
            self._read_of(entity, f"/v2/{entity.list_paths[0]}", read_rows, {"page": 1, "per_page": 1})
            self._proved.add(entity)

    def read_many(self, entity: Entity, object_ids: Sequence[str]) -> dict[str, list[bytes]] | None:
        """Records of up to 100 objects by one request to each list; what is absent is not visible now.

        An id has several records where REST keeps in several lists what the queue calls one type. None where the
        server does not filter by `ids`, so that the list would have to be read as a whole.

        Raises:
            Forbidden: the token lacks the scope for this type.
            ApiError: any other failure.
        """
        found: dict[str, list[bytes]] = {}
        for path in entity.list_paths:
            missing = set(object_ids)
            if path in self._unfiltered:
                return None
            for data in self._walk(entity, f"/v2/{path}", {"ids": ",".join(object_ids)}):
                object_id = str(_read_identity(data).id)
                if object_id in missing:
                    missing.remove(object_id)
                    found.setdefault(object_id, []).append(data)
                elif entity.has_single_reads and object_id not in found:
                    self._unfiltered.add(path)
                    return None
                if not missing:
                    break
        return found

    def read_associated(self, deal_id: str) -> dict[str, bytes]:
        """All associated contacts of a deal by their contact's id; the deal's id, which REST leaves out, is put in."""
        found: dict[str, bytes] = {}
        try:
            path = f"/v2/deals/{quote_segment(deal_id)}/associated_contacts"
            for data in self._walk(Entity.ASSOCIATED_CONTACTS, path, {}):
                fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
                fields["deal_id"] = msgspec.Raw(deal_id.encode())
                found[str(_read_identity(data).contact_id)] = msgspec.json.encode(fields)
        except NotFound as error:
            if error.gone:
                raise
            self._prove(Entity.DEALS)
        return found

    def _walk(self, entity: Entity, path: str, params: dict[str, str]) -> Iterator[bytes]:
        """All records of a list, page by page; only an empty page is its end."""
        page = 1
        while True:
            query: dict[str, str | int] = {**params, "page": page, "per_page": PER_PAGE, "sort_by": "id"}
            records = self._read_of(entity, path, _records_of, query)
            self._proved.add(entity)
            if not records:
                return
            yield from records
            page += 1

    def _read_of(
        self,
        entity: Entity,
        path: str,
        decode: Callable[[Response], T],
        params: dict[str, str | int] | None = None,
    ) -> T:
        try:
            return self._read(path, decode, params=params)
        except Forbidden as error:
            scope = "profile" if entity in (Entity.ACCOUNTS, Entity.USERS) else "read"
            raise explain_scope(error, scope) from None

    # ------------------------------------------------------------------ common

    def _read(
        self,
        path: str,
        decode: Callable[[Response], T],
        *,
        params: dict[str, str | int] | None = None,
        headers: dict[str, str] | None = None,
    ) -> T:
        response, content = self.http.read(path, decode, params=params, headers=headers)
        self._note_time(response)
        return content

    def _note_time(self, response: Response | None) -> None:
        """Remember the server's time; where it never tells, this machine's."""
        date = response.server_time if response is not None else self.http.server_time
        if date is not None or self._seen is None:
            self._seen = (date or self._clock.now(), self._clock.monotonic())

    def _device(self) -> dict[str, str]:
        return {_DEVICE_HEADER: self.device_uuid}


def connect(
    settings: Settings,
    *,
    clock: Clock | None = None,
    random: Random | None = None,
    step: Step = no_step,
    transport: Transport | None = None,
    budget: Budget | None = None,
) -> SellClient:
    """A client for the account whose token the settings hold.

    Raises:
        SettingsError: a variable is missing.
    """
    missing = settings.missing("sell")
    if missing or settings.sell_access_token is None or settings.sell_device_uuid is None:
        raise SettingsError(f"Sell is not configured: set {' and '.join(missing)}")
    token = settings.sell_access_token.get_secret_value()
    refusals = shared_shortages(settings.sell_api_url, token)[1] if clock is None else None
    clock = clock or SystemClock()
    http = HttpClient(
        system="sell",
        base_url=settings.sell_api_url,
        headers={"Authorization": f"Bearer {token}"},
        secrets=[token],
        sandbox=settings.rally_pipeline_sandbox,
        read_only=settings.rally_pipeline_read_only,
        consuming=(QUEUE_ROOT,),
        transport=transport,
        budget=budget or TokenBudget(RATES, clock=clock, state_path=_budget_file(settings), system="sell"),
        bucket=RetryBucket(refusals=refusals),
        policy=RETRIES,
        clock=clock,
        random=random,
        step=step,
    )
    return SellClient(http, device_uuid=_canonical(settings.sell_device_uuid), clock=clock)


def _canonical(uuid: str) -> str:
    """One spelling for the server, as for the warehouse: to the server another spelling may be another device."""
    try:
        return str(UUID(uuid))
    except ValueError:
        return uuid  # the device's own check refuses it, where it is about to be used


def _session_of(response: Response) -> str | None:
    return None if response.status == _NO_CONTENT else decode(response, _StartBody).data.id


def _page_of(response: Response) -> QueuePage | None:
    return None if response.status == _NO_CONTENT else read_page(response)


def _data_of(response: Response) -> bytes:
    return bytes(memoryview(decode(response, _Record).data))


def _records_of(response: Response) -> list[bytes]:
    """The records of a list, each out of its envelope.

    Raises:
        BadAnswer: it is no list of records.
    """
    try:
        return [bytes(memoryview(_read_record(row).data)) for row in read_rows(response)]
    except (msgspec.MsgspecError, RecursionError) as error:
        raise bad_answer(response, f"a row that is no record: {error!s:.120}") from None


def _budget_file(settings: Settings) -> Path:
    """Where the processes that use this home share the token's rate."""
    return settings.home_path / "sell-rate.json"
