"""From a record's JSON bytes to a row of its table, without losing anything that was in it.

Rules, the same on every database:
- a field that is absent and a field that is null are both NULL;
- a value that does not fit its column's type is kept whole in `extra` under its name, and the column is NULL;
- a field without a column goes to `extra`;
- U+0000, which databases refuse, becomes U+FFFD (lone surrogates were replaced when the page was read);
- only a record that is not a JSON object, or that has no usable identity, cannot be stored: `RecordError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec

from rally_pipeline.http.envelope import duplicate_key, has_single_keys
from rally_pipeline.sell.entities import Entity, FieldType
from rally_pipeline.warehouse.values import clean_text, decimal_text, instant_text, json_text

Row = tuple[Any, ...]
"""One row in storage-neutral values, in the order of `RecordDecoder.columns`."""

_INT64 = range(-(2**63), 2**63)
_read_json = msgspec.json.Decoder(float_hook=Decimal).decode
_EMBEDDED = {Entity.PIPELINES: "stages"}
"""Fields that hold records of another type, with tables of their own."""


class RecordError(ValueError):
    """A record cannot be stored; the message says why, for the quarantine."""


class UnplaceableError(RecordError):
    """A sound record that names no object: it can only be kept as it came."""


@dataclass(frozen=True, slots=True)
class Record:
    """A decoded record: which object it is a state of, when that state began, and its fields."""

    entity: Entity
    key: int | str
    """Primary key in the mirror table."""
    updated_at: str | None
    """Canonical instant text, or None where the record does not say."""
    fields: dict[str, Any]

    @property
    def object_id(self) -> str:
        """The key as the bookkeeping tables spell it."""
        return str(self.key)

    @property
    def is_bare(self) -> bool:
        """Whether it holds an identity and nothing else, as deletes do."""
        return self.fields.keys() <= _IDENTITY

    def embedded(self) -> Iterator[Record]:
        """Records of other types that came inside this one; parts that cannot be read are left in `extra`."""
        name = _EMBEDDED.get(self.entity)
        inner = self.fields.get(name) if name else None
        items = inner.get("items") if isinstance(inner, dict) else None
        for item in items if isinstance(items, list) else ():
            data = item.get("data") if isinstance(item, dict) else None
            if isinstance(data, dict):
                try:
                    yield _identify(Entity.STAGES, data)
                except RecordError:
                    continue


_IDENTITY = frozenset({"id", "deal_id", "contact_id"})


def read_record(entity: Entity, raw: bytes | msgspec.Raw) -> Record:
    """The record in `raw`.

    Raises:
        UnplaceableError: it has no field that could tell which object it is.
        RecordError: not a JSON object, or an identity that cannot be a key.
    """
    try:
        fields = _read_json(raw)
    except RecursionError:
        raise RecordError("the record is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError, ArithmeticError) as error:
        raise RecordError(f"the record is not valid JSON: {error!s:.120}") from None
    if type(fields) is not dict:
        raise RecordError(f"the record is not a JSON object but {type(fields).__name__}")
    text = bytes(memoryview(raw))
    if not has_single_keys(text, fields) and (twice := duplicate_key(text)):
        raise RecordError(f"the key {twice!r:.60} stands twice in one object of the record")
    return _identify(entity, fields)


class _Identity(msgspec.Struct, gc=False):
    id: int | str | None = None


_decode_identity = msgspec.json.Decoder(_Identity).decode


def read_identity(raw: bytes) -> str | None:
    """The id in a record that need not be readable otherwise."""
    try:
        found = _decode_identity(raw).id
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    return None if found is None else clean_text(str(found))


def _identify(entity: Entity, fields: dict[str, Any]) -> Record:
    updated_at = fields.get("updated_at")
    try:
        since = instant_text(updated_at) if isinstance(updated_at, str) else None
    except ValueError:
        since = None
    return Record(entity, _key(entity, fields), since, fields)


def _key(entity: Entity, fields: dict[str, Any]) -> int | str:
    found = fields.get("id")
    if entity is Entity.ASSOCIATED_CONTACTS:
        if type(found) in (int, str) and found != "":
            return clean_text(str(found))
        deal, contact = fields.get("deal_id"), fields.get("contact_id")
        if type(deal) is not int or type(contact) is not int:
            raise UnplaceableError("an associated contact without an id, and without the deal it belongs to")
        return f"{deal}:{contact}"
    try:
        return _integer(found)
    except ValueError as error:
        raise RecordError(f"the record has no usable id: {error}: {found!r:.60}") from None


class RecordDecoder:
    """Turns records of one type into rows."""

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.columns: tuple[str, ...] = (
            *(field.name for field in entity.fields),
            "extra",
            "revision",
            "_synced_at",
            "_deleted_at",
        )
        self._fields = [(field.name, _CONVERTERS[field.type]) for field in entity.fields[1:]]
        self._known = frozenset(field.name for field in entity.fields)
        self._embedded = _EMBEDDED.get(entity)

    def row(self, record: Record, *, revision: int | None, synced_at: str) -> Row:
        """One row; `synced_at` is the canonical text of the server time at which it was received."""
        fields = record.fields
        values: list[Any] = [record.key]
        rest: dict[str, Any] = {}
        for name, convert in self._fields:
            value = fields.get(name)
            if value is not None:
                try:
                    value = convert(value)
                except (ValueError, ArithmeticError):
                    rest[name] = value
                    value = None
            values.append(value)
        if not fields.keys() <= self._known:
            rest.update((name, value) for name, value in fields.items() if name not in self._known)
            if self._embedded in rest and _is_unfolded(rest[self._embedded]):
                del rest[self._embedded]
        values += (json_text(rest) if rest else None, revision, synced_at, None)
        return tuple(values)


@cache
def decoder_of(entity: Entity) -> RecordDecoder:
    """The one decoder of a type."""
    return RecordDecoder(entity)


def _is_unfolded(embedded: Any) -> bool:
    """Whether every embedded record had a table row made of it, so that nothing is lost by leaving it out."""
    items = embedded.get("items") if isinstance(embedded, dict) else None
    if not isinstance(items, list):
        return False
    return all(
        isinstance(item, dict)
        and isinstance(item.get("data"), dict)
        and type(item["data"].get("id")) is int
        and item["data"]["id"] in _INT64
        for item in items
    )


def _text(value: Any) -> str:
    if type(value) is str:
        return clean_text(value)
    raise ValueError("not a text")


def _identifier(value: Any) -> str:
    if type(value) is int:
        return str(value)
    return _text(value)


def _integer(value: Any) -> int:
    if type(value) is not int:
        is_digits = type(value) is str and len(value) < 20 and value.isascii()
        is_whole = type(value) is Decimal and abs(value) < 2**63 and value == value.to_integral_value()
        if not is_whole and not (is_digits and value.removeprefix("-").isdigit()):
            raise ValueError("not a whole number")
        value = int(value)
    if value not in _INT64:
        raise ValueError("beyond 64 bits")
    return int(value)


def _decimal(value: Any) -> str:
    return decimal_text(value)


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise ValueError("not true or false")


def _instant(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a time")
    return instant_text(value)


_CONVERTERS: dict[FieldType, Callable[[Any], Any]] = {
    FieldType.TEXT: _text,
    FieldType.IDENTIFIER: _identifier,
    FieldType.INTEGER: _integer,
    FieldType.DECIMAL: _decimal,
    FieldType.BOOLEAN: _boolean,
    FieldType.INSTANT: _instant,
    FieldType.JSON: json_text,
}
