"""One process of the tenant: `python -m benchmarks.rate_limit.worker WAY BASE_URL KEY NUMBER` asks without end.

It begins when a line comes in on standard input, and names itself in the `offset` of its requests.
"""

from __future__ import annotations

import sys
import time

import requests

from rally_pipeline.http.budget import HeaderBudget
from rally_pipeline.http.client import HttpClient


def ask_ours(base_url: str, key: str, number: int) -> None:
    """Through this package's client and its budget."""
    with HttpClient(
        system="rally", base_url=base_url, headers={"X-Api-Key": key}, secrets=[key], budget=HeaderBudget()
    ) as client:
        _wait_for_go()
        while True:
            client.get("/contacts", params={"limit": 1, "offset": number})


def ask_plain(base_url: str, key: str, number: int) -> None:
    """Until refused; then a sleep until the named reset."""
    with requests.Session() as session:
        session.headers["X-Api-Key"] = key
        _wait_for_go()
        while True:
            answer = session.get(f"{base_url}/contacts", params={"limit": 1, "offset": number}, timeout=60)
            if answer.status_code == 429:
                time.sleep(max(0.0, int(answer.headers["X-RateLimit-Reset"]) - time.time()))


def _wait_for_go() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    {"ours": ask_ours, "plain": ask_plain}[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
