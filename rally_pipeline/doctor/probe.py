"""How the systems are asked: by GET alone, with little patience, and what their answers say about the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from rally_pipeline.clock import Clock
from rally_pipeline.doctor.finding import Finding, ok, warning
from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.retry import RetryPolicy
from rally_pipeline.http.transport import Limits
from rally_pipeline.settings import Settings

LIMITS = Limits(connect_seconds=3.0, read_seconds=4.0, total_seconds=5.0)
RETRIES = RetryPolicy(max_attempts=2, total_seconds=5.0)
LARGEST_SKEW = timedelta(seconds=30)
_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def make_probe(
    settings: Settings,
    clock: Clock,
    *,
    system: str,
    base_url: str,
    headers: Mapping[str, str],
    secrets: Sequence[str],
    consuming: tuple[str, ...] = (),
) -> HttpClient:
    """A client that cannot write; its requests are few, so no rate budget is kept."""
    return HttpClient(
        system=system,
        base_url=base_url,
        headers=headers,
        secrets=secrets,
        sandbox=settings.rally_pipeline_sandbox,
        read_only=True,
        consuming=consuming,
        policy=RETRIES,
        limits=LIMITS,
        clock=clock,
    )


def examine_clock(system: str, client: HttpClient, clock: Clock) -> Iterator[Finding]:
    """This machine's clock against the server's, right after an answer. No line before the first answer."""
    server = client.server_time
    if server is None:
        if client.usage.bytes_received:
            yield warning(
                "clock", f"{system}: the server does not tell its time", "a later sync asks for it again"
            )
        return
    ahead = clock.now() - server
    effect = "no effect on cursors, which follow the server's time"
    if abs(ahead) <= LARGEST_SKEW:
        yield ok("clock", f"{system}: {abs(ahead).total_seconds():.0f} s from the server's; {effect}")
        return
    side = "ahead of" if ahead > timedelta() else "behind"
    yield warning(
        "clock",
        f"this machine's clock is {span(abs(ahead))} {side} that of {system}: {effect}, but schedules and times in the"
        " UI follow this machine's",
        "set the clock, best by NTP",
    )


def span(length: timedelta) -> str:
    """A length of time as a person says it."""
    seconds = length.total_seconds()
    for size, unit in _STEPS:
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def examine_missing(settings: Settings, system: str, given: bool) -> Finding:
    """The line for a system that is not, or only half, configured."""
    names = " and ".join(settings.missing(system))
    if given:
        return warning(system, f"half configured: {names} missing", f"set {names}")
    return ok(system, f"not configured: set {names} to use it")
