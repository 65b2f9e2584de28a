"""From a failing history to a short one that still fails: delta debugging over events, then dull settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.simulation.script import Event, Script

Fails = Callable[[Script], bool]


_VARYING = re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\d+|'[^']*'")


def kinds_of(problems: list[str]) -> set[str]:
    """The problems without what differs from one history to the next: ids, numbers and quoted values."""
    return {_VARYING.sub("#", problem)[:40] for problem in problems}


@dataclass
class _Budget:
    """How many more histories may be played."""

    plays: int


def shrink(
    script: Script, fails: Fails, *, defaults: Mapping[str, Any] | None = None, plays: int = 600
) -> Script:
    """A part of `script` that still fails, as short as `plays` histories can make it.

    Every event of the result is needed if there were plays enough: without any one of them the history is good.
    """
    budget = _Budget(plays)
    shortest = _fewer_events(script, fails, budget)
    duller = _duller_settings(shortest, fails, defaults or {}, budget)
    if duller is not shortest:
        duller = _fewer_events(duller, fails, budget)
    return _smaller_numbers(duller, fails, budget)


def _still_fails(script: Script, fails: Fails, budget: _Budget) -> bool:
    if budget.plays <= 0:
        return False
    budget.plays -= 1
    return fails(script)


def _fewer_events(script: Script, fails: Fails, budget: _Budget) -> Script:
    """Take out blocks of events, half of them first, then ever smaller blocks, down to single events."""
    size = max(1, len(script.events) // 2)
    while budget.plays > 0 and script.events:
        removed = False
        # From the end: what comes later more seldom matters.
        start = len(script.events)
        while start > 0:
            first = max(0, start - size)
            shorter = script.with_events(script.events[:first] + script.events[start:])
            if _still_fails(shorter, fails, budget):
                script, removed = shorter, True
            start = first
        if size > 1:
            size = max(1, size // 2)
        elif not removed:
            break
    return script


def _duller_settings(script: Script, fails: Fails, defaults: Mapping[str, Any], budget: _Budget) -> Script:
    for name, dull in defaults.items():
        if name in script.settings and script.settings[name] != dull:
            duller = script.with_settings({**script.settings, name: dull})
            if _still_fails(duller, fails, budget):
                script = duller
    return script


def _smaller_numbers(script: Script, fails: Fails, budget: _Budget) -> Script:
    """Make whole numbers among the arguments smaller; seeds stay, since all seeds are alike."""
    for place in range(len(script.events)):
        for name, value in script.events[place].arguments.items():
            if name == "seed" or isinstance(value, bool) or not isinstance(value, int):
                continue
            for smaller in sorted({0, 1, value // 2}):
                if smaller < value:
                    events = list(script.events)
                    events[place] = Event(events[place].name, {**events[place].arguments, name: smaller})
                    changed = script.with_events(events)
                    if _still_fails(changed, fails, budget):
                        script = changed
                        break
    return script
