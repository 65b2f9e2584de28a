"""The way out as the environment describes it: which proxy, which certificate authorities; never with a password."""

from __future__ import annotations

from collections.abc import Iterator

from rally_pipeline.doctor.finding import Finding, ok, problem
from rally_pipeline.http.surroundings import find_authorities, find_proxy
from rally_pipeline.http.transport import TransportFailure
from rally_pipeline.http.urls import is_loopback
from rally_pipeline.settings import Settings


def examine_network(settings: Settings) -> Iterator[Finding]:
    """The proxy on the way to each system that has a URL, and the authorities that are trusted."""
    urls = {
        "rally": settings.rally_api_url,
        "sell": settings.sell_api_url if settings.sell_access_token is not None else None,
        "signalsmith": settings.signalsmith_api_url,
    }
    for system, url in urls.items():
        if url is not None:
            yield _examine_way(system, url)
    yield from examine_certificates()


def examine_certificates() -> Iterator[Finding]:
    """The authorities that answers of a server are checked against."""
    authorities = find_authorities()
    try:
        authorities.check()
    except TransportFailure as failure:
        yield problem("certificates", failure.reason, failure.advice)
        return
    named = (
        f"those of {authorities.path} ({authorities.variable})" if authorities.variable else "the public ones"
    )
    yield ok("certificates", f"authorities: {named}")


def _examine_way(system: str, url: str) -> Finding:
    if is_loopback(url):
        return ok("proxy", f"{system}: none, because {url} is this machine")
    try:
        proxy = find_proxy(url)
    except TransportFailure as failure:
        return problem("proxy", f"{system}: {failure.reason}", failure.advice)
    if proxy is None:
        return ok("proxy", f"{system}: none")
    login = ", with user and password" if proxy.has_login else ""
    return ok("proxy", f"{system}: {proxy.name} ({proxy.variable}{login})")
