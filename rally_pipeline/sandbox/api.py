"""What an API of the sandbox is: how it is made, asked and controlled."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec

from .clock import SandboxClock
from .limiter import Admission, Limiter
from .wire import Answer, Call


class ControlError(Exception):
    """A control verb was used wrongly; the text says what to write instead."""


class Api(Protocol):
    """One simulated system.

    The class is constructed as `Cls(seed=…, clock=…, random=…, options=…)`: `random` belongs to this API
    alone and is seeded, `options` are its own settings by name; an unknown option is a `ControlError`. The
    sandbox counts each request with `limiter`, answers with `throttled` where it refuses, plays the faults
    and adds the common headers; the API does none of these itself. All methods are called under the
    sandbox's lock.
    """

    prefix: str
    """Paths that begin so belong to this API, e.g. `/sell`."""
    limiter: Limiter

    def handle(self, call: Call) -> Answer:
        """Answer a request. Never raises for what a client sent."""
        ...

    def throttled(self, call: Call, admission: Admission) -> Answer:
        """The 429 of this system."""
        ...

    def truth(self) -> dict[str, Any]:
        """All present records by kind, as the API would return them."""
        ...

    def truth_lines(self, kind: str | None = None) -> Iterator[bytes]:
        """The same as JSON lines `{"kind": …, "record": …}`; the state is that of the call, however slowly
        it is read.
        """
        ...

    def control(self, verb: str, body: dict[str, Any]) -> object:
        """Do what a test asks for (mutate, switch, …) and return a JSON value. Raises `ControlError`."""
        ...

    def environment(self, url: str) -> dict[str, str]:
        """The environment variables that point the pipeline at this API, `url` being the sandbox's root."""
        ...


class ApiClass(Protocol):
    """The constructor of an `Api`."""

    def __call__(
        self, *, seed: int, clock: SandboxClock, random: random.Random, options: Mapping[str, Any]
    ) -> Api: ...


def lines_of(truth: Mapping[str, Any], kind: str | None = None) -> Iterator[bytes]:
    """A plain `truth_lines` for an API whose truth is a small mapping of kind to a list of records."""
    for name, records in truth.items():
        if kind is None or kind == name:
            for record in records:
                yield msgspec.json.encode({"kind": name, "record": record}) + b"\n"
