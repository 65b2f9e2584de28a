"""kill -9 of a real process in the middle of an import over real sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from tests.rally.files.desk import activities, csv_text

PROGRAM = """
import sys
from pathlib import Path
from rally_pipeline.rally.client import connect
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.chunks import ChunkLimits
from rally_pipeline.rally.files.importer import Importer
from rally_pipeline.rally.files.policy import ImportPolicy
from rally_pipeline.settings import load_settings
from rally_pipeline.warehouse import Warehouse

settings = load_settings()
policy = ImportPolicy(ChunkLimits(max_rows=20), overlap_seconds=60, quiet_seconds=1, staleness_seconds=0)
with Warehouse.open(settings.warehouse) as warehouse:
    importer = Importer(warehouse, connect(settings), policy)
    importer.prepare()
    report = importer.run(Entity.ACTIVITIES, Path(sys.argv[1]))
    print(report.rows, report.imported, report.duplicate + report.refused + report.unknown)
"""


def _start(path: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    )


def _wait_for_uploads(sandbox: Sandbox, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 30
    while len(sandbox.log.matching(path="/import")) < count and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)


def test_an_import_killed_between_and_within_uploads_ends_with_each_row_once(tmp_path: Path) -> None:
    sandbox = Sandbox(records=0, clock=SandboxClock.running(), limit_per_minute=None, apis=["rally"])
    rows = activities(120)
    path = tmp_path / "rows.csv"
    path.write_text(csv_text(TEMPLATES[Entity.ACTIVITIES].headers, rows))
    with SandboxServer(sandbox) as server:
        environment = {
            **os.environ,
            **server.environment(),
            "RALLY_PIPELINE_HOME": str(tmp_path / "home"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        for uploads in (1, 4):
            process = _start(path, environment)
            _wait_for_uploads(sandbox, uploads, process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        output, _ = _start(path, environment).communicate(timeout=60)
    assert output.split() == ["120", "120", "0"]
    subjects = [record["subject"] for record in sandbox.rally.records("activities")]
    assert sorted(subjects) == sorted(row["subject"] for row in rows)
