"""The sandbox as a process, steered over its control routes."""

from __future__ import annotations

import json
import shlex
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.outside.processes import TETHER, Home, kill_group, wait_for

RALLY_ENTITIES = ("contacts", "companies", "deals", "activities")
SELL_TYPES = (
    *("accounts", "users", "leads", "contacts", "deals", "sources", "loss_reasons", "pipelines", "stages"),
    *("notes", "tasks", "tags", "associated_contacts"),
)
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Source:
    """A running sandbox."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.root = environment["RALLY_API_URL"].removesuffix("/rally/api/v1")

    def do(self, api: str, verb: str, **body: Any) -> Any:
        """A control verb, such as `do("rally", "mutate", n=20)`."""
        return self._ask("POST", f"{api}/{verb}", body)

    def change(self, count: int, system: str = "rally") -> None:
        """So many random inserts, updates and deletes."""
        self.do(system, "mutate", **({"n": count} if system == "rally" else {"changes": count}))

    def fault(self, name: str, **rule: Any) -> None:
        """Let matching requests meet a fault."""
        self._ask("POST", "faults", {"fault": name, **rule})

    def clear_faults(self) -> None:
        """No more faults from now on."""
        self._ask("DELETE", "faults")

    def requests(self) -> int:
        """How many requests it has had."""
        found: int = self._ask("GET", "")["requests"]
        return found

    def truth(self, api: str, kind: str) -> list[dict[str, Any]]:
        """All present records; numbers with a fraction are `Decimal`."""
        lines = self._read("GET", f"truth/{api}/{kind}").splitlines()
        return [json.loads(line, parse_float=Decimal)["record"] for line in lines if line.strip()]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = self._read(method, path, body)
        return json.loads(content) if content else None

    def _read(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.root}/_sandbox/{path}", data=data, method=method)
        try:
            with OPENER.open(request, timeout=60) as answer:
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()}") from None


@contextmanager
def running_source(folder: Path, *options: str) -> Iterator[Source]:
    """A sandbox for the block; it takes the options of `rally-pipeline sandbox`."""
    folder.mkdir(parents=True, exist_ok=True)
    home = Home(folder, {})
    running = home.begin("sandbox", "--port", "0", TETHER, *options)
    try:
        wait_for("the sandbox", lambda: "# ready" in running.said(), seconds=60, by=running)
        words = shlex.split(running.out.read_text(), comments=True)
        yield Source(dict(word.split("=", 1) for word in words))
    finally:
        kill_group(running.process.pid)
        running.process.wait()
