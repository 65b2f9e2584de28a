"""Changing records the way the product does: derived fields, unique keys, links, and effects on other
records.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from .errors import RallyError
from .field_index import deal_key, fold_email
from .guids import draw_guid
from .instants import text_of
from .records import Record
from .schema import ENTITIES, LINKS
from .store import Moment, Store
from .switches import Effect
from .tenant import Tenant
from .validation import accept_fields

NAME_COPIES = {"contacts": "contactName", "companies": "companyName"}
"""The field of a deal that holds a copy of the linked record's name."""


class Writer:
    """The write operations on records; every one may raise `RallyError`. `by` is the change's author in the
    feed.
    """

    def __init__(self, store: Store, tenant: Tenant, dice: random.Random) -> None:
        self.store = store
        self.tenant = tenant
        self._dice = dice

    def create(self, entity: str, body: object, *, by: str | None, moment: Moment | None = None) -> Record:
        """A new record with a new id."""
        fields = accept_fields(ENTITIES[entity], body)
        return self._save(entity, draw_guid(self._dice), fields, None, by, moment)

    def check(self, entity: str, body: object) -> dict[str, Any]:
        """The fields that `create` would store, without storing them."""
        fields = accept_fields(ENTITIES[entity], body)
        self._check_unique(entity, "", fields)
        self._check_links(fields, {})
        self._derive(entity, fields, None, self.store.moment())
        return fields

    def update(
        self,
        entity: str,
        record_id: str,
        body: object,
        *,
        merge: bool,
        by: str | None,
        moment: Moment | None = None,
    ) -> Record:
        """Change a record: `merge` keeps the writable fields that the body does not name, else they become
        empty.
        """
        former = self.store.fields(entity, record_id)
        if former is None:
            raise self.missing(entity, record_id)
        spec = ENTITIES[entity]
        kept = {spec_.name: former[spec_.name] for spec_ in spec.fields if merge or not spec_.writable}
        fields = accept_fields(spec, body, base={**spec.blank(), **kept})
        return self._save(entity, record_id, fields, former, by, moment)

    def upsert(self, entity: str, body: object, *, by: str | None) -> tuple[Record, bool]:
        """Update the record with the body's key or create one; also whether it was created."""
        switches = self.store.switches
        fields = accept_fields(ENTITIES[entity], body)
        found = self.match(entity, fields)
        missing = [name for name in ENTITIES[entity].upsert_key if not fields[name]]
        if missing and switches.upsert_without_key == "refuse":
            messages = {name: ["The field is the key of an upsert."] for name in missing}
            raise RallyError(400, "One or more fields are invalid.", messages)
        if found is None:
            return self._save(entity, draw_guid(self._dice), fields, None, by, None), True
        return self.update(entity, found, body, merge=switches.upsert_mode == "merge", by=by), False

    def match(self, entity: str, fields: Mapping[str, Any]) -> str | None:
        """The id of the oldest record with the upsert key of these fields, if there is one."""
        if entity == "contacts" and fields["email"]:
            found = self.store.find(entity, "email", fold_email(fields["email"]))
            if self.store.switches.email_match == "exact":
                found = [each for each in found if self._field(entity, each, "email") == fields["email"]]
        elif entity == "companies" and fields["domain"]:
            found = self.store.find(entity, "domain", fields["domain"])
        elif entity == "deals" and fields["name"]:
            found = self.store.find(entity, "name+pipelineId", deal_key(fields["name"], fields["pipelineId"]))
        else:
            found = []
        return found[0] if found else None

    def delete(self, entity: str, record_id: str, *, by: str | None, moment: Moment | None = None) -> None:
        """Remove a record, and clear the links to it where the switch `cascade` says so."""
        moment = moment or self.store.moment()
        cascade = self.store.switches.cascade
        referring = list(self.store.referring(entity, record_id)) if cascade != "off" else []
        if not self.store.delete(entity, record_id, by=by, moment=moment):
            raise self.missing(entity, record_id)
        for name, found, link in referring:
            cleared: dict[str, Any] = {link: None}
            if name == "deals" and entity in NAME_COPIES:
                cleared[NAME_COPIES[entity]] = None
            self.affect(name, found, cleared, cascade, by, moment)

    def revive(self, entity: str, record_id: str, *, by: str | None, moment: Moment | None = None) -> Record:
        """Bring a deleted record back under its id, with its last content."""
        former = self.store.deleted[entity].get(record_id)
        if former is None:
            raise RallyError(404, f"No deleted record {record_id} in {entity}.")
        return self.store.write(entity, record_id, former.fields(ENTITIES[entity]), by=by, moment=moment)

    def move_deal(self, record_id: str, body: object, *, by: str | None) -> Record:
        """Put a deal into another stage."""
        stage_id = body.get("stageId") if isinstance(body, dict) else None
        if not isinstance(stage_id, str) or self.tenant.stage(stage_id) is None:
            raise RallyError(400, "One or more fields are invalid.", {"stageId": ["There is no such stage."]})
        former = self.store.fields("deals", record_id)
        if former is None:
            raise self.missing("deals", record_id)
        pipeline, _ = self.tenant.stage(stage_id) or (None, None)
        change = {"stageId": stage_id, "pipelineId": pipeline.id if pipeline else None}
        return self.update("deals", record_id, change, merge=True, by=by)

    def affect(
        self,
        entity: str,
        record_id: str,
        change: Mapping[str, Any],
        effect: Effect,
        by: str | None,
        moment: Moment,
    ) -> None:
        """A side effect on a present record, as far as its switch lets it go."""
        fields = self.store.fields(entity, record_id)
        if effect == "off" or fields is None:
            return
        self.store.write(
            entity,
            record_id,
            {**fields, **change},
            by=by,
            moment=moment,
            touch=effect in ("touch", "entry"),
            entry=effect == "entry",
        )

    def missing(self, entity: str, record_id: str) -> RallyError:
        """The error for a record that is not there."""
        gone = record_id in self.store.deleted[entity]
        status = self.store.switches.gone_status if gone else 404
        return RallyError(status, f"{ENTITIES[entity].singular.capitalize()} not found.")

    def _save(
        self,
        entity: str,
        record_id: str,
        fields: dict[str, Any],
        former: Mapping[str, Any] | None,
        by: str | None,
        moment: Moment | None,
    ) -> Record:
        moment = moment or self.store.moment()
        self._check_unique(entity, record_id, fields)
        self._check_links(fields, former or {})
        self._derive(entity, fields, former, moment)
        record = self.store.write(entity, record_id, fields, by=by, moment=moment)
        self._spread(entity, record_id, fields, former, by, moment)
        return record

    def _check_unique(self, entity: str, record_id: str, fields: Mapping[str, Any]) -> None:
        if entity == "contacts" and self.store.switches.unique_emails:
            found = self.match(entity, fields)
            if found not in (None, record_id):
                raise RallyError(409, f"A contact with the email '{fields['email']}' exists already.")

    def _check_links(self, fields: Mapping[str, Any], former: Mapping[str, Any]) -> None:
        if not self.store.switches.check_links:
            return
        problems = {
            link: ["There is no such record."]
            for link, entity in LINKS.items()
            if fields.get(link) not in (None, former.get(link))
            and fields[link] not in self.store.collections[entity].by_id
        }
        if problems:
            raise RallyError(400, "One or more fields are invalid.", problems)

    def _derive(
        self, entity: str, fields: dict[str, Any], former: Mapping[str, Any] | None, moment: Moment
    ) -> None:
        if entity == "deals":
            self._derive_deal(fields, former, moment)
        elif entity == "activities":
            done = fields["status"] == "completed"
            fields["completedAt"] = (fields["completedAt"] or text_of(moment.wall)) if done else None

    def _derive_deal(self, fields: dict[str, Any], former: Mapping[str, Any] | None, moment: Moment) -> None:
        pipeline, stage = self.tenant.stage(fields["stageId"]) or (None, None)
        if pipeline is None or stage is None or pipeline.id != fields["pipelineId"]:
            problem = {"stageId": ["There is no such stage in the pipeline."]}
            raise RallyError(400, "One or more fields are invalid.", problem)
        before: Mapping[str, Any] = former or {}
        if before.get("stageId") != stage.id:
            fields["stageName"] = stage.name
            fields["status"] = stage.status
            fields["actualCloseDate"] = text_of(moment.wall) if stage.status != "open" else None
            if fields["probability"] is None or former is not None:
                fields["probability"] = stage.probability
        for link, copy, entity in (
            ("contactId", "contactName", "contacts"),
            ("companyId", "companyName", "companies"),
        ):
            if before.get(link) != fields[link]:
                fields[copy] = self._name_of(entity, fields[link])
        owner = self.tenant.owner(fields["ownerId"])
        fields["ownerName"] = owner.name if owner else None

    def _spread(
        self,
        entity: str,
        record_id: str,
        fields: Mapping[str, Any],
        former: Mapping[str, Any] | None,
        by: str | None,
        moment: Moment,
    ) -> None:
        """The effects of a saved record on others."""
        switches = self.store.switches
        if entity in NAME_COPIES and former is not None and switches.rename_copies != "off":
            name = display_name(entity, fields)
            if name != display_name(entity, former):
                link = "contactId" if entity == "contacts" else "companyId"
                for deal in self.store.find("deals", link, record_id):
                    self.affect(
                        "deals", deal, {NAME_COPIES[entity]: name}, switches.rename_copies, by, moment
                    )
        if entity == "activities" and former is None and fields["dealId"] and switches.last_activity != "off":
            change = {"lastActivityAt": text_of(moment.wall)}
            self.affect("deals", fields["dealId"], change, switches.last_activity, by, moment)

    def _name_of(self, entity: str, record_id: str | None) -> str | None:
        fields = self.store.fields(entity, record_id) if record_id else None
        return display_name(entity, fields) if fields else None

    def _field(self, entity: str, record_id: str, name: str) -> Any:
        fields = self.store.fields(entity, record_id)
        return fields[name] if fields else None


def display_name(entity: str, fields: Mapping[str, Any]) -> str:
    """The name under which a contact or a company appears elsewhere."""
    return f"{fields['firstName']} {fields['lastName']}" if entity == "contacts" else str(fields["name"])
