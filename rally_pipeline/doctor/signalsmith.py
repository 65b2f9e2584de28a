"""SignalSmith: does the token open the workspace, and how old is the catalog that Dagster is built from."""

from __future__ import annotations

from collections.abc import Iterator

from rally_pipeline.clock import Clock
from rally_pipeline.doctor.finding import Finding, ok, problem_of, warning
from rally_pipeline.doctor.probe import examine_clock, examine_missing, make_probe, span
from rally_pipeline.http.client import quote_segment
from rally_pipeline.http.envelope import read_rows
from rally_pipeline.http.errors import ApiError
from rally_pipeline.settings import Settings
from rally_pipeline.signalsmith.catalog_file import load_catalog
from rally_pipeline.signalsmith.status import OLD_SECONDS

_REFRESH = "`rally-pipeline signalsmith refresh`"


def examine_signalsmith(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """The workspace, the clock, the catalog."""
    url, token, workspace = (
        settings.signalsmith_api_url,
        settings.signalsmith_api_token,
        settings.signalsmith_workspace_id,
    )
    if url is None or token is None or workspace is None:
        given = any(value is not None for value in (url, token, workspace))
        yield examine_missing(settings, "signalsmith", given=given)
        return
    secret = token.get_secret_value()
    with make_probe(
        settings,
        clock,
        system="signalsmith",
        base_url=url,
        headers={"Authorization": f"Bearer {secret}", "X-Workspace-ID": workspace},
        secrets=[secret],
    ) as client:
        try:
            read_rows(
                client.get(
                    f"/workspaces/{quote_segment(workspace)}/syncs", params={"page": 1, "page_size": 1}
                )
            )
        except ApiError as error:
            yield problem_of("signalsmith", error)
        else:
            yield ok(
                "signalsmith",
                f"{url}: the token opens workspace {workspace}; whether it may trigger syncs is not tried",
            )
        yield from examine_clock("signalsmith", client, clock)
    yield _examine_catalog(settings, clock)


def _examine_catalog(settings: Settings, clock: Clock) -> Finding:
    loaded = load_catalog(settings.home_path, settings.signalsmith_workspace_id)
    fetched = loaded.catalog.fetched
    if loaded.problem or fetched is None:
        return warning(
            "signalsmith", loaded.problem or "the catalog does not say when it was fetched", _REFRESH
        )
    age = clock.now() - fetched
    text = f"the catalog holds {len(loaded.catalog.present)} syncs and is {span(age)} old"
    return (
        warning("signalsmith", text, _REFRESH)
        if age.total_seconds() > OLD_SECONDS
        else ok("signalsmith", text)
    )
