"""From a record's JSON bytes to a row of its table, without losing anything that was in it.

Rules, the same on every database:
- a field that is absent and a field that is null are both NULL;
- a value that does not fit its column's type is kept whole in `extra` under its API name, and the column is NULL;
- a field without a column goes to `extra`;
- U+0000 and lone surrogates, which databases refuse, become U+FFFD;
- only a record without a usable `id`, or one that is not a JSON object, cannot be stored: `RecordError`.
"""

from __future__ import annotations

import contextlib
import json
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from itertools import accumulate, chain, repeat
from typing import Any, NamedTuple, NoReturn

import msgspec
import xxhash

from rally_pipeline.http.envelope import APART, duplicate_key
from rally_pipeline.rally.entities import Entity, FieldType
from rally_pipeline.warehouse.values import clean_text, decimal_text, instant_text

Row = tuple[Any, ...]
"""One row in storage-neutral values, in the order of `RecordDecoder.columns`."""

DECODER_REVISION = 1
"""Raised when the same bytes decode to another row (a new column, a new rule): stored versions then stop matching."""

_INT64_END = 2**63
_MAX_DECIMAL_DIGITS = 1_000
_MAX_LEARNT_NAMES = 500
_LEARNABLE = re.compile(r'[^"\\\x00-\x1f\x7f-\x9f]{1,200}')
_NUL = rb"\u0000"
_BESIDES = 2
"""Columns of a row that always hold a value but do not stand in the record: version and time."""
_TWICE = "the key {!r:.60} stands twice in one object of the record"
"""Such a record is refused: readers of JSON disagree on which of the two counts."""
KEY_BYTES = 16
_GUID = 36
_GUID_DASHES = (8, 13, 18, 23)
_SURPRISES = (msgspec.MsgspecError, ValueError, OverflowError, InvalidOperation, RecursionError)
_encoder = msgspec.json.Encoder(order="sorted", decimal_format="number")
_decode_json = msgspec.json.Decoder(float_hook=Decimal).decode


class RecordError(ValueError):
    """A record cannot be stored; the message says why, for the quarantine."""


class Head(msgspec.Struct, gc=False):
    """The part of a record that a pass needs to recognise it."""

    id: str


def version_of(raw: bytes | memoryview) -> int:
    """64-bit signed hash of a record as received: equal bytes, equal row."""
    unsigned = xxhash.xxh3_64_intdigest(raw, DECODER_REVISION)
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def versions_of(raws: Sequence[msgspec.Raw]) -> list[int]:
    """`version_of` of many records at once."""
    hash_of = xxhash.xxh3_64_intdigest
    unsigned = array("Q", [hash_of(raw, DECODER_REVISION) for raw in raws])
    signed = array("q")
    signed.frombytes(unsigned.tobytes())
    return signed.tolist()


def keys_of(ids: Sequence[str]) -> list[bytes]:
    """`key_of` of many ids at once."""
    packed = packed_keys_of(ids)
    return [packed[start : start + KEY_BYTES] for start in range(0, len(packed), KEY_BYTES)]


def packed_keys_of(ids: Sequence[str]) -> bytes:
    """`key_of` of many ids in one text; quicker where all of them are GUIDs in their usual form."""
    size, text = len(ids), "".join(ids)
    if set(map(len, ids)) == {_GUID} and all(text[place::_GUID] == "-" * size for place in _GUID_DASHES):
        with contextlib.suppress(ValueError):
            packed = bytes.fromhex(text.replace("-", ""))
            if len(packed) == KEY_BYTES * size:
                return packed
    return b"".join(map(key_of, ids))


