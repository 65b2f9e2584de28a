"""A record as it is kept (compact), and as an answer shows it (JSON text, made once and kept until it
changes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .instants import text_of
from .schema import EntitySpec
from .switches import RallySwitches

_encode = msgspec.json.Encoder().encode
_decode_values = msgspec.json.Decoder(list[Any]).decode
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL = b"null"


class Record:
    """One state of one record; never changed, only replaced.

    `created` and `updated` are ticks; `values` is the JSON array of the stored fields in the order of the
    schema (decimals as strings, so that not a digit is lost); `body` is the text of the answer once it was
    needed.
    """

    __slots__ = ("body", "created", "id", "updated", "values")

    def __init__(self, record_id: str, created: int, updated: int, values: bytes) -> None:
        self.id = record_id
        self.created = created
        self.updated = updated
        self.values = values
        self.body: bytes | None = None

    @classmethod
    def of(
        cls, spec: EntitySpec, record_id: str, created: int, updated: int, fields: Mapping[str, Any]
    ) -> Record:
        """A record with these stored fields (decimals as canonical strings)."""
        return cls(record_id, created, updated, _encode([fields[field.name] for field in spec.fields]))

    def fields(self, spec: EntitySpec) -> dict[str, Any]:
        """The stored fields by name; a new dict each time."""
        return dict(zip(spec.position, _decode_values(self.values), strict=True))


class Distortion(msgspec.Struct, forbid_unknown_fields=True):
    """How answers misrepresent one record: members set to JSON values, set to literal text, dropped, or
    appended literally (such as a key twice).
    """

    set: dict[str, Any] = {}
    raw: dict[str, str] = {}
    drop: list[str] = []
    append: str = ""

    def apply(self, body: bytes) -> bytes:
        """The distorted text of an answer."""
        members: dict[str, bytes] = {name: bytes(value) for name, value in _decode_members(body).items()}
        members |= {name: _encode(value) for name, value in self.set.items()}
        members |= {name: text.encode("utf-8", "surrogatepass") for name, text in self.raw.items()}
        parts = [_encode(name) + b":" + value for name, value in members.items() if name not in self.drop]
        if self.append:
            parts.append(self.append.encode("utf-8", "surrogatepass"))
        return b"{" + b",".join(parts) + b"}"


class Renderer:
    """Writes the records of one entity as the switches say."""

    def __init__(self, spec: EntitySpec, tenant_id: str, switches: RallySwitches) -> None:
        self._spec = spec
        self._switches = switches
        self._digits = switches.record_digits
        self._skip_nulls = switches.nulls == "absent"
        self._members = [name for name in spec.order if self._is_shown(name)]
        self._decimals = (
            {at for at, field in enumerate(spec.fields) if field.kind == "decimal"}
            if switches.decimals == "number"
            else set()
        )
        self._constant = {"tenantId": _encode(tenant_id)}
        self._tail = b"".join(
            b"," + _encode(name) + b":" + _encode(value) for name, value in switches.extra_fields.items()
        )
        self.distortions: dict[str, Distortion] = {}

    def render(self, record: Record) -> bytes:
        """The JSON text of the record; kept in the record."""
        body = record.body
        if body is None:
            body = self._write(record)
            if self.distortions and record.id in self.distortions:
                body = self.distortions[record.id].apply(body)
            record.body = body
        return body

    def _is_shown(self, name: str) -> bool:
        field = self._spec.by_name.get(name)
        if name in self._switches.missing_fields:
            return False
        return field is None or not field.detail or self._switches.contact_details

    def _write(self, record: Record) -> bytes:
        raw = [bytes(value) for value in _decode_raw(record.values)]
        for at in self._decimals:
            if raw[at] != _NULL:
                raw[at] = raw[at][1:-1]
        position = self._spec.position
        parts = []
        for name in self._members:
            value = raw[position[name]] if name in position else self._computed(name, record, raw)
            if not self._skip_nulls or value != _NULL:
                parts.append(b'"%b":%b' % (name.encode(), value))
        return b"{" + b",".join(parts) + self._tail + self._custom(record) + b"}"

    def _computed(self, name: str, record: Record, raw: list[bytes]) -> bytes:
        if name == "id":
            return b'"%b"' % record.id.encode()
        if name == "createdAt":
            return b'"%b"' % text_of(record.created, self._digits).encode()
        if name == "updatedAt":
            return b'"%b"' % text_of(record.updated, self._digits).encode()
        if name == "fullName":
            first, last = raw[self._spec.position["firstName"]], raw[self._spec.position["lastName"]]
            return first[:-1] + b" " + last[1:]
        return self._constant[name]

    def _custom(self, record: Record) -> bytes:
        kind = self._switches.custom_fields
        if kind == "none":
            return b""
        level = int(record.id[:2], 16)
        custom = {"cfRegion": f"Region {level % 7}", "cfScore": level / 4, "cfVip": level > 200}
        if kind == "object":
            return b',"customFields":' + _encode(custom)
        return b"".join(b"," + _encode(name) + b":" + _encode(value) for name, value in custom.items())
