"""API keys of the tenant: who may do what, and the endpoints that manage them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.wire import Call

from .errors import RallyError
from .guids import draw_guid
from .instants import instant_of, parse_instant, text_of, ticks_of

Scope = Literal["read", "write", "admin"]
RANKS: dict[str, int] = {"read": 1, "write": 2, "admin": 3}
PREFIX = "rk_live_"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key. `secret` is shown once, when the key is made; times are ticks."""

    id: str
    secret: str
    name: str
    scopes: tuple[str, ...]
    expires: int | None
    last_used: int | None
    is_active: bool
    created: int
    created_by: str | None

    @property
    def rank(self) -> int:
        """The reach of the widest scope; scopes are cumulative."""
        return max((RANKS[scope] for scope in self.scopes), default=0)

    def author(self, rule: Literal["mixed", "email", "key", "null"]) -> str | None:
        """How the feed names the author of a change made with this key (switch `changed_by`)."""
        if rule == "null":
            return None
        return self.created_by if rule == "email" else f"api-key:{self.name}"

    def as_json(self) -> dict[str, object]:
        """The key as lists show it, without the secret."""
        return {
            "id": self.id,
            "keyPrefix": PREFIX,
            "name": self.name,
            "scopes": ",".join(self.scopes),
            "expiresAt": None if self.expires is None else text_of(self.expires),
            "lastUsedAt": None if self.last_used is None else text_of(self.last_used),
            "isActive": self.is_active,
            "createdAt": text_of(self.created),
            "createdBy": self.created_by,
        }


class ApiKeys:
    """All keys of the tenant. One key of each scope exists from the start; `secret(scope)` tells it to
    tests.
    """

    def __init__(self, clock: SandboxClock, dice: random.Random) -> None:
        self._clock = clock
        self._dice = dice
        self._keys: dict[str, ApiKey] = {}
        self._by_secret: dict[str, str] = {}
        self._initial: dict[str, str] = {}
        month_ago = ticks_of(clock.now() - timedelta(days=30))
        for scope in RANKS:
            key = self._make(f"sandbox {scope}", (scope,), None, "ops@example.org", month_ago)
            self._initial[scope] = key.secret

    def secret(self, scope: Scope) -> str:
        """The secret of the first key with that scope."""
        return self._initial[scope]

    def authenticate(self, call: Call, scope: Scope) -> ApiKey:
        """The key of the call. Raises `RallyError` 401 without a valid key, 403 without the scope."""
        secret = call.headers.get("x-api-key")
        if not secret:
            raise RallyError(401, "API key is missing: send it as X-Api-Key.")
        key = self._keys.get(self._by_secret.get(secret, ""))
        now = ticks_of(call.at)
        if key is None or not key.is_active or (key.expires is not None and key.expires <= now):
            raise RallyError(401, "API key is unknown, revoked or expired.")
        key = self._keys[key.id] = replace(key, last_used=now)
        if key.rank < RANKS[scope]:
            raise RallyError(403, f"API key lacks the scope '{scope}'.")
        return key

    def list(self) -> list[dict[str, object]]:
        """All keys as the endpoint shows them."""
        return [key.as_json() for key in self._keys.values()]

    def create(self, body: object, created_by: str | None) -> dict[str, object]:
        """Make a key; the answer is the only one with the secret. Raises `RallyError` 400."""
        fields = _as_object(body)
        name = fields.get("name")
        if not isinstance(name, str) or not name.strip():
            raise RallyError(400, "One or more fields are invalid.", {"name": ["The field is required."]})
        scopes = _read_scopes(fields.get("scopes", "read"))
        key = self._make(
            name, scopes, _read_expiry(fields.get("expiresAt")), created_by, ticks_of(self._clock.now())
        )
        return {"key": key.secret, **key.as_json()}

    def change(self, key_id: str, body: object) -> dict[str, object]:
        """Change name and scopes. Raises `RallyError` 400, 404."""
        key, fields = self._find(key_id), _as_object(body)
        name = fields.get("name", key.name)
        if not isinstance(name, str) or not name.strip():
            raise RallyError(400, "One or more fields are invalid.", {"name": ["The field is required."]})
        scopes = _read_scopes(fields["scopes"]) if "scopes" in fields else key.scopes
        self._keys[key.id] = replace(key, name=name, scopes=scopes)
        return self._keys[key.id].as_json()

    def revoke(self, key_id: str) -> None:
        """Let a key be refused from now on. Raises `RallyError` 404."""
        self._keys[key_id] = replace(self._find(key_id), is_active=False)

    def set_active(self, scope: Scope, active: bool) -> None:
        """Revoke the first key of a scope, or take the revocation back; for tests."""
        key_id = self._by_secret[self._initial[scope]]
        self._keys[key_id] = replace(self._keys[key_id], is_active=active)

    def expire(self, scope: Scope, seconds: float) -> None:
        """Let the first key of a scope expire in so many seconds; for tests."""
        key_id = self._by_secret[self._initial[scope]]
        end = ticks_of(self._clock.now() + timedelta(seconds=seconds))
        self._keys[key_id] = replace(self._keys[key_id], expires=end)

    def _find(self, key_id: str) -> ApiKey:
        if key_id not in self._keys:
            raise RallyError(404, "API key not found.")
        return self._keys[key_id]

    def _make(
        self, name: str, scopes: tuple[str, ...], expires: int | None, created_by: str | None, created: int
    ) -> ApiKey:
        secret = f"{PREFIX}sandbox_{self._dice.getrandbits(128):032x}"
        key = ApiKey(draw_guid(self._dice), secret, name, scopes, expires, None, True, created, created_by)
        self._keys[key.id] = key
        self._by_secret[secret] = key.id
        return key


def _as_object(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise RallyError(400, "The body is not a JSON object.")
    return body


def _read_scopes(value: object) -> tuple[str, ...]:
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else []
    if not names or any(name not in RANKS for name in names):
        raise RallyError(400, "One or more fields are invalid.", {"scopes": ["Use read, write or admin."]})
    return tuple(dict.fromkeys(names))


def _read_expiry(value: object) -> int | None:
    if value is None:
        return None
    try:
        ticks, _ = parse_instant(str(value))
        instant_of(ticks)
    except (ValueError, OverflowError):
        raise RallyError(
            400, "One or more fields are invalid.", {"expiresAt": ["Not an ISO 8601 instant."]}
        ) from None
    return ticks
