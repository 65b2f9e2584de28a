"""Faults: rules that say which request meets which fault, and named profiles of such rules.

A rule is deterministic: its dice belong to it alone and follow from the sandbox's seed and the rule's number.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from .api import ControlError
from .clock import SandboxClock
from .content_faults import CONTENT_FAULTS
from .fault import FaultFunction
from .matching import RequestMatch
from .profiles import PROFILES
from .status_faults import STATUS_FAULTS, status_fault
from .wire import Call
from .wire_faults import WIRE_FAULTS

FAULTS: dict[str, FaultFunction] = {**WIRE_FAULTS, **STATUS_FAULTS, **CONTENT_FAULTS}
"""Every fault by name. `status_NNN` (not applied) and `applied_NNN` (applied first) exist besides for each
status.
"""


@dataclass
class FaultRule:
    """One fault for some requests.

    Of the requests that fit `match`, the first `after` are left alone, then each meets the fault with
    `probability`, at most `times` times (None: for ever) and only for `for_seconds` of sandbox time from when
    the rule was added (None: for ever).
    """

    no: int
    name: str
    play: FaultFunction
    match: RequestMatch
    random: random.Random
    parameters: dict[str, Any] = field(default_factory=dict)
    after: int = 0
    times: int | None = 1
    probability: float = 1.0
    until: timedelta | None = None
    seen: int = 0
    played: int = 0

    def strikes(self, api: str, call: Call, elapsed: timedelta) -> bool:
        """Whether this request meets the fault; counts it."""
        if not self.match.fits(api, call) or (self.until is not None and elapsed >= self.until):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.played >= self.times):
            return False
        if self.probability < 1.0 and self.random.random() >= self.probability:
            return False
        self.played += 1
        return True

    def describe(self) -> dict[str, object]:
        """The rule as JSON."""
        return {
            "no": self.no,
            "fault": self.name,
            **self.match.describe(),
            "parameters": self.parameters,
            "after": self.after,
            "times": self.times,
            "probability": self.probability,
            "seen": self.seen,
            "played": self.played,
        }


class FaultPlan:
    """The rules in force, in the order in which they were added; the first that strikes is played."""

    def __init__(self, seed: int, clock: SandboxClock) -> None:
        self._seed = seed
        self._clock = clock
        self._rules: list[FaultRule] = []
        self._made = 0

    def add(
        self,
        fault: str,
        *,
        api: str | None = None,
        method: str | None = None,
        path: str | None = None,
        query: Mapping[str, str] | None = None,
        match: RequestMatch | None = None,
        after: int = 0,
        times: int | None = 1,
        probability: float = 1.0,
        for_seconds: float | None = None,
        **parameters: Any,
    ) -> FaultRule:
        """Add a rule; `parameters` are those of the fault. Raises `ControlError` for an unknown fault or
        parameter.
        """
        play = find_fault(fault)
        _check_parameters(fault, play, parameters)
        if not 0.0 <= probability <= 1.0:
            raise ControlError(f"probability is a share between 0 and 1, not {probability}")
        self._made += 1
        rule = FaultRule(
            no=self._made,
            name=fault,
            play=play,
            match=match or RequestMatch(api, method, path, query or {}),
            random=random.Random(f"{self._seed}:fault:{self._made}"),  # noqa: S311 - repeatable dice
            parameters=parameters,
            after=after,
            times=times,
            probability=probability,
            until=None if for_seconds is None else self._clock.elapsed() + timedelta(seconds=for_seconds),
        )
        self._rules.append(rule)
        return rule

    def use_profile(self, name: str) -> list[FaultRule]:
        """Add the rules of a named profile. Raises `ControlError` for an unknown name."""
        if name not in PROFILES:
            raise ControlError(
                f"there is no fault profile '{name}': choose one of {', '.join(sorted(PROFILES))}"
            )
        return [self.add(**rule) for rule in PROFILES[name]]

    def remove(self, no: int) -> None:
        """Take one rule away. Raises `ControlError` if there is none of that number."""
        if all(rule.no != no for rule in self._rules):
            raise ControlError(f"there is no fault rule number {no}")
        self._rules = [rule for rule in self._rules if rule.no != no]

    def clear(self) -> None:
        """Take all rules away: faults stop, the system must converge."""
        self._rules = []

    def strike(self, api: str, call: Call) -> FaultRule | None:
        """The rule that this request meets, if any."""
        if not self._rules:
            return None
        elapsed = self._clock.elapsed()
        return next((rule for rule in self._rules if rule.strikes(api, call, elapsed)), None)

    def describe(self) -> list[dict[str, object]]:
        """All rules as JSON."""
        return [rule.describe() for rule in self._rules]


def find_fault(name: str) -> FaultFunction:
    """The fault of that name. Raises `ControlError`."""
    if name in FAULTS:
        return FAULTS[name]
    kind, _, number = name.partition("_")
    if kind in ("status", "applied") and number.isascii() and number.isdigit() and 200 <= int(number) <= 599:
        return status_fault(int(number), applied=kind == "applied")
    raise ControlError(
        f"there is no fault '{name}': choose status_NNN, applied_NNN or one of {', '.join(sorted(FAULTS))}"
    )


def _check_parameters(fault: str, play: FaultFunction, parameters: Mapping[str, Any]) -> None:
    known = [
        parameter.name
        for parameter in inspect.signature(play).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ControlError(
            f"fault '{fault}' has no parameter {', '.join(unknown)}: it takes {', '.join(known) or 'none'}"
        )
