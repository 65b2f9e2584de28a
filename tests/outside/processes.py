"""Commands and services as a person starts them: processes of their own, each with a time in which it must end.

Each process leads a session of its own, so that it can be killed together with all that it started. What it says is
read when it has ended: no traceback, no secret.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
USUAL_SECONDS = 180
"""In which a command must end unless a test says otherwise: many times what it takes on an idle machine."""
SHOWN = 3_000
SECRETS = ("RALLY_API_KEY", "SELL_ACCESS_TOKEN", "SIGNALSMITH_API_TOKEN", "SYNC_HASH_KEY")
TETHER = "--end-with-stdin"
"""Lets a process end together with the tests, also where those are killed."""
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


class DidNotEnd(AssertionError):
    """A command was still running when its time was over."""


@dataclass(frozen=True)
class Ended:
    """What a process left behind; `code` is negative where a signal ended it."""

    command: str
    code: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        return self.out + self.err

    @property
    def last_line(self) -> str:
        lines = [line for line in self.err.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    def __str__(self) -> str:
        return f"{self.command}: exit code {self.code} after {self.seconds:.0f} s\n{self.said[-SHOWN:]}"


@dataclass
class Running:
    """A process under way."""

    command: str
    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    secrets: Sequence[str]
    begun: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float = USUAL_SECONDS) -> Ended:
        """Until it ends by itself.

        Raises:
            DidNotEnd: it did not; it was killed with all that it started.
        """
        try:
            self.process.wait(max(0.0, self.begun + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            raise DidNotEnd(f"{self._ended()}\nhad {seconds:.0f} s to end in") from None
        return self._ended()

    def is_running(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """As Ctrl-C and `kill` do: to the process alone."""
        self.process.send_signal(number)

    def kill(self) -> Ended:
        """SIGKILL to it and to whatever it started."""
        kill_group(self.process.pid)
        self.process.wait()
        return self._ended()

    def said(self) -> str:
        """What it has said so far."""
        return self.out.read_text(errors="replace") + self.err.read_text(errors="replace")

    def _ended(self) -> Ended:
        texts = [path.read_text(errors="replace") for path in (self.out, self.err)]
        ended = Ended(self.command, self.process.returncode, *texts, time.monotonic() - self.begun)
        check_words(ended, self.secrets)
        return ended


def check_words(ended: Ended, secrets: Sequence[str]) -> None:
    """No traceback and no secret in anything that a command says, whatever became of it."""
    assert "Traceback (most recent call last)" not in ended.said, f"a traceback: {ended}"
    for secret in secrets:
        assert secret not in ended.said, f"a secret ({secret[:6]}…) in what it said: {ended.command}"


def kill_group(leader: int) -> None:
    """SIGKILL to all processes of a group; none left is fine."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


class Home:
    """A folder with a home of the pipeline in it, and the settings that its commands get. Nothing else leaks in."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.path = folder / "home"
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.variables = {**inherited, "RALLY_PIPELINE_HOME": str(self.path), **variables}
        self._number = 0

    @property
    def secrets(self) -> list[str]:
        """What must never be shown."""
        found = [self.variables[name] for name in SECRETS if name in self.variables]
        return [secret for secret in found if len(secret) >= 8]

    def start(self, program: str, *arguments: str, cwd: Path | None = None, **more: str) -> Running:
        """Start a program that is installed beside Python, or one of the system."""
        self._number += 1
        out, err = (self.folder / f"{self._number:03}-{arguments[0]}.{kind}" for kind in ("out", "err"))
        installed = PROGRAMS / program
        command = [str(installed) if installed.exists() else program, *arguments]
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                command,
                cwd=cwd or self.folder,
                env={**self.variables, **more},
                stdin=subprocess.PIPE if TETHER in arguments else subprocess.DEVNULL,
                stdout=to_out,
                stderr=to_err,
                start_new_session=True,
            )
        return Running(" ".join([program, *arguments]), process, out, err, self.secrets)

    def begin(self, *arguments: str, **more: str) -> Running:
        """Start one of our commands."""
        return self.start("rally-pipeline", *arguments, **more)

    def run(
        self, *arguments: str, code: int | None = 0, seconds: float = USUAL_SECONDS, **more: str
    ) -> Ended:
        """One of our commands from start to end; `code` None takes any."""
        ended = self.begin(*arguments, **more).wait(seconds)
        assert code is None or ended.code == code, str(ended)
        return ended

    def survivors(self) -> list[str]:
        """Command lines of processes that have this home in their environment."""
        mark = f"RALLY_PIPELINE_HOME={self.path}".encode() + b"\0"
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes():
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(f"{folder.name} {words.decode(errors='replace')}")
            except OSError:
                continue  # it ended meanwhile, or is not ours
        return [line for line in found if line.partition(" ")[2].strip()]

    def clear_away(self) -> None:
        """Kill whatever is left of it."""
        for line in self.survivors():
            try:
                os.kill(int(line.partition(" ")[0]), signal.SIGKILL)
            except ProcessLookupError:
                continue


def wait_for(what: str, condition: Callable[[], Any], *, seconds: float, by: Running | None = None) -> Any:
    """The first true value of `condition`; fails where it does not come in time.

    `by` is the process that is to bring it about: its end is the end of the waiting, and its last words are shown.
    """
    said = by.said if by is not None else str
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except OSError:
            found = None
        if found:
            return found
        assert by is None or by.is_running(), f"{what}: it ended\n{said()[-SHOWN:]}"
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{said()[-SHOWN:]}"
        time.sleep(0.25)


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def cleared(home: Home) -> Iterator[Home]:
    """The home for the block; at its end none of its processes is left."""
    try:
        yield home
    finally:
        home.clear_away()
