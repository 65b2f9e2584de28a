"""The catalog: what is known of all syncs, with names given once, and how a fresh list changes it.

Pure: the file is in `catalog_file`, the fetching in `refresh`. A sync that vanishes stays for a while as `gone`, so
that a list that was incomplete for an hour costs no schedule its switch and no asset its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from rally_pipeline.http.redaction import redact
from rally_pipeline.signalsmith.cron import CronError, read_cron
from rally_pipeline.signalsmith.naming import assign_slugs
from rally_pipeline.signalsmith.records import RecordError, Sync, read_sync

VERSION = 1
GONE_KEPT = timedelta(days=7)
GONE_REFRESHES = 3
SCHEDULE_KEPT = timedelta(days=30)
"""How long a schedule stays, skipping, after its sync stopped being active."""

LONGEST_TEXT = 1_000
_VOLATILE = ("last_run_id", "last_synced_at", "updated_at", "status_error")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One sync as the code location needs it. Texts of the remote are cut to a length that a page can show."""

    id: str
    slug: str
    name: str = ""
    description: str = ""
    model_id: str = ""
    destination_id: str = ""
    field_mapping: list[dict[str, str]] = []
    sync_mode: str = ""
    schedule: str = ""
    config: dict[str, Any] = {}
    primary_key: str = ""
    status: str = ""
    status_error: str = ""
    created_at: str = ""
    model_name: str = ""
    tables: list[str] = []
    """Tables that the model reads, where its SQL says so."""
    column_types: dict[str, str] = {}
    kept_schedule: str = ""
    """The cron that it last had while active."""
    inactive_since: str = ""
    gone_since: str = ""
    missed: int = 0
    """Refreshes in a row that did not list it."""
    notes: list[str] = []

    @property
    def is_gone(self) -> bool:
        return bool(self.gone_since)


class Skipped(msgspec.Struct, frozen=True):
    """A row of the list that is no sync, and why."""

    id: str
    name: str
    reason: str


class Catalog(msgspec.Struct, frozen=True, kw_only=True):
    """All syncs of one workspace at one time; the order is that of creation."""

    version: int = VERSION
    generation: int = 0
    fetched_at: str = ""
    workspace_id: str = ""
    api_url: str = ""
    timezone: str = ""
    timezone_source: str = ""
    fingerprint: str = ""
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    accepted_shrink: bool = False
    """The list lost more than half of its syncs and a person said that this is right."""

    @property
    def present(self) -> list[Entry]:
        """Entries that the latest list held."""
        return [entry for entry in self.entries if not entry.is_gone]

    @property
    def fetched(self) -> datetime | None:
        return read_instant(self.fetched_at)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh answer of the remote: rows as received, and what helps to understand them."""

    rows: Sequence[object]
    at: datetime
    workspace_id: str
    api_url: str
    timezone: str
    timezone_source: str
    models: Sequence[Mapping[str, Any]] = ()
    known_slugs: Mapping[str, str] = {}
    """Slugs by id from elsewhere (the warehouse), should the catalog file be lost."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What a refresh changed, as display texts; `removed` are those that are finally dropped."""

    added: list[str] = []
    changed: list[str] = []
    gone: list[str] = []
    returned: list[str] = []
    removed: list[str] = []
    unchanged: int = 0

    @property
    def any(self) -> bool:
        return bool(self.added or self.changed or self.gone or self.returned or self.removed)

    def counts(self) -> dict[str, int]:
        """Numbers for metadata."""
        return {
            "added": len(self.added),
            "changed": len(self.changed),
            "gone": len(self.gone),
            "returned": len(self.returned),
            "removed": len(self.removed),
            "unchanged": self.unchanged,
        }


def build_catalog(reading: Reading, before: Catalog | None) -> Catalog:
    """The catalog after `reading`. Each row is read on its own; a bad one is skipped with its reason."""
    syncs, skipped = read_rows(reading.rows)
    old = {entry.id: entry for entry in before.entries} if before is not None else {}
    syncs.sort(key=lambda sync: (sync.created_at or datetime.max.replace(tzinfo=UTC), sync.id))
    known = {**reading.known_slugs, **{entry.id: entry.slug for entry in old.values()}}
    slugs = assign_slugs([(sync.id, sync.name) for sync in syncs], known)
    models = {str(model.get("id")): model for model in reading.models}
    entries = [
        _entry(sync, slugs[sync.id], old.get(sync.id), models.get(sync.model_id), reading.at)
        for sync in syncs
    ]
    listed = {sync.id for sync in syncs}
    entries += [
        kept for entry in old.values() if entry.id not in listed if (kept := _gone(entry, reading.at))
    ]
    return Catalog(
        generation=before.generation + 1 if before is not None else 1,
        fetched_at=reading.at.isoformat(),
        workspace_id=reading.workspace_id,
        api_url=reading.api_url,
        timezone=reading.timezone,
        timezone_source=reading.timezone_source,
        fingerprint=fingerprint(reading.rows),
        entries=entries,
        skipped=skipped,
    )