def key_of(entity_id: str) -> bytes:
    """16 bytes that stand for an id in the bookkeeping of a pass: the GUID itself, else a 128-bit hash."""
    if len(entity_id) == _GUID:
        with contextlib.suppress(ValueError):
            packed = bytes.fromhex(entity_id.replace("-", ""))
            if len(packed) == KEY_BYTES:
                return packed
    return blake2b(entity_id.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


class DecodedRows(NamedTuple):
    """What became of a batch of records."""

    rows: list[Row]
    places: Sequence[int]
    """The place of each row's record in the batch."""
    refused: list[tuple[int, str]]
    """(place, reason) of the records that cannot be stored."""

    def only(self, kept: Sequence[int]) -> DecodedRows:
        """The same for the records at these places of the batch, which are numbered anew."""
        if isinstance(kept, range) and not self.refused and len(self.rows) == kept.stop:
            return DecodedRows(self.rows[kept.start :], range(len(kept)), [])
        new_place = {place: number for number, place in enumerate(kept)}
        pairs = [
            (row, new_place[place])
            for row, place in zip(self.rows, self.places, strict=True)
            if place in new_place
        ]
        return DecodedRows(
            [row for row, _ in pairs],
            [place for _, place in pairs],
            [(new_place[place], reason) for place, reason in self.refused if place in new_place],
        )

    @staticmethod
    def joined(parts: Sequence[DecodedRows], sizes: Sequence[int]) -> DecodedRows:
        """Several batches, of `sizes` records each, as one."""
        rows = [*chain.from_iterable(part.rows for part in parts)]
        if len(rows) == sum(sizes):
            return DecodedRows(rows, range(len(rows)), [])
        starts = [0, *accumulate(sizes[:-1])]
        placed = [*zip(starts, parts, strict=True)]
        return DecodedRows(
            rows,
            [start + place for start, part in placed for place in part.places],
            [(start + place, reason) for start, part in placed for place, reason in part.refused],
        )


class RecordDecoder:
    """Turns raw records of one entity into rows.

    Records of the expected shape are read in one pass at C speed; any surprise (another type, a number beyond 64
    bits, U+0000) sends the record through the careful reader, which gives the same row for the same content.
    Fields without a column are learnt as they appear.
    """

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.columns: tuple[str, ...] = (
            *(field.column for field in entity.fields),
            "extra",
            "_version",
            "_synced_at",
            "_deleted_at",
        )
        self._fields = [(field.name, _CONVERTERS[field.type]) for field in entity.fields[1:]]
        self._converted = [
            (place, _COLUMN_CONVERTERS[field.type])
            for place, field in enumerate(entity.fields)
            if field.type in _COLUMN_CONVERTERS
        ]
        self._extra_names: tuple[str, ...] = ()
        self._read_shape = self._shape_reader()

    def decode(self, raw: bytes | memoryview, *, synced_at: str) -> Row:
        """One row.

        Raises:
            RecordError: not a JSON object, or no usable id.
        """
        version = version_of(raw)
        with contextlib.suppress(*_SURPRISES):
            if _NUL not in bytes(raw):
                return self._decode_expected((raw,), (version,), synced_at)[0]
        return (*self._decode_carefully(raw), version, synced_at, None)

    def decode_rows(
        self, raws: Sequence[msgspec.Raw], versions: Sequence[int], *, synced_at: str
    ) -> DecodedRows:
        """Rows of the records; `versions` holds `version_of` of each."""
        if not raws:
            return DecodedRows([], [], [])
        # Found once for all records, since it is rare and a search in each costs as much as reading it.
        text = b"".join(raws)
        expected = _NUL not in text
        try:
            if not expected:
                raise ValueError("U+0000")
            rows = self._decode_expected(raws, versions, synced_at)
            decoded = DecodedRows(rows, range(len(rows)), [])
        except _SURPRISES:
            decoded = self._decode_each(raws, versions, synced_at, expected)
        if _single_keys(text, decoded.rows, raws[0]):
            return decoded
        return _without_doubled_keys(decoded, raws)

    def _decode_each(
        self, raws: Sequence[msgspec.Raw], versions: Sequence[int], synced_at: str, expected: bool
    ) -> DecodedRows:
        """Record by record, the surprising ones carefully."""
        decoded = DecodedRows([], [], [])
        rows, places = decoded.rows, []
        for place, (raw, version) in enumerate(zip(raws, versions, strict=True)):
            try:
                if not expected:
                    raise ValueError("U+0000")
                rows += self._decode_expected((raw,), (version,), synced_at)
            except _SURPRISES:
                try:
                    rows.append((*self._decode_carefully(memoryview(raw)), version, synced_at, None))
                except RecordError as error:
                    decoded.refused.append((place, str(error)))
                    continue
            places.append(place)
        return decoded._replace(places=places)

    def _shape_reader(self) -> Callable[[Any], msgspec.Struct]:
        known: list[tuple[str, Any] | tuple[str, Any, Any]] = [("id", str)]
        known += [(field.name, _SHAPES[field.type], None) for field in self.entity.fields[1:]]
        # Names of their own: Python gives `__name`, and other names that an API may use, a meaning.
        learnt = {f"learnt_{number}": name for number, name in enumerate(self._extra_names)}
        known += [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in learnt]
        shape = msgspec.defstruct(
            self.entity.singular, known, rename=learnt, forbid_unknown_fields=True, gc=False
        )
        return msgspec.json.Decoder(shape).decode

    def _decode_expected(
        self, raws: Sequence[bytes | memoryview | msgspec.Raw], versions: Sequence[int], synced_at: str
    ) -> list[Row]:
        """Rows of records without U+0000, a column at a time. Raises `_SURPRISES` where a shape does not fit."""
        read = map(self._read_shape, raws)
        columns: list[Sequence[Any]] = [*zip(*map(msgspec.structs.astuple, read), strict=True)]
        if not all(columns[0]):
            raise ValueError("empty id")
        for place, convert in self._converted:
            columns[place] = convert(columns[place])
        size = len(self._fields) + 1
        extra: Iterable[str | None] = repeat(None)
        if self._extra_names:
            extra = [self._rest(values) for values in zip(*columns[size:], strict=True)]
        return [*zip(*columns[:size], extra, versions, repeat(synced_at), repeat(None), strict=False)]

    def _rest(self, values: Sequence[Any]) -> str | None:
        """`extra` of a record with these values under the learnt names."""
        present = {
            name: _decode_json(value)
            for name, value in zip(self._extra_names, values, strict=True)
            if value is not msgspec.UNSET
        }
        return _json(present) if present else None

    def _decode_carefully(self, raw: bytes | memoryview) -> list[Any]:
        record = _read_object(raw)
        entity_id = record.pop("id", None)
        if type(entity_id) is int:
            entity_id = str(entity_id)
        if type(entity_id) is not str or not entity_id:
            raise RecordError(f"the record has no usable id: {entity_id!r:.80}")
        values: list[Any] = [entity_id]
        misfits: dict[str, Any] = {}
        for name, convert in self._fields:
            value = record.pop(name, None)
            if value is None:
                values.append(None)
                continue
            try:
                values.append(convert(value))
            except (ValueError, OverflowError, InvalidOperation):
                values.append(None)
                misfits[name] = value
        self._learn(record)
        record.update(misfits)
        values.append(_json(record) if record else None)
        return values

    def _learn(self, unknown: dict[str, Any]) -> None:
        fresh = [name for name in unknown if _LEARNABLE.fullmatch(name) and name not in self._extra_names]
        if fresh and len(self._extra_names) + len(fresh) <= _MAX_LEARNT_NAMES:
            self._extra_names += tuple(fresh)
            self._read_shape = self._shape_reader()


def read_id(raw: bytes | memoryview) -> str | None:
    """The id of a record, or None where it has no usable one; also of a record that cannot be stored."""
    try:
        entity_id = json.loads(bytes(raw), parse_int=_read_digits).get("id")
    except (ValueError, AttributeError, RecursionError):
        return None
    return clean_text(entity_id) if isinstance(entity_id, str) and entity_id else None


def _read_digits(digits: str) -> str:
    return digits


def _read_object(raw: bytes | memoryview) -> dict[str, Any]:
    try:
        record = _decode_json(raw)
    except (msgspec.MsgspecError, RecursionError):
        record = _read_leniently(bytes(raw))
    else:
        if _NUL in bytes(raw):
            record = _clean(record)
    if type(record) is not dict:
        raise RecordError(f"the record is not a JSON object but {type(record).__name__}")
    return record


def _single_keys(text: bytes, rows: Sequence[Row], first: msgspec.Raw) -> bool:
    """Whether it is plain that no key stands twice in any of the records that make up `text`.

    That is where each has as many members as the first one, or as many with a value as were read into columns. Whether
    blanks stand before the colons, so that no key is counted, is up to the writer of them all: the first one shows it.
    """
    if APART.search(first):
        return False
    written = text.count(b'":')
    if written == len(rows) * bytes(first).count(b'":') and _doubled_key(first) is None:
        return True
    # Nulls may be left out: count the others. Of two nulls under one key it does not matter which one counts.
    filled = sum([len(row) - _BESIDES - row.count(None) for row in rows])
    return written - text.count(b'":null') == filled


def _without_doubled_keys(decoded: DecodedRows, raws: Sequence[msgspec.Raw]) -> DecodedRows:
    """The batch after a closer look at each record."""
    kept, places = DecodedRows([], [], list(decoded.refused)), []
    for row, place in zip(decoded.rows, decoded.places, strict=True):
        if twice := _doubled_key(raws[place]):
            kept.refused.append((place, _TWICE.format(twice)))
        else:
            kept.rows.append(row)
            places.append(place)
    return kept._replace(places=places)


def _doubled_key(raw: msgspec.Raw) -> str | None:
    try:
        return duplicate_key(raw)
    except _SURPRISES:
        return None  # the lenient reader has read it, which refuses doubled keys by itself


def _read_leniently(raw: bytes) -> Any:
    """What the fast decoder refuses but JSON allows: lone surrogates, integers beyond 64 bits."""
    try:
        return _clean(
            json.loads(
                raw,
                parse_float=Decimal,
                parse_int=_read_integer,
                parse_constant=_refuse_constant,
                object_pairs_hook=_read_pairs,
            )
        )
    except RecordError:
        raise
    except RecursionError:
        raise RecordError("the record is nested too deeply") from None
    except (ValueError, InvalidOperation) as error:
        raise RecordError(f"the record is not valid JSON: {error!s:.120}") from None


def _read_integer(digits: str) -> int | Decimal:
    if len(digits) > _MAX_DECIMAL_DIGITS:
        raise RecordError(f"a number of {len(digits)} digits")
    return int(digits)


def _refuse_constant(constant: str) -> NoReturn:
    raise RecordError(f"{constant} is not a JSON number")


def _read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        raise RecordError(_TWICE.format(next(name for name in names if names.count(name) > 1)))
    return record


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): _clean(item) for key, item in value.items()}
    return value


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise ValueError("not a text")


