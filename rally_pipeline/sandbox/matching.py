"""Which requests a fault or a script is meant for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from .request_log import path_pattern
from .wire import Call


@dataclass(frozen=True)
class RequestMatch:
    """A condition on a request; everything given must fit.

    `path` is a glob on the whole path that may leave out the front: `/contacts` is the list, `/contacts/*`
    all below it. `query` names parameters and the values they must have. `predicate` sees the whole call
    (in process only).
    """

    api: str | None = None
    method: str | None = None
    path: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    predicate: Callable[[Call], bool] | None = None

    def fits(self, api: str, call: Call) -> bool:
        """Whether the call is meant."""
        return (
            (self.api is None or self.api == api)
            and (self.method is None or self.method == call.method)
            and (self.path is None or fnmatchcase(call.path, path_pattern(self.path)))
            and all(call.first(name) == value for name, value in self.query.items())
            and (self.predicate is None or self.predicate(call))
        )

    def describe(self) -> dict[str, object]:
        """The condition as JSON."""
        described: dict[str, object] = {"api": self.api, "method": self.method, "path": self.path}
        described = {name: value for name, value in described.items() if value is not None}
        if self.query:
            described["query"] = dict(self.query)
        if self.predicate is not None:
            described["predicate"] = getattr(self.predicate, "__name__", "given in process")
        return described
