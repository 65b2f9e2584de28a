"""Imports, measured: nothing heavy may be imported before."""

from __future__ import annotations


def import_dagster() -> dict[str, int]:
    """What every code location does."""
    import dagster

    return {"assets": len(list(dagster.Definitions().assets or []))}


def load_location() -> dict[str, int]:
    """This package's definitions, as the environment configures them."""
    from rally_pipeline.definitions import defs

    repository = defs.get_repository_def()
    return {"assets": len(repository.assets_defs_by_key), "schedules": len(repository.schedule_defs)}