def _integer(value: Any) -> int:
    if type(value) is not int and not _is_whole(value):
        raise ValueError("not an integer")
    return _whole(int(value))


def _is_whole(value: Any) -> bool:
    if type(value) is Decimal:
        return abs(value) < 2**63 and value == value.to_integral_value()
    return type(value) is str and len(value) < 20 and value.removeprefix("-").isdecimal()


def _decimal(value: Any) -> str:
    if type(value) not in (int, Decimal, str):
        raise ValueError("not a number")
    number = Decimal(value)
    if not number.is_finite() or abs(number.adjusted()) + len(number.as_tuple().digits) > _MAX_DECIMAL_DIGITS:
        raise ValueError("not a number that a column can hold")
    return decimal_text(number)


def _instant(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a time")
    return instant_text(value)


def _json(value: Any) -> str:
    try:
        return _encoder.encode(value).decode()
    except OverflowError:
        return _encoder.encode(_widen(value)).decode()


def _widen(value: Any) -> Any:
    """Integers beyond 64 bits as decimals, which the encoder writes digit by digit."""
    if type(value) is int and not -_INT64_END <= value < _INT64_END:
        return Decimal(value)
    if isinstance(value, list):
        return [_widen(item) for item in value]
    if isinstance(value, dict):
        return {key: _widen(item) for key, item in value.items()}
    return value


_CONVERTERS: dict[FieldType, Callable[[Any], Any]] = {
    FieldType.TEXT: _text,
    FieldType.INTEGER: _integer,
    FieldType.DECIMAL: _decimal,
    FieldType.INSTANT: _instant,
    FieldType.JSON: _json,
}


def _raw_decimal(value: msgspec.Raw) -> str | None:
    text = bytes(value)
    if text == b"null":
        return None
    return _decimal(_decode_json(value)) if text[:1] == b'"' else _decimal(Decimal(text.decode()))


def _raw_json(value: msgspec.Raw) -> str | None:
    decoded = _decode_json(value)
    return None if decoded is None else _json(decoded)


def _whole(value: int) -> int:
    if -_INT64_END <= value < _INT64_END:
        return value
    raise ValueError("beyond 64 bits")


def _instants(column: Sequence[str | None]) -> list[str | None]:
    """`instant_text` of each, quicker for the form that the API's pages show."""
    return [
        value
        if value is None
        else f"{value[:19]}.000000Z"
        if len(value) == 20 and value[19] == "Z" and value[10] == "T" and datetime.fromisoformat(value)
        else instant_text(value)
        for value in column
    ]


def _each(convert: Callable[[Any], Any]) -> Callable[[Sequence[Any]], list[Any]]:
    return lambda column: [value if value is None else convert(value) for value in column]


_SHAPES: dict[FieldType, Any] = {
    FieldType.TEXT: str | None,
    FieldType.INTEGER: int | None,
    FieldType.DECIMAL: msgspec.Raw | None,
    FieldType.INSTANT: str | None,
    FieldType.JSON: msgspec.Raw | None,
}
_COLUMN_CONVERTERS: dict[FieldType, Callable[[Sequence[Any]], list[Any]]] = {
    FieldType.INTEGER: _each(_whole),
    FieldType.DECIMAL: _each(_raw_decimal),
    FieldType.INSTANT: _instants,
    FieldType.JSON: _each(_raw_json),
}
