"""Which rows of an upload are among the records that Rally has created since.

Contacts, companies and deals are found by what they are known by. Activities, and deals of one name in
several pipelines, are compared by content, as a multiset: n equal rows need n equal records. A blank cell
says nothing, because Rally may fill it with a default; rows that say most are matched first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import Any

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.cells import DateReader, EnumerationReader, IntegerReader, read_decimal
from rally_pipeline.rally.files.keys import RowKey, digest, fold
from rally_pipeline.rally.files.templates import Column, Template

KEY_BYTES = 16
_MASK_BYTES = 3
_LOOSE = {Entity.ACTIVITIES: ("subject", "subject"), Entity.DEALS: ("name", "name")}
"""Column and field that a row and a record certainly share if they are the same."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a read-back shows of an upload, by position of the rows."""

    found: frozenset[int] = frozenset()
    doubtful: frozenset[int] = frozenset()
    """Neither found nor certainly missing."""


@dataclass(slots=True)
class _Candidate:
    record_id: str
    name: str
    created: str
    values: tuple[str, ...]
    fresh: bool


class ContentKey:
    """A row's content in 16 bytes: which of the template's comparable cells are filled, and a digest of
    those.

    Links are left out: a record holds ids where the row holds names.
    """

    def __init__(self, template: Template) -> None:
        named = [
            (place, column)
            for place, column in enumerate(template.columns)
            if column.field and not column.link
        ]
        self.columns: tuple[tuple[int, Column], ...] = tuple(named)

    def of_row(self, cells: Sequence[str]) -> bytes:
        """The key of a row by all its filled cells."""
        values = self.values_of_row(cells)
        return self.of_values(values, _mask(values))

    def values_of_row(self, cells: Sequence[str]) -> tuple[str, ...]:
        """A row's comparable values."""
        return tuple(_canonical(column, cells[place]) for place, column in self.columns)

    def of_values(self, values: Sequence[str], mask: int) -> bytes:
        """The key that a row with these values in the columns of `mask`, and blanks in the others, has."""
        told = [value for bit, value in enumerate(values) if mask >> bit & 1]
        hashed = blake2b("\0".join(told).encode(errors="replace"), digest_size=KEY_BYTES - _MASK_BYTES)
        return mask.to_bytes(_MASK_BYTES) + hashed.digest()

    def values_of_record(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """A record's values, comparable with those of a row."""
        return tuple(
            _canonical(column, _text_of(record.get(column.field or ""))) for _, column in self.columns
        )


class RecognitionKey:
    """What a row is recognised by, in 16 bytes: its natural key, or its content where it has none."""

    def __init__(self, template: Template) -> None:
        self._natural = RowKey(template)
        self._content = ContentKey(template)

    def __call__(self, cells: Sequence[str]) -> bytes:
        key = self._natural(cells)
        if key is None:
            return self._content.of_row(cells)
        return digest([part for pair in key.items() for part in pair])


@dataclass(slots=True)
class RowMatcher:
    """Finds the rows of one upload among records.

    Args:
        template: of the upload.
        rows: of the upload, in order.
        since: records created before this are not the upload's (server time, the overlap taken off).
        sent_at: server time before the upload; decides only what is doubtful.
        earlier: content keys of equal rows that other uploads have brought into Rally since `since`.
    """

    template: Template
    rows: Sequence[Sequence[str]]
    since: datetime
    sent_at: datetime
    earlier: Counter[bytes] = field(default_factory=Counter)

    @property
    def fields(self) -> frozenset[str]:
        """The fields of a record that matter here."""
        compared = {column.field for _, column in ContentKey(self.template).columns if column.field}
        identifying = {"id", "createdAt", "email", "domain", "name", "subject"}
        by_content = self.template.entity in _LOOSE
        return frozenset(identifying | compared if by_content else identifying)

    def match(self, records: Iterable[Mapping[str, Any]]) -> Sighting:
        """Compare with records in any order; of a record that comes twice the last one counts."""
        entity = self.template.entity
        if entity is Entity.ACTIVITIES:
            return self._match_content(records, range(len(self.rows)))
        if entity is not Entity.DEALS:
            return Sighting(self._match_keys(records))
        place = self.template.position("name") or 0
        names = [fold(cells[place]) for cells in self.rows]
        counted = Counter(names)
        alone = {name: position for position, name in enumerate(names) if counted[name] == 1}
        several = [position for position, name in enumerate(names) if counted[name] > 1]
        kept = [record for record in self._recent(records) if fold(_text_of(record.get("name"))) in counted]
        found = {alone[name] for record in kept if (name := fold(_text_of(record.get("name")))) in alone}
        by_content = self._match_content(kept, several)
        return Sighting(by_content.found | found, by_content.doubtful)

    def _recent(self, records: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
        for record in records:
            created = _moment(record.get("createdAt"))
            if created is None or created >= self.since:
                yield record

    def _match_keys(self, records: Iterable[Mapping[str, Any]]) -> frozenset[int]:
        natural = RowKey(self.template)
        positions: dict[tuple[str, str], int] = {}
        for position, cells in enumerate(self.rows):
            for name, value in (natural(cells) or {}).items():
                positions[name, value] = position
        found = set()
        for record in self._recent(records):
            for name in ("email",) if self.template.entity is Entity.CONTACTS else ("domain", "name"):
                matched = positions.get((name, fold(_text_of(record.get(name)))))
                if matched is not None:
                    found.add(matched)
                    break
        return frozenset(found)

    def _match_content(self, records: Iterable[Mapping[str, Any]], positions: Iterable[int]) -> Sighting:
        content = ContentKey(self.template)
        column, json_name = _LOOSE[self.template.entity]
        place = self.template.position(column) or 0
        rows = {position: self.rows[position] for position in positions}
        loose = {fold(cells[place]) for cells in rows.values()}
        candidates, returned = self._candidates(content, records, json_name, loose)
        wanted: dict[int, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
        for position, cells in rows.items():
            values = content.values_of_row(cells)
            mask = _mask(values) & returned
            wanted[mask][content.of_values(values, mask)].append(position)
        found: set[int] = set()
        doubtful: set[int] = set()
        for mask in sorted(wanted, key=lambda mask: (-mask.bit_count(), mask)):
            self._assign(content, mask, wanted[mask], candidates, found, doubtful)
        # Records made after the upload began that equal no row, but have the name of one: Rally may have
        # altered it.
        left = {fold(one.name) for one in candidates.values() if one.fresh}
        doubtful.update(
            position for position in rows if position not in found and fold(rows[position][place]) in left
        )
        return Sighting(frozenset(found), frozenset(doubtful))

    def _candidates(
        self, content: ContentKey, records: Iterable[Mapping[str, Any]], json_name: str, loose: set[str]
    ) -> tuple[dict[str, _Candidate], int]:
        """The records that have the name of a row, and the mask of the fields that Rally returns at all."""
        candidates: dict[str, _Candidate] = {}
        returned = 0
        for record in self._recent(records):
            name = _text_of(record.get(json_name))
            if fold(name) not in loose:
                continue
            returned |= sum(
                1 << bit for bit, (_, column) in enumerate(content.columns) if column.field in record
            )
            record_id, created = _text_of(record.get("id")), _moment(record.get("createdAt"))
            fresh = created is None or created >= self.sent_at
            stamp = created.isoformat() if created else ""
            candidates[record_id] = _Candidate(
                record_id, name, stamp, content.values_of_record(record), fresh
            )
        return candidates, returned

    def _assign(
        self,
        content: ContentKey,
        mask: int,
        wanted: Mapping[bytes, list[int]],
        candidates: dict[str, _Candidate],
        found: set[int],
        doubtful: set[int],
    ) -> None:
        """Give the records that equal rows to them, after those that earlier uploads account for."""
        equal: dict[bytes, list[_Candidate]] = defaultdict(list)
        for one in candidates.values():
            equal[content.of_values(one.values, mask)].append(one)
        for key, positions in wanted.items():
            records = sorted(equal[key], key=lambda one: (one.created, one.record_id))
            before = sum(
                self.earlier[whole] for whole in {content.of_row(self.rows[place]) for place in positions}
            )
            for one in records[: before + len(positions)]:
                del candidates[one.record_id]
            if len(records) < before:
                doubtful.update(positions)
            else:
                found.update(positions[: len(records) - before])


def _mask(values: Sequence[str]) -> int:
    return sum(1 << bit for bit, value in enumerate(values) if value)


def _text_of(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(_text_of(item) for item in value)
    return value if isinstance(value, str) else str(value)


def _canonical(column: Column, text: str) -> str:
    """A value as it is compared: line ends, number formats and dates in one form."""
    text = text.strip()
    if not text:
        return ""
    if isinstance(column.read, DateReader):
        moment = _moment(text)
        return moment.isoformat() if moment else text
    if isinstance(column.read, EnumerationReader):
        return text.casefold()
    if isinstance(column.read, IntegerReader) or column.read is read_decimal:
        try:
            return format(Decimal(text).normalize(), "f")
        except InvalidOperation:
            return text
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
