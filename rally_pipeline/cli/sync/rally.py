"""Rally's part of `sync`: full extracts that are due, then the change feed up to now, then every mark.

Where the feed alone cannot make the mirror right (it has forgotten something, its ids start over, or more changed at
one time than its pages hold), the full extract that is required is made in between, and the feed is read on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rally_pipeline.cli.failures import CommandFailed, UserMistake
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.orchestration.timing import given_clock
from rally_pipeline.orchestration.windows import WindowRange, hour_of
from rally_pipeline.rally.entities import Entity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rally_pipeline.cli.sync.session import SyncSession
    from rally_pipeline.rally.mirror import RallyMirror
    from rally_pipeline.rally.results import RequiredExtract

MOST_ROUNDS = 3
"""Of a full extract and a read of the feed: the first, one that the feed may demand, and one more."""
LONGEST_WAIT = timedelta(minutes=15)
"""For the moment from which on a full extract covers what the feed cannot show."""
_FEED_STEP = "rally_feed__changes"
_LONGEST_SLEEP_SECONDS = 5.0


def catch_up(session: SyncSession) -> None:
    """The first time a full extract, then the feed from where it was left until now.

    Raises:
        CommandFailed: everything ran, but marks are still open although they were to be settled.
        UserMistake: this machine's clock shows a time before the first hour of the feed.
    """
    failed = len(session.failures)
    for number in range(1, MOST_ROUNDS + 1):
        if not _extract_what_is_due(session):
            break
        extracted = len(session.failures) == failed
        if not _read_feed(session):
            return  # no full extract has begun; its failures are kept
        if number == MOST_ROUNDS or not extracted or not _goes_on(session, failed):
            break
    _report(session)


def _extract_what_is_due(session: SyncSession) -> bool:
    """Make the full extracts that are required; False where one of them has to be left to the next run."""
    from dagster import AssetKey

    from rally_pipeline.rally.connection import open_mirror
    from rally_pipeline.rally.defs.names import FULL_EXTRACT, extract_key, mirror_key
    from rally_pipeline.rally.defs.triggers import due_extracts

    with open_mirror(session.settings, clock=given_clock()) as mirror:
        required = mirror.required_extracts()
        due, begins = due_extracts(mirror, required)
        if begins is not None and _wait(session, mirror, required):
            due, begins = due_extracts(mirror, required)
    if due:
        keys = [AssetKey(list(key(entity))) for entity in due for key in (extract_key, mirror_key)]
        session.run(FULL_EXTRACT, assets=keys, ops=_settling(session, due))
    return begins is None


def _wait(session: SyncSession, mirror: RallyMirror, required: Sequence[RequiredExtract]) -> bool:
    """Wait until every extract that is required may begin, and say so; False where it is left to the next run.

    Raises:
        CommandFailed: that would take too long.
    """
    until = max(found.since for found in required if found.since is not None)
    reason = next(found.reason for found in required if found.since == until)
    what = f"rally: {reason}; a full extract that begins after {until:%H:%M:%S} UTC shows them"
    if not session.wait:
        _say(f"{what}: left to the next run")
        return False
    if until - mirror.server_now() > LONGEST_WAIT:
        raise CommandFailed(f"{what}; run `rally-pipeline sync rally` again then")
    _say(f"{what}: waiting until then")
    while (left := (until - mirror.server_now()).total_seconds()) > 0:
        mirror.client.clock.sleep(min(left, _LONGEST_SLEEP_SECONDS))
    return True


def _read_feed(session: SyncSession) -> bool:
    """The feed up to now, and every mark; False where there is nothing to read on from."""
    from rally_pipeline.rally.connection import open_mirror
    from rally_pipeline.rally.defs.names import INCREMENTAL

    with open_mirror(session.settings, clock=given_clock()) as mirror:
        synced_through = mirror.coverage().through
        if synced_through is None:
            return False
        windows = _windows_to_read(session, synced_through, mirror.server_now())
    session.run(INCREMENTAL, tags=windows.tags_to_read_on, ops=_settling(session, list(Entity)))
    return True


def _goes_on(session: SyncSession, failed: int) -> bool:
    """Whether the read found that only a full extract helps: then its failure is none, and another round is due.

    `failed`: how many failures there were before.
    """
    from rally_pipeline.rally.connection import open_mirror

    if [failure.step for failure in session.failures[failed:]] != [_FEED_STEP]:
        return False
    with open_mirror(session.settings, clock=given_clock()) as mirror:
        required = mirror.required_extracts()
    if not required:
        return False
    del session.failures[failed:]
    names = " and ".join(found.entity for found in required)
    _say(f"rally: {required[0].reason}: a full extract of {names} is made")
    return True


def _settling(session: SyncSession, entities: list[Entity]) -> dict[str, object]:
    return {f"rally__{entity.value}": {"config": {"wait": session.wait}} for entity in entities}


def _windows_to_read(session: SyncSession, synced_through: datetime, now: datetime) -> WindowRange:
    """From the hour in which the last read stopped to the server's running one, as far as Dagster knows them.

    By this machine's clock, which may be wrong, Dagster ends its partitions; the read goes on to the present anyway.
    """
    from rally_pipeline.rally.defs.triggers import no_partition

    local, start = datetime.now(UTC), session.settings.rally_feed_start
    if hour_of(local) < start:
        raise UserMistake(f"rally: {no_partition(start, local)}")
    last = max(start, min(hour_of(now), hour_of(local)))
    return WindowRange(min(max(hour_of(synced_through), start), last), last)


def _say(line: str) -> None:
    remarks.print(line, markup=False, soft_wrap=True)


def _report(session: SyncSession) -> None:
    from rally_pipeline.rally.connection import open_mirror

    with open_mirror(session.settings, clock=given_clock()) as mirror:
        status = mirror.status()
    session.lines.extend(f"{table.table}: {table.rows:,} rows" for table in status.tables)
    left = sum(table.open_marks for table in status.tables)
    if left and session.wait and not session.failures:
        raise CommandFailed(f"{left} changes could not be settled; `rally-pipeline status` shows where")
