"""SignalSmith's API as its documentation describes it: paths, headers, envelopes, status codes, errors."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from rally_pipeline.sandbox.api import ControlError
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.limiter import Admission, FixedWindow, Limiter, SeveralWindows, Unlimited
from rally_pipeline.sandbox.wire import Answer, Call, MalformedBodyError

from .catalogs import RAW_ROWS, CatalogMaker
from .controls import Controls
from .engine import RunEngine
from .health import sync_health
from .store import Run, Sync, instant
from .switches import Switches
from .validation import InvalidBodyError, check_create, check_update

TOKEN = "sk_live_sandbox_signalsmith"  # noqa: S105 - opens the sandbox only
WORKSPACE_ID = "a1d49c1e-77b2-4f0e-8f55-0d4f3d0d6a11"
ACCOUNT_ID = "account-1"
_OPTIONS = {"syncs", "hostile", "timezone", "limit_per_minute", "limit_per_second", "switches"}


class SignalSmithApi:
    """One workspace.

    Options: `syncs` (None: the two of the demo; a number: that many plain ones), `hostile` (adds a catalog
    full of traps), `timezone` of the workspace, `limit_per_minute` and `limit_per_second` (None: no limit),
    `switches`.
    """

    prefix = "/signalsmith"

    def __init__(
        self, *, seed: int, clock: SandboxClock, random: random.Random, options: Mapping[str, Any]
    ) -> None:
        unknown = sorted(set(options) - _OPTIONS)
        if unknown:
            raise ControlError(
                f"signalsmith has no option {', '.join(unknown)}: {', '.join(sorted(_OPTIONS))}"
            )
        self.seed = seed
        self.clock = clock
        self.dice = random
        self.limiter = _limiter(options.get("limit_per_minute", 100), options.get("limit_per_second", 20))
        switches = Switches().changed(options.get("switches", {}))
        zone = str(options.get("timezone", "UTC"))
        self.engine = RunEngine(random, switches, WORKSPACE_ID, zone, clock.now())
        self.maker = CatalogMaker(random, WORKSPACE_ID, clock.now())
        self.models: dict[str, dict[str, Any]] = {}
        self.destinations: dict[str, dict[str, Any]] = {}
        self.raw_rows: list[object] = []
        self.outage: str | None = None
        self._controls = Controls(self)
        self._fill(options.get("syncs"), hostile=bool(options.get("hostile", False)))

    @property
    def switches(self) -> Switches:
        return self.engine.switches

    def settle(self) -> datetime:
        """Bring the server's own activity up to the clock; gives the present moment."""
        now = self.clock.now()
        self.engine.settle(now)
        return now

    def handle(self, call: Call) -> Answer:
        self.engine.settle(call.at)
        try:
            answer = self._route(call, call.segments(f"{self.prefix}/api/v1"))
        except InvalidBodyError as error:
            return self._error(400, str(error))
        except MalformedBodyError as error:
            return self._error(400, f"invalid JSON body: {error}")
        return answer

    def throttled(self, call: Call, admission: Admission) -> Answer:
        del call
        answer = self._error(429, "rate limit exceeded")
        answer.headers.setdefault("Retry-After", str(max(1, round(admission.wait_seconds + 0.5))))
        return answer

    def truth(self) -> dict[str, Any]:
        self.settle()
        return {
            "syncs": [dict(sync.fields) for sync in self.engine.syncs.values()],
            "runs": [run.shown(self.clock.now()) for run in self.engine.runs.values()],
            "models": list(self.models.values()),
            "destinations": list(self.destinations.values()),
        }

    def truth_lines(self, kind: str | None = None) -> Iterator[bytes]:
        found = self.truth()
        return iter(
            [
                json.dumps({"kind": name, "record": record}, ensure_ascii=True).encode() + b"\n"
                for name, records in found.items()
                if kind in (None, name)
                for record in records
            ]
        )

    def control(self, verb: str, body: dict[str, Any]) -> object:
        self.settle()
        return self._controls.do(verb, body)

    def environment(self, url: str) -> dict[str, str]:
        return {
            "SIGNALSMITH_API_URL": f"{url}{self.prefix}/api/v1",
            "SIGNALSMITH_API_TOKEN": TOKEN,
            "SIGNALSMITH_WORKSPACE_ID": WORKSPACE_ID,
        }

    def find(self, sync_id: str) -> Sync:
        """A sync by id. Raises `ControlError`."""
        sync = self.engine.syncs.get(sync_id)
        if sync is None:
            raise ControlError(f"there is no sync {sync_id}")
        return sync

    def _fill(self, count: int | None, *, hostile: bool) -> None:
        syncs, models, destinations = self.maker.demo()
        self.models = {model["id"]: model for model in models}
        self.destinations = {destination["id"]: destination for destination in destinations}
        model_id, destination_id = models[0]["id"], destinations[0]["id"]
        if count is not None:
            syncs = self.maker.plain(count, model_id, destination_id)
        if hostile:
            self.raw_rows = list(RAW_ROWS)
            syncs += self.maker.hostile(model_id, destination_id)
        for fields in syncs:
            sync = Sync(fields)
            if hostile and (
                sync.id in self.engine.syncs or not isinstance(fields["id"], str) or not fields["id"]
            ):
                self.raw_rows.append(fields)
            else:
                self.engine.add(sync)

    def _route(self, call: Call, parts: list[str]) -> Answer:
        refusal = self._refuse(call, parts)
        if refusal is not None:
            return refusal
        match (call.method, *parts):
            case ("GET", "workspaces"):
                return self._list([self._workspace()], call)
            case ("GET", "workspaces", _):
                return self._json(self._workspace())
            case ("GET", "workspaces", _, "settings"):
                return self._json(self._settings())
            case ("PUT", "workspaces", _, "settings"):
                return self._change_settings(call)
            case ("GET", "workspaces", _, "insights", "sync-health"):
                return self._json(sync_health(self.engine, call.at, call.first("days")))
            case ("GET", "workspaces", _, ("models" | "destinations") as kind):
                return self._list(list(self._records(kind).values()), call)
            case ("GET", "workspaces", _, ("models" | "destinations") as kind, key):
                record = self._records(kind).get(key)
                return self._json(record) if record else self._error(404, f"{kind[:-1]} not found")
            case (_, "workspaces", _, "syncs", *rest):
                return self._route_sync(call, rest)
        return self._error(404, "not found")

    def _refuse(self, call: Call, parts: list[str]) -> Answer | None:
        if self.outage:
            return Answer.text(self.outage, 503, "text/html")
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token != TOKEN:
            return self._error(401, "missing or invalid token")
        if len(parts) > 1 and parts[0] == "workspaces":
            if parts[1] != WORKSPACE_ID:
                return self._error(403, "no access to this workspace")
            if call.headers.get("x-workspace-id") != parts[1]:
                return self._error(403, "X-Workspace-ID does not match the workspace in the path")
        if (
            call.method in ("POST", "PUT")
            and call.body
            and "json" not in call.headers.get("content-type", "")
        ):
            return self._error(400, "Content-Type must be application/json")
        return None

    def _route_sync(self, call: Call, rest: list[str]) -> Answer:
        match (call.method, *rest):
            case ("GET",):
                visible = [self._shown_sync(sync, call.at) for sync in self.engine.syncs.values()]
                return self._list([*visible, *self.raw_rows], call)
            case ("POST",):
                return self._create(call)
            case (_, sync_id, *more) if sync_id in self.engine.syncs:
                return self._route_one(call, self.engine.syncs[sync_id], more)
            case (_, _, *_):
                return self._error(404, "sync not found")
        return self._error(405, "method not allowed")

    def _route_one(self, call: Call, sync: Sync, rest: list[str]) -> Answer:
        match (call.method, *rest):
            case ("GET",):
                return self._json(self._shown_sync(sync, call.at))
            case ("PUT",):
                return self._update(call, sync)
            case ("DELETE",):
                del self.engine.syncs[sync.id]
                return self._json({"status": "deleted"})
            case ("POST", "trigger"):
                return self._trigger(call, sync)
            case ("GET", "runs"):
                return self._list([run.shown(call.at) for run in self._run_list(sync, call.at)], call)
            case ("GET", "runs", run_id):
                run = self.engine.runs.get(run_id)
                if run is None or run.sync_id != sync.id:
                    return self._error(404, "run not found")
                return self._json(run.shown(call.at))
        return self._error(405, "method not allowed")

    def _create(self, call: Call) -> Answer:
        fields = check_create(call.json(), self.models, self.destinations)
        status = self.switches.created_status or ("active" if fields.get("schedule") else "draft")
        sync = Sync(self.maker.sync(**{**fields, "status": status, "created_by": ACCOUNT_ID}))
        sync.fields |= {"created_at": instant(call.at), "updated_at": instant(call.at)}
        self.engine.add(sync)
        return self._written(sync, 201)

    def _update(self, call: Call, sync: Sync) -> Answer:
        changes = check_update(call.json(), self.models, self.destinations)
        sync.fields |= {**changes, "updated_at": instant(call.at)}
        if changes.get("status") not in (None, "error"):
            sync.fields["status_error"] = ""
        if {"status", "schedule"} & set(changes):
            self.engine.replan(sync)
        return self._written(sync, 200)

    def _trigger(self, call: Call, sync: Sync) -> Answer:
        status = str(sync.fields.get("status"))
        code = {
            "paused": self.switches.trigger_paused,
            "draft": self.switches.trigger_draft,
            "error": self.switches.trigger_error,
        }.get(status, 201)
        if code != 201:
            return self._error(code, f"cannot trigger a sync that is {status}")
        if self.engine.live(sync) and self.switches.busy != "queue":
            return self._error(
                409 if self.switches.busy == "conflict" else 400, "a run of this sync is already in progress"
            )
        run = self.engine.start(sync, call.at, ACCOUNT_ID)
        return self._json(run.shown(call.at), 201)

    def _run_list(self, sync: Sync, at: datetime) -> list[Run]:
        oldest = at - timedelta(seconds=self.switches.list_lag_seconds)
        found = [
            self.engine.runs[run_id] for run_id in sync.runs if self.engine.runs[run_id].created <= oldest
        ]
        if self.switches.run_order == "newest":
            found.reverse()
        elif self.switches.run_order == "shuffled":
            self.dice.shuffle(found)
        return found[: self.switches.run_cap]

    def _shown_sync(self, sync: Sync, at: datetime) -> dict[str, Any]:
        shown = dict(sync.fields)
        if self.switches.list_lag_seconds and shown.get("last_run_id"):
            visible = self._run_list(sync, at)
            shown["last_run_id"] = max(visible, key=lambda run: run.created).id if visible else None
        if self.switches.extra_fields:
            shown |= {"owner": {"team": "growth"}, "priority": 3, "sync_mode_v2": "smart"}
        if self.switches.sparse:
            shown = {key: value for key, value in shown.items() if value not in (None, "")}
        return shown

    def _written(self, sync: Sync, status: int) -> Answer:
        if self.switches.write_answer == "status":
            return self._json({"status": "ok"}, status)
        return self._json(dict(sync.fields), status)

    def _records(self, kind: str) -> dict[str, dict[str, Any]]:
        return self.models if kind == "models" else self.destinations

    def _workspace(self) -> dict[str, Any]:
        return {"id": WORKSPACE_ID, "name": "Sandbox", "slug": "sandbox", "settings": self._settings()}

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"data_retention_days": 30}
        *nests, name = self.switches.timezone_key.split(".")
        if name:
            inner = settings
            for nest in nests:
                inner = inner.setdefault(nest, {})
            inner[name] = self.engine.zone
        return settings

    def _change_settings(self, call: Call) -> Answer:
        body = call.json()
        zone = body.get("timezone") if isinstance(body, dict) else None
        if isinstance(zone, str):
            self._controls.do("set_timezone", {"timezone": zone})
        return self._json(self._settings())

    def _list(self, rows: list[Any], call: Call) -> Answer:
        """The bare array of the reference pages, or the object of the general rule."""
        if not self.switches.paginate:
            return self._json(rows)
        page = max(1, int(call.first("page") or 1))
        size = min(100, max(1, int(call.first("page_size") or 20)))
        part = rows[(page - 1) * size : page * size]
        return self._json({"data": part, "pagination": {"page": page, "page_size": size, "total": len(rows)}})

    def _json(self, value: object, status: int = 200) -> Answer:
        return Answer.json(value, status)

    def _error(self, status: int, text: str) -> Answer:
        if self.switches.bare_error:
            return Answer.text(f"<html><body><h1>{text}</h1></body></html>", status, "text/html")
        return Answer.json({"error": text}, status)


def _limiter(per_minute: int | None, per_second: int | None) -> Limiter:
    windows = [
        FixedWindow(limit, seconds, announce=False, retry_after="seconds")
        for limit, seconds in ((per_minute, 60.0), (per_second, 1.0))
        if limit is not None
    ]
    return SeveralWindows(windows) if windows else Unlimited()
