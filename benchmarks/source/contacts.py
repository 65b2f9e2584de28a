"""Contact-like records: 22 flat fields, about 620 bytes of JSON each, always the same for the same number."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

FIELDS = (
    "id",
    "tenantId",
    "firstName",
    "lastName",
    "fullName",
    "email",
    "phone",
    "mobile",
    "title",
    "department",
    "city",
    "country",
    "postalCode",
    "companyId",
    "lifecycleStage",
    "leadSource",
    "leadScore",
    "tags",
    "notes",
    "ownerId",
    "createdAt",
    "updatedAt",
)
"""In the order of the records' JSON."""

FIRST_UPDATE = datetime(2020, 1, 1, tzinfo=UTC)
_TENANT = "ec751f04-9064-4234-8b63-caddff1f5dab"
_FIRST = ("Maya", "Jürgen", "Aisha", "Tom", "Søren", "Lucía", "Wei", "Olga", "Noah", "Zoë", "Ken")
_LAST = ("Nguyen", "Papadopoulos", "Müller", "Smith", "O'Brien", "Kowalska", "Garcia", "Ito", "Dubois")
_TITLES = ("Head of Procurement", "Engineer", "Directrice", None, "Account Manager", "VP Sales", "Analyst")
_CITIES = ("Berlin", "São Paulo", "Osaka", "Lyon", "Chicago", "Gdańsk", "Leeds", "Pune")
_STAGES = ("lead", "customer", "opportunity", "subscriber", "evangelist")
_NOTES = ('Said: "not before Q3".', None, "Met at the trade fair; wants an offer for 40 seats.", None)
_MIXER = 0x9E3779B97F4A7C15F39CC0605CEDC835


def guid(number: int) -> str:
    """A version 4 GUID: ids come in no order, as in the real API."""
    text = f"{((number + 1) * _MIXER) & (2**128 - 1):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def contact(number: int, updated: datetime | None = None, revision: int = 0) -> dict[str, Any]:
    """The record; another `revision` has another e-mail address, and `updated` as its time of change."""
    first, last = _FIRST[number % 11], _LAST[number % 9]
    moment = updated or FIRST_UPDATE + timedelta(minutes=number)
    shown = moment.isoformat(timespec="seconds")
    return {
        "id": guid(number),
        "tenantId": _TENANT,
        "firstName": first,
        "lastName": last,
        "fullName": f"{first} {last}",
        "email": f"person.{number}.{revision}@example.org",
        "phone": f"+49 30 {5_550_000 + number}",
        "mobile": None if number % 3 else f"+44 7700 {900_000 + number}",
        "title": _TITLES[number % 7],
        "department": "Purchasing" if number % 2 else "Legal",
        "city": _CITIES[number % 8],
        "country": "DE",
        "postalCode": f"{10_000 + number % 90_000}",
        "companyId": guid(10**9 + number // 7),
        "lifecycleStage": _STAGES[number % 5],
        "leadSource": "Website" if number % 4 else "Partner",
        "leadScore": number % 101,
        "tags": "apac,vip" if number % 6 else None,
        "notes": _NOTES[number % 4] if number % 997 else "First call.\nNo answer yet.",
        "ownerId": guid(2 * 10**9 + number % 40),
        "createdAt": "2019-11-05T09:30:00Z",
        "updatedAt": shown.replace("+00:00", "Z"),
    }


def serialise(record: dict[str, Any]) -> bytes:
    """The record's JSON as the server sends it."""
    return msgspec.json.encode(record)
