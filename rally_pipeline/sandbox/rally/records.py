"""A record as it is kept (compact), and as an answer shows it (JSON text, made once and kept until it
changes).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from operator import itemgetter
from typing import Any

import msgspec

from .instants import text_of
from .schema import EntitySpec
from .switches import RallySwitches

_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode_values = msgspec.json.Decoder(list[Any], float_hook=Decimal).decode
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL_MEMBER = re.compile(rb'"[A-Za-z]+":null,')
"""A quote within a JSON string follows a backslash, so this meets whole members only."""
_TEXTS = ("id", "createdAt", "updatedAt")
KEPT_BODIES = 15_000
"""Texts kept for each entity; beyond that the oldest is made anew when it is needed."""


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
        """A record with these stored fields."""
        return cls(record_id, created, updated, _encode([fields[field.name] for field in spec.fields]))

    def fields(self, spec: EntitySpec) -> dict[str, Any]:
        """The stored fields by name, decimals exact; a new dict each time."""
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
        left_out = set(switches.missing_fields)
        if not switches.contact_details:
            left_out |= {field.name for field in spec.fields if field.detail}
        shown = [name for name in spec.order if name not in left_out]
        stored = [spec.by_name[name] for name in shown if name in spec.by_name]
        self._choose = _chooser([spec.position[field.name] for field in stored])
        self._quoted = [
            at for at, field in enumerate(stored) if field.kind == "decimal" and switches.decimals == "string"
        ]
        self._full_name_at = None
        if "fullName" in shown:
            self._full_name_at = sum(name in spec.by_name for name in shown[: shown.index("fullName")])
        self._skip_nulls = switches.nulls == "absent"
        self._digits = switches.record_digits
        self._custom_fields = switches.custom_fields
        self._template = _make_template(spec, left_out, tenant_id, switches)
        self._kept: deque[Record] = deque()
        self.distortions: dict[str, Distortion] = {}

    def render(self, record: Record) -> bytes:
        """The JSON text of the record; kept in the record for a while."""
        body = record.body
        if body is None:
            body = self._write(record)
            if self.distortions and record.id in self.distortions:
                body = self.distortions[record.id].apply(body)
            record.body = body
            self._kept.append(record)
            if len(self._kept) > KEPT_BODIES:
                self._kept.popleft().body = None
        return body

    def _write(self, record: Record) -> bytes:
        raw = _decode_raw(record.values)
        values = self._choose(raw)
        if self._quoted:
            values = self._quote(values)
        at = self._full_name_at
        if at is not None:
            full_name = bytes(raw[0])[:-1] + b" " + bytes(raw[1])[1:]
            values = (*values[:at], full_name, *values[at:])
        created, updated = text_of(record.created, self._digits), text_of(record.updated, self._digits)
        body = self._template % (record.id.encode(), *values, created.encode(), updated.encode())
        if self._skip_nulls:
            body = _NULL_MEMBER.sub(b"", body)
        return body if self._custom_fields == "none" else body[:-1] + self._custom(record) + b"}"

    def _quote(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        quoted = list(values)
        for at in self._quoted:
            text = bytes(values[at])
            quoted[at] = text if text == b"null" else b'"%b"' % text
        return tuple(quoted)

    def _custom(self, record: Record) -> bytes:
        level = int(record.id[:2], 16)
        custom = {"cfRegion": f"Region {level % 7}", "cfScore": level / 4, "cfVip": level > 200}
        if self._custom_fields == "object":
            return b',"customFields":' + _encode(custom)
        return b"".join(b"," + _encode(name) + b":" + _encode(value) for name, value in custom.items())


def _chooser(places: list[int]) -> Callable[[list[msgspec.Raw]], tuple[Any, ...]]:
    """What picks the values at these places, as a tuple however few they are."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda raw: tuple(raw[at] for at in places)


def _make_template(spec: EntitySpec, left_out: set[str], tenant_id: str, switches: RallySwitches) -> bytes:
    """The text of a record with places for its id, its values in the order of the spec, and both its times.

    A place for id or a time is there even if the member is left out: `%.0b` writes nothing.
    """
    members: list[bytes] = []
    unwritten = b""
    for name in spec.order:
        if name in left_out:
            unwritten += b"%.0b" if name in _TEXTS else b""
            continue
        place = b'"%b"' if name in _TEXTS else b"%b"
        value = b'"%b"' % tenant_id.encode() if name == "tenantId" else place
        members.append(unwritten + _encode(name) + b":" + value)
        unwritten = b""
    for name, constant in switches.extra_fields.items():
        members.append((_encode(name) + b":" + _encode(constant)).replace(b"%", b"%%"))
    return b"{" + b",".join(members) + b"}" + unwritten
