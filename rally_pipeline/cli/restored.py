"""`rally-pipeline restored`: a person's word that the warehouse was restored from a backup or copied."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import UserMistake
from rally_pipeline.cli.terminal import remarks

if TYPE_CHECKING:
    from rally_pipeline.restored import Restored
    from rally_pipeline.settings import Settings

SHOWN_FILES = 20


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(restored)


@click.command(short_help="Say that the warehouse was restored from a backup or copied.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def restored(yes: bool) -> None:
    """Say that the warehouse was restored from a backup, or is a copy of another one.

    It gets a new identity and a new Sell device (everything is sent again, then rows that were not sent are looked
    at), Rally's feed is read again from where the backup stood, and at the next sync every table is read in full.
    Files in the inbox count as imported, because they may have been imported after the backup was made:
    `rally-pipeline import ENTITY FILE --again` takes one nonetheless.

    Always safe; may be run again. Most copies and older states are recognised, and then imports and Sell stop until
    this was said. A copy made with `cp -a`, or a machine that was set back to a snapshot, cannot be recognised: run
    this before anything else then.
    """
    settings = read_settings()
    place = _check_there(settings)
    if not yes:
        _ask(place)
    from rally_pipeline.restored import declare_restored

    _show(declare_restored(settings))


def _check_there(settings: Settings) -> str:
    """The warehouse without its password.

    Raises:
        UserMistake: there is no file where one would have been restored.
    """
    from rally_pipeline.warehouse.opening import parse_url
    from rally_pipeline.warehouse.sqlite import database_file

    url = parse_url(settings.warehouse)
    if url.get_backend_name() != "sqlite":
        return f"{url.host or 'on the local socket'}:{url.port or 5432}/{url.database}"
    file = database_file(url)
    if not file.exists():
        raise UserMistake(
            f"there is no warehouse at {file}: put the backup there first, or check WAREHOUSE_URL"
        )
    return str(file)


def _ask(place: str) -> None:
    question = f"The warehouse {place} was restored from a backup or copied"
    if not sys.stdin.isatty():
        raise UserMistake(f"{question}: say so with --yes")
    if not click.confirm(f"{question}?", err=True):
        raise UserMistake("nothing was changed")


def _show(done: Restored) -> None:
    why = (
        "; ".join(done.reasons)
        or "nothing showed that it was restored or copied, and it was done on your word"
    )
    remarks.print(f"Warehouse: new identity {done.warehouse} ({why}).", markup=False, soft_wrap=True)
    if done.feed_from is not None:
        remarks.print(
            f"Rally: the feed is read again from {done.feed_from:%Y-%m-%d %H:%M:%S} UTC, and the next"
            " `rally-pipeline sync rally` reads every table in full.",
            markup=False,
            soft_wrap=True,
        )
    _show_files(done)
    if done.device_uuid is not None:
        remarks.print(
            "Sell: a new device. Put the line below into the environment (or .env) in place of the old one; then"
            " `rally-pipeline sync sell` has everything sent again and looks at rows that were not sent"
            " (`rally-pipeline sell sweep` shows them). Until then Sell stops.",
            markup=False,
            soft_wrap=True,
        )
        click.echo(f"SELL_DEVICE_UUID={done.device_uuid}")


def _show_files(done: Restored) -> None:
    if done.files:
        remarks.print(
            f"Imports: {len(done.files):,} files count as imported; `rally-pipeline import ENTITY FILE --again` takes"
            " one nonetheless:",
            markup=False,
            soft_wrap=True,
        )
        for entity, name in done.files[:SHOWN_FILES]:
            remarks.print(f"  {entity.value}/{name}", markup=False, soft_wrap=True)
        if len(done.files) > SHOWN_FILES:
            remarks.print("  … (all are in import_files, status assumed)", markup=False)
    for line in done.unread:
        remarks.print(
            f"Imports: not read, and so not counted as imported: {line}", markup=False, soft_wrap=True
        )
