"""A client of the control routes, for tests and people who steer a sandbox that runs in another process."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit

from .api import ControlError


class SandboxControl:
    """Speaks to `/_sandbox/` of a running sandbox; `url` is its root. Every method may raise `ControlError`
    (wrong use) or `OSError` (no sandbox there). Not for use from several threads at once.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.hostname is None:
            raise ControlError(f"'{url}' is not the root of a sandbox such as http://127.0.0.1:8080")
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port or 80, timeout=timeout_seconds
        )

    def __enter__(self) -> SandboxControl:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def state(self) -> dict[str, Any]:
        """Seed, APIs, environment variables, clock, faults, scripts."""
        found: dict[str, Any] = self._ask("GET", "/")
        return found

    def environment(self) -> dict[str, str]:
        """The environment variables that point the pipeline at the sandbox."""
        found: dict[str, str] = self.state()["environment"]
        return found

    def log(
        self, *, after: int = 0, api: str | None = None, method: str | None = None, path: str | None = None
    ) -> list[dict[str, Any]]:
        """Requests with a number above `after` that fit."""
        wanted = {"after": after, "api": api, "method": method, "path": path}
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        found: list[dict[str, Any]] = self._ask("GET", f"/log?{query}")
        return found

    def clear_log(self) -> None:
        """Forget the request log."""
        self._ask("DELETE", "/log")

    def truth(self, api: str, kind: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """All records of an API, `(kind, record)`, streamed. Read it to its end before the next call."""
        path = f"/_sandbox/truth/{api}" + (f"/{kind}" if kind else "")
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            raise ControlError(_reason(response.read()))
        for line in response:
            found = json.loads(line)
            yield found["kind"], found["record"]

    def call(self, api: str, verb: str, **arguments: Any) -> Any:
        """A control verb of one API, such as `call("rally", "mutate", n=10)`."""
        return self._ask("POST", f"/{api}/{verb}", arguments)

    def mutate(self, n: int = 1, **arguments: Any) -> dict[str, int]:
        """Random changes in Rally; what was done, by `entity.kind`."""
        done: dict[str, int] = self.call("rally", "mutate", n=n, **arguments)
        return done

    def switch(self, api: str = "rally", **switches: Any) -> Any:
        """Change switches of an API."""
        return self.call(api, "switch", **switches)

    def fault(
        self, fault: str, *, parameters: Mapping[str, Any] | None = None, **rule: Any
    ) -> dict[str, Any]:
        """Add a fault rule: `api`, `method`, `path`, `query`, `after`, `times`, `probability`, `for_seconds`."""
        body = {"fault": fault, "parameters": dict(parameters or {}), **rule}
        added: dict[str, Any] = self._ask("POST", "/faults", body)
        return added

    def fault_profile(self, name: str) -> list[dict[str, Any]]:
        """Add the rules of a named profile."""
        added: list[dict[str, Any]] = self._ask("POST", "/faults", {"profile": name})
        return added

    def clear_faults(self) -> None:
        """Remove all fault rules."""
        self._ask("DELETE", "/faults")

    def before(
        self, number: int | None, actions: Sequence[Mapping[str, Any]], **match: Any
    ) -> dict[str, Any]:
        """Before the matching request `number` do `actions`: `{"api":…, "verb":…, …}` or `{"advance":
        seconds}`.
        """
        body = {"number": number, "actions": [dict(action) for action in actions], **match}
        added: dict[str, Any] = self._ask("POST", "/scripts", body)
        return added

    def clear_scripts(self) -> None:
        """Remove all scripts."""
        self._ask("DELETE", "/scripts")

    def clock(self) -> dict[str, Any]:
        """The sandbox's time: `now`, `elapsed` seconds, `speed`."""
        found: dict[str, Any] = self._ask("GET", "/clock")
        return found

    def advance(self, seconds: float) -> dict[str, Any]:
        """Let sandbox time pass at once."""
        found: dict[str, Any] = self._ask("POST", "/clock", {"advance": seconds})
        return found

    def set_clock(self, now: str) -> dict[str, Any]:
        """Put the sandbox's wall clock to an ISO 8601 instant with offset."""
        found: dict[str, Any] = self._ask("POST", "/clock", {"set": now})
        return found

    def _ask(self, method: str, path: str, body: object | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(method, f"/_sandbox{path}", content, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read()
        if response.status >= http.client.BAD_REQUEST:
            raise ControlError(_reason(text))
        return json.loads(text) if text else None


def _reason(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text[:200].decode(errors="replace")
