"""`rally-pipeline allow-deletes`: a person's word for a mass delete, used once."""

from __future__ import annotations

import click

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.rally.entities import Entity


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(allow_deletes)


@click.command(name="allow-deletes", short_help="Confirm a mass delete that a run stopped at.")
@click.argument("entity", type=click.Choice([entity.value for entity in Entity]))
@click.argument("count", type=click.IntRange(1))
def allow_deletes(entity: str, count: int) -> None:
    """Let the next run look at, and delete, up to COUNT rows of ENTITY that seem to be gone from Rally.

    A wrong key, tenant or filter looks exactly like a mass delete, so a run stops at one and names COUNT. Give this
    word only where the deletes are real. It is good until those rows are settled; more of them stop a run again.
    """
    from rally_pipeline.rally.connection import open_mirror

    with open_mirror(read_settings()) as mirror:
        mirror.allow_deletes(Entity(entity), count)
    remarks.print(f"Up to {count:,} rows of {Entity(entity).table_name} may be deleted by the next run.")
