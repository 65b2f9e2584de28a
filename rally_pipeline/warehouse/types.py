"""Column types that mean the same on SQLite and PostgreSQL.

Small statements (SQLAlchemy Core) take and give natural Python values: aware datetimes, Decimals, objects; the
storage-neutral texts of `values` are accepted as well. Bulk rows carry the neutral texts only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from rally_pipeline.warehouse import values


class _Stored(sa.types.TypeDecorator[Any]):
    """A type with one SQLite and one PostgreSQL representation."""

    cache_ok = True
    impl: Any = sa.Text

    def postgresql_type(self) -> sa.types.TypeEngine[Any]:
        raise NotImplementedError

    def sqlite_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Text()

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return self.sqlite_type() if dialect.name == "sqlite" else self.postgresql_type()


class Text(_Stored):
    """Unicode text of any length; U+0000 and lone surrogates are replaced. `collated` = bytewise order (keys)."""

    cache_ok = True

    def __init__(self, *, collated: bool = False) -> None:
        super().__init__()
        self.collated = collated

    def postgresql_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Text(collation="C") if self.collated else sa.Text()

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002 (SQLAlchemy's signature)
        return values.clean_text(value) if isinstance(value, str) else value


class Instant(_Stored):
    """A point in time: timestamptz, or the canonical 27-character UTC text, which sorts."""

    cache_ok = True

    def postgresql_type(self) -> sa.types.TypeEngine[Any]:
        return sa.DateTime(timezone=True)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        text = values.instant_text(value)
        return text if dialect.name == "sqlite" else values.parse_instant(text)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        if isinstance(value, str):
            return values.parse_instant(value)
        return value.astimezone(UTC) if isinstance(value, datetime) else None


class ExactDecimal(_Stored):
    """An exact decimal of any precision: numeric, or canonical text."""

    cache_ok = True

    def postgresql_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Numeric(asdecimal=True)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        text = values.decimal_text(value)
        return text if dialect.name == "sqlite" else Decimal(text)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:  # noqa: ARG002
        return None if value is None else Decimal(values.decimal_text(value))


class Json(_Stored):
    """Any JSON value: jsonb, or canonical JSON text. NULL is absence; JSON null is not stored apart from it."""

    cache_ok = True

    def postgresql_type(self) -> sa.types.TypeEngine[Any]:
        return postgresql.JSONB(none_as_null=True)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        return (
            values.json_text(value)
            if dialect.name == "sqlite"
            else values.parse_json(values.json_text(value))
        )

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return values.parse_json(value) if dialect.name == "sqlite" and value is not None else value


class BigInteger(_Stored):
    """A whole number of 64 bits."""

    cache_ok = True
    impl = sa.BigInteger

    def postgresql_type(self) -> sa.types.TypeEngine[Any]:
        return sa.BigInteger()

    def sqlite_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Integer()


class Integer(BigInteger):
    """A whole number; 64 bits too, so that both databases refuse the same values."""

    cache_ok = True


class Double(_Stored):
    """A binary floating point number, for measures such as seconds; never for money."""

    cache_ok = True
    impl = sa.Double

    def postgresql_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Double()

    def sqlite_type(self) -> sa.types.TypeEngine[Any]:
        return sa.REAL()


class Boolean(_Stored):
    """True or false; 0/1 in SQLite."""

    cache_ok = True
    impl = sa.Boolean

    def postgresql_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Boolean()

    def sqlite_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Integer()

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> bool | None:  # noqa: ARG002
        return None if value is None else bool(value)
