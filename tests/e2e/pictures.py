"""The pictures in `docs/images`: pages of the UI as a person sees them a few minutes after the start.

`python -m tests.e2e.pictures URL FOLDER` takes them from a running `rally-pipeline dev --sandbox`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from urllib.parse import quote

from tests.e2e.browser import Page, open_page

GROUPS = ("rally_extract", "rally_feed", "rally", "signalsmith")
SETTLE_SECONDS = 4.0
"""For what moves: the graph's layout, plots, and figures that arrive one after the other."""


def take_pictures(page: Page, url: str, folder: Path) -> None:
    """Take all of them."""
    page.show(f"{url}/runs", until="document.body.innerText.includes('rally_incremental')")
    time.sleep(SETTLE_SECONDS)
    if "Skip" in page.text():
        page.click("Skip")  # an invitation that a fresh browser gets
    page.evaluate("localStorage.setItem('large-screen-nav-open', 'false')")
    _picture_graph(page, url, folder)
    _picture_plots(page, url, folder)
    _picture_asset(page, url, folder)
    _picture_partitions(page, url, folder)
    _picture_sensor(page, url, folder)


def _picture_graph(page: Page, url: str, folder: Path) -> None:
    expanded = ",".join(f"global@global:{group}" for group in GROUPS)
    shown = "['contacts','companies','deals','activities'].every(n => document.body.innerText.includes(n))"
    page.show(f"{url}/asset-groups?expanded={quote(expanded)}", until=shown, width=1700, height=1500)
    page.wait("!document.body.innerText.includes('fetching')")
    time.sleep(SETTLE_SECONDS)
    page.picture(folder / "asset-graph.png")


def _picture_plots(page: Page, url: str, folder: Path) -> None:
    page.show(f"{url}/assets/rally/contacts?view=overview", until="document.body.innerText.includes('Plots')")
    page.click("Plots")
    page.wait("document.querySelectorAll('canvas').length > 3")
    heading = "[...document.querySelectorAll('*')].filter(e => e.textContent.trim() === 'Metadata').pop()"
    page.evaluate(f"{heading}.scrollIntoView()")
    time.sleep(SETTLE_SECONDS)
    page.picture(folder / "asset-plots.png")


def _picture_asset(page: Page, url: str, folder: Path) -> None:
    page.show(
        f"{url}/assets/rally/contacts?view=overview", until="document.body.innerText.includes('Freshness')"
    )
    time.sleep(SETTLE_SECONDS)
    page.picture(folder / "asset.png")


def _picture_partitions(page: Page, url: str, folder: Path) -> None:
    page.show(
        f"{url}/assets/rally_feed/changes?view=partitions",
        until="document.body.innerText.includes('Partitions Selected')",
        height=700,
    )
    newest = "[...document.querySelectorAll('div')].filter(e => /^\\d{4}(-\\d\\d){3}:00$/.test(e.textContent.trim()))"
    page.evaluate(f"{newest}[1].click()")
    time.sleep(SETTLE_SECONDS)
    page.picture(folder / "feed-windows.png")


def _picture_sensor(page: Page, url: str, folder: Path) -> None:
    page.show(
        f"{url}/locations/rally_pipeline/sensors/rally_changes_sensor",
        until="/\\bruns? requested/.test(document.body.innerText)",
    )
    time.sleep(SETTLE_SECONDS)
    page.picture(folder / "change-sensor.png")


if __name__ == "__main__":
    with open_page() as opened:
        take_pictures(opened, sys.argv[1].rstrip("/"), Path(sys.argv[2]))
