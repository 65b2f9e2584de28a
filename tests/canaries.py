"""Secrets that every test works with, and the check that no output of the suite shows one.

The sandboxes' keys and the tests' own passwords look like nothing else, so that one search finds them anywhere: in what
a test prints or logs, in a process's output, and in the bytes of every file that a run leaves.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest

PATTERN = re.compile(
    rb"(?:rk|sk)_live_sandbox_[A-Za-z0-9]{8,}|test_sell_[0-9]{8}_k{20,}|test_key_0123456789abcdef|canary-pass-word"
)


def found_in(text: str | bytes) -> list[str]:
    """The secrets in a text, shortened so that they can be named."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    return sorted({f"{match[:16].decode()}…" for match in PATTERN.findall(data)})


def found_below(folder: Path, *, besides: Iterable[str] = ()) -> dict[str, list[str]]:
    """Files below a folder that hold a secret, with the secrets; `besides`: names of files that may."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in besides and (secrets := found_in(path.read_bytes())):
            found[str(path.relative_to(folder))] = secrets
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test whose output or log shows a secret fails."""
    report = yield
    shown = found_in(report.capstdout + report.capstderr + report.caplog)
    if shown and report.passed:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: the output of the test shows {', '.join(shown)}"
    return report
