"""Asking the sandbox in process, in few words."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from rally_pipeline.sandbox import Answer, Sandbox

BASE = "/rally/api/v1"


class Talk:
    """Speaks to the Rally API of a sandbox with one of its keys."""

    def __init__(self, sandbox: Sandbox, scope: str = "admin") -> None:
        self.sandbox = sandbox
        self.rally = sandbox.rally
        self.headers = {"X-Api-Key": self.rally.key(scope), "Content-Type": "application/json"}

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        content = body if isinstance(body, bytes) else b"" if body is None else _encode(body)
        call = self.sandbox.call(method, BASE + path, {**self.headers, **headers}, content)
        return self.sandbox.handle(call)

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def json(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        answer = self.send(method, path, body)
        assert answer.status == status, (answer.status, answer.body[:500])
        return json.loads(answer.body, parse_float=Decimal)

    def rows(self, path: str) -> list[dict[str, Any]]:
        found = self.json("GET", path)
        assert isinstance(found, list), found
        return found

    def ids(self, path: str) -> list[str]:
        return [row["id"] for row in self.rows(path)]

    def crawl(self, entity: str, *, limit: int = 10, query: str = "") -> list[str]:
        """All ids of a list in the order in which pages bring them, until an empty page."""
        ids: list[str] = []
        while True:
            page = self.ids(f"/{entity}?limit={limit}&offset={len(ids)}{query}")
            if not page:
                return ids
            ids += page

    def changes(self, since: str = "2020-01-01T00:00:00Z", more: str = "") -> list[dict[str, Any]]:
        return self.rows(f"/sync/changes?since={since}{more}")


def _encode(body: Any) -> bytes:
    return json.dumps(body, default=str).encode()


def small(**options: Any) -> Talk:
    """A talk with a small sandbox that holds Rally only, without a rate limit; `options` are switches of Rally."""
    records = options.pop("records", 60)
    seed = options.pop("seed", 7)
    keep_history = options.pop("keep_history", False)
    settings = {"limit_per_minute": None, **options}
    sandbox = Sandbox(seed=seed, records=records, keep_history=keep_history, apis=["rally"], rally=settings)
    return Talk(sandbox)


def new_contact(**fields: Any) -> dict[str, Any]:
    """The least body that creates a contact."""
    return {"firstName": "Ines", "lastName": "Okafor", "email": "ines@example.org", **fields}
