"""Made-up records of every type, in the Core API's representation; the same seed gives the same records."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

FIRST_NAMES = (
    "Ada",
    "Bogdan",
    "Chiara",
    "Dieter",
    "Eszter",
    "Fatima",
    "Gábor",
    "Hana",
    "Iñaki",
    "Jovana",
    "Łukasz",
    "Zoë",
)
LAST_NAMES = (
    "Almeida",
    "Brandt",
    "Čapek",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Grabowska",
    "Horváth",
    "O'Neill",
    "Yılmaz",
)
COMPANIES = (
    "Acme",
    "Bright & Co",
    "Cedar GmbH",
    'Delta "D" Ltd',
    "Ember s.r.o.",
    "Fjord AS",
    "Gruñón SL",
    "北京科技",
)
CITIES = ("Gdańsk", "Kraków", "Lyon", "Porto", "Tromsø", "Zürich")
STAGES = (
    ("Incoming", "incoming", 5, True),
    ("Qualified", "in_progress", 20, True),
    ("Quote", "in_progress", 50, True),
    ("Won", "won", 100, False),
    ("Lost", "lost", 0, False),
    ("Unqualified", "unqualified", 0, False),
)
UNKNOWN_TYPE = "call_outcome"

SHARES: dict[str, float] = {
    "lead": 0.28,
    "contact": 0.26,
    "deal": 0.16,
    "note": 0.11,
    "task": 0.11,
    "associated_contact": 0.05,
    "tag": 0.03,
}
"""How the records that are not configuration divide among the types."""


def instant(moment: datetime) -> str:
    """A time as Sell writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Sampler:
    """Makes records; ids are unique over all types."""

    def __init__(self, dice: random.Random, start: datetime) -> None:
        self._dice = dice
        self._start = start
        self._next_id = 4_000
        self.ids: dict[str, list[int]] = {}

    def configuration(self) -> list[tuple[str, dict[str, Any]]]:
        """Account, users, pipelines with their stages, sources, loss reasons: what every account has."""
        made = [self.make("account"), *(self.make("user") for _ in range(4))]
        for name in ("Sales", "Renewals"):
            made += self._pipeline(name)
        made += [self.make("source") for _ in range(4)]
        made += [self.make("loss_reason") for _ in range(3)]
        return made

    def make(self, kind: str) -> tuple[str, dict[str, Any]]:
        """One new record of a type (a stage belongs to the first pipeline)."""
        self._next_id += self._dice.randrange(1, 9)
        number = self._next_id
        record = {"id": number, **self._fields(kind), **self._times()}
        if kind == "associated_contact":
            del record["id"]
        self.ids.setdefault(kind, []).append(number)
        return kind, record

    def changes(self, kind: str) -> dict[str, Any]:
        """New values for some fields of a record, as an edit would bring them."""
        fresh = self._fields(kind)
        fixed = {"deal_id", "contact_id", "stages", "resource_type", "pipeline_id"}
        names = [name for name in fresh if name not in fixed]
        return {name: fresh[name] for name in self._dice.sample(names, min(3, len(names)))}

    def _pipeline(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        kind, pipeline = self.make("pipeline")
        pipeline["name"] = name
        stages: list[tuple[str, dict[str, Any]]] = []
        for position, (title, category, likelihood, active) in enumerate(STAGES, 1):
            _, stage = self.make("stage")
            stage |= {"name": title, "category": category, "likelihood": likelihood, "active": active}
            stage |= {"position": position, "pipeline_id": pipeline["id"], "position_hash": f"a{position}"}
            stages.append(("stage", stage))
        return [(kind, pipeline), *stages]

    def _times(self) -> dict[str, str]:
        created = self._start - timedelta(seconds=self._dice.randrange(86_400, 300 * 86_400))
        updated = created + timedelta(seconds=self._dice.randrange(0, 86_400))
        return {"created_at": instant(created), "updated_at": instant(updated)}

    def _one(self, kind: str) -> int | None:
        known = self.ids.get(kind)
        return self._dice.choice(known) if known else None

    def _person(self) -> tuple[str, str]:
        return self._dice.choice(FIRST_NAMES), self._dice.choice(LAST_NAMES)

    def _address(self) -> dict[str, Any] | None:
        if self._dice.random() < 0.4:
            return None
        return {
            "line1": f"Street {self._dice.randrange(1, 200)}",
            "city": self._dice.choice(CITIES),
            "postal_code": f"{self._dice.randrange(10_000, 99_999)}",
            "state": None,
            "country": "PL",
        }

    def _amount(self) -> int | str:
        """Whole amounts come as integers, others as strings with two decimals."""
        cents = self._dice.randrange(0, 50_000_000)
        return cents // 100 if self._dice.random() < 0.5 else f"{cents // 100}.{cents % 100:02d}"

    def _custom(self) -> dict[str, Any]:
        return {
            "Region": {"id": self._dice.randrange(1, 9), "name": self._dice.choice(CITIES)},
            "Budget": f"{self._dice.randrange(0, 10_000_000) / 100:.2f}",
            "Newsletter": self._dice.random() < 0.5,
            "Visited on": "4/27/2031",
        }

    def _channels(self, last: str) -> dict[str, Any]:
        return {
            "title": self._dice.choice(("CEO", "Buyer", None)),
            "description": None,
            "industry": self._dice.choice(("Energy", "Retail", None)),
            "website": "http://example.com",
            "email": f"{last.lower()}.{self._dice.randrange(10_000)}@example.com",
            "phone": f"+48 500 {self._dice.randrange(100_000, 999_999)}",
            "mobile": None,
            "fax": None,
            "twitter": None,
            "facebook": None,
            "linkedin": None,
            "skype": None,
        }

    def _fields(self, kind: str) -> dict[str, Any]:
        make = getattr(self, f"_make_{kind}", None)
        return (
            make()
            if make
            else {"name": f"{kind} {self._dice.randrange(1_000)}", "creator_id": self._one("user")}
        )

    def _make_account(self) -> dict[str, Any]:
        return {
            "name": "Example Ltd",
            "currency": "EUR",
            "time_format": "24H",
            "timezone": "UTC+02:00",
            "phone": None,
            "subdomain": "example",
        }

    def _make_user(self) -> dict[str, Any]:
        first, last = self._person()
        return {
            "name": f"{first} {last}",
            "email": f"{last.lower()}@example.com",
            "phone_number": None,
            "status": "active",
            "invited": False,
            "confirmed": True,
            "role": self._dice.choice(("user", "admin")),
            "roles": [{"id": 1, "name": "Default"}],
            "team_name": "Sales",
            "group": {"id": 3, "name": "EMEA"},
            "reports_to": self._one("user"),
            "timezone": "UTC+02:00",
            "deleted_at": None,
            "zendesk_user_id": str(self._dice.randrange(10**9, 10**10)),
            "identity_type": "zendesk",
            "system_tags": [],
            "detached": False,
            "sell_login_disabled": False,
        }

    def _make_lead(self) -> dict[str, Any]:
        first, last = self._person()
        return {
            "creator_id": self._one("user"),
            "owner_id": self._one("user"),
            "source_id": self._one("source"),
            "first_name": first,
            "last_name": last,
            "organization_name": self._dice.choice((*COMPANIES, None)),
            "status": self._dice.choice(("New", "Working", "Unqualified")),
            **self._channels(last),
            "address": self._address(),
            "unqualified_reason_id": None,
            "tags": self._dice.sample(["hot", "fair", "web", "vip"], self._dice.randrange(3)),
            "custom_fields": self._custom(),
        }

    def _make_contact(self) -> dict[str, Any]:
        first, last = self._person()
        is_organization = self._dice.random() < 0.3
        return {
            "creator_id": self._one("user"),
            "owner_id": self._one("user"),
            "is_organization": is_organization,
            "contact_id": None if is_organization else self._one("contact"),
            "parent_organization_id": None,
            "name": self._dice.choice(COMPANIES) if is_organization else f"{first} {last}",
            "first_name": None if is_organization else first,
            "last_name": None if is_organization else last,
            "customer_status": self._dice.choice(("none", "current", "past")),
            "prospect_status": self._dice.choice(("none", "current", "lost")),
            **self._channels(last),
            "address": self._address(),
            "billing_address": self._address(),
            "shipping_address": None,
            "tags": [],
            "custom_fields": {} if is_organization else self._custom(),
        }

    def _make_deal(self) -> dict[str, Any]:
        return {
            "creator_id": self._one("user"),
            "owner_id": self._one("user"),
            "contact_id": self._one("contact"),
            "organization_id": None,
            "stage_id": self._one("stage"),
            "source_id": self._one("source"),
            "loss_reason_id": None,
            "unqualified_reason_id": None,
            "name": f"Deal with {self._dice.choice(COMPANIES)}",
            "value": self._amount(),
            "currency": "EUR",
            "hot": self._dice.random() < 0.2,
            "last_stage_change_at": instant(self._start),
            "last_stage_change_by_id": self._one("user"),
            "last_activity_at": None,
            "dropbox_email": f"dropbox+{self._dice.randrange(10**6)}@example.com",
            "estimated_close_date": self._dice.choice(("2031-05-06", "2031-05-06T10:00:00Z", None)),
            "customized_win_likelihood": self._dice.choice((None, 40, 75)),
            "tags": [],
            "custom_fields": self._custom(),
            "added_at": instant(self._start),
            "associated_contacts": {"meta": {"type": "collection", "count": self._dice.randrange(3)}},
        }

    def _make_note(self) -> dict[str, Any]:
        kind = self._dice.choice(("lead", "contact", "deal"))
        return {
            "creator_id": self._one("user"),
            "resource_type": kind,
            "resource_id": self._one(kind),
            "content": f"Note {self._dice.randrange(10**6)}\nwith two lines 📎",
            "is_important": self._dice.random() < 0.2,
            "tags": [],
            "type": "regular",
        }

    def _make_task(self) -> dict[str, Any]:
        kind = self._dice.choice(("lead", "contact", "deal", None))
        return {
            "creator_id": self._one("user"),
            "owner_id": self._one("user"),
            "resource_type": kind,
            "resource_id": self._one(kind) if kind else None,
            "completed": False,
            "completed_at": None,
            "due_date": instant(self._start + timedelta(days=self._dice.randrange(1, 30))),
            "overdue": False,
            "remind_at": None,
            "content": f"Task {self._dice.randrange(10**6)}",
        }

    def _make_tag(self) -> dict[str, Any]:
        return {
            "creator_id": self._one("user"),
            "name": f"tag {self._dice.randrange(10**6)}",
            "resource_type": self._dice.choice(("lead", "contact", "deal")),
        }

    def _make_source(self) -> dict[str, Any]:
        return {
            "creator_id": self._one("user"),
            "name": f"source {self._dice.randrange(10**6)}",
            "resource_type": self._dice.choice(("deal", "lead")),
        }

    def _make_pipeline(self) -> dict[str, Any]:
        return {"name": f"pipeline {self._dice.randrange(100)}", "disabled": False, "locale_key": None}

    def _make_stage(self) -> dict[str, Any]:
        return {
            "name": f"stage {self._dice.randrange(1_000)}",
            "category": "in_progress",
            "position": self._dice.randrange(1, 20),
            "likelihood": self._dice.randrange(0, 100),
            "active": True,
            "pipeline_id": self._one("pipeline"),
            "position_hash": f"b{self._dice.randrange(100)}",
            "locale_key": None,
            "has_original_name": False,
        }

    def _make_associated_contact(self) -> dict[str, Any]:
        return {"deal_id": self._one("deal"), "contact_id": self._one("contact"), "role": "involved"}
