"""Realistic records from seeded dice, for filling the store and for the changes of its life."""

from __future__ import annotations

import random
import unicodedata
from array import array
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from . import words
from .guids import draw_guid
from .instants import TICKS_PER_SECOND, text_of
from .records import Record
from .schema import ENTITIES
from .store import Store
from .tenant import Tenant
from .writes import display_name

SHARES = {"contacts": 0.40, "companies": 0.15, "deals": 0.20, "activities": 0.25}
"""How a total number of records is divided."""
PAST_DAYS = 400
_DAY = 86_400 * TICKS_PER_SECOND
_SETTLED_SECONDS = 3600


def divide(records: int | Mapping[str, int]) -> dict[str, int]:
    """The number of records for each entity."""
    if isinstance(records, Mapping):
        return {name: int(records.get(name, 0)) for name in ENTITIES}
    counts = {name: round(records * SHARES[name]) for name in ENTITIES}
    counts["contacts"] += records - sum(counts.values())
    return counts


class Inventor:
    """Invents the content of records that fit the tenant and each other."""

    def __init__(self, tenant: Tenant, dice: random.Random) -> None:
        self._tenant = tenant
        self._dice = dice
        self._serial = 0

    def company(self) -> dict[str, Any]:
        """Fields of a company; its domain is unique."""
        pick, dice = self._dice.choice, self._dice
        serial = self._next_serial()
        head, tail = pick(words.COMPANY_HEADS), pick(words.COMPANY_TAILS)
        domain = f"{_ascii(head) or 'firm'}{_ascii(tail)}{serial}.example"
        city, state, country, postal_code = pick(words.PLACES)
        return {
            "name": f"{head} {tail}{pick(words.COMPANY_FORMS)}",
            "domain": domain,
            "industry": pick(words.INDUSTRIES),
            "description": self._maybe(0.3, words.NOTES),
            "employeeCount": dice.randrange(1, 5000) if dice.random() < 0.8 else None,
            "annualRevenue": self.money(12) if dice.random() < 0.7 else None,
            "phone": self._phone(0.6),
            "website": f"https://{domain}",
            "linkedInUrl": f"https://www.linkedin.example/company/{serial}" if dice.random() < 0.4 else None,
            "address": f"{pick(words.STREETS)} {dice.randrange(1, 200)}",
            "city": city,
            "state": state,
            "country": country,
            "postalCode": postal_code,
            "tags": dice.sample(words.TAGS, dice.randrange(0, 4)) if dice.random() < 0.8 else None,
            "notes": self._maybe(0.3, words.NOTES),
            "ownerId": self._owner(),
        }

    def contact(self, company_id: str | None) -> dict[str, Any]:
        """Fields of a contact; its e-mail address is unique."""
        pick, dice = self._dice.choice, self._dice
        first, last = pick(words.FIRST_NAMES), pick(words.LAST_NAMES)
        serial = self._next_serial()
        city, state, country, postal_code = pick(words.PLACES)
        mailbox = f"{_ascii(first) or 'person'}.{_ascii(last) or 'x'}.{serial}"
        return {
            "firstName": first,
            "lastName": last,
            "email": f"{mailbox}@{pick(words.EMAIL_HOSTS)}",
            "phone": self._phone(0.5),
            "mobile": self._phone(0.6),
            "title": self._maybe(0.8, words.TITLES),
            "department": self._maybe(0.6, words.DEPARTMENTS),
            "linkedInUrl": f"https://www.linkedin.example/in/{serial}" if dice.random() < 0.3 else None,
            "twitterHandle": f"@p{serial}" if dice.random() < 0.1 else None,
            "address": f"{pick(words.STREETS)} {dice.randrange(1, 200)}",
            "city": city,
            "state": state,
            "country": country,
            "postalCode": postal_code,
            "companyId": company_id,
            "lifecycleStage": pick(words.LIFECYCLE),
            "leadSource": self._maybe(0.7, words.SOURCES),
            "leadScore": dice.randrange(0, 101) if dice.random() < 0.7 else None,
            "tags": ",".join(dice.sample(words.TAGS, 2)) if dice.random() < 0.4 else None,
            "notes": self._maybe(0.25, words.NOTES),
            "ownerId": self._owner(),
        }

    def deal(self, contact_id: str | None, company_id: str | None) -> dict[str, Any]:
        """Writable fields of a deal."""
        pick, dice = self._dice.choice, self._dice
        pipeline = self._tenant.pipelines[0 if dice.random() < 0.8 else 1]
        stage = pick(pipeline.stages)
        return {
            "pipelineId": pipeline.id,
            "stageId": stage.id,
            "contactId": contact_id,
            "companyId": company_id,
            "name": f"{dice.randrange(2024, 2028)} {pick(words.PRODUCTS)} {self._next_serial()}",
            "value": self.money(8) if dice.random() < 0.9 else None,
            "currency": pick(words.CURRENCIES),
            "probability": stage.probability,
            "expectedCloseDate": f"2026-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}T00:00:00Z",
            "notes": self._maybe(0.3, words.NOTES),
            "ownerId": self._owner(),
        }

    def activity(
        self, contact_id: str | None, company_id: str | None, deal_id: str | None, now: int
    ) -> dict[str, Any]:
        """Writable fields of an activity."""
        pick, dice = self._dice.choice, self._dice
        kind = pick(("note", "task", "call", "meeting"))
        planned = text_of(now + dice.randrange(-30, 30) * _DAY)
        fields: dict[str, Any] = {
            "activityType": kind,
            "subject": pick(words.SUBJECTS),
            "body": self._maybe(0.6, words.NOTES),
            "contactId": contact_id,
            "companyId": company_id,
            "dealId": deal_id,
            "scheduledAt": planned if kind in ("call", "meeting") else None,
            "dueDate": planned if kind == "task" else None,
            "priority": self._maybe(0.5, ("low", "normal", "high", "urgent")),
            "status": pick(("pending", "completed")),
            "ownerId": self._owner(),
        }
        if kind == "call":
            fields["callDirection"] = pick(("inbound", "outbound"))
            fields["callOutcome"] = pick(words.OUTCOMES)
            fields["callDurationSeconds"] = dice.randrange(5, 3600)
        elif kind == "meeting":
            fields["durationMinutes"] = dice.choice((15, 30, 45, 60))
            fields["location"] = self._maybe(0.5, [place[0] for place in words.PLACES])
            fields["meetingUrl"] = f"{pick(words.CALL_HOSTS)}/{dice.randrange(10**6)}"
        return fields

    def change(self, entity: str) -> dict[str, Any]:
        """A small change to a record of the entity, as its users make it."""
        dice = self._dice
        if entity == "contacts":
            names = dice.sample(
                ("title", "phone", "leadScore", "lifecycleStage", "notes", "lastName", "city"), 2
            )
            source = self.contact(None)
        elif entity == "companies":
            names = dice.sample(
                ("industry", "employeeCount", "annualRevenue", "tags", "notes", "name", "phone"), 2
            )
            source = self.company()
        elif entity == "deals":
            source = self.deal(None, None)
            names = ["value", "notes"]
            if dice.random() < 0.5:
                names += ["pipelineId", "stageId"]
        else:
            names = dice.sample(("subject", "body", "priority", "status"), 2)
            source = self.activity(None, None, None, 0)
        return {name: source[name] for name in names}

    def spoil(self, entity: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields with values that are legal but hard to carry: odd texts, extreme decimals and times."""
        dice = self._dice
        for field in ENTITIES[entity].fields:
            if not field.writable or field.required or field.choices or dice.random() < 0.3:
                continue
            if field.kind == "text":
                fields[field.name] = dice.choice(words.HOSTILE_TEXTS)
            elif field.kind == "tags":
                fields[field.name] = dice.sample(words.HOSTILE_TEXTS, 3)
            elif field.kind == "decimal":
                fields[field.name] = Decimal(dice.choice(words.HOSTILE_DECIMALS))
            elif field.kind == "instant":
                fields[field.name] = dice.choice(words.HOSTILE_INSTANTS)
            elif field.kind == "integer" and field.limits is not None:
                fields[field.name] = dice.choice(field.limits)
        return fields

    def money(self, digits: int) -> Decimal:
        """A decimal with cents."""
        whole = self._dice.randrange(10 ** self._dice.randrange(2, digits))
        return Decimal(f"{whole}.{self._dice.randrange(100):02d}")

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _maybe(self, share: float, choices: Sequence[str]) -> str | None:
        return self._dice.choice(choices) if self._dice.random() < share else None

    def _phone(self, share: float) -> str | None:
        return f"+49 30 5550{self._dice.randrange(1000):03d}" if self._dice.random() < share else None

    def _owner(self) -> str | None:
        return self._dice.choice(self._tenant.owners).id if self._dice.random() < 0.85 else None


class Populator:
    """Fills a store with records of the past and the feed entries that they left."""

    def __init__(self, store: Store, tenant: Tenant, inventor: Inventor, dice: random.Random) -> None:
        self._store = store
        self._tenant = tenant
        self._inventor = inventor
        self._dice = dice
        self._now = store.moment().wall // TICKS_PER_SECOND * TICKS_PER_SECOND
        self._fields: dict[str, list[tuple[str, str]]] = {}
        self._changed = array("q")
        self._changed_ids: list[str] = []
        self._changed_kinds: list[tuple[str, str, str | None]] = []
        authors = tuple(owner.email for owner in tenant.owners)
        self._kinds = {
            (spec.singular, action): [(spec.singular, action, author) for author in authors]
            for spec in ENTITIES.values()
            for action in ("inserted", "updated")
        }

    def populate(self, counts: Mapping[str, int]) -> None:
        """Make and load the records; the youngest change is an hour old."""
        for entity in ENTITIES:
            self._fields[entity] = []
            self._store.load(entity, [self._make(entity) for _ in range(counts[entity])])
        self._store.feed.load(self._changed, self._changed_ids, self._changed_kinds)

    def _make(self, entity: str) -> Record:
        dice, spec = self._dice, ENTITIES[entity]
        created = self._now - (dice.randrange(_SETTLED_SECONDS, PAST_DAYS * 86_400)) * TICKS_PER_SECOND
        updated = created
        if dice.random() < 0.65:
            age = (self._now - created) // TICKS_PER_SECOND
            updated = self._now - dice.randrange(_SETTLED_SECONDS, age + 1) * TICKS_PER_SECOND
        fields = {**spec.blank(), **self._invent(entity, created)}
        if entity == "activities" and fields["status"] == "completed":
            fields["completedAt"] = text_of(updated)
        record = Record.of(spec, draw_guid(dice), created, updated, fields)
        name = display_name(entity, fields) if entity in ("contacts", "companies") else ""
        self._fields[entity].append((record.id, name))
        self._note_change(created, record.id, spec.singular, "inserted")
        if updated != created:
            self._note_change(updated, record.id, spec.singular, "updated")
        return record

    def _note_change(self, changed: int, record_id: str, singular: str, action: str) -> None:
        self._changed.append(changed)
        self._changed_ids.append(record_id)
        self._changed_kinds.append(self._dice.choice(self._kinds[singular, action]))

    def _invent(self, entity: str, created: int) -> dict[str, Any]:
        if entity == "companies":
            return self._inventor.company()
        company_id, company_name = self._draw("companies", 0.8)
        if entity == "contacts":
            return self._inventor.contact(company_id)
        contact_id, contact_name = self._draw("contacts", 0.8)
        if entity == "activities":
            deal_id, _ = self._draw("deals", 0.5)
            return self._inventor.activity(contact_id, company_id, deal_id, created)
        fields = self._inventor.deal(contact_id, company_id)
        found = self._tenant.stage(fields["stageId"])
        owner = self._tenant.owner(fields["ownerId"])
        if found is not None:
            fields["stageName"], fields["status"] = found[1].name, found[1].status
            fields["actualCloseDate"] = None if found[1].status == "open" else text_of(created)
        fields["contactName"], fields["companyName"] = contact_name, company_name
        fields["ownerName"] = owner.name if owner else None
        return fields

    def _draw(self, entity: str, share: float) -> tuple[str, str | None] | tuple[None, None]:
        present = self._fields[entity]
        return self._dice.choice(present) if present and self._dice.random() < share else (None, None)


def _ascii(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain.lower() if letter.isalnum())
