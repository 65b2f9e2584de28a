"""After a changed catalog the webserver is asked to load the location anew; whatever it says, nothing fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from rally_pipeline.settings import SettingsError, load_settings
from rally_pipeline.signalsmith.defs.reload import request_reload


@contextmanager
def webserver(answer: object, seen: list[dict[str, Any]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def entry(kind: str) -> dict[str, Any]:
    return {
        "data": {
            "reloadRepositoryLocation": {
                "__typename": "WorkspaceLocationEntry",
                "locationOrLoadError": {"__typename": kind},
            }
        }
    }


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (entry("RepositoryLocation"), "reloaded"),
        (entry("PythonError"), "could not reload"),
        ({"data": {"reloadRepositoryLocation": None}}, "could not reload"),
        ({"errors": []}, "did not answer"),
        ([], "did not answer"),
    ],
)
def test_what_came_of_it_is_said(answer: object, said: str) -> None:
    seen: list[dict[str, Any]] = []
    with webserver(answer, seen) as url:
        assert said in request_reload(load_settings(dagster_webserver_url=url), "my location")
    assert seen[0]["variables"] == {"name": "my location"}


def test_without_a_webserver_a_person_is_told_what_to_do() -> None:
    assert "press Reload" in request_reload(load_settings(dagster_webserver_url=None), "x")
    assert "did not answer" in request_reload(load_settings(dagster_webserver_url="http://127.0.0.1:9"), "x")


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://x", "http://", "http://user:pw@x"])
def test_what_is_no_webserver_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError, match="DAGSTER_WEBSERVER_URL"):
        load_settings(dagster_webserver_url=url)
