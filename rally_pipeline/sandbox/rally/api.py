"""The Rally API: routes, scopes, and the parts that answer them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rally_pipeline.sandbox.api import ControlError
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.limiter import Admission, FixedWindow, Limiter, Unlimited
from rally_pipeline.sandbox.wire import Answer, Call, MalformedBodyError

from .bulk import create_many
from .changes import read_changes
from .errors import RallyError, error_answer
from .files import FileExchange
from .guids import read_guid
from .keys import ApiKey, ApiKeys, Scope
from .lists import ListReader
from .mutations import Mutator
from .openapi import describe_api
from .population import Inventor, Populator, divide
from .qualification import Qualification
from .records import Record
from .schema import ENTITIES
from .steering import Steering
from .store import Moment, Store
from .switches import RallySwitches, changed_switches
from .tenant import Tenant
from .writes import Writer

BASE = "/rally/api/v1"
UNVERSIONED_BASE = "/rally/api"
Mounted = Callable[[Call, list[str]], Answer]
"""A handler of everything below one first path segment; gets the decoded segments after it."""


class Request(NamedTuple):
    """A call on its way through a route: who asks, what for, and when."""

    call: Call
    id: str
    key: ApiKey
    moment: Moment
    author: str | None
    """How the feed names the author of a change made with this key."""

    def body(self) -> Any:
        """The decoded JSON body. Raises `RallyError` 400, 415."""
        content_type = (
            self.call.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        )
        if content_type != "application/json" and not content_type.endswith("+json"):
            raise RallyError(415, "The body must be JSON.")
        try:
            return self.call.json()
        except MalformedBodyError as error:
            raise RallyError(400, f"The body is not JSON: {error}") from None


class Route(NamedTuple):
    """What answers one method of one path."""

    scope: Scope
    answer: Callable[[Request], Answer]


class RallyApi(Steering):
    """The simulated Rally CRM of one tenant.

    Options: `records` (a number over all entities, or numbers by entity), `keep_history`, and every switch of
    `RallySwitches` by its name. Test interfaces are those of `Steering`.
    """

    prefix = "/rally"

    def __init__(
        self, *, seed: int, clock: SandboxClock, random: random.Random, options: Mapping[str, Any]
    ) -> None:
        settings = dict(options)
        records = settings.pop("records", 5000)
        keep_history = bool(settings.pop("keep_history", False))
        switches = changed_switches(RallySwitches(), settings)
        self.seed = seed
        self.clock = clock
        self.lock = threading.RLock()
        self.limiter: Limiter = Unlimited()
        self.tenant = Tenant(_dice(random))
        self.keys = ApiKeys(clock, _dice(random))
        self.store = Store(self.tenant.id, switches, clock, _dice(random), keep_history=keep_history)
        self.writer = Writer(self.store, self.tenant, _dice(random))
        inventor = Inventor(self.tenant, _dice(random))
        Populator(self.store, self.tenant, inventor, _dice(random)).populate(divide(records))
        self.mutator = Mutator(self.store, self.writer, self.tenant, inventor, _dice(random))
        self.lists = ListReader(self.store, _dice(random))
        self.qualification = Qualification(self.store, self.writer)
        self.files = FileExchange(self.store, self.writer, self.tenant, self.keys, _dice(random))
        self._mounted: dict[str, Mounted] = {"importexport": self.files.handle}
        self._routes = self._make_routes()
        self.apply_switches(switches)

    # -- the API protocol ---------------------------------------------------------------------------------------

    def handle(self, call: Call) -> Answer:
        """Answer a request; what the client did wrong becomes an error answer."""
        with self.lock:
            if call.path == f"{self.prefix}/openapi.json":
                return Answer.json(describe_api())
            moment = self.store.moment()
            self.mutator.live(moment)
            self.files.catch_up()
            try:
                return self._dispatch(call, moment)
            except RallyError as error:
                return error_answer(error, self.store.switches)

    def throttled(self, call: Call, admission: Admission) -> Answer:
        """The 429."""
        del call
        seconds = f"{admission.wait_seconds:.0f}"
        error = RallyError(429, f"Rate limit exceeded. The window resets in {seconds} seconds.")
        return error_answer(error, self.store.switches)

    def truth(self) -> dict[str, Any]:
        """All present records by entity, decoded; numbers with a fraction are `Decimal`."""
        with self.lock:
            self.mutator.live(self.store.moment())
            return {entity: list(self.records(entity)) for entity in ENTITIES}

    def truth_lines(self, kind: str | None = None) -> Iterator[bytes]:
        """The truth as JSON lines, of one entity or of all."""
        if kind is not None and kind not in ENTITIES:
            raise ControlError(f"there is no entity '{kind}': choose one of {', '.join(ENTITIES)}")
        with self.lock:
            self.mutator.live(self.store.moment())
            chosen = [
                (name, list(self.store.collections[name].view("id")))
                for name in ENTITIES
                if kind in (None, name)
            ]
        return self._lines(chosen)

    def _lines(self, chosen: list[tuple[str, list[Record]]]) -> Iterator[bytes]:
        for name, records in chosen:
            head = b'{"kind":"%b","record":' % name.encode()
            for record in records:
                yield head + self.store.body(name, record) + b"}\n"

    def environment(self, url: str) -> dict[str, str]:
        """What points the pipeline here; the key may read and write."""
        return {"RALLY_API_URL": url + BASE, "RALLY_API_KEY": self.keys.secret("write")}

    def mount(self, segment: str, handler: Mounted) -> None:
        """Let `handler` answer everything below `/rally/api/v1/{segment}`; it may raise `RallyError`."""
        self._mounted[segment] = handler

    def apply_switches(self, switches: RallySwitches) -> None:
        """Put switches in force, the rate limit included."""
        self.store.set_switches(switches)
        if switches.limit_per_minute is None:
            self.limiter = Unlimited()
            return
        if not isinstance(self.limiter, FixedWindow):
            self.limiter = FixedWindow(switches.limit_per_minute)
        self.limiter.limit = switches.limit_per_minute
        self.limiter.window_seconds = switches.rate_window_seconds
        self.limiter.aligned = switches.rate_aligned
        self.limiter.announce = switches.rate_headers
        self.limiter.reset_unit = switches.rate_reset_unit
        self.limiter.retry_after = switches.rate_retry_after
        self.limiter.foreign_per_second = switches.foreign_per_second

    # -- routing ------------------------------------------------------------------------------------------------

    def _dispatch(self, call: Call, moment: Moment) -> Answer:
        base = BASE if call.path.startswith(f"{BASE}/") else UNVERSIONED_BASE
        if not call.path.startswith(f"{base}/"):
            raise RallyError(404, "There is no such endpoint.")
        segments = call.segments(base)
        if segments and segments[0] in self._mounted:
            return self._mounted[segments[0]](call, segments[1:])
        routes, record_id = self._find(segments)
        route = routes.get(call.method)
        if route is None:
            answer = error_answer(RallyError(405, "The method is not allowed."), self.store.switches)
            answer.headers["Allow"] = ", ".join(sorted(routes))
            return answer
        key = self.keys.authenticate(call, route.scope)
        author = key.author(self.store.switches.changed_by)
        return route.answer(Request(call, record_id, key, moment, author))

    def _find(self, segments: list[str]) -> tuple[dict[str, Route], str]:
        path = tuple(segments)
        if path in self._routes:
            return self._routes[path], ""
        record_id = read_guid(path[1]) if len(path) > 1 else None
        if record_id is not None:
            template = (path[0], "{id}", *path[2:])
            if template in self._routes:
                return self._routes[template], record_id
        raise RallyError(404, "There is no such endpoint.")

    def _make_routes(self) -> dict[tuple[str, ...], dict[str, Route]]:
        routes: dict[tuple[str, ...], dict[str, Route]] = {
            ("sync", "changes"): {"GET": Route("read", self._get_changes)},
            ("pipelines",): {"GET": Route("read", self._get_pipelines)},
            ("pipelines", "{id}"): {"GET": Route("read", self._get_pipeline)},
            ("deals", "{id}", "stage"): {"PATCH": Route("write", self._patch_stage)},
            ("deals", "{id}", "bant"): {
                "GET": Route("read", self._get_bant),
                "PUT": Route("write", self._put_bant),
            },
            ("api-keys",): {
                "GET": Route("admin", lambda _request: Answer.json(self.keys.list())),
                "POST": Route("admin", self._post_key),
            },
            ("api-keys", "{id}"): {
                "PATCH": Route("admin", self._patch_key),
                "DELETE": Route("admin", self._delete_key),
            },
        }
        for entity in ENTITIES:
            routes |= self._make_entity_routes(entity)
        return routes

    def _make_entity_routes(self, entity: str) -> dict[tuple[str, ...], dict[str, Route]]:
        def read_list(request: Request) -> Answer:
            return self.lists.read(entity, request.call, request.moment)

        def create(request: Request) -> Answer:
            record = self.writer.create(entity, request.body(), by=request.author)
            return Answer.raw_json(self.store.body(entity, record), self.store.switches.create_status)

        def read(request: Request) -> Answer:
            record = self.store.reading("records", request.moment)[0][entity].by_id.get(request.id)
            if record is None:
                raise self.writer.missing(entity, request.id)
            return Answer.raw_json(self.store.body(entity, record))

        def update(request: Request) -> Answer:
            merge = self.store.switches.put_mode == "merge"
            record = self.writer.update(entity, request.id, request.body(), merge=merge, by=request.author)
            return Answer.raw_json(self.store.body(entity, record))

        def delete(request: Request) -> Answer:
            self.writer.delete(entity, request.id, by=request.author)
            status = self.store.switches.delete_status
            return Answer.empty(status) if status == 204 else Answer.json({"id": request.id}, status)

        def upsert(request: Request) -> Answer:
            record, created = self.writer.upsert(entity, request.body(), by=request.author)
            status = self.store.switches.create_status if created else 200
            return Answer.raw_json(self.store.body(entity, record), status)

        def create_bulk(request: Request) -> Answer:
            return create_many(self.writer, entity, request.body(), by=request.author)

        routes: dict[tuple[str, ...], dict[str, Route]] = {
            (entity,): {"GET": Route("read", read_list), "POST": Route("write", create)},
            (entity, "bulk"): {"POST": Route("write", create_bulk)},
            (entity, "{id}"): {
                "GET": Route("read", read),
                "PUT": Route("write", update),
                "DELETE": Route("write", delete),
            },
        }
        if ENTITIES[entity].upsert_key:
            routes[entity, "upsert"] = {"PUT": Route("write", upsert)}
        return routes

    # -- endpoints beside the entities --------------------------------------------------------------------------

    def _get_changes(self, request: Request) -> Answer:
        self.keys.authenticate(request.call, self.store.switches.feed_scope)
        return read_changes(self.store, request.call, request.moment)

    def _get_pipelines(self, _request: Request) -> Answer:
        return Answer.json([pipeline.as_json() for pipeline in self.tenant.pipelines])

    def _get_pipeline(self, request: Request) -> Answer:
        pipeline = self.tenant.pipeline(request.id)
        if pipeline is None:
            raise RallyError(404, "Pipeline not found.")
        return Answer.json(pipeline.as_json())

    def _patch_stage(self, request: Request) -> Answer:
        record = self.writer.move_deal(request.id, request.body(), by=request.author)
        return Answer.raw_json(self.store.body("deals", record))

    def _get_bant(self, request: Request) -> Answer:
        return Answer.json(self.qualification.read(request.id))

    def _put_bant(self, request: Request) -> Answer:
        return Answer.json(self.qualification.write(request.id, request.body(), by=request.author))

    def _post_key(self, request: Request) -> Answer:
        return Answer.json(self.keys.create(request.body(), request.key.created_by), 201)

    def _patch_key(self, request: Request) -> Answer:
        return Answer.json(self.keys.change(request.id, request.body()))

    def _delete_key(self, request: Request) -> Answer:
        self.keys.revoke(request.id)
        return Answer.empty(204)


def _dice(source: random.Random) -> random.Random:
    return random.Random(source.getrandbits(64))  # noqa: S311 - repeatable dice, no secret
