"""Sell's part of `sync`: the queue drained to its end, then every mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rally_pipeline.cli.failures import CommandFailed

if TYPE_CHECKING:
    from rally_pipeline.cli.sync.session import SyncSession
    from rally_pipeline.sell.results import SellStatus


def catch_up(session: SyncSession) -> None:
    """Drain until nothing is pending, and settle what is left open.

    Raises:
        CommandFailed: everything ran, but the queue is not drained or marks are still open.
    """
    from rally_pipeline.sell.defs.assets import TABLES_OP
    from rally_pipeline.sell.defs.triggers import DRAIN

    session.run(DRAIN, ops={TABLES_OP: {"config": {"wait": session.wait}}})
    if session.failures:
        return
    status = _status(session)
    session.lines.extend(f"{table.table}: {table.rows:,} rows" for table in status.tables)
    if status.stopped_reason != "drained":
        raise CommandFailed(f"sell: the drain ended early ({status.stopped_reason}); the next run goes on")
    if status.sweep_held:
        raise CommandFailed(
            f"sell: {status.sweep_held} rows were not sent again after the change of the device UUID;"
            " `rally-pipeline sell sweep` shows them"
        )
    left = sum(table.open_marks for table in status.tables)
    if left and session.wait:
        raise CommandFailed(f"sell: {left} objects could not be settled; `rally-pipeline status` shows where")


def _status(session: SyncSession) -> SellStatus:
    from rally_pipeline.sell.connection import open_mirror

    with open_mirror(session.settings) as mirror:
        return mirror.status()
