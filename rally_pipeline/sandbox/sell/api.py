"""The Sell API as one door: who may come in, which part answers, and the verbs that tests steer it with."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from rally_pipeline.sandbox.api import ControlError, lines_of
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.limiter import Admission, FixedWindow, Limiter, SeveralWindows, Unlimited
from rally_pipeline.sandbox.matching import RequestMatch
from rally_pipeline.sandbox.sell.errors import RefusalError
from rally_pipeline.sandbox.sell.options import SellOptions
from rally_pipeline.sandbox.sell.reads import CoreReads
from rally_pipeline.sandbox.sell.sessions import SyncService
from rally_pipeline.sandbox.sell.world import World
from rally_pipeline.sandbox.wire import Answer, Call, MalformedBodyError

TOKEN_LENGTH = 64
_PROFILE_PATHS = frozenset({"accounts", "users"})


@dataclass
class PlannedRefusal:
    """An answer that a test asked for, in Sell's own envelope, for requests that match."""

    match: RequestMatch
    status: int
    applied: bool
    """Whether the request takes effect before it is refused."""
    after: int
    times: int | None
    code: str | None
    retry_after: int | None
    seen: int = 0
    played: int = 0

    def strikes(self, call: Call) -> bool:
        if not self.match.fits("sell", call):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.played >= self.times):
            return False
        self.played += 1
        return True


