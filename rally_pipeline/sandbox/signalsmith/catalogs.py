"""What a fresh workspace holds: the two syncs of the demo, plain ones, or a catalog full of traps."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any

from .store import instant

DEMO_SYNCS: tuple[dict[str, Any], ...] = (
    {
        "name": "Contacts to newsletter",
        "model": "Newsletter contacts",
        "schedule": "*/15 * * * *",
        "sync_mode": "upsert",
        "primary_key": "id",
        "columns": {
            "id": "external_id",
            "email": "email",
            "first_name": "first_name",
            "last_name": "last_name",
        },
        "config": {"rally_pipeline": {"upstream": ["rally/contacts"]}},
    },
    {
        "name": "Deals to finance",
        "model": "Open deals",
        "schedule": "0 * * * *",
        "sync_mode": "mirror",
        "primary_key": "id",
        "columns": {"id": "deal_id", "title": "title", "value": "amount"},
        "config": {},
    },
)
DEMO_MODELS = {
    "Newsletter contacts": (
        "SELECT id, email, first_name, last_name FROM rally_contacts WHERE email IS NOT NULL"
    ),
    "Open deals": (
        "SELECT d.id, d.title, d.value FROM rally_deals AS d\n"
        "LEFT JOIN rally_companies AS c ON c.id = d.company_id -- with their company"
    ),
}
_CRONS = ("*/15 * * * *", "0 * * * *", "30 */4 * * *", "15 3 * * *", "0 6 * * 1-5", "0 7 1 * *", "")
_HOSTILE: tuple[dict[str, Any], ...] = (
    {"name": "Fires never", "schedule": "0 0 31 4 *"},
    {"name": "Fires never too", "schedule": "0 0 30,31 2 *"},
    {"name": "Random minute", "schedule": "R * * * *"},
    {"name": "Six fields", "schedule": "0 0 12 * * *"},
    {"name": "Reboot", "schedule": "@reboot"},
    {"name": "Words", "schedule": "every day at noon"},
    {"name": "Own zone", "schedule": "TZ=Europe/Berlin 0 9 * * *"},
    {"name": "Macro", "schedule": "@daily"},
    {"name": "Names", "schedule": "0 9 * JAN-MAR MON,fri"},
    {"name": "Sunday is 7", "schedule": "0 9 * * 7"},
    {"name": "Leap day", "schedule": "0 7 29 * *"},
    {"name": "Second Friday of a 15th", "schedule": "0 0 15 * 5#2"},
    {"name": "Last day", "schedule": "0 2 L * *"},
    {"name": "Long", "schedule": "0," * 5000 + "0 * * * *"},
    {"name": "Not text", "schedule": 15},
    {"name": "Null schedule", "schedule": None},
    {"name": "Twins", "schedule": "0 1 * * *"},
    {"name": "Twins", "schedule": "0 2 * * *"},
    {"name": "twins!", "schedule": "0 3 * * *"},
    {"name": "Catalog", "schedule": "0 4 * * *"},
    {"name": "🚀🚀", "schedule": "0 5 * * *"},
    {"name": "🛰️", "schedule": "5 5 * * *"},
    {"name": "Überschüsse né à Łódź", "schedule": "0 6 * * *"},
    {"name": "注文 → CRM", "schedule": "0 7 * * *"},
    {"name": "", "schedule": "0 8 * * *"},
    {"name": "x" * 3000, "schedule": "0 9 * * *"},
    {"name": "class", "schedule": "0 10 * * *"},
    {"name": "../../etc/passwd", "schedule": "0 11 * * *"},
    {"name": "<script>alert(1)</script>[x](javascript:alert(1))", "schedule": "0 12 * * *"},
    {"name": "line\nbreak\x00and \x1b[31mcolour", "schedule": "0 13 * * *"},
    {"name": "Unknown mode", "sync_mode": "append", "schedule": "0 14 * * *"},
    {"name": "Unknown status", "status": "hibernating", "schedule": "0 15 * * *"},
    {"name": "Broken", "status": "error", "status_error": "login expired", "schedule": "0 16 * * *"},
    {"name": "Paused", "status": "paused", "schedule": "0 17 * * *"},
    {"name": "Draft", "status": "draft", "schedule": "0 18 * * *"},
    {"name": "Mapping is text", "field_mapping": "a=b", "schedule": "0 19 * * *"},
    {"name": "Config is a list", "config": [1, 2], "schedule": "0 20 * * *"},
    {
        "name": "Own options are wrong",
        "config": {"rally_pipeline": {"ownership": 7}},
        "schedule": "0 21 * * *",
    },
    {"id": "../../x?y=1#z", "name": "Id is a path", "schedule": "0 22 * * *"},
    {"id": 4711, "name": "Id is a number", "schedule": "0 23 * * *"},
    {"id": "", "name": "Id is empty", "schedule": "1 0 * * *"},
    {"id": None, "name": "Id is null", "schedule": "2 0 * * *"},
    {"name": None, "schedule": "3 0 * * *"},
    {"name": {"en": "Object"}, "schedule": "4 0 * * *"},
)
RAW_ROWS: tuple[object, ...] = (None, 17, "text", [], {}, {"error": "row"})
"""Rows that a hostile list holds beside its syncs."""


class CatalogMaker:
    """Makes records of one workspace; ids are drawn from the API's own random source."""

    def __init__(self, dice: random.Random, workspace_id: str, now: datetime) -> None:
        self._dice = dice
        self._workspace_id = workspace_id
        self._now = now

    def demo(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Syncs, models and destinations of the demo."""
        destination = self.destination("Newsletter tool")
        models, syncs = [], []
        for described in DEMO_SYNCS:
            columns: dict[str, str] = described["columns"]
            model = self.model(described["model"], DEMO_MODELS[described["model"]], list(columns))
            models.append(model)
            fields = {
                key: described[key] for key in ("name", "schedule", "sync_mode", "primary_key", "config")
            }
            mapping = [{"source_column": key, "destination_field": value} for key, value in columns.items()]
            syncs.append(self.sync(model["id"], destination["id"], field_mapping=mapping, **fields))
        return syncs, models, [destination]

    def plain(self, count: int, model_id: str, destination_id: str) -> list[dict[str, Any]]:
        """`count` well-behaved syncs with usual schedules."""
        return [
            self.sync(
                model_id, destination_id, name=f"Sync number {number}", schedule=_CRONS[number % len(_CRONS)]
            )
            for number in range(1, count + 1)
        ]

    def hostile(self, model_id: str, destination_id: str) -> list[dict[str, Any]]:
        """One sync for each thing that ever took a code location down, and then some."""
        found = [self.sync(model_id, destination_id, **traps) for traps in _HOSTILE]
        twin = self.sync(model_id, destination_id, name="Same id as another", schedule="0 0 * * *")
        return [*found, {**twin, "id": found[0]["id"]}]

    def sync(self, model_id: str, destination_id: str, **fields: Any) -> dict[str, Any]:
        """A complete sync object."""
        at = instant(self._now)
        schedule = fields.get("schedule", "")
        return {
            "id": self.new_id(),
            "workspace_id": self._workspace_id,
            "model_id": model_id,
            "destination_id": destination_id,
            "name": "Sync",
            "description": "",
            "field_mapping": [{"source_column": "id", "destination_field": "external_id"}],
            "sync_mode": "upsert",
            "schedule": schedule,
            "config": {},
            "primary_key": "id",
            "status": "active",
            "status_error": "",
            "created_by": "account-1",
            "created_at": at,
            "updated_at": at,
            "last_synced_at": None,
            "last_run_id": None,
            **fields,
        }

    def model(self, name: str, sql: str, columns: list[str]) -> dict[str, Any]:
        at = instant(self._now)
        return {
            "id": self.new_id(),
            "workspace_id": self._workspace_id,
            "source_id": "source-1",
            "name": name,
            "sql_query": sql,
            "columns": [
                {"name": column, "type": "VARCHAR", "nullable": column != "id"} for column in columns
            ],
            "entity_type": "parent",
            "primary_key_column": "id",
            "timestamp_column": "",
            "column_config": [],
            "model_type": "sql",
            "status": "active",
            "status_error": "",
            "created_at": at,
            "updated_at": at,
        }

    def destination(self, name: str) -> dict[str, Any]:
        at = instant(self._now)
        return {
            "id": self.new_id(),
            "workspace_id": self._workspace_id,
            "connection_id": None,
            "name": name,
            "destination_type": "webhook",
            "config": {"object": "Contact"},
            "status": "connected",
            "status_error": "",
            "created_by": "account-1",
            "created_at": at,
            "updated_at": at,
        }

    def new_id(self) -> str:
        digits = f"{self._dice.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
