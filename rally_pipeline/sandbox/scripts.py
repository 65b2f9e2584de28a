"""Scripts: what happens at the source right before a chosen request is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .matching import RequestMatch
from .wire import Call

Action = Callable[[Call], None]


@dataclass
class Script:
    """Runs `action` before the matching requests number `number` to `number + times - 1`, counted from 1
    since the script was added; `number=None` runs it before every matching one. A failing action fails the
    request that met it.
    """

    no: int
    match: RequestMatch
    action: Action
    number: int | None = 1
    times: int = 1
    seen: int = 0
    played: int = 0

    def meet(self, api: str, call: Call) -> None:
        """Count the request if it is meant, and act if it is its turn."""
        if not self.match.fits(api, call):
            return
        self.seen += 1
        if self.number is None or self.number <= self.seen < self.number + self.times:
            self.played += 1
            self.action(call)

    def describe(self) -> dict[str, object]:
        """The script as JSON."""
        return {
            "no": self.no,
            **self.match.describe(),
            "number": self.number,
            "times": self.times,
            "seen": self.seen,
            "played": self.played,
        }
