"""Control routes under `/_sandbox/`: what a test or a person can do to a running sandbox over HTTP.

| route | does |
| --- | --- |
| GET `/_sandbox/` | seed, APIs, clock, environment, faults, scripts |
| GET `/_sandbox/log?after=&api=&path=`, DELETE | the request log; forget it |
| GET `/_sandbox/truth/{api}[/{kind}]` | all records as JSON lines |
| POST `/_sandbox/{api}/{verb}` | a control verb of that API, such as `mutate`, `switch` |
| GET, POST, DELETE `/_sandbox/faults[/{no}]` | rules; POST takes a rule or `{"profile": NAME}` |
| GET, POST, DELETE `/_sandbox/scripts` | scripts; POST takes a match, `number`, `times` and `actions` |
| GET, POST `/_sandbox/clock` | the time; POST takes `advance`, `set` or `speed` |
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .api import ControlError
from .wire import Answer, Call

if TYPE_CHECKING:
    from .application import Sandbox

RULE_KEYS = ("api", "method", "path", "query", "after", "times", "probability", "for_seconds", "parameters")


class ControlRoutes:
    """Turns control requests into calls of the sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._routes: dict[tuple[str, str], Callable[[Call, list[str]], Answer]] = {
            ("GET", ""): self._show,
            ("GET", "log"): self._show_log,
            ("DELETE", "log"): self._clear_log,
            ("GET", "truth"): self._show_truth,
            ("GET", "faults"): self._show_faults,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._remove_fault,
            ("GET", "scripts"): self._show_scripts,
            ("POST", "scripts"): self._add_script,
            ("DELETE", "scripts"): self._clear_scripts,
            ("GET", "clock"): self._show_clock,
            ("POST", "clock"): self._move_clock,
        }

    def handle(self, call: Call) -> Answer:
        """Answer a control request; a wrong one gets a 400 that says what is wrong."""
        segments = call.segments("/_sandbox")
        try:
            route = self._routes.get((call.method, segments[0] if segments else ""))
            if route is not None:
                return route(call, segments[1:])
            if call.method == "POST" and len(segments) == 2:
                return Answer.json(self._sandbox.control(segments[0], segments[1], _body(call)))
            return Answer.json({"error": f"no control route {call.method} {call.path}"}, 404)
        except (ControlError, ValueError, TypeError) as error:
            return Answer.json({"error": str(error)}, 400)

    def _show(self, call: Call, _rest: list[str]) -> Answer:
        host = call.headers.get("host", "127.0.0.1")
        return Answer.json(
            {
                "seed": self._sandbox.seed,
                "apis": {name: api.prefix for name, api in self._sandbox.apis.items()},
                "environment": self._sandbox.environment(f"http://{host}"),
                "clock": self._clock_state(),
                "requests": self._sandbox.log.total,
                "faults": self._sandbox.faults.describe(),
                "scripts": [script.describe() for script in self._sandbox.scripts],
            }
        )

    def _show_log(self, call: Call, _rest: list[str]) -> Answer:
        entries = self._sandbox.log.matching(
            api=call.first("api"),
            method=call.first("method"),
            path=call.first("path"),
            after=int(call.first("after") or 0),
        )
        return Answer.json([entry.as_dict() for entry in entries])

    def _clear_log(self, _call: Call, _rest: list[str]) -> Answer:
        self._sandbox.log.clear()
        return Answer.empty()

    def _show_truth(self, _call: Call, rest: list[str]) -> Answer:
        if not rest or rest[0] not in self._sandbox.apis:
            raise ControlError(f"ask for /_sandbox/truth/ and one of {', '.join(self._sandbox.apis)}")
        lines = self._sandbox.apis[rest[0]].truth_lines(rest[1] if len(rest) > 1 else None)
        return Answer(200, {"Content-Type": "application/x-ndjson"}, stream=lines)

    def _show_faults(self, _call: Call, _rest: list[str]) -> Answer:
        return Answer.json(self._sandbox.faults.describe())

    def _add_fault(self, call: Call, _rest: list[str]) -> Answer:
        body = _body(call)
        if "profile" in body:
            return Answer.json(
                [rule.describe() for rule in self._sandbox.faults.use_profile(str(body["profile"]))]
            )
        unknown = sorted(set(body) - {"fault", *RULE_KEYS})
        if "fault" not in body or unknown:
            raise ControlError(
                f"a fault rule takes fault, {', '.join(RULE_KEYS)}; not {', '.join(unknown) or 'nothing'}"
            )
        parameters = body.pop("parameters", {})
        return Answer.json(self._sandbox.faults.add(**body, **parameters).describe(), 201)

    def _remove_fault(self, _call: Call, rest: list[str]) -> Answer:
        if rest:
            self._sandbox.faults.remove(int(rest[0]))
        else:
            self._sandbox.faults.clear()
        return Answer.empty()

    def _show_scripts(self, _call: Call, _rest: list[str]) -> Answer:
        return Answer.json([script.describe() for script in self._sandbox.scripts])

    def _add_script(self, call: Call, _rest: list[str]) -> Answer:
        body = _body(call)
        actions = body.pop("actions", None)
        if not isinstance(actions, list) or not actions:
            raise ControlError(
                'a script needs "actions": [{"api": …, "verb": …, …} or {"advance": seconds}, …]'
            )
        number = body.pop("number", 1)
        script = self._sandbox.before(number, lambda: self._act(actions), **body)
        return Answer.json(script.describe(), 201)

    def _act(self, actions: list[dict[str, Any]]) -> None:
        for action in actions:
            step = dict(action)
            if "advance" in step:
                self._sandbox.clock.advance(float(step["advance"]))
            else:
                self._sandbox.control(str(step.pop("api", "rally")), str(step.pop("verb", "")), step)

    def _clear_scripts(self, _call: Call, _rest: list[str]) -> Answer:
        self._sandbox.clear_scripts()
        return Answer.empty()

    def _clock_state(self) -> dict[str, object]:
        clock = self._sandbox.clock
        return {"now": clock.now().isoformat(), "elapsed": clock.monotonic(), "speed": clock.speed}

    def _show_clock(self, _call: Call, _rest: list[str]) -> Answer:
        return Answer.json(self._clock_state())

    def _move_clock(self, call: Call, _rest: list[str]) -> Answer:
        body = _body(call)
        unknown = sorted(set(body) - {"advance", "set", "speed"})
        if unknown or not body:
            raise ControlError(
                f"the clock takes advance, set or speed, not {', '.join(unknown) or 'nothing'}"
            )
        if "set" in body:
            self._sandbox.clock.set(datetime.fromisoformat(str(body["set"])))
        if "advance" in body:
            self._sandbox.clock.advance(float(body["advance"]))
        if "speed" in body:
            self._sandbox.clock.run(float(body["speed"]))
        return Answer.json(self._clock_state())


def _body(call: Call) -> dict[str, Any]:
    if not call.body:
        return {}
    body = json.loads(call.body)
    if not isinstance(body, dict):
        raise ControlError("the body of a control request is a JSON object")
    return body
