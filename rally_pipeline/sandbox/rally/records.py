"""A record as it is kept, and as an answer shows it: the kept text is most of the answer, so that writing a page
costs little more than copying it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from .instants import text_of
from .schema import EntitySpec
from .switches import RallySwitches

_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode_fields = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
# Within a JSON string a quote follows a backslash, so these patterns meet whole members only.
_NULL_MEMBER = re.compile(rb'"[A-Za-z]+":null,')
_FIRST_DETAIL = b',"linkedInUrl":'
MOST_KEPT = 6_000
"""Finished texts that are kept for each entity: small sources are written once, large ones do not grow."""


class Record:
    """One state of one record; never changed, only replaced.

    `created` and `updated` are ticks; `members` is the JSON text of the stored members and of the full name, in
    the order of the schema and without braces.
    """

    __slots__ = ("created", "id", "members", "updated")

    def __init__(self, record_id: str, created: int, updated: int, members: bytes) -> None:
        self.id = record_id
        self.created = created
        self.updated = updated
        self.members = members

    @classmethod
    def of(
        cls, spec: EntitySpec, record_id: str, created: int, updated: int, fields: Mapping[str, Any]
    ) -> Record:
        """A record with these stored fields."""
        members = {name: fields[name] if name in fields else full_name(fields) for name in spec.members}
        return cls(record_id, created, updated, _encode(members)[1:-1])

    def fields(self, spec: EntitySpec) -> dict[str, Any]:
        """The stored fields by name, decimals exact; a new dict each time."""
        fields = _decode_fields(b"{" + self.members + b"}")
        if len(fields) > len(spec.fields):
            del fields["fullName"]
        return fields


def full_name(fields: Mapping[str, Any]) -> str:
    """The computed name of a contact."""
    return f"{fields['firstName']} {fields['lastName']}"


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
        self._switches = switches
        self._digits = switches.record_digits
        self._cuts_details = not switches.contact_details and any(field.detail for field in spec.fields)
        decimals = [field.name.encode() for field in spec.fields if field.kind == "decimal"]
        self._number = re.compile(rb'"(%b)":(-?[0-9][0-9.eE+-]*)' % b"|".join(decimals)) if decimals else None
        tail = b"".join(
            b",%b:%b" % (_encode(name), _encode(value)) for name, value in switches.extra_fields.items()
        )
        self._template = b"".join(
            (
                b'{"id":"%b","tenantId":"',
                tenant_id.encode(),
                b'",%b,"createdAt":"%b","updatedAt":"%b"',
                tail.replace(b"%", b"%%"),
                b"}",
            )
        )
        self._rewrites = (
            switches.nulls == "absent"
            or switches.decimals == "string"
            or switches.custom_fields != "none"
            or bool(switches.missing_fields)
        )
        self._distortions: dict[str, Distortion] = {}
        self._kept: dict[Record, bytes] = {}

    def render(self, record: Record) -> bytes:
        """The JSON text of the record."""
        body = self._kept.get(record)
        if body is None:
            body = self._write(record)
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[record] = body
        return body

    def distort(self, record_id: str, distortion: Distortion | None) -> None:
        """Misrepresent one record from now on; None: show it as it is again."""
        if distortion is None:
            self._distortions.pop(record_id, None)
        else:
            self._distortions[record_id] = distortion
        self._kept.clear()

    def take_over(self, former: Renderer) -> None:
        """Go on with the distortions of the renderer before."""
        self._distortions = former._distortions

    def _write(self, record: Record) -> bytes:
        members = record.members
        if self._cuts_details:
            members = members[: members.index(_FIRST_DETAIL)]
        created = text_of(record.created, self._digits).encode()
        updated = text_of(record.updated, self._digits).encode()
        body = self._template % (record.id.encode(), members, created, updated)
        if self._rewrites:
            body = self._rewrite(body, record)
        if self._distortions and record.id in self._distortions:
            body = self._distortions[record.id].apply(body)
        return body

    def _rewrite(self, body: bytes, record: Record) -> bytes:
        switches = self._switches
        if switches.nulls == "absent":
            body = _NULL_MEMBER.sub(b"", body)
        if switches.decimals == "string" and self._number is not None:
            body = self._number.sub(rb'"\1":"\2"', body)
        if switches.missing_fields:
            body = Distortion(drop=switches.missing_fields).apply(body)
        return body if switches.custom_fields == "none" else body[:-1] + self._custom(record) + b"}"

    def _custom(self, record: Record) -> bytes:
        level = int(record.id[:2], 16)
        custom = {"cfRegion": f"Region {level % 7}", "cfScore": level / 4, "cfVip": level > 200}
        if self._switches.custom_fields == "object":
            return b',"customFields":' + _encode(custom)
        return b"".join(b",%b:%b" % (_encode(name), _encode(value)) for name, value in custom.items())
