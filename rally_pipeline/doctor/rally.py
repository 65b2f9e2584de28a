"""Rally: does the key open what the mirror reads, is it the right tenant, and does it open more than it should."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from rally_pipeline.clock import Clock
from rally_pipeline.doctor.finding import Finding, ok, problem, problem_of, warning
from rally_pipeline.doctor.probe import examine_clock, examine_missing, make_probe
from rally_pipeline.doctor.warehouse import Facts
from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.envelope import read_rows
from rally_pipeline.http.errors import ApiError, Forbidden, NotFound
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.tenant import owner_of
from rally_pipeline.settings import Settings

_FEED = "/sync/changes"
_NOTHING: dict[str, str | int] = {"since": "9999-01-01T00:00:00Z", "limit": 1}
_KEYS = "/api-keys"


def examine_rally(settings: Settings, facts: Facts, clock: Clock) -> Iterator[Finding]:
    """The feed, the four lists, the tenant, the clock, the key's reach."""
    url, key = settings.rally_api_url, settings.rally_api_key
    if url is None or key is None:
        yield examine_missing(settings, "rally", given=url is not None or key is not None)
        return
    secret = key.get_secret_value()
    with make_probe(
        settings, clock, system="rally", base_url=url, headers={"X-Api-Key": secret}, secrets=[secret]
    ) as client:
        closed: list[Finding] = []
        try:
            read_rows(client.get(_FEED, params=_NOTHING))
        except (Forbidden, NotFound) as error:
            closed.append(problem_of("rally", error))
        except ApiError as error:
            yield problem_of("rally", error)
            return  # the other calls would fail in the same way
        yield from examine_clock("rally", client, clock)
        rows = [row for entity in Entity for row in _read_list(client, entity, closed)]
        yield from closed
        if not closed:
            yield ok("rally", f"{url}: the key may read the feed and all four lists")
        yield from _examine_tenant(rows, facts)
        yield from _examine_reach(client)


def _read_list(client: HttpClient, entity: Entity, closed: list[Finding]) -> list[msgspec.Raw]:
    try:
        return read_rows(client.get(f"/{entity.value}", params={"limit": 1, "offset": 0}))
    except ApiError as error:
        closed.append(problem_of("rally", error))
        return []


def _examine_tenant(rows: list[msgspec.Raw], facts: Facts) -> Iterator[Finding]:
    tenants = {tenant for row in rows if (tenant := owner_of(row)) is not None}
    if facts.tenant is not None and tenants and tenants != {facts.tenant}:
        yield problem(
            "rally",
            f"the key opens tenant {', '.join(sorted(tenants))}, but the warehouse mirrors tenant {facts.tenant}",
            "check RALLY_API_URL and RALLY_API_KEY, or use another WAREHOUSE_URL",
        )


def _examine_reach(client: HttpClient) -> Iterator[Finding]:
    """Only an admin may list keys. Whether the key may write cannot be tried without writing."""
    try:
        client.get(_KEYS)
    except (Forbidden, NotFound):
        yield ok("rally", "the key is no admin's; whether it may write, as imports need, is not tried")
    except ApiError:
        yield ok("rally", "how far the key reaches beyond reading cannot be told")
    else:
        yield warning(
            "rally",
            "the key has the scope admin: it may change keys and settings",
            "make one with the scope read for the mirror, or write where files are imported",
        )
