"""Headless Chromium over its DevTools protocol: go to a page, wait for what it shows, take a picture."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a DevTools command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def show(
        self, url: str, *, until: str, width: int = 1440, height: int = 900, seconds: float = 60
    ) -> None:
        """Open `url` and wait until the JavaScript expression `until` holds."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.command("Page.navigate", url=url)
        self.wait(until, seconds=seconds)

    def wait(self, until: str, *, seconds: float = 60) -> None:
        """Wait until the JavaScript expression holds."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({until})"):
            assert time.monotonic() < deadline, f"not within {seconds} s: {until}\n{self.text()[:2000]}"
            time.sleep(0.2)

    def text(self) -> str:
        """All text on the page."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def click(self, text: str) -> None:
        """Click the innermost element with exactly this text."""
        found = self.evaluate(
            "(() => { const all = [...document.querySelectorAll('a,button,span,div')]"
            f".filter(e => e.textContent.trim() === {json.dumps(text)}); "
            "const e = all[all.length - 1]; if (!e) return false; e.click(); return true })()"
        )
        assert found, f"nothing says {text!r}"

    def picture(self, path: Path) -> None:
        """Save what is visible as PNG."""
        data = self.command("Page.captureScreenshot", format="png")["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))


@contextmanager
def open_page() -> Iterator[Page]:
    """A fresh browser with an empty profile, closed at the end."""
    assert CHROMIUM is not None, "chromium is not installed"
    profile = tempfile.mkdtemp(prefix="rally-chromium-")
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "DevTools listening on" in line:
                port = line.rsplit(":", 1)[1].split("/")[0]
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            (target,) = [page for page in json.load(answer) if page["type"] == "page"]
        with connect(target["webSocketDebuggerUrl"], max_size=None, compression=None) as socket:
            page = Page(socket)
            page.command("Page.enable")
            yield page
    finally:
        process.terminate()
        process.wait(timeout=20)
        shutil.rmtree(profile, ignore_errors=True)