class SellApi:
    """Zendesk Sell, simulated: `/v2/sync/…` and the Core API's reads."""

    prefix = "/sell"

    def __init__(
        self, *, seed: int, clock: SandboxClock, random: random.Random, options: Mapping[str, Any]
    ) -> None:
        self.options = SellOptions.of(options)
        self._clock = clock
        self._dice = random
        self.token = f"test_sell_{seed:08x}_".ljust(TOKEN_LENGTH, "k")
        self.device_uuid = str(UUID(int=random.getrandbits(128), version=4))
        self.world = World(
            random, clock, records=self.options.records, unknown=self.options.unknown_type_records
        )
        self.sync = SyncService(self.world, self.options, random)
        self.reads = CoreReads(self.world, self.options)
        self.limiter: Limiter = Unlimited()
        self._limit()
        self._planned: list[PlannedRefusal] = []
        self._requests = 0
        self._requests_left: int | None = None

    def handle(self, call: Call) -> Answer:
        """Answer a request; refusals come in the documented envelope."""
        self._requests += 1
        reference = f"{self._requests:08x}-5e11-4000-8000-000000000000"
        try:
            answer = self._answer(call, reference)
        except RefusalError as refusal:
            answer = refusal.answer(reference)
        answer.headers["X-Request-Id"] = reference
        answer.headers.setdefault("Content-Language", "en")
        return answer

    def throttled(self, _call: Call, admission: Admission) -> Answer:
        """The 429 of the rate limit."""
        answer = RefusalError(429, "The rate limit is exceeded").answer("0")
        if self.options.retry_after:
            answer.headers["Retry-After"] = str(max(1, round(admission.wait_seconds + 0.5)))
        return answer

    def truth(self) -> dict[str, Any]:
        """All present objects by plural type name, unknown types included."""
        found: dict[str, list[Any]] = {}
        for thing in self.world.live():
            found.setdefault(f"{thing.kind}s", []).append(msgspec.json.decode(thing.current.data or b"null"))
        return found

    def truth_lines(self, kind: str | None = None) -> Iterator[bytes]:
        """The same as JSON lines."""
        return lines_of(self.truth(), kind)

    def environment(self, url: str) -> dict[str, str]:
        """The variables that point the pipeline here."""
        return {
            "SELL_API_URL": f"{url}{self.prefix}",
            "SELL_ACCESS_TOKEN": self.token,
            "SELL_DEVICE_UUID": self.device_uuid,
        }

    def switch(self, **options: Any) -> None:
        """Change options. Raises `ControlError`."""
        self.options.change(options)
        if options.keys() & {"limit_per_second", "limit_per_hour"}:
            self._limit()

    def refuse(
        self,
        status: int,
        *,
        path: str | None = None,
        method: str | None = None,
        applied: bool = False,
        after: int = 0,
        times: int | None = 1,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> PlannedRefusal:
        """Refuse matching requests from now on; `path` is a glob that may leave out the front."""
        match = RequestMatch("sell", method, path)
        planned = PlannedRefusal(match, status, applied, after, times, code, retry_after)
        self._planned.append(planned)
        return planned

    def forgive(self) -> None:
        """Forget all planned refusals, and let the token work again."""
        self._planned = []
        self._requests_left = None

    def expire_token(self, *, after_requests: int = 0) -> None:
        """Let the token stop working after so many more requests."""
        self._requests_left = after_requests

    def control(self, verb: str, body: dict[str, Any]) -> object:
        """The verbs that tests over HTTP use; see `_verbs`."""
        verbs = self._verbs(dict(body))
        if verb not in verbs:
            raise ControlError(f"Sell has no verb '{verb}': choose from {', '.join(sorted(verbs))}")
        try:
            return verbs[verb]()
        except (TypeError, KeyError, ValueError) as error:
            raise ControlError(f"Sell cannot '{verb}' with these values: {error}") from None

    def _verbs(self, body: dict[str, Any]) -> dict[str, Any]:
        world, sync = self.world, self.sync

        def name(thing: Any) -> dict[str, str]:
            return {"type": thing.kind, "id": thing.id}

        return {
            "mutate": lambda: world.mutate(int(body["changes"])),
            "create": lambda: name(world.create(body["type"], body.get("fields", {}))),
            "update": lambda: name(world.update(body["type"], body["id"], body.get("fields"))),
            "delete": lambda: name(world.delete(body["type"], body["id"])),
            "revive": lambda: name(world.revive(body["type"], body["id"])),
            "switch": lambda: self.switch(**body),
            "refuse": lambda: self.refuse(**body).played,
            "forgive": self.forgive,
            "expire_token": lambda: self.expire_token(**body),
            "fail": lambda: sync.failing.update({(body["type"], str(body["id"])): body.get("times", 1)}),
            "hide": lambda: self.reads.hidden.add((body["type"], str(body["id"]))),
            "show": lambda: self.reads.hidden.discard((body["type"], str(body["id"]))),
            "inject": lambda: sync.inject(msgspec.json.encode(body["item"]), body.get("ack_key")).number,
            "redeliver": lambda: (
                sync.redeliver(world.thing(body["type"], body["id"]), back=int(body.get("back", 1))).number
            ),
            "report": self._report,
        }

    def _report(self) -> dict[str, Any]:
        now = self._clock.now()
        return {
            "devices": {device.uuid: len(device.memory) for device in self.sync.devices.values()},
            "active_sessions": len(self.sync.active(now)),
            "sessions": len(self.sync.sessions),
            "acks": list(self.sync.acks),
            "unknown_keys": list(self.sync.unknown_keys),
        }

    def _answer(self, call: Call, reference: str) -> Answer:
        planned = next((refusal for refusal in self._planned if refusal.strikes(call)), None)
        if planned is not None:
            if planned.applied:
                self._route(call)
            answer = RefusalError(planned.status, "Refused as planned", code=planned.code).answer(reference)
            if planned.retry_after is not None:
                answer.headers["Retry-After"] = str(planned.retry_after)
            return answer
        return self._route(call)

    def _route(self, call: Call) -> Answer:
        if self.options.retired:
            raise RefusalError(410, "This API has been retired", code="gone")
        self._check_headers(call)
        segments = call.segments(self.prefix)
        if not segments or segments[0] != "v2":
            raise RefusalError(404, "The path does not exist", code="incorrect_path")
        match (call.method, segments[1:]):
            case ("POST", ["sync", "start"]):
                return self._start(call)
            case ("GET", ["sync", session, "queues", "main"]):
                return self._fetch(call, session)
            case ("POST", ["sync", "ack"]):
                return self._acknowledge(call)
            case (_, ["sync", *_]):
                raise RefusalError(404, "The path does not exist", code="incorrect_path")
            case (_, [first, *_]):
                self._need("profile" if first in _PROFILE_PATHS else "read")
                return self.reads.answer(call, segments[1:])
        raise RefusalError(404, "The path does not exist", code="incorrect_path")

    def _check_headers(self, call: Call) -> None:
        if not call.headers.get("user-agent", "").strip():
            raise RefusalError(400, "The User-Agent header is missing", code="invalid_user_agent")
        accept = call.headers.get("accept", "*/*")
        if not any(kind in accept for kind in ("*/*", "application/*", "application/json")):
            raise RefusalError(406, "Only application/json can be produced")
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if self._requests_left is not None:
            if self._requests_left <= 0:
                raise RefusalError(401, "The access token expired")
            self._requests_left -= 1
        well_formed = len(token) == TOKEN_LENGTH and token.split() == [token]
        if scheme != "Bearer" or token != self.token or (self.options.strict_token and not well_formed):
            raise RefusalError(401, "The access token is missing or invalid")

    def _need(self, scope: str) -> None:
        if scope not in self.options.scopes:
            raise RefusalError(403, f"The access token lacks the scope {scope}", code="insufficient_scope")

    def _device(self, call: Call) -> str:
        self._need("sync")
        uuid = call.headers.get("x-basecrm-device-uuid", "").strip()
        if not uuid:
            raise RefusalError(400, "The X-Basecrm-Device-UUID header is missing", code="invalid_header")
        return uuid

    def _start(self, call: Call) -> Answer:
        session = self.sync.start(self._device(call), call.at)
        if session is None:
            return Answer.empty(204)
        total = len(session.entries)
        pages = -(-total // self.options.page_size)
        if self.options.counts_lie:
            pages, total = 1, 1
        link = f"https://elsewhere.invalid/v2/sync/{session.id}/queues/main"
        queue = {
            "data": {"name": "main", "pages": pages, "total_count": total},
            "meta": {"type": "sync_queue", "links": {"self": link}},
        }
        body = {"data": {"id": session.id, "queues": [queue]}, "meta": {"type": "sync_session"}}
        return Answer.json(body, 201)

    def _fetch(self, call: Call, session_id: str) -> Answer:
        page = self.sync.fetch(session_id, self._device(call), call.at)
        if page is None:
            return Answer.empty(204)
        items, failed, left = page
        names = [{"type": thing.kind, "id": _plain_id(thing.id)} for thing in failed]
        count_left = 0 if self.options.counts_lie else left
        meta = b'{"type":"collection","count":%d,"count_left":%d,"failed_objects":%b}'
        body = b'{"items":[%b],"meta":%b}' % (
            b",".join(items),
            meta % (len(items), count_left, msgspec.json.encode(names)),
        )
        return Answer.raw_json(body)

    def _acknowledge(self, call: Call) -> Answer:
        uuid = self._device(call)
        if "json" not in call.headers.get("content-type", ""):
            raise RefusalError(400, "The Content-Type has to be application/json", code="invalid_header")
        try:
            body = call.json()
        except MalformedBodyError as error:
            raise RefusalError(
                400, "The body is not JSON", code="invalid_payload", details=str(error)
            ) from None
        envelope = body.get("data") if isinstance(body, dict) else None
        keys = envelope.get("ack_keys") if isinstance(envelope, dict) else None
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise RefusalError(422, "data.ack_keys has to be an array of strings")
        self.sync.acknowledge(uuid, keys, call.at)
        return Answer.empty(202)

    def _limit(self) -> None:
        limits = [(self.options.limit_per_second, 1.0), (self.options.limit_per_hour, 3600.0)]
        windows = [
            FixedWindow(limit, seconds, aligned=False, announce=False)
            for limit, seconds in limits
            if limit is not None
        ]
        self.limiter = SeveralWindows(windows) if windows else Unlimited()


def _plain_id(identity: str) -> int | str:
    return int(identity) if identity.isdigit() else identity
