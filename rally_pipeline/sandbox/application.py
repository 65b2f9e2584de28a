"""The sandbox: the simulated APIs behind one door, with their clock, request log, faults and scripts."""

from __future__ import annotations

import importlib
import inspect
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, cast

from .api import Api, ApiClass, ControlError
from .clock import SandboxClock
from .control import ControlRoutes
from .fault import Exchange
from .faults import FaultPlan
from .limiter import Admission
from .matching import RequestMatch
from .request_log import LogEntry, RequestLog
from .scripts import Action, Script
from .wire import Answer, Call

if TYPE_CHECKING:
    from .rally.api import RallyApi

MARKER = "rally_pipeline"
CONTROL_PREFIX = "/_sandbox"
API_CLASSES = {
    "rally": ("rally_pipeline.sandbox.rally", "RallyApi"),
    "sell": ("rally_pipeline.sandbox.sell", "SellApi"),
    "signalsmith": ("rally_pipeline.sandbox.signalsmith", "SignalSmithApi"),
}
"""Where each API lives. An API whose package is not there is not registered."""


class Sandbox:
    """The simulated APIs and what tests need to steer them.

    `records` is the number of Rally records over all four entities, or a number for each entity;
    `limit_per_minute` is Rally's rate limit (None: no limit). `keep_history` keeps every state of every
    Rally record. `request_seconds` is the sandbox time that each request takes on a virtual clock. The log
    keeps the last `log_limit` requests (None: all). `faults` names a profile. `apis` limits which APIs are
    built. `rally`, `sell` and `signalsmith` are the options of each API. With the
    same seed, settings, clock and calls, all answers are the same to the byte. Thread-safe: every call
    holds one lock.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        records: int | Mapping[str, int] = 5000,
        clock: SandboxClock | None = None,
        limit_per_minute: int | None = 1000,
        keep_history: bool = False,
        request_seconds: float = 0.0,
        log_limit: int | None = 250_000,
        faults: str | None = None,
        apis: Sequence[str] | None = None,
        rally: Mapping[str, Any] | None = None,
        sell: Mapping[str, Any] | None = None,
        signalsmith: Mapping[str, Any] | None = None,
    ) -> None:
        self.seed = seed
        self.clock = clock or SandboxClock()
        self.request_seconds = request_seconds
        self.log = RequestLog(log_limit)
        self.faults = FaultPlan(seed, self.clock)
        self.lock = threading.RLock()
        self._scripts: list[Script] = []
        self._scripts_made = 0
        rally_options = {
            "records": records,
            "limit_per_minute": limit_per_minute,
            "keep_history": keep_history,
        }
        options = {
            "rally": {**rally_options, **(rally or {})},
            "sell": sell or {},
            "signalsmith": signalsmith or {},
        }
        self.apis = self._build(apis, options)
        self._control = ControlRoutes(self)
        if faults is not None:
            self.faults.use_profile(faults)

    @property
    def rally(self) -> RallyApi:
        """The Rally API with all its test interfaces."""
        return cast("RallyApi", self.apis["rally"])

    @property
    def sell(self) -> Any:
        """The Sell API. Raises `KeyError` where it is not part of this sandbox."""
        return self.apis["sell"]

    @property
    def signalsmith(self) -> Any:
        """The SignalSmith API. Raises `KeyError` where it is not part of this sandbox."""
        return self.apis["signalsmith"]

    def register(self, name: str, api: Api) -> None:
        """Add a further API, or put another one in the place of one that is there."""
        with self.lock:
            self.apis[name] = api

    def call(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Call:
        """A call that arrives now."""
        return Call.of(method, target, self.clock.now(), headers, body)

    def handle(self, call: Call) -> Answer:
        """Answer one request: run the scripts due before it, count it against the limit, play its fault,
        log it.
        """
        with self.lock:
            if call.path == CONTROL_PREFIX or call.path.startswith(f"{CONTROL_PREFIX}/"):
                return _dress(self._control.handle(call), self.clock.now(), {})
            if self.request_seconds and self.clock.is_virtual:
                self.clock.advance(self.request_seconds)
            call.at = self.clock.now()
            name, api = self._find(call.path)
            if api is None:
                return _dress(Answer.json({"error": f"no API at {call.path}"}, 404), call.at, {})
            number = self.log.next_number()
            self._run_scripts(name, call)
            call.at = self.clock.now()
            answer, fault, rate_headers = self._serve(name, api, call)
            self.log.append(
                LogEntry(number, name, call.method, call.path, call.query, answer.status, call.at, fault)
            )
            return _dress(answer, call.at, rate_headers)

    def before(
        self,
        number: int | None,
        action: Callable[..., object],
        *,
        api: str | None = None,
        method: str | None = None,
        path: str | None = None,
        query: Mapping[str, str] | None = None,
        predicate: Callable[[Call], bool] | None = None,
        times: int = 1,
    ) -> Script:
        """Run `action` before the matching request number `number`, counted from 1 as of now (None: before
        each one).

        `action` may take the call or nothing. Example: `sandbox.before(3, lambda:
        sandbox.rally.delete("contacts", id), path="/contacts")` deletes a record right before the third
        page of the list is read.
        """
        with self.lock:
            self._scripts_made += 1
            match = RequestMatch(api, method, path, query or {}, predicate)
            script = Script(self._scripts_made, match, _taking_call(action), number, times)
            self._scripts.append(script)
            return script

    @property
    def scripts(self) -> list[Script]:
        """The scripts in force."""
        return list(self._scripts)

    def clear_scripts(self) -> None:
        """Forget all scripts."""
        with self.lock:
            self._scripts = []

    def control(self, api: str, verb: str, body: Mapping[str, Any] | None = None) -> object:
        """A control verb of one API. Raises `ControlError` for an unknown API or verb."""
        with self.lock:
            if api not in self.apis:
                raise ControlError(f"there is no API '{api}': choose one of {', '.join(self.apis)}")
            return self.apis[api].control(verb, dict(body or {}))

    def environment(self, url: str) -> dict[str, str]:
        """The environment variables that point the pipeline at this sandbox, served at `url`."""
        variables = {"RALLY_PIPELINE_SANDBOX": "true"}
        for api in self.apis.values():
            variables |= api.environment(url.rstrip("/"))
        return variables

    def _serve(self, name: str, api: Api, call: Call) -> tuple[Answer, str, dict[str, str]]:
        admission: Admission = api.limiter.admit(call.at)
        if not admission.allowed:
            return api.throttled(call, admission), "", admission.headers
        rule = self.faults.strike(name, call)
        if rule is None:
            return api.handle(call), "", admission.headers
        exchange = Exchange(call, lambda: api.handle(call))
        return rule.play(exchange, **rule.parameters), rule.name, admission.headers

    def _run_scripts(self, name: str, call: Call) -> None:
        for script in tuple(self._scripts):
            script.meet(name, call)

    def _find(self, path: str) -> tuple[str, Api | None]:
        for name, api in self.apis.items():
            if path == api.prefix or path.startswith(f"{api.prefix}/"):
                return name, api
        return "", None

    def _build(
        self, wanted: Sequence[str] | None, options: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Api]:
        unknown = sorted(set(wanted or ()) - set(API_CLASSES))
        if unknown:
            raise ControlError(f"there is no API {', '.join(unknown)}: choose from {', '.join(API_CLASSES)}")
        built: dict[str, Api] = {}
        for name in API_CLASSES:
            api_class = find_api_class(name) if wanted is None or name in wanted else None
            if api_class is not None:
                dice = random.Random(f"{self.seed}:{name}")  # noqa: S311 - repeatable dice, no secret
                built[name] = api_class(seed=self.seed, clock=self.clock, random=dice, options=options[name])
        return built


def find_api_class(name: str) -> ApiClass | None:
    """The class of a registered API, or None while its package does not exist."""
    module_name, class_name = API_CLASSES[name]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == module_name:
            return None
        raise
    found: ApiClass | None = getattr(module, class_name, None)
    return found


def _taking_call(action: Callable[..., object]) -> Action:
    takes_call = bool(inspect.signature(action).parameters)

    def run(call: Call) -> None:
        if takes_call:
            action(call)
        else:
            action()

    return run


_LAST_DATE: tuple[int, str] = (-1, "")


def _date_header(at: datetime) -> str:
    global _LAST_DATE  # noqa: PLW0603 - the text changes once a second, formatting it is the dearest part of an answer
    second = int(at.timestamp())
    if _LAST_DATE[0] != second:
        _LAST_DATE = (second, format_datetime(at, usegmt=True))
    return _LAST_DATE[1]


def _dress(answer: Answer, at: datetime, rate_headers: Mapping[str, str]) -> Answer:
    headers = {"Date": _date_header(at), "X-Sandbox": MARKER, **rate_headers, **answer.headers}
    for name in answer.without:
        if name not in answer.headers:
            headers.pop(name, None)
    answer.headers = headers
    return answer
