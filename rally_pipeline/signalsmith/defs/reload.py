"""Ask the webserver to load the code location anew, so that the UI shows a changed catalog at once.

The daemon reloads by itself within a minute, so schedules and sensors follow in any case; only the UI would go on
showing the old definitions. There is no other way to reach it than its own GraphQL API.
"""

import json
import logging
import urllib.error
import urllib.request

from rally_pipeline.settings import Settings

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS = 60.0
_MUTATION = """
mutation($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename
    ... on WorkspaceLocationEntry { loadStatus locationOrLoadError { __typename } }
  }
}
"""


def request_reload(settings: Settings, location_name: str) -> str:
    """Reload the location; one line says what came of it. Never raises: the catalog is stored already."""
    url = settings.dagster_webserver_url
    if url is None:
        return "not asked for: set DAGSTER_WEBSERVER_URL, or press Reload in the UI"
    body = json.dumps({"query": _MUTATION, "variables": {"name": location_name}}).encode()
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked by the settings
        f"{url}/graphql", data=body, headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            entry = json.load(answer)["data"]["reloadRepositoryLocation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("signalsmith: the webserver at %s could not be asked to reload: %s", url, error)
        return f"the webserver at {url} did not answer; press Reload in the UI"
    kind = (entry or {}).get("locationOrLoadError") or {}
    if kind.get("__typename") == "RepositoryLocation":
        return "reloaded"
    return (
        f"the webserver could not reload '{location_name}' ({(entry or {}).get('__typename')}); see its log"
    )
