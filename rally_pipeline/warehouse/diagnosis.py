"""From a driver's exception to one clear line.

Drivers put row values into their texts (PostgreSQL's DETAIL and CONTEXT, "invalid input syntax … 'value'"), so
only error codes and names of database objects are taken over, never the driver's own sentence about data.
"""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from rally_pipeline.warehouse.errors import (
    WarehouseBusy,
    WarehouseDamaged,
    WarehouseError,
    WarehouseFull,
    WarehouseUnavailable,
)

DATABASE_ERRORS: tuple[type[Exception], ...] = (sa.exc.SQLAlchemyError, sqlite3.Error)
"""What SQLAlchemy and the raw SQLite statements raise; raw PostgreSQL statements raise SQLAlchemy's errors too."""

_SQLITE = {
    "SQLITE_BUSY": (
        WarehouseBusy,
        "is locked by another process for too long; try again when it has finished",
    ),
    "SQLITE_LOCKED": (WarehouseBusy, "is locked by another connection of this process; try again"),
    "SQLITE_FULL": (WarehouseFull, "cannot grow: the disk (or quota) is full; free space and run again"),
    "SQLITE_READONLY": (WarehouseError, "cannot be written: the file or its folder is read-only"),
    "SQLITE_CANTOPEN": (WarehouseError, "cannot be opened: check that the folder exists and may be written"),
    "SQLITE_PERM": (WarehouseError, "may not be accessed: check the permissions of the file and its folder"),
    "SQLITE_CORRUPT": (WarehouseDamaged, "is corrupt: restore a backup, or move the file away to start anew"),
    "SQLITE_NOTADB": (WarehouseDamaged, "is not a SQLite database: check WAREHOUSE_URL"),
    "SQLITE_IOERR": (WarehouseError, "cannot be read or written: input/output error; check the disk"),
    "SQLITE_NOMEM": (WarehouseError, "could not be worked on: out of memory"),
}

_POSTGRESQL = {
    "08": (WarehouseUnavailable, "the connection was lost; nothing was changed, run again"),
    "25P03": (
        WarehouseUnavailable,
        "the transaction idled for too long and was ended; nothing was changed, run again",
    ),
    "57P": (WarehouseUnavailable, "the server ended the connection; nothing was changed, run again"),
    "40": (WarehouseBusy, "another session was in the way (deadlock or serialization); run again"),
    "55P03": (
        WarehouseBusy,
        "a lock is held by another session for too long; try again when it has finished",
    ),
    "57014": (WarehouseBusy, "the statement was cancelled (time limit or administrator); run again"),
    "53100": (WarehouseFull, "the server's disk is full; free space and run again"),
    "53300": (WarehouseUnavailable, "the server has no free connection; close some or raise max_connections"),
    "53": (WarehouseError, "the server is out of resources"),
    "28": (WarehouseError, "the server refused the login: check user and password"),
    "3D000": (WarehouseError, "the database does not exist: create it or correct WAREHOUSE_URL"),
    "42501": (
        WarehouseError,
        "the user lacks a permission: it needs to create and write tables in its schema",
    ),
    "25006": (WarehouseError, "the server is read-only (a standby?): use the primary"),
    "XX001": (WarehouseDamaged, "the server reports damaged data"),
    "XX002": (WarehouseDamaged, "the server reports a damaged index: REINDEX it"),
}

DATA_ERROR_CLASSES = ("22", "23")
"""SQLSTATE classes that blame a row's values."""

_DATA_REASONS = {
    "22003": "a number is out of range",
    "22007": "an instant cannot be read",
    "22008": "an instant is out of range",
    "22021": "a text has characters that cannot be stored",
    "22P02": "a value does not fit its column's type",
    "22P05": "a text has characters that cannot be stored",
    "23502": "a required column is empty",
    "23505": "a unique column has this value already",
    "23514": "a check of the table failed",
    "54000": "the row is too large",
}


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's five-character code, or None for other errors."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    return state if isinstance(state, str) else None


