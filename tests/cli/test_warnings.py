"""What a person at the terminal sees of a run that waits."""

import logging
import re
import subprocess
import sys

from rally_pipeline.cli.sync.warnings import shown_warnings


def test_warnings_of_the_engines_show_while_a_command_waits_and_not_after_it(capsys):
    logger = logging.getLogger("rally_pipeline.http.client")
    with shown_warnings():
        logger.warning("rally: waiting %d s, until 10:18:10 UTC: [429]", 90)
        logger.info("not worth a line")
        logging.getLogger("another").warning("not ours")
    logger.warning("after it")
    shown = capsys.readouterr().err
    assert "rally: waiting 90 s, until 10:18:10 UTC: [429]" in shown
    assert "not worth" not in shown
    assert "not ours" not in shown.partition("[429]")[0]
    assert "after it" not in shown.splitlines()[:1]


def test_sync_says_for_what_it_waits_and_until_when(connected, sandbox):
    sandbox.sandbox.faults.add("throttle", api="rally", seconds=60, times=None)
    process = subprocess.Popen(
        [sys.executable, "-m", "rally_pipeline.cli", "sync", "rally"],
        cwd=connected.folder,
        env=connected.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "waiting" in line)
    finally:
        process.kill()
        process.wait()
    assert re.fullmatch(r"rally: waiting 6\d s, until \d\d:\d\d:\d\d UTC: rally GET /\S+: 429 .*\n", line)
