"""`rally-pipeline sell`: the device UUID, rows that a full resend did not bring, records in quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import CommandFailed, UserMistake
from rally_pipeline.cli.terminal import remarks

if TYPE_CHECKING:
    from rally_pipeline.sell.mirror import SellMirror


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(sell)


@click.group(short_help="The Sell device UUID of this warehouse, and Sell's quarantine.")
def sell() -> None:
    """Sell remembers for each device UUID what it acknowledged, so a UUID belongs to exactly one warehouse.

    A run stops when SELL_DEVICE_UUID is not this warehouse's, or when the warehouse was copied or restored. These
    commands are the two ways on.
    """


@sell.command(name="adopt-device", short_help="Go on under SELL_DEVICE_UUID as it is.")
def adopt_device() -> None:
    """Go on under SELL_DEVICE_UUID: you vouch that this warehouse, and no other, holds all that was acknowledged.

    Right after the warehouse was moved as it is and its old place given up. After a restore from a backup it is wrong:
    what was acknowledged since the backup would never come again; use new-device then.
    """
    with _open_mirror() as mirror:
        device = mirror.adopt_device()
    remarks.print(f"This warehouse goes on as Sell device {device.uuid}.", markup=False)


@sell.command(name="new-device", short_help="New UUID: everything is sent again.")
def new_device() -> None:
    """Make a new device UUID: Sell sends everything again, and rows that it does not send are looked at.

    Always safe; costs one full drain. Prints the UUID, which has to be put into SELL_DEVICE_UUID.
    """
    with _open_mirror() as mirror:
        device = mirror.new_device()
    remarks.print(
        "A new Sell device. Put this line into the environment (or .env) and run `rally-pipeline sync sell`:",
        markup=False,
    )
    click.echo(f"SELL_DEVICE_UUID={device.uuid}")


@sell.command(short_help="Rows that a full resend did not bring.")
@click.option("--confirm", type=click.IntRange(0), metavar="COUNT", help="Have exactly COUNT rows looked at.")
def sweep(confirm: int | None) -> None:
    """Show the rows that the full resend after new-device did not bring, or confirm that they are looked at.

    They are probably deletes of the time between the two devices. A wrong token looks the same, so more than 100 of
    them and more than a tenth of all rows are not touched before you name the exact number. Even then a row goes
    only if Sell, asked for the record itself, does not have it.
    """
    with _open_mirror() as mirror:
        counts = mirror.unresent()
        total = sum(counts.values())
        if confirm is None:
            for entity, count in counts.items():
                if count:
                    remarks.print(f"{entity.table_name}: {count:,} rows", markup=False)
            remarks.print(
                f"{total:,} rows were not sent again." if counts else "No full resend is under way."
            )
            return
        if confirm != total:
            raise UserMistake(f"{total:,} rows were not sent again, not {confirm:,}: look at them first")
        mirror.allow_sweep(confirm)
    remarks.print(f"The next drain has these {confirm:,} rows looked at.", markup=False)


@sell.command(short_help="Look again at Sell's records in quarantine.")
def replay() -> None:
    """Look at every quarantined Sell record again, store what fits now, keep the rest."""
    from rally_pipeline.sell.entities import Entity

    with _open_mirror() as mirror:
        tried = mirror.replay_quarantine()
        mirror.settle(Entity)
        left = mirror.status().quarantined
    remarks.print(f"{tried} looked at again, {left} in quarantine now", markup=False)
    if left:
        raise CommandFailed(f"{left} records cannot be stored; `rally-pipeline quarantine` says why")


@contextmanager
def _open_mirror() -> Iterator[SellMirror]:
    from rally_pipeline.sell.connection import open_mirror

    settings = read_settings()
    missing = settings.missing("sell")
    if missing:
        raise UserMistake(
            f"Sell is not configured: set {' and '.join(missing)}"
            + (
                " (any fresh UUID will do, e.g. from `uuidgen`; never change it)"
                if "SELL_DEVICE_UUID" in missing
                else ""
            )
        )
    with open_mirror(settings) as mirror:
        yield mirror