def driver_error(error: BaseException) -> BaseException | None:
    """The driver's own exception inside `error`, or None if no driver spoke."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return original
    return original if type(original).__module__.startswith("psycopg") else None


def diagnose(error: BaseException, place: str) -> WarehouseError | None:
    """The warehouse's error for a driver's exception (`place` names the database); None if no driver spoke."""
    original = driver_error(error)
    if original is None:
        if isinstance(error, sa.exc.TimeoutError):
            return WarehouseBusy(f"{place}: all connections of this process are in use")
        return None
    if isinstance(original, sqlite3.Error):
        return _diagnose_sqlite(original, place)
    return _diagnose_postgresql(original, place)


def data_reason(error: BaseException) -> str | None:
    """Why the database refuses a row, without its values; None if the row is not to blame."""
    if isinstance(error, OverflowError):
        return "a number is out of range"
    if isinstance(error, UnicodeEncodeError):
        return "a text has characters that cannot be stored"
    original = driver_error(error)
    if isinstance(original, sqlite3.Error):
        return _sqlite_data_reason(original)
    state = sqlstate(error)
    if state is None:
        # The driver itself refuses only texts with U+0000 in this way.
        return _DATA_REASONS["22021"] if type(original).__name__ == "DataError" else None
    if state in _DATA_REASONS:
        return _DATA_REASONS[state]
    return f"the database refuses a value (SQLSTATE {state})" if state[:2] in DATA_ERROR_CLASSES else None


def _sqlite_data_reason(error: sqlite3.Error) -> str | None:
    code = getattr(error, "sqlite_errorname", "")
    if code == "SQLITE_CONSTRAINT_NOTNULL":
        return "a required column is empty"
    if code in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
        return "a unique column has this value already"
    if code == "SQLITE_CONSTRAINT_DATATYPE":
        return "a value does not fit its column's type"
    if code.startswith("SQLITE_CONSTRAINT"):
        return "a check of the table failed"
    return "the row is too large" if code == "SQLITE_TOOBIG" else None


def _diagnose_sqlite(error: sqlite3.Error, place: str) -> WarehouseError:
    code = getattr(error, "sqlite_errorname", "")
    for known, (kind, sentence) in _SQLITE.items():
        if code == known or code.startswith(f"{known}_"):
            return kind(f"{place} {sentence}")
    reason = _sqlite_data_reason(error)
    if reason is not None:
        return WarehouseError(f"{place}: a row was refused: {reason}")
    return WarehouseError(f"{place}: the statement failed: {error}")


def _diagnose_postgresql(error: BaseException, place: str) -> WarehouseError:
    state = sqlstate(error)
    if state is None and type(error).__name__ in ("OperationalError", "InterfaceError"):
        return WarehouseUnavailable(f"{place}: {_connection_trouble(str(error))}")
    for known, (kind, sentence) in sorted(_POSTGRESQL.items(), key=lambda item: -len(item[0])):
        if state is not None and state.startswith(known):
            return kind(f"{place}: {sentence}")
    reason = data_reason(error)
    if reason is not None:
        return WarehouseError(f"{place}: a row was refused: {reason}")
    primary = getattr(getattr(error, "diag", None), "message_primary", None) or type(error).__name__
    return WarehouseError(f"{place}: the statement failed: {primary} (SQLSTATE {state})")


def _connection_trouble(text: str) -> str:
    lowered = text.lower()
    for mark, sentence in (
        ("refused", "nobody answers there: is the server running, and are host and port right?"),
        ("no such file", "nobody answers there: is the server running, and is the socket folder right?"),
        ("resolve", "the host name cannot be resolved"),
        ("name or service", "the host name cannot be resolved"),
        ("timeout", "no answer in time: check host, port and firewall"),
        ("password", "the server refused the login: check user and password"),
        ("authentication", "the server refused the login: check user and password"),
        ("does not exist", "the database or user does not exist: check WAREHOUSE_URL"),
        ("ssl", "no encrypted connection could be agreed on: check sslmode"),
        ("invalid", "the connection options cannot be used: check WAREHOUSE_URL"),
    ):
        if mark in lowered:
            return sentence
    return "the connection was lost; nothing was changed, run again"
