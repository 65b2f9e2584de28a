"""One process of a tenant: `python -m tests.http.pace_worker BASE_URL COUNT THREADS KEY` sends COUNT requests as
fast as the budget lets it, once a line comes in on standard input, and prints what it used.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from rally_pipeline.http.budget import HeaderBudget
from rally_pipeline.http.client import HttpClient


def main(base_url: str, count: int, threads: int, key: str) -> None:
    with HttpClient(
        system="rally", base_url=base_url, headers={"X-Api-Key": key}, secrets=[key], budget=HeaderBudget()
    ) as client:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: client.get("/contacts", params={"limit": 1}), range(count)))
        usage = client.usage
    sys.stdout.write(json.dumps({"requests": usage.requests, "throttled": usage.throttled}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
