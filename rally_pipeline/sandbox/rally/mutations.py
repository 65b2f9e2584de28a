"""Random changes at the source: asked for by a test, or by the tenant's own life as time goes by."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import RallyError
from .instants import TICKS_PER_SECOND
from .population import SHARES, Inventor
from .schema import ENTITIES
from .store import Moment, Store
from .tenant import Tenant
from .writes import Writer

KINDS = ("insert", "update", "delete", "revive", "hostile")
"""`hostile` inserts a record whose values are legal but hard to carry."""


class Mutator:
    """Makes random inserts, updates, deletes and revivals through the same doors as the API."""

    def __init__(
        self, store: Store, writer: Writer, tenant: Tenant, inventor: Inventor, dice: random.Random
    ) -> None:
        self._store = store
        self._writer = writer
        self._tenant = tenant
        self._inventor = inventor
        self._dice = dice
        self._lived_until: Moment | None = None
        self._life_debt = 0.0

    def mutate(
        self,
        number: int,
        weights: Mapping[str, float],
        *,
        entities: Sequence[str] = tuple(ENTITIES),
        over_seconds: float = 0.0,
        tie_share: float = 0.3,
    ) -> Counter[str]:
        """Make `number` changes of the kinds with a weight; the counts of what was done, by `entity.kind`.

        On a virtual clock `over_seconds` of sandbox time pass meanwhile: a share of `tie_share` of the
        changes happens at the very moment of the change before.
        """
        done: Counter[str] = Counter()
        clock = self._store.clock
        steps = [0.0 if self._dice.random() < tie_share else self._dice.random() for _ in range(number)]
        scale = over_seconds / sum(steps) if any(steps) and clock.is_virtual else 0.0
        for step in steps:
            if scale:
                clock.advance(step * scale)
            done[self._change(weights, entities, self._store.moment())] += 1
        return done

    def live(self, moment: Moment) -> int:
        """Make the changes that were due since the last call (switch `changes_per_second`), at their own
        times.
        """
        switches = self._store.switches
        before, self._lived_until = self._lived_until, moment
        if before is None or not switches.changes_per_second or moment.elapsed <= before.elapsed:
            return 0
        span = moment.elapsed - before.elapsed
        self._life_debt += span / TICKS_PER_SECOND * switches.changes_per_second
        due = int(self._life_debt)
        self._life_debt -= due
        ages = sorted((self._dice.randrange(span) for _ in range(due)), reverse=True)
        weights = {str(kind): weight for kind, weight in switches.life_weights.items()}
        for age in ages:
            then = Moment(moment.wall - age, moment.elapsed - age)
            self._change(weights, tuple(ENTITIES), then)
        return due

    def _change(self, weights: Mapping[str, float], entities: Sequence[str], moment: Moment) -> str:
        dice = self._dice
        kind = dice.choices(list(weights), list(weights.values()))[0]
        entity = dice.choices(list(entities), [SHARES[name] for name in entities])[0]
        by = self.author()
        if kind == "revive" and not self._store.deleted[entity]:
            kind = "delete"
        if kind in ("update", "delete") and not len(self._store.collections[entity]):
            kind = "insert"
        if kind == "insert":
            self._writer.create(entity, self._invent(entity, moment), by=by, moment=moment)
        elif kind == "hostile":
            spoilt = self._inventor.spoil(entity, self._invent(entity, moment))
            self._writer.create(entity, spoilt, by=by, moment=moment)
        elif kind == "revive":
            record_id = dice.choice(list(self._store.deleted[entity]))
            self._writer.revive(entity, record_id, by=by, moment=moment)
        elif kind == "update":
            self._update(entity, by, moment)
        else:
            self._writer.delete(entity, self.draw(entity), by=by, moment=moment)
        return f"{entity}.{kind}"

    def _update(self, entity: str, by: str | None, moment: Moment) -> None:
        record_id = self.draw(entity)
        change = self._inventor.change(entity)
        self._writer.update(entity, record_id, change, merge=True, by=by, moment=moment)

    def _invent(self, entity: str, moment: Moment) -> dict[str, Any]:
        if entity == "companies":
            return self._inventor.company()
        company_id = self._maybe("companies")
        if entity == "contacts":
            return self._inventor.contact(company_id)
        contact_id = self._maybe("contacts")
        if entity == "deals":
            return self._inventor.deal(contact_id, company_id)
        return self._inventor.activity(contact_id, company_id, self._maybe("deals"), moment.wall)

    def draw(self, entity: str) -> str:
        """The id of a random present record. Raises `RallyError` where there is none."""
        view = self._store.collections[entity].view("createdAt")
        if not view:
            raise RallyError(404, f"There are no {entity}.")
        return self._dice.choice(view).id

    def author(self) -> str | None:
        """Who made a change, as the feed names it (switch `changed_by`)."""
        rule = self._store.switches.changed_by
        if rule == "mixed":
            rule = self._dice.choice(("email", "email", "key", "null"))
        if rule == "email":
            return self._dice.choice(self._tenant.owners).email
        return "api-key:sandbox write" if rule == "key" else None

    def _maybe(self, entity: str) -> str | None:
        return (
            self.draw(entity) if len(self._store.collections[entity]) and self._dice.random() < 0.8 else None
        )
