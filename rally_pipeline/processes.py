"""Which process this is, and whether another one still runs: for everything that must not wait for the dead."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path

PATIENCE_SECONDS = 900.0
"""How long a step or a command waits for a live process that writes the same tables, and says so, before it fails."""


@lru_cache(maxsize=1)
def host_name() -> str:
    """This host as far as process numbers mean anything: name, boot and process namespace."""
    parts = [platform.node()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    if boot.exists():
        parts.append(boot.read_text().strip()[:8])
    if space.is_symlink():
        parts.append(str(space.readlink()).strip("pid:[]"))
    return "/".join(parts)


def started_at(process_id: int) -> str | None:
    """When the process began (clock ticks since boot, as text); None if it does not run any more.

    Without /proc the answer is an empty text for a running process: its number alone identifies it then.
    """
    status = Path(f"/proc/{process_id}/stat")
    if status.parent.parent.joinpath("self").exists():
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""


def is_gone(host: object, process_id: int, started: str) -> bool:
    """Whether the process is known to run no more. Only ever known of processes of this host."""
    if host != host_name():
        return False
    running_since = started_at(process_id)
    return running_since is None or running_since != started
