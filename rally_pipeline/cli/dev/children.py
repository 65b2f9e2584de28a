"""Child processes that never outlive their parent: each has its own session, and a session is ended as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

GRACE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Child:
    """A running service."""

    name: str
    process: subprocess.Popen[str]

    def lines(self) -> Iterator[str]:
        """What the child says on stdout, line by line, until it closes it."""
        if self.process.stdout is not None:
            for line in self.process.stdout:
                yield line.rstrip("\n")


def start_child(
    stack: ExitStack,
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    talks: bool = False,
    output: IO[str] | None = None,
) -> Child:
    """Start a service and have `stack` end it with everything that it started.

    `talks`: its stdout is for us to read; `output`: a file for all that it says.
    Its stdin is a pipe that only we hold, so that it can notice our death.
    """
    process = subprocess.Popen(  # noqa: S603 - our own command line
        command,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if talks else output,
        stderr=output,
        text=True,
        start_new_session=True,
    )
    child = Child(name, process)
    stack.callback(_end, child)
    return child


def _end(child: Child) -> None:
    """Ask politely, then end whatever of the session is left."""
    process = child.process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    kill_session(process.pid)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def kill_session(leader: int) -> None:
    """End what is left of the session that the process `leader` began; nothing if it began none."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing of it is left
