"""What can go wrong with the warehouse, each as one clear line that never holds a password or a row's values."""

from __future__ import annotations

from datetime import datetime


class WarehouseError(Exception):
    """The warehouse cannot be used or refused something; nothing of the transaction at hand was kept.

    `repeatable` says whether running the whole transaction again may succeed without anybody's help.
    """

    repeatable = False


class WarehouseUnavailable(WarehouseError):
    """No connection, or the connection was lost before COMMIT was sent: nothing was changed."""

    repeatable = True


class WarehouseBusy(WarehouseError):
    """Somebody else holds a lock (or the database broke a deadlock): nothing was changed."""

    repeatable = True


class WarehouseFull(WarehouseError):
    """The disk or the quota is full; the transaction was rolled back."""


class WarehouseDamaged(WarehouseError):
    """The file is not a sound database, or the warehouse's own tables are incomplete."""


class WarehouseNewer(WarehouseError):
    """A newer version of the package has migrated this warehouse: this version must not write to it."""


class RowRefused(WarehouseError):
    """The database refuses a row's values; the message names key and column, never a value."""


class CommitUnknown(WarehouseError):
    """The connection died while COMMIT was under way and the outcome could not be found out afterwards.

    The transaction is in the warehouse as a whole or not at all. The caller re-reads its state: in a leased
    stream the next transaction either meets the new state or the old one.
    """


class FenceLost(WarehouseError):
    """Another process took the stream over: this one must stop writing to it."""

    def __init__(self, stream: str, fence: int) -> None:
        super().__init__(
            f"stream '{stream}': the lease (fence {fence}) was taken over by another process; "
            "nothing was written, this run must stop"
        )
        self.stream = stream
        self.fence = fence


class LeaseHeld(WarehouseError):
    """Another live process works on the stream."""

    def __init__(self, stream: str, holder: str, since: datetime, expires: datetime) -> None:
        super().__init__(
            f"stream '{stream}' is being worked on by {holder} since {since:%Y-%m-%d %H:%M:%S} UTC; "
            f"wait for it to finish (its lease runs out at {expires:%H:%M:%S} UTC if it stops renewing it)"
        )
        self.stream = stream
        self.holder = holder
        self.since = since
        self.expires = expires
