"""From a seed to a history of the Sell queue."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulation.script import Event, Script

DEFAULTS: dict[str, Any] = {
    "objects": 26,
    "page_size": 9,
    "shuffle": False,
    "duplicate_share": 0.0,
    "older_share": 0.0,
    "fixed_at": "fetch",
    "grows": False,
    "counts_lie": False,
    "ack_delay_seconds": 0,
    "ack_limit": None,
    "empty_every": 0,
    "session_limit": 100,
    "limit_per_second": None,
    "lag_seconds": 0,
    "delete_mode": "hard",
    "guard": False,
}
FAULTS = (
    "lost_answer",
    "applied_500",
    "status_503",
    "reset_before_headers",
    "cut_close_delimited",
    "cut_chunked",
    "html_200",
    "empty_200",
    "throttle",
    "stall",
)
PATHS = ("/v2/sync/*/queues/main", "/v2/sync/*/queues/main", "/v2/sync/ack", "/v2/sync/start", "/v2/leads*")
EVENTS = {
    "change": 8,
    "delete": 5,
    "configure": 1,
    "drain": 12,
    "settle": 4,
    "old_state": 6,
    "failed_object": 2,
    "fault": 4,
    "outage": 1,
    "lose_sessions": 1,
    "open_sessions": 1,
    "second_drain": 3,
    "second_warehouse": 1,
    "backup": 1,
    "restore": 1,
    "wait": 5,
}
"""What happens, and how often."""
FEWEST, MOST = 8, 18


def generate(seed: int) -> Script:
    """The history of a seed: a first drain, then events, which may repeat it, disturb it or go on from it."""
    dice = Random(f"sell {seed}")
    settings = _settings(dice)
    events = [Event("drain", _drain(dice))]
    for name in dice.choices(list(EVENTS), weights=list(EVENTS.values()), k=dice.randint(FEWEST, MOST)):
        events.append(Event(name, _arguments(name, dice)))
        if name == "backup":
            events += _between_backup_and_restore(dice)
    return Script("sell", seed, settings, tuple(events))


def _settings(dice: Random) -> dict[str, Any]:
    return {
        "objects": dice.randint(24, 34),
        "page_size": dice.choice((2, 4, 7, 9, 9, 20, 40)),
        "shuffle": dice.random() < 0.8,
        "duplicate_share": dice.choice((0.0, 0.0, 0.3)),
        "older_share": dice.choice((0.0, 0.0, 0.5)),
        "fixed_at": dice.choice(("start", "fetch")),
        "grows": dice.random() < 0.3,
        "counts_lie": dice.random() < 0.2,
        "ack_delay_seconds": dice.choice((0, 0, 20, 200)),
        "ack_limit": dice.choice((None, None, None, 2)),
        "empty_every": dice.choice((0, 0, 3)),
        "session_limit": dice.choice((100, 100, 3)),
        "limit_per_second": dice.choice((None, None, None, 4)),
        "lag_seconds": dice.choice((0, 0, 20)),
        "delete_mode": dice.choice(("hard", "soft")),
        "guard": dice.random() < 0.2,
    }


def _between_backup_and_restore(dice: Random) -> list[Event]:
    """A backup alone shows nothing: objects change and are acknowledged before it is put back."""
    events = []
    for _ in range(dice.randint(1, 3)):
        events.append(Event("change", _arguments("change", dice)))
        events.append(Event("drain", {}))
    return [*events, Event("restore", _arguments("restore", dice))]


def _arguments(name: str, dice: Random) -> dict[str, Any]:
    """The arguments of one event."""
    sub_seed = {"seed": dice.randrange(2**32)}
    match name:
        case "change" | "configure":
            return {**sub_seed, "count": dice.randint(1, 5)}
        case "delete":
            return {**sub_seed, "back": dice.random() < 0.35}
        case "drain":
            return _drain(dice)
        case "settle":
            return {"crash": dice.randint(1, 20) if dice.random() < 0.3 else 0, "wait": dice.random() < 0.5}
        case "old_state":
            return {**sub_seed, "deleted": dice.random() < 0.5}
        case "failed_object":
            return {**sub_seed, "times": dice.choice((1, 1, 2))}
        case "fault":
            return {
                "fault": dice.choice(FAULTS),
                "path": dice.choice(PATHS),
                "after": dice.choice((0, 0, 1, 2)),
                "times": dice.randint(1, 3),
            }
        case "outage":
            return {"seconds": dice.choice((5, 60, 600)), "refused": dice.random() < 0.5}
        case "open_sessions":
            return {"count": dice.choice((1, 3, 100))}
        case "second_drain":
            return {"at": dice.randint(1, 50), "pause": dice.choice((0, 400, 400))}
        case "restore":
            return {"in_place": dice.random() < 0.7}
        case "wait":
            return {"seconds": dice.choice((1, 10, 30, 60, 300, 4000))}
    return {}


def _drain(dice: Random) -> dict[str, Any]:
    """A drain: half of them die, some meet a warehouse that does not commit."""
    arguments: dict[str, Any] = {}
    if dice.random() < 0.45:
        arguments["crash"] = dice.randint(1, 60)
    elif dice.random() < 0.35:
        arguments["fail_commit"] = dice.randint(1, 3)
    return arguments
