"""Whether the UI of a running Dagster answers."""

from __future__ import annotations

import json
import urllib.request


def is_alive(url: str) -> bool:
    """Whether the UI answers and has loaded the code location."""
    query = {"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}
    request = urllib.request.Request(  # noqa: S310 - http on loopback, built by us
        f"{url}/graphql",
        data=json.dumps(query).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            data = json.load(answer)
    except (OSError, ValueError):
        return False
    return bool(data.get("data", {}).get("repositoriesOrError", {}).get("nodes"))
