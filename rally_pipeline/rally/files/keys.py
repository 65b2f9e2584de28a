"""What makes two rows, or a row and a record, the same thing.

Contacts are known by e-mail, companies by domain (by name where there is none), deals by name and pipeline.
An activity has no key: it is its whole content, and may rightly stand several times.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.templates import Template

_KEY_COLUMNS = {
    Entity.CONTACTS: (("email",),),
    Entity.COMPANIES: (("domain",), ("name",)),
    Entity.DEALS: (("name", "pipeline_name"),),
}


def fold(text: str) -> str:
    """A name or e-mail address as it is compared: blanks around it and its case do not matter."""
    return text.strip().casefold()


def digest(parts: Sequence[str]) -> bytes:
    """16 bytes that stand for a sequence of texts; two sequences share them with a chance of 2**-128."""
    return blake2b(msgspec.json.encode(parts), digest_size=16).digest()


class RowKey:
    """Natural keys of the rows of one template."""

    def __init__(self, template: Template) -> None:
        self._choices: list[list[tuple[str, int]]] = []
        for names in _KEY_COLUMNS.get(template.entity, ()):
            places = [(name, template.position(name)) for name in names]
            found = [(name, place) for name, place in places if place is not None]
            if len(found) == len(names):
                self._choices.append(found)

    def __call__(self, cells: Sequence[str]) -> dict[str, str] | None:
        """The key as column and folded value; None for activities."""
        for choice in self._choices:
            key = {name: fold(cells[place]) for name, place in choice}
            if all(key.values()):
                return key
        return None
