"""Source against warehouse, value by value, by code of its own: nothing here knows the package or its types."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.outside.source import RALLY_ENTITIES, SELL_TYPES, Source

INSTANT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
AMOUNTS = ("value", "annual_revenue")
"""Exact decimals, which some sources write as text: 12.50 is 12.5."""
NESTED = {"pipelines": ("stages",)}
"""Members that are objects of their own elsewhere."""


class Tables:
    """A warehouse as SQL sees it."""

    def __init__(self, url: str, schema: str | None = None) -> None:
        self._url = url
        self._schema = schema

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table; none where nothing has been mirrored into it yet."""
        return self.ask(f"SELECT * FROM {self.name(table)}") if self._has(table) else []

    def _has(self, table: str) -> bool:
        if self._url.startswith("sqlite:///"):
            return bool(self.ask(f"SELECT 1 FROM sqlite_master WHERE name = '{table}'"))
        return bool(
            self.ask(f"SELECT 1 FROM pg_tables WHERE schemaname = '{self._schema}' AND tablename = '{table}'")
        )

    def name(self, table: str) -> str:
        return f'"{self._schema}"."{table}"' if self._schema else f'"{table}"'

    def count(self, table: str) -> int:
        """How many rows it has."""
        found: int = self.ask(f"SELECT count(*) AS n FROM {self.name(table)}")[0]["n"]
        return found

    def ask(self, statement: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return self._execute(statement)

    def do(self, statement: str) -> None:
        """A statement of somebody who meddles with the warehouse."""
        self._execute(statement)

    def _execute(self, statement: str) -> list[dict[str, Any]]:
        if self._url.startswith("sqlite:///"):
            path = self._url.removeprefix("sqlite:///")
            with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
                connection.row_factory = sqlite3.Row
                return [dict(row) for row in connection.execute(statement)]
        import psycopg
        from psycopg.rows import dict_row
        from psycopg.types.json import set_json_loads

        parts = urlsplit(self._url)
        host = unquote(parse_qs(parts.query)["host"][0])
        options = parse_qs(parts.query).get("options", [""])[0]
        database = {"host": host, "user": parts.username, "dbname": parts.path.strip("/"), "options": options}
        with psycopg.connect(**database, autocommit=True, row_factory=dict_row) as connection:
            set_json_loads(lambda text: json.loads(text, parse_float=Decimal), connection)
            cursor = connection.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []


def rally_differences(truth: Mapping[str, Iterable[dict[str, Any]]], tables: Tables) -> list[str]:
    """What is missing, extra or otherwise in the mirror of Rally; `truth` by entity."""
    found = []
    for entity, records in truth.items():
        stored = {row["id"]: row for row in tables.rows(f"rally_{entity}") if row["_deleted_at"] is None}
        wanted = {
            record["id"].lower(): {_snake(name): value for name, value in record.items()}
            for record in records
        }
        found += _differences(entity, wanted, stored)
    return found


def sell_differences(truth: Mapping[str, Iterable[dict[str, Any]]], tables: Tables) -> list[str]:
    """The same for Sell."""
    found = []
    for kind, records in truth.items():
        stored = {str(row["id"]): row for row in tables.rows(f"sell_{kind}") if row["_deleted_at"] is None}
        wanted = {
            _sell_key(kind, record): _without(record, ("id", *NESTED.get(kind, ()))) for record in records
        }
        found += _differences(kind, wanted, stored)
    return found


def differences(source: Source, tables: Tables, systems: Sequence[str] = ("rally", "sell")) -> list[str]:
    """A running sandbox against the warehouse."""
    found = []
    if "rally" in systems:
        found += rally_differences({name: source.truth("rally", name) for name in RALLY_ENTITIES}, tables)
    if "sell" in systems:
        found += sell_differences({name: source.truth("sell", name) for name in SELL_TYPES}, tables)
    return found


def _differences(
    name: str, wanted: dict[str, dict[str, Any]], stored: dict[str, dict[str, Any]]
) -> list[str]:
    found = [f"{name} {key} is missing" for key in wanted.keys() - stored.keys()]
    found += [f"{name} {key} is extra" for key in stored.keys() - wanted.keys()]
    for key in wanted.keys() & stored.keys():
        row, extra = stored[key], stored[key]["extra"] or {}
        extra = json.loads(extra, parse_float=Decimal) if isinstance(extra, str) else extra
        here = {**{_snake(column): value for column, value in extra.items()}, **_without(row, ("extra",))}
        for column, value in wanted[key].items():
            said = _number(value) if column in AMOUNTS and value is not None else value
            if not _same(said, here.get(column)):
                found.append(f"{name} {key}: {column} is {value!r} at the source, {here.get(column)!r} here")
        set_here = {column for column, value in here.items() if value is not None and column[0] != "_"}
        surplus = set_here - wanted[key].keys() - {"id", "revision"}
        found += [f"{name} {key}: {column} is not set at the source" for column in surplus]
    return found


def _same(said: Any, stored: Any) -> bool:
    """Whether a column holds what the API said, however the database writes it."""
    if said is None or stored is None:
        return said is None and stored is None
    if isinstance(said, bool):
        return said == bool(stored) and stored in (0, 1)
    if isinstance(said, int | Decimal):
        return _number(said) == _number(stored)
    if isinstance(said, dict | list):
        return bool(said == (json.loads(stored, parse_float=Decimal) if isinstance(stored, str) else stored))
    if said == stored:
        return True
    return INSTANT.fullmatch(said) is not None and _instant(said) == _instant(stored)


def _number(value: object) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


def _instant(value: object) -> datetime | None:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _sell_key(kind: str, record: Mapping[str, Any]) -> str:
    if kind == "associated_contacts":
        return f"{record['deal_id']}:{record['contact_id']}"
    return str(record["id"])


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _without(members: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}
