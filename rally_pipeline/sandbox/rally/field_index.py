"""Finding records by the value of a field: e-mail, domain, name, or a link to another record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

KeyOf = Callable[[Mapping[str, Any]], str | None]


class FieldIndex:
    """Ids of records by a key made of their stored fields; records without the key are not in it."""

    def __init__(self, key_of: KeyOf) -> None:
        self._key_of = key_of
        self._ids: dict[str, str | list[str]] = {}

    def add(self, record_id: str, fields: Mapping[str, Any]) -> None:
        key = self._key_of(fields)
        if key is None:
            return
        present = self._ids.get(key)
        if present is None:
            self._ids[key] = record_id
        elif isinstance(present, list):
            present.append(record_id)
        else:
            self._ids[key] = [present, record_id]

    def remove(self, record_id: str, fields: Mapping[str, Any]) -> None:
        key = self._key_of(fields)
        if key is None:
            return
        present = self._ids[key]
        if isinstance(present, list):
            present.remove(record_id)
            if present:
                return
        del self._ids[key]

    def find(self, key: str) -> list[str]:
        """The ids with that key, oldest first."""
        present = self._ids.get(key)
        if present is None:
            return []
        return list(present) if isinstance(present, list) else [present]


def fold_email(email: str) -> str:
    """An e-mail address as it is matched without regard to case and outer blanks."""
    return email.strip().lower()


def single_field(name: str) -> KeyOf:
    """The key that is the text of one field."""

    def key_of(fields: Mapping[str, Any]) -> str | None:
        value = fields[name]
        return value if isinstance(value, str) and value else None

    return key_of


def email_field(fields: Mapping[str, Any]) -> str | None:
    """The key of the index by folded e-mail address."""
    email = fields["email"]
    return fold_email(email) if isinstance(email, str) and email.strip() else None


def name_in_pipeline(fields: Mapping[str, Any]) -> str | None:
    """The key of a deal's upsert: its name within its pipeline."""
    return deal_key(fields["name"], fields["pipelineId"])


def deal_key(name: str, pipeline_id: str) -> str:
    """The upsert key of a deal as one text."""
    return f"{pipeline_id}\n{name}"
