"""From a seed to a history of imports."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulation.script import Event, Script

DEFAULTS: dict[str, Any] = {
    "max_rows": 4,
    "limit_bytes": None,
    "numbering": "data",
    "errors_limit": None,
    "all_errors": False,
    "duplicates": ["contacts"],
    "atomic": False,
    "rows_per_second": 400.0,
    "list_order": "createdAt",
    "max_limit": 1000,
    "lag_seconds": 0,
}
FAULTS = (
    "lost_answer",
    "applied_500",
    "cut_body",
    "html_200",
    "stall",
    "status_503",
    "reset_before_headers",
    "empty_200",
    "throttle",
)
ENTITIES = ("contacts", "companies", "deals", "activities", "activities")
EVENTS = {
    "file": 4,
    "run": 9,
    "again": 2,
    "lose": 5,
    "wrong_counts": 2,
    "fault": 4,
    "foreign": 3,
    "outage": 1,
    "second": 2,
    "wait": 3,
}
"""What happens, and how often."""
FEWEST, MOST = 5, 12


def generate(seed: int) -> Script:
    """The history of a seed: a file, then events."""
    dice = Random(f"imports {seed}")
    settings = _settings(dice)
    names = ["file", *dice.choices(list(EVENTS), weights=list(EVENTS.values()), k=dice.randint(FEWEST, MOST))]
    events = [Event(name, _arguments(name, dice)) for name in names]
    return Script("imports", seed, settings, tuple(events))


def _settings(dice: Random) -> dict[str, Any]:
    return {
        "max_rows": dice.randint(1, 6),
        "limit_bytes": dice.choice((None, None, None, 330)),
        "numbering": dice.choice(("data", "file", "line", "index")),
        "errors_limit": dice.choice((None, None, 0, 1)),
        "all_errors": dice.random() < 0.2,
        "duplicates": dice.choice((["contacts"], ["contacts", "companies", "deals"])),
        "atomic": dice.random() < 0.15,
        "rows_per_second": dice.choice((400.0, 400.0, 2.0)),
        "list_order": dice.choice(("createdAt", "updatedAt", "id", "-updatedAt")),
        "max_limit": dice.choice((1000, 1000, 5)),
        "lag_seconds": dice.choice((0, 0, 20)),
    }


def _arguments(name: str, dice: Random) -> dict[str, Any]:
    """The arguments of one event."""
    match name:
        case "file":
            return {
                "seed": dice.randrange(2**32),
                "entity": dice.choice(ENTITIES),
                "rows": dice.randint(1, 14),
                "repeated": dice.choice((0, 0, 2, 4)),
                "bad": dice.choice((0, 0, 1, 2)),
                "known": dice.choice((0, 0, 1, 3)),
            }
        case "run":
            return {"crash": dice.randint(1, 60)} if dice.random() < 0.45 else {}
        case "lose":
            return {
                "applied": dice.choice(("before", "half", "half", "after")),
                "uploads": sorted({dice.randint(1, 4) for _ in range(dice.randint(1, 2))}),
                "status": dice.choice((0, 0, 500, 503, 408)),
                "late": dice.choice((0, 0, 20, 45)),
            }
        case "wrong_counts":
            return {"how": dice.choice(("none", "total", "imported", "half", "half"))}
        case "fault":
            return {
                "fault": dice.choice(FAULTS),
                "path": dice.choice(("*/import", "*/import", "*/template", "*/contacts", "*/activities")),
                "after": dice.choice((0, 0, 1, 2)),
                "times": dice.choice((1, 1, 2)),
            }
        case "foreign":
            return {"seed": dice.randrange(2**32), "count": dice.randint(1, 4), "alike": dice.random() < 0.3}
        case "outage":
            return {"seconds": dice.choice((5, 60, 600)), "refused": dice.random() < 0.5}
        case "second":
            return {"at": dice.randint(1, 50), "pause": dice.choice((0, 1300))}
        case "wait":
            return {"seconds": dice.choice((1, 10, 60, 400))}
    return {}
