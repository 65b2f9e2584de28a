"""What a restored warehouse may no longer believe about Rally.

Rows and read position come from one database, so the feed is read on from the position that was stored, which brings
what changed since the backup. Three things do not hold any more: the feed may have forgotten some of that time, single
tables may have been restored beside newer ones, and what was noted of this machine's clock may be another machine's.
So every table is read in full once more, and an interrupted scan is not gone on with.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FeedState, require_snapshot
from rally_pipeline.rally.tables import extract_pages
from rally_pipeline.warehouse.values import parse_instant

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction

REASON = "the warehouse was restored or copied"
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def distrust(tx: Transaction) -> datetime | None:
    """Give up the read and the scans in progress and require a full scan of every entity.

    A word that a person gave for a mass delete before the backup is taken back, for it may have been used since.
    Returns the time from which the feed is read on; None where nothing was ever read.
    """
    feed = FeedState.load(tx)
    if feed.cursor is None:
        return None
    known = feed.server_time or feed.cursor
    feed.read_started = feed.position = None
    feed.server_time = feed.opened_at = feed.last_opened_at = None
    feed.store(tx)
    tx.execute(delete(extract_pages))
    for entity in Entity:
        state = tx.state(entity.stream)
        if state is not None:
            tx.set_state(entity.stream, {**state, "pass": None, "allowed_deletes": 0})
    require_snapshot(tx, REASON, since=max(_EVER, parse_instant(known)))
    return parse_instant(feed.cursor)
