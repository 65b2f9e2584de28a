"""Leases: one writer per stream, fenced.

A lease is a row. Taking it raises the fence; every transaction of the holder first compares and sets that row,
so a holder that was stopped and wakes up after a take-over cannot write any more. Time only decides when others
may try; the fence decides who may write.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from rally_pipeline.clock import Clock
from rally_pipeline.processes import host_name, is_gone, started_at
from rally_pipeline.warehouse.errors import FenceLost, LeaseHeld
from rally_pipeline.warehouse.tables import leases

_COMPARE_AND_SET = leases.update().where(
    leases.c.stream == sa.bindparam("held_stream"), leases.c.fence == sa.bindparam("held_fence")
)

_BEYOND_ANY_BACKUP = 1_000_000_000
"""More fences than were ever raised since a backup was made."""

_held_here: set[str] = set()
"""Tokens of the leases that code of this process holds right now."""


@dataclass
class Lease:
    """The right to write to `stream`, valid while the row's fence is `fence`.

    `commits` counts the leased transactions of the stream; it tells after a lost connection whether the last
    one was committed.
    """

    stream: str
    fence: int
    ttl_seconds: float
    process_id: int
    commits: int
    token: str


@contextlib.contextmanager
def holding() -> Iterator[str]:
    """A token of this process that counts as alive during the block."""
    token = str(uuid.uuid4())
    _held_here.add(token)
    try:
        yield token
    finally:
        _held_here.discard(token)


def this_process(token: str) -> dict[str, Any]:
    """What the lease row says of its holder."""
    process_id = os.getpid()
    return {
        "host": host_name(),
        "pid": process_id,
        "started": started_at(process_id) or "",
        "token": token,
    }


def is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder is known to work no more: its process is gone, or is this one and has let go.

    Only ever known of processes of this host. A lease that this process could not give back (the connection
    was lost) does not keep it waiting for itself.
    """
    if holder.get("host") != host_name():
        return False
    if is_gone(holder["host"], int(holder["pid"]), holder.get("started", "")):
        return True
    return holder["pid"] == os.getpid() and holder.get("token") not in _held_here


def take(connection: sa.Connection, stream: str, token: str, ttl_seconds: float, clock: Clock) -> Lease:
    """Take the lease inside an open transaction: raise the fence and become the holder.

    Raises:
        LeaseHeld: a live process holds it and its time is not up.
    """
    row = connection.execute(
        sa.select(leases).where(leases.c.stream == stream).with_for_update()
    ).one_or_none()
    if row is None:
        row = _first_row(connection, stream)
    now = clock.now()  # after the row is locked: that may have taken time
    if row.holder is not None and row.expires_at > now and not is_dead(row.holder):
        name = f"process {row.holder['pid']} on {str(row.holder['host']).partition('/')[0]}"
        raise LeaseHeld(stream, name, row.taken_at, row.expires_at)
    fence = row.fence + 1
    connection.execute(
        leases.update()
        .where(leases.c.stream == stream)
        .values(
            fence=fence,
            holder=this_process(token),
            taken_at=now,
            expires_at=now + timedelta(seconds=ttl_seconds),
        )
    )
    return Lease(stream, fence, ttl_seconds, os.getpid(), row.commits, token)


def _first_row(connection: sa.Connection, stream: str) -> sa.Row[*tuple[Any, ...]]:
    """Create the stream's row; of two processes that try at once the later one waits and then finds it taken."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
    connection.execute(insert(leases).values(stream=stream, fence=0, commits=0).on_conflict_do_nothing())
    return connection.execute(sa.select(leases).where(leases.c.stream == stream).with_for_update()).one()


def check(connection: sa.Connection, lease: Lease, clock: Clock) -> None:
    """The first statement of a leased transaction: compare the fence, renew the time, lock the row.

    Raises:
        FenceLost: somebody else took the stream over, or this process is a fork of the holder.
    """
    matched = connection.execute(
        _COMPARE_AND_SET,
        {
            "held_stream": lease.stream,
            "held_fence": lease.fence,
            "commits": lease.commits + 1,
            "expires_at": clock.now() + timedelta(seconds=lease.ttl_seconds),
        },
    ).rowcount
    if matched != 1 or lease.process_id != os.getpid():
        raise FenceLost(lease.stream, lease.fence)


def revoke_all(connection: sa.Connection) -> None:
    """Take every lease from its holder, also from one who took it after the backup that was put back."""
    connection.execute(
        leases.update().values(fence=leases.c.fence + _BEYOND_ANY_BACKUP, holder=None, expires_at=None)
    )


def release(connection: sa.Connection, lease: Lease) -> None:
    """Give the lease back; nothing happens if it was lost already."""
    connection.execute(
        leases.update()
        .where(leases.c.stream == lease.stream, leases.c.fence == lease.fence)
        .values(holder=None, expires_at=None)
    )
