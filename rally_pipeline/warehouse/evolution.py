"""Create what is missing, add what is new, refuse what does not fit: tables and columns, never a drop.

Runs inside the caller's transaction (both databases roll DDL back), so a table appears together with the first
rows that need it, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from rally_pipeline.warehouse.errors import WarehouseError
from rally_pipeline.warehouse.quoting import quote_always
from rally_pipeline.warehouse.types import Text
from rally_pipeline.warehouse.values import clean_text

MAX_NAME_BYTES = 63

_SQLITE_COLUMNS = (
    "SELECT m.name, c.name, c.type FROM sqlite_master AS m, pragma_table_xinfo(m.name) AS c "
    "WHERE m.type = 'table'"
)
_POSTGRESQL_COLUMNS = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a "
    "JOIN pg_class c ON c.oid = a.attrelid "
    "WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) "
    "AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"
)
_SQLITE_INDEXES = "SELECT name FROM sqlite_master WHERE type = 'index'"
_POSTGRESQL_INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()"

_DIALECTS: dict[str, sa.Dialect] = {
    "sqlite": quote_always(sqlite.dialect()),
    "postgresql": quote_always(postgresql.dialect()),  # type: ignore[no-untyped-call]
}


def existing_columns(connection: sa.Connection) -> dict[str, dict[str, str]]:
    """Tables of the warehouse's schema, each with its columns and their database types in upper case."""
    query = _SQLITE_COLUMNS if connection.dialect.name == "sqlite" else _POSTGRESQL_COLUMNS
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.exec_driver_sql(query):
        found.setdefault(table, {})[column] = kind.upper()
    return found


def is_complete(connection: sa.Connection, tables: Iterable[sa.Table]) -> bool:
    """Whether every table has every column, of its type, and every index, so that there is nothing to do."""
    wanted = list(tables)
    found = existing_columns(connection)
    name = connection.dialect.name
    if any(not _column_types(table, name).items() <= found.get(table.name, {}).items() for table in wanted):
        return False
    return not _missing_indexes(connection, wanted)


def evolve(connection: sa.Connection, tables: Iterable[sa.Table]) -> list[str]:
    """Bring `tables` into being; return what was done, one line each (empty if nothing was missing).

    Raises:
        WarehouseError: a table exists with another column type, a new column could not be filled for existing
            rows, or a name cannot be used; nothing is changed then.
    """
    wanted = list(tables)
    found = existing_columns(connection)
    done: list[str] = []
    for table in wanted:
        if table.name not in found:
            connection.exec_driver_sql(_creation(table, connection.dialect.name))
            done.append(f"table {table.name} created")
        else:
            done.extend(_add_columns(connection, table, found[table.name]))
    for index in _missing_indexes(connection, wanted):
        connection.execute(CreateIndex(index))
        done.append(f"index {index.name} created")
    return done


@lru_cache(maxsize=256)
def _as_stored(table: sa.Table) -> sa.Table:
    """The table as it is created: strict types in SQLite, bytewise ordered text keys in PostgreSQL."""
    _check_names(table)
    copy = table.to_metadata(sa.MetaData())
    copy.dialect_options["sqlite"]["strict"] = True
    for column in copy.primary_key.columns:
        if isinstance(column.type, Text):
            column.type = Text(collated=True)
        column.autoincrement = False
    return copy


@lru_cache(maxsize=256)
def _creation(table: sa.Table, dialect: str) -> str:
    return str(CreateTable(_as_stored(table)).compile(dialect=_DIALECTS[dialect]))


@lru_cache(maxsize=256)
def _column_types(table: sa.Table, dialect: str) -> dict[str, str]:
    columns = _as_stored(table).columns
    kinds = ((column.name, column.type.compile(dialect=_DIALECTS[dialect])) for column in columns)
    return {name: kind.partition(" COLLATE ")[0] for name, kind in kinds}


def _add_columns(connection: sa.Connection, table: sa.Table, found: dict[str, str]) -> list[str]:
    done = []
    quote = connection.dialect.identifier_preparer.quote
    for name, kind in _column_types(table, connection.dialect.name).items():
        column = _as_stored(table).columns[name]
        if name not in found:
            if not column.nullable and column.server_default is None:
                raise WarehouseError(
                    f"table {table.name}: new column {name} must be nullable or have a server default, "
                    "because the table may have rows already"
                )
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {quote(table.name)} ADD COLUMN {definition}")
            done.append(f"column {table.name}.{name} added")
        elif found[name] != kind:
            raise WarehouseError(
                f"table {table.name} has a column {name} of type {found[name]} where {kind} is needed: it was made by "
                "something else; rename or drop that table, or use another WAREHOUSE_SCHEMA"
            )
    return done


def _missing_indexes(connection: sa.Connection, tables: list[sa.Table]) -> list[sa.Index]:
    indexes = sorted(
        (index for table in tables for index in table.indexes), key=lambda index: str(index.name)
    )
    if not indexes:
        return []
    query = _SQLITE_INDEXES if connection.dialect.name == "sqlite" else _POSTGRESQL_INDEXES
    found = {name for (name,) in connection.exec_driver_sql(query)}
    return [index for index in indexes if index.name not in found]


def _check_names(table: sa.Table) -> None:
    indexes = [str(index.name) for index in table.indexes]
    for name in (table.name, *(column.name for column in table.columns), *indexes):
        if not name or len(name.encode(errors="replace")) > MAX_NAME_BYTES or clean_text(name) is not name:
            raise WarehouseError(
                f"{name[:80]!r} cannot name a table, column or index: 1 to {MAX_NAME_BYTES} bytes, no NUL"
            )
    folded = [column.name.lower() for column in table.columns]
    twins = sorted({name for name in folded if folded.count(name) > 1})
    if twins:
        raise WarehouseError(
            f"table {table.name}: columns differ in upper and lower case only: {', '.join(twins)}"
        )
