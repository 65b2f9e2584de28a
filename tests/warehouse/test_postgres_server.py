"""The test server leaves nothing behind, however its tests end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.postgres import running_server

KILL_ITSELF = """
import os, signal
from tests.postgres import running_server
with running_server() as server:
    print(server.folder, flush=True)
    print((server.folder / "data" / "postmaster.pid").read_text().split()[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_test_run_takes_its_server_and_data_with_it() -> None:
    done = subprocess.run([sys.executable, "-c", KILL_ITSELF], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    folder, server = done.stdout.split()
    deadline = time.monotonic() + 20
    while Path(folder).exists() or Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_finished_test_run_takes_its_server_and_data_with_it() -> None:
    with running_server() as server:
        postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    assert not server.folder.exists()
    assert not Path(f"/proc/{postmaster}").exists()
