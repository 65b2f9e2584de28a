"""From a seed to a history of triggers."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulation.script import Event, Script

DEFAULTS: dict[str, Any] = {
    "ownership": "attach",
    "schedule": "",
    "scheduler": True,
    "scheduler_delay_seconds": 0,
    "scheduled_by": None,
    "busy": "queue",
    "list_lag_seconds": 0,
    "run_order": "newest",
    "paginate": False,
    "sparse": False,
    "queue_seconds": 2,
    "run_seconds": 30,
    "error_after_failure": False,
    "skew_seconds": 0,
}
APPLIED_OR_NOT = (
    "lost_answer",
    "applied_500",
    "cut_body",
    "stall",
    "status_500",
    "status_503",
    "reset_before_headers",
    "html_200",
    "empty_200",
    "throttle",
    "status_409",
)
PATHS = ("*/trigger", "*/trigger", "*/trigger", "*/runs", "*/runs/*", "*/syncs/*")
EVENTS = {
    "tick": 10,
    "manual": 5,
    "retry": 5,
    "twice": 4,
    "somebody": 3,
    "overtaken": 3,
    "plan": 4,
    "fault": 9,
    "outage": 1,
    "pause": 1,
    "wait": 4,
}
"""What happens, and how often."""
FEWEST, MOST = 5, 14


def generate(seed: int) -> Script:
    """The history of a seed."""
    dice = Random(f"signalsmith {seed}")
    settings = _settings(dice)
    names = dice.choices(list(EVENTS), weights=list(EVENTS.values()), k=dice.randint(FEWEST, MOST))
    events = [Event(name, _arguments(name, dice)) for name in names]
    return Script("signalsmith", seed, settings, tuple(events))


def _settings(dice: Random) -> dict[str, Any]:
    return {
        "ownership": dice.choice(("attach", "attach", "attach", "drive", "observe")),
        "schedule": dice.choice(("", "*/10 * * * *")),
        "scheduler": dice.random() < 0.8,
        "scheduler_delay_seconds": dice.choice((0, 0, 5, 45, 70)),
        "scheduled_by": dice.choice((None, None, "scheduler")),
        "busy": dice.choice(("queue", "queue", "conflict", "reject")),
        "list_lag_seconds": dice.choice((0, 0, 5, 20)),
        "run_order": dice.choice(("newest", "oldest", "shuffled")),
        "paginate": dice.random() < 0.3,
        "sparse": dice.random() < 0.2,
        "queue_seconds": dice.choice((0, 2, 40)),
        "run_seconds": dice.choice((1, 30, 200, 900)),
        "error_after_failure": dice.random() < 0.2,
        "skew_seconds": dice.choice((0, 0, -7200, 40, 7200)),
    }


def _arguments(name: str, dice: Random) -> dict[str, Any]:
    """The arguments of one event."""
    match name:
        case "tick":
            return {"late": dice.choice((0, 0, 2, 30, 200, 700)), **_trouble(dice)}
        case "manual" | "retry":
            return _trouble(dice)
        case "twice":
            return {
                "at": dice.randint(1, 30),
                "pause": dice.choice((0, 0, 1000)),
                "same": dice.random() < 0.6,
            }
        case "somebody":
            return {"by": dice.choice(("somebody", "account-1", None))}
        case "overtaken":
            return {
                "by": dice.choice(("somebody", "account-1", None)),
                "seconds": dice.choice((0, 2, 4, 8, 15)),
                "fault": dice.choice(("lost_answer", "applied_500", "cut_body", "status_503")),
                **_trouble(dice),
            }
        case "plan":
            return {
                "outcome": dice.choice(("completed", "failed", "cancelled")),
                "failed_rows": dice.choice((0, 3)),
                "rows": dice.randint(3, 500),
                "run_seconds": dice.choice((5, 60, 900)),
            }
        case "fault":
            return {
                "fault": dice.choice(APPLIED_OR_NOT),
                "path": dice.choice(PATHS),
                "after": dice.choice((0, 0, 0, 1, 2)),
                "times": dice.choice((1, 1, 1, 2, 4)),
            }
        case "outage":
            return {"seconds": dice.choice((5, 60, 600)), "refused": dice.random() < 0.5}
        case "pause":
            return {"status": dice.choice(("paused", "active"))}
        case "wait":
            return {"seconds": dice.choice((1, 5, 15, 60, 600))}
    return {}


def _trouble(dice: Random) -> dict[str, Any]:
    """Two of five processes die; beside some of them somebody starts a run at an awkward moment."""
    arguments: dict[str, Any] = {}
    if dice.random() < 0.4:
        arguments["crash"] = dice.randint(1, 40)
    if dice.random() < 0.25:
        arguments["meanwhile"] = dice.randint(1, 30)
    return arguments
