"""Which sync gets a schedule in Dagster, which not and why, and whether a tick may start anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from rally_pipeline.signalsmith.catalog import GONE_KEPT, Catalog, Entry, read_instant
from rally_pipeline.signalsmith.cron import Cadence, Cron, CronError, check_zone, read_cron
from rally_pipeline.signalsmith.options import OptionsFile, Ownership, SyncOptions

_SHORTEST_SLACK = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """What becomes of one sync's cron. Without `cron` there is no schedule and `reason` says why; with a `hold`
    there is one, so that it keeps its switch, but every tick skips with that reason."""

    cron: Cron | None
    zone: str = ""
    reason: str = ""
    hold: str = ""
    observed: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.cron.warnings if self.cron is not None else ()

    def is_refused(self, entry: Entry) -> bool:
        """Whether SignalSmith runs the sync by a cron that gets no schedule here although it should."""
        runs_itself = entry.status == "active" and bool(entry.schedule.strip()) and not entry.is_gone
        return runs_itself and self.cron is None and not self.observed


@dataclass(frozen=True, slots=True)
class Deadline:
    """How old the last materialisation may be: later than `warn` is worrying, later than `fail` is wrong."""

    warn: timedelta
    fail: timedelta


def plan_schedule(entry: Entry, options: SyncOptions, zone: str) -> SchedulePlan:
    """Decide for one sync; never raises."""
    if options.ownership is Ownership.OBSERVE:
        problem = f": {'; '.join(options.problems)}" if options.problems else ""
        return SchedulePlan(None, reason=f"observed only, SignalSmith runs it{problem}", observed=True)
    expression, hold = _expression(entry, options)
    if not expression:
        return SchedulePlan(None, reason=hold)
    try:
        cron = read_cron(expression)
        checked = check_zone(zone)
    except CronError as error:
        return SchedulePlan(None, reason=str(error))
    return SchedulePlan(cron, checked, hold=hold)


def plan_all(catalog: Catalog, options: OptionsFile) -> dict[str, SchedulePlan]:
    """The schedule plan of every entry, by id."""
    return {
        entry.id: plan_schedule(entry, options.of(entry.id, entry.name, entry.config), catalog.timezone)
        for entry in catalog.entries
    }


def zone_problem(catalog: Catalog) -> str:
    """Why no schedule can be made at all; "" where the zone is fine."""
    try:
        check_zone(catalog.timezone)
    except CronError as error:
        return f"{error} (from {catalog.timezone_source}); set SIGNALSMITH_TIMEZONE"
    return ""


def remote_cron(entry: Entry) -> Cron | None:
    """The cron by which SignalSmith itself runs the sync; None where it does not, or where it cannot be read."""
    if entry.is_gone or entry.status != "active":
        return None
    try:
        return read_cron(entry.schedule)
    except CronError:
        return None


def deadline(cadence: Cadence) -> Deadline | None:
    """When a sync with this rhythm is late; None where its gaps differ, so that no age means lateness.

    A quarter of the gap (15 minutes to 6 hours) after the next run was due it is wrong, after two fifths of that
    time worrying. The hour that a change of the clocks adds to a daily gap lies within.
    """
    if not cadence.is_regular:
        return None
    slack = min(max(cadence.longest / 4, 2 * _SHORTEST_SLACK), timedelta(hours=6))
    return Deadline(warn=cadence.longest + slack * 0.4, fail=cadence.longest + slack)


def _expression(entry: Entry, options: SyncOptions) -> tuple[str, str]:
    """The cron to use and why it must not fire; or no cron and why there is none."""
    if entry.is_gone:
        since = read_instant(entry.gone_since)
        until = f"; its schedule is kept until {since + GONE_KEPT:%Y-%m-%d}" if since else ""
        hold = f"SignalSmith does not list this sync any more (since {entry.gone_since[:16]}){until}"
        return entry.kept_schedule, hold
    if options.ownership is Ownership.DRIVE:
        return _driven(entry, options)
    if entry.status == "active":
        blank = not entry.schedule.strip()
        return ("", "it has no schedule in SignalSmith (manual)") if blank else (entry.schedule, "")
    error = f" ({entry.status_error})" if entry.status_error else ""
    return entry.kept_schedule, f"its status in SignalSmith is {entry.status or 'unknown'}{error}, not active"


def _driven(entry: Entry, options: SyncOptions) -> tuple[str, str]:
    expression = options.cron or entry.schedule
    if not expression.strip():
        return "", "driven by Dagster, but there is no cron: set `cron` in its options"
    if entry.status in ("draft", "error"):
        return expression, f"its status in SignalSmith is {entry.status}"
    if entry.status == "active" and entry.schedule.strip():
        return expression, (
            "driven by Dagster, but its own schedule in SignalSmith is active too and would run it twice: pause the"
            " sync there or clear its schedule"
        )
    return expression, ""