def read_rows(rows: Iterable[object]) -> tuple[list[Sync], list[Skipped]]:
    """Usable syncs, each id once, and the rows that are none."""
    syncs: dict[str, Sync] = {}
    skipped = []
    for number, row in enumerate(rows, 1):
        try:
            sync = read_sync(row)
        except RecordError as error:
            skipped.append(_skipped(row, number, str(error)))
            continue
        if sync.id in syncs:
            skipped.append(_skipped(row, number, "another sync has the same id"))
        else:
            syncs[sync.id] = sync
    return list(syncs.values()), skipped


def fingerprint(rows: Iterable[object]) -> str:
    """A digest of everything that can change a definition; runs and their times do not count."""
    digests = []
    for row in rows:
        kept = {key: row[key] for key in row if key not in _VOLATILE} if isinstance(row, Mapping) else row
        encoded = msgspec.json.encode(kept, order="sorted", enc_hook=str)
        digests.append(hashlib.sha256(encoded).hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def compare(before: Catalog | None, after: Catalog) -> Changes:
    """What `after` has that `before` had not, and so on."""
    old = {entry.id: entry for entry in before.entries} if before is not None else {}
    new = {entry.id: entry for entry in after.entries}
    changed, unchanged = [], 0
    for entry in after.present:
        previous = old.get(entry.id)
        if previous is None or previous.is_gone:
            continue
        fields = changed_fields(previous, entry)
        if fields:
            changed.append(f"{label(entry)}: {', '.join(fields)}")
        else:
            unchanged += 1
    return Changes(
        added=[label(entry) for entry in after.present if entry.id not in old],
        changed=changed,
        gone=[
            label(entry)
            for entry in after.entries
            if entry.is_gone and entry.id in old and not old[entry.id].is_gone
        ],
        returned=[label(entry) for entry in after.present if entry.id in old and old[entry.id].is_gone],
        removed=[label(entry) for entry in old.values() if entry.id not in new],
        unchanged=unchanged,
    )


def changed_fields(before: Entry, after: Entry) -> list[str]:
    """Names of the fields of the API that differ."""
    own = {"slug", "kept_schedule", "inactive_since", "gone_since", "missed", "notes", "status_error"}
    return [
        name
        for name in Entry.__struct_fields__
        if name not in own and getattr(before, name) != getattr(after, name)
    ]


def has_shrunk(before: Catalog | None, now: int) -> bool:
    """Whether a list of `now` syncs has lost more than half of those present before."""
    return before is not None and bool(before.present) and 2 * now < len(before.present)


def label(entry: Entry) -> str:
    """How a sync is named in reports."""
    return f"{entry.name or 'sync without a name'} ({entry.slug})"


def read_instant(text: str) -> datetime | None:
    """An instant of the catalog; None where it is empty or damaged."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _entry(
    sync: Sync, slug: str, before: Entry | None, model: Mapping[str, Any] | None, at: datetime
) -> Entry:
    from rally_pipeline.signalsmith.lineage import model_columns, model_tables

    kept, inactive_since = _kept_schedule(sync, before, at)
    model_name = model.get("name") if model is not None else None
    return Entry(
        id=sync.id,
        slug=slug,
        name=_clean(sync.name),
        description=_clean(sync.description),
        model_id=sync.model_id,
        destination_id=sync.destination_id,
        field_mapping=[entry.as_api() for entry in sync.field_mapping],
        sync_mode=_clean(sync.sync_mode),
        schedule=sync.schedule[:LONGEST_TEXT],
        config=dict(sync.config),
        primary_key=_clean(sync.primary_key),
        status=_clean(sync.status),
        status_error=redact(_clean(sync.status_error)),
        created_at=sync.created_at.isoformat() if sync.created_at else "",
        model_name=_clean(model_name) if isinstance(model_name, str) else "",
        tables=list(model_tables(model)) if model is not None else (before.tables if before else []),
        column_types=model_columns(model) if model is not None else (before.column_types if before else {}),
        kept_schedule=kept,
        inactive_since=inactive_since,
        notes=list(sync.oddities),
    )


def _kept_schedule(sync: Sync, before: Entry | None, at: datetime) -> tuple[str, str]:
    """The cron of its active times, and since when it is not active."""
    if sync.is_active:
        try:
            read_cron(sync.schedule)
        except CronError:
            return "", ""
        return sync.schedule, ""
    if before is None or not before.kept_schedule:
        return "", ""
    since = read_instant(before.inactive_since) or at
    return (before.kept_schedule, since.isoformat()) if at - since < SCHEDULE_KEPT else ("", "")


def _gone(entry: Entry, at: datetime) -> Entry | None:
    """The entry of a sync that is not listed; None when it was missing for long enough, and often enough."""
    since = read_instant(entry.gone_since) or at
    missed = entry.missed + 1
    if at - since >= GONE_KEPT and missed >= GONE_REFRESHES:
        return None
    return msgspec.structs.replace(entry, gone_since=since.isoformat(), missed=missed)


def _skipped(row: object, number: int, reason: str) -> Skipped:
    fields = row if isinstance(row, Mapping) else {}
    name = fields.get("name")
    return Skipped(
        id=_clean(str(fields.get("id", "")))[:80],
        name=_clean(name)[:80] if isinstance(name, str) else f"row {number}",
        reason=reason,
    )


def _clean(text: str) -> str:
    """Remote text without control characters and lone surrogates, cut."""
    cut = text[:LONGEST_TEXT].encode("utf-8", "replace").decode("utf-8")
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut).strip()
