"""What a person should know before the first sync: each check one line, none of them waits long or writes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.doctor import home, network, rally, sell, signalsmith, warehouse
from rally_pipeline.doctor.finding import Finding, bounded, ok, warning
from rally_pipeline.settings import Settings

__all__ = ["Finding", "examine", "examine_surroundings"]

CHECK_SECONDS = 15.0
"""After this long a check is given up, and the next one begins."""
_SYSTEMS = ("rally", "sell", "signalsmith")


@dataclass(slots=True)
class _Stored:
    """What the warehouse was found to know; filled by its check."""

    facts: warehouse.Facts = field(default_factory=warehouse.Facts)


def examine(
    settings: Settings, *, clock: Clock | None = None, check_seconds: float = CHECK_SECONDS
) -> list[Finding]:
    """Every check in turn, whatever became of the ones before.

    Reads from the systems that are configured, by GET alone and never from Sell's queue; tries the database with a
    scratch table in a transaction that is rolled back, and the folders with a file that is removed again.
    """
    clock = clock or SystemClock()
    stored = _Stored()

    def check_warehouse() -> Iterable[Finding]:
        return warehouse.examine_warehouse(settings, stored.facts)

    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("settings", lambda: _examine_settings(settings)),
        ("home", lambda: home.examine_home(settings)),
        ("dagster", lambda: home.examine_dagster(settings)),
        ("warehouse", check_warehouse),
        ("network", lambda: network.examine_network(settings)),
        ("rally", lambda: rally.examine_rally(settings, stored.facts, clock)),
        ("sell", lambda: sell.examine_sell(settings, stored.facts, clock)),
        ("signalsmith", lambda: signalsmith.examine_signalsmith(settings, clock)),
    )
    secrets = settings.secrets()
    found: list[Finding] = []
    for subject, check in checks:
        found += bounded(subject, check, seconds=check_seconds, secrets=secrets)
    return found


def examine_surroundings() -> list[Finding]:
    """What can be said where the settings themselves cannot be used."""
    return bounded("network", network.examine_certificates, seconds=CHECK_SECONDS, secrets=())


def _examine_settings(settings: Settings) -> Iterable[Finding]:
    """What is switched on that a person should know, and whether anything is configured at all."""
    if settings.rally_pipeline_read_only:
        yield ok(
            "settings",
            "RALLY_PIPELINE_READ_ONLY=true: nothing is written to any remote system, and the Sell queue is not opened",
        )
    if not any(settings.is_configured(system) for system in _SYSTEMS):
        yield warning(
            "settings",
            "no system is configured",
            "set the variables named below, or look around with `rally-pipeline demo`",
        )
