"""SignalSmith's part of `sync`: a fresh catalog, then one run of every active sync, attached to or triggered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rally_pipeline.cli.sync.session import SyncSession
    from rally_pipeline.signalsmith.catalog import Catalog


def catch_up(session: SyncSession) -> None:
    """Refresh, then run what is active one after the other; a sync that is only observed is left alone."""
    from rally_pipeline.signalsmith.defs.names import CATALOG_JOB, job_name
    from rally_pipeline.signalsmith.options import Ownership, read_options

    if not session.run(CATALOG_JOB):
        return
    catalog = _reload(session)
    options = read_options(session.settings.syncs_dir)
    done, left = 0, 0
    active = [entry for entry in catalog.present if entry.status == "active"]
    if session.settings.rally_pipeline_read_only:
        session.lines.append(
            f"signalsmith: catalog fetched; none of the {len(active)} active syncs is triggered, because"
            " RALLY_PIPELINE_READ_ONLY=true forbids writing"
        )
        return
    for number, entry in enumerate(active):
        session.progress("signalsmith syncs", number, len(active))
        chosen = options.of(entry.id, entry.name, entry.config)
        if chosen.ownership is Ownership.OBSERVE:
            left += 1
        else:
            done += session.run(job_name(entry))
    session.progress("signalsmith syncs", len(active), len(active))
    observed = f", {left} only observed" if left else ""
    session.lines.append(f"signalsmith: {done} of {len(active)} active syncs ran{observed}")


def _reload(session: SyncSession) -> Catalog:
    """The definitions of the catalog that was just fetched."""
    from rally_pipeline.rooms import build
    from rally_pipeline.signalsmith.catalog_file import load_catalog

    session.definitions = build(session.settings, announce=False)
    return load_catalog(session.settings.home_path, session.settings.signalsmith_workspace_id).catalog
