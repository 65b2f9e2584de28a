"""What a test can do to the workspace that its users cannot, by verb (see `VERBS`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rally_pipeline.sandbox.api import ControlError

from .engine import planned
from .store import Run, Sync

if TYPE_CHECKING:
    from .api import SignalSmithApi


class Controls:
    """The control verbs.

    | verb | body | does |
    | --- | --- | --- |
    | `switch` | switches | sets undocumented behaviour |
    | `plan_run` | `sync`, parts of a plan, `times` | decides what the coming runs of a sync are like |
    | `start_run` | `sync`, `triggered_by` | a run started by somebody in the UI |
    | `cancel_run`, `finish_run` | `run`, `outcome`, `error` | ends a run now |
    | `forget_run` | `run` | the run vanishes, as by retention |
    | `row_errors` | `run` | the rows that failed |
    | `edit_sync` | `sync`, `fields` | changes any field, unchecked |
    | `add_sync` | fields | adds a sync, unchecked |
    | `remove_sync` | `sync` | the sync vanishes |
    | `raw_rows` | `rows` | the list also shows these rows, whatever they are |
    | `set_timezone` | `timezone` | the workspace's zone |
    | `spend` | `requests` | other users of the workspace use the rate limit |
    | `outage` | `page` | every call answers 503 with this page; null ends it |
    | `mutate` | | a small random change of some sync, for `dev` |
    | `runs_started` | | every run ever made: when, sync, run |
    """

    def __init__(self, api: SignalSmithApi) -> None:
        self._api = api
        self.verbs: dict[str, Callable[[dict[str, Any]], object]] = {
            "switch": self._switch,
            "plan_run": self._plan_run,
            "start_run": self._start_run,
            "cancel_run": lambda body: self._end(body, "cancelled"),
            "finish_run": lambda body: self._end(body, str(body.get("outcome", "completed"))),
            "forget_run": self._forget_run,
            "row_errors": lambda body: self._run(body).row_errors,
            "edit_sync": self._edit_sync,
            "add_sync": self._add_sync,
            "remove_sync": self._remove_sync,
            "raw_rows": self._set_raw_rows,
            "set_timezone": self._set_timezone,
            "spend": self._spend,
            "outage": self._set_outage,
            "mutate": self._mutate,
            "runs_started": self._runs_started,
        }

    def do(self, verb: str, body: dict[str, Any]) -> object:
        """Raises `ControlError` for an unknown verb or a wrong body."""
        if verb not in self.verbs:
            raise ControlError(f"signalsmith has no verb {verb}: choose from {', '.join(sorted(self.verbs))}")
        return self.verbs[verb](body)

    def _sync(self, body: dict[str, Any]) -> Sync:
        return self._api.find(str(body.get("sync")))

    def _run(self, body: dict[str, Any]) -> Run:
        run = self._api.engine.runs.get(str(body.get("run")))
        if run is None:
            raise ControlError(f"there is no run {body.get('run')}")
        return run

    def _switch(self, body: dict[str, Any]) -> object:
        engine = self._api.engine
        engine.switches = engine.switches.changed(body)
        engine.replan_all()
        return body

    def _plan_run(self, body: dict[str, Any]) -> object:
        sync, times = self._sync(body), int(body.get("times", 1))
        parts = {key: value for key, value in body.items() if key not in ("sync", "times")}
        try:
            sync.plans += [planned(self._api.engine, **parts) for _ in range(times)]
        except TypeError as error:
            raise ControlError(str(error)) from None
        return len(sync.plans)

    def _start_run(self, body: dict[str, Any]) -> object:
        by = body.get("triggered_by", "somebody")
        return self._api.engine.start(self._sync(body), self._api.clock.now(), by).id

    def _end(self, body: dict[str, Any], outcome: str) -> object:
        run = self._run(body)
        self._api.engine.finish(run, self._api.clock.now(), outcome, str(body.get("error", "")))
        return run.status

    def _forget_run(self, body: dict[str, Any]) -> object:
        self._api.engine.forget(self._run(body).id)
        return None

    def _edit_sync(self, body: dict[str, Any]) -> object:
        sync = self._sync(body)
        sync.fields |= body.get("fields", {})
        self._api.engine.replan(sync)
        return dict(sync.fields)

    def _add_sync(self, body: dict[str, Any]) -> object:
        api = self._api
        ids = {"model_id": next(iter(api.models)), "destination_id": next(iter(api.destinations))}
        sync = Sync(api.maker.sync(**{**ids, **body}))
        api.engine.add(sync)
        return dict(sync.fields)

    def _remove_sync(self, body: dict[str, Any]) -> object:
        del self._api.engine.syncs[self._sync(body).id]
        return None

    def _set_raw_rows(self, body: dict[str, Any]) -> object:
        self._api.raw_rows = list(body.get("rows", []))
        return len(self._api.raw_rows)

    def _set_timezone(self, body: dict[str, Any]) -> object:
        zone = str(body.get("timezone"))
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ControlError(f"{zone} is no time zone") from None
        self._api.engine.zone = zone
        self._api.engine.replan_all()
        return zone

    def _spend(self, body: dict[str, Any]) -> object:
        self._api.limiter.spend(int(body.get("requests", 1)), self._api.clock.now())
        return None

    def _set_outage(self, body: dict[str, Any]) -> object:
        self._api.outage = body.get("page")
        return self._api.outage

    def _mutate(self, _body: dict[str, Any]) -> object:
        syncs = list(self._api.engine.syncs.values())
        if not syncs:
            return None
        sync = self._api.dice.choice(syncs)
        sync.fields["description"] = f"edited at {self._api.clock.now():%H:%M:%S}"
        return sync.id

    def _runs_started(self, _body: dict[str, Any]) -> object:
        return [
            {"at": at.isoformat(), "sync": sync_id, "run": run_id}
            for at, sync_id, run_id in self._api.engine.started
        ]
