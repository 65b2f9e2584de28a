"""A command line with an environment of its own: in process where only words count, in a process of its own else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

import click.testing
import pytest

from rally_pipeline.cli import main
from rally_pipeline.sandbox.application import Sandbox
from rally_pipeline.sandbox.clock import SandboxClock
from rally_pipeline.sandbox.server import SandboxServer
from rally_pipeline.settings import Settings, load_settings
from tests.canaries import found_in

ROOT = Path(__file__).parents[2]


@dataclass
class Shell:
    """Runs `rally-pipeline` in a folder with an environment of its own, nothing of ours leaking in."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def environment(self, **more: str) -> dict[str, str]:
        system = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        home = {"RALLY_PIPELINE_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        return {**system, **home, **self.variables, **more}

    def say(self, *arguments: str, **variables: str) -> click.testing.Result:
        """Run inside this process, which is quick."""
        clean = {name.upper(): None for name in Settings.model_fields}
        with chdir(self.folder):
            said = click.testing.CliRunner().invoke(
                main, arguments, env={**clean, **self.environment(**variables)}
            )
        # Only the sandbox's own command tells its keys.
        assert arguments[:1] == ("sandbox",) or not found_in(said.output)
        return said

    def run(
        self, *arguments: str, seconds: float = 300, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run as a process of its own to the end; the exit code is for the test to judge."""
        done = subprocess.run(
            [sys.executable, "-m", "rally_pipeline.cli", *arguments],
            cwd=self.folder,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not found_in(done.stdout + done.stderr)
        return done

    def settings(self) -> Settings:
        """The settings that the commands see."""
        values = {name.lower(): value for name, value in self.variables.items()}
        return load_settings(**values, rally_pipeline_home=self.home)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Nothing is configured."""
    return Shell(tmp_path)


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    """A small tenant, served on loopback."""
    with SandboxServer(Sandbox(records=80, clock=SandboxClock.running())) as server:
        yield server


@pytest.fixture
def connected(shell, sandbox) -> Shell:
    """Rally is configured, at a pace that fits the sandbox."""
    shell.variables |= {
        name: value for name, value in sandbox.environment().items() if name.startswith("RALLY")
    }
    shell.variables |= {"RALLY_STALENESS_SECONDS": "0", "RALLY_FEED_OVERLAP_SECONDS": "30"}
    return shell


@pytest.fixture
def filled(connected) -> Shell:
    """The mirror is complete."""
    from rally_pipeline.rally.connection import open_mirror
    from rally_pipeline.rally.entities import Entity

    with open_mirror(connected.settings()) as mirror:
        for entity in Entity:
            mirror.extract(entity)
            mirror.settle(entity)
    return connected
