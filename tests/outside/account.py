"""A small account at each of the three systems, served over HTTP by the standard library alone.

For what the sandbox cannot do: answers of any bytes at all (`hook`), and an account that stays the same from one
version of the package to the next, because it is kept in a file and nothing of it is computed.
"""

from __future__ import annotations

import csv
import io
import json
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

RALLY = {"contacts": "contact", "companies": "company", "deals": "deal", "activities": "activity"}
TEMPLATE = ("first_name", "last_name", "email", "phone", "title", "city", "notes")
KEY, TOKEN, SMITH_TOKEN = "rk_test_upgrade_key_1", "s" * 64, "sk_test_upgrade_token_1"
DEVICE, WORKSPACE = "5d3a6f0e-1c0b-4b53-9d1f-0c8a2a1f7e11", "a1d49c1e-77b2-4f0e-8f55-0d4f3d0d6a11"
PAGE, SELL_PAGE = 100, 20

Answer = tuple[int, dict[str, str], bytes]
Hook = Callable[[BaseHTTPRequestHandler, str, dict[str, str]], Answer | bool | None]
"""Sees each request first: None leaves it alone, True says that it wrote an answer by itself."""


def stamp() -> str:
    """Now, as Rally and SignalSmith write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_json(content: object, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(content, ensure_ascii=False).encode()


class Account:
    """Records, change feed, Sell queue, syncs and runs. `content` is plain JSON, so that it can be kept in a file."""

    def __init__(self, content: dict[str, Any] | None = None) -> None:
        self.content = content or empty()
        self.lock = threading.RLock()
        self.hook: Hook | None = None
        self.requests: list[str] = []
        self.session: list[dict[str, Any]] | None = None

    # ------------------------------------------------------------------ changes

    def put(self, entity: str, record: dict[str, Any], *, raw: str | None = None) -> None:
        """Insert or update a record of Rally; `raw` is shown in its place, whatever it is."""
        with self.lock:
            action = "updated" if record["id"] in self.content["rally"][entity] else "inserted"
            self.content["rally"][entity][record["id"]] = raw or json.dumps(record, ensure_ascii=False)
            self._enter(entity, record["id"], action)

    def remove(self, entity: str, key: str) -> None:
        """Delete a record of Rally."""
        with self.lock:
            del self.content["rally"][entity][key]
            self._enter(entity, key, "deleted")

    def _enter(self, entity: str, key: str, action: str) -> None:
        self.content["entries"] += 1
        entry = {"id": self.content["entries"], "entityType": RALLY[entity], "entityId": key}
        self.content["feed"].append({**entry, "action": action, "changedAt": stamp(), "changedBy": None})

    def record(self, entity: str, key: str) -> dict[str, Any]:
        """A record of Rally as it is now."""
        found: dict[str, Any] = json.loads(self.content["rally"][entity][key])
        return found

    def put_sell(self, kind: str, record: dict[str, Any] | None, key: int) -> None:
        """Insert, update or (None) delete an object of Sell, and queue that."""
        with self.lock:
            objects = self.content["sell"][f"{kind}s"]
            event = "deleted" if record is None else "updated" if str(key) in objects else "created"
            revision = self.content["revision"] = self.content["revision"] + 1
            if record is None:
                del objects[str(key)]
            else:
                objects[str(key)] = record
            sync = {
                "event_type": event,
                "ack_key": f"{kind.capitalize()}-{key}-{revision}",
                "revision": revision,
            }
            data = record if record is not None else {"id": key}
            queue = self.content["queue"]
            queue[:] = [item for item in queue if (item["meta"]["type"], item["data"]["id"]) != (kind, key)]
            queue.append({"data": data, "meta": {"type": kind, "sync": sync}})

    # ------------------------------------------------------------------ answers

    def answer(self, method: str, path: str, query: dict[str, str], headers: Message, body: bytes) -> Answer:
        """What the real services would say, as far as it is needed here."""
        parts = [unquote(part) for part in path.split("/") if part]
        with self.lock:
            match parts:
                case ["rally", "api", "v1", *rest]:
                    found = self._rally(method, rest, query, headers, body)
                case ["sell", "v2", *rest]:
                    found = self._sell(method, rest, query, body)
                case ["smith", "api", "v1", "workspaces", _, *rest]:
                    found = self._smith(method, rest)
                case _:
                    found = None
        return found or as_json({"title": "Not Found", "status": 404}, 404)

    def _rally(
        self, method: str, rest: list[str], query: dict[str, str], headers: Message, body: bytes
    ) -> Answer | None:
        records = self.content["rally"]
        match rest:
            case ["sync", "changes"]:
                since = _sortable(query["since"])
                wanted = [entry for entry in self.content["feed"] if _sortable(entry["changedAt"]) > since]
                return as_json(wanted[: min(int(query.get("limit", PAGE)), 1000)])
            case ["pipelines"]:
                return as_json([])
            case ["importexport", _, "template"]:
                return 200, {"Content-Type": "text/csv"}, (",".join(TEMPLATE) + "\r\n").encode()
            case ["importexport", "contacts", "import"] if method == "POST":
                return as_json(self._import(headers, body))
            case [entity] if entity in records:
                limit, offset = min(int(query.get("limit", 50)), PAGE), int(query.get("offset", 0))
                rows = list(records[entity].values())
                if "updatedSince" in query:
                    since = _sortable(query["updatedSince"])
                    rows = [raw for raw in rows if _sortable(json.loads(raw)["updatedAt"]) > since]
                page = ",".join(rows[offset : offset + limit])
                return 200, {"Content-Type": "application/json"}, f"[{page}]".encode()
            case [entity, key] if key in records.get(entity, {}):
                return 200, {"Content-Type": "application/json"}, records[entity][key].encode()
        return None

    def _import(self, headers: Message, body: bytes) -> dict[str, Any]:
        whole = b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body
        (part,) = [p for p in BytesParser().parsebytes(whole).walk() if p.get_filename()]
        text = part.get_payload(decode=True)
        assert isinstance(text, bytes)
        rows = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"))))
        known = {json.loads(raw).get("email") for raw in self.content["rally"]["contacts"].values()}
        errors = []
        for number, row in enumerate(rows, start=2):
            if row["email"] in known:
                errors.append(f"Row {number}: Duplicate contact with email '{row['email']}'")
                continue
            fields = {"firstName": row["first_name"], "lastName": row["last_name"], "email": row["email"]}
            self.put("contacts", contact(str(uuid.uuid4()), **fields))
        imported = len(rows) - len(errors)
        return {"totalRows": len(rows), "imported": imported, "skipped": len(errors), "errors": errors}

    def _sell(self, method: str, rest: list[str], query: dict[str, str], body: bytes) -> Answer | None:
        objects = self.content["sell"]
        match method, rest:
            case "POST", ["sync", "start"]:
                if not self.content["queue"]:
                    return 204, {}, b""
                self.session = list(self.content["queue"])
                queue = {"name": "main", "pages": 1, "total_count": len(self.session)}
                queues = [{"data": queue, "meta": {"type": "sync_queue"}}]
                data = {"id": str(uuid.uuid4()), "queues": queues}
                return as_json({"data": data, "meta": {"type": "sync_session"}}, 201)
            case "GET", ["sync", _, "queues", "main"]:
                if not self.session:
                    return 204, {}, b""
                page, self.session = self.session[:SELL_PAGE], self.session[SELL_PAGE:]
                meta = {"type": "collection", "count": len(page), "count_left": len(self.session)}
                return as_json({"items": page, "meta": {**meta, "failed_objects": []}})
            case "POST", ["sync", "ack"]:
                keys = set(json.loads(body)["data"]["ack_keys"])
                queue = self.content["queue"]
                queue[:] = [item for item in queue if item["meta"]["sync"]["ack_key"] not in keys]
                return 202, {}, b""
            case "GET", ["users", "self"]:
                return as_json({"data": {"id": 1, "name": "Self"}, "meta": {"type": "user"}})
            case "GET", [kind, key] if key in objects.get(kind, {}):
                return as_json({"data": objects[kind][key], "meta": {"type": kind[:-1]}})
            case "GET", [kind] if kind in objects:
                ids = query["ids"].split(",") if "ids" in query else list(objects[kind])
                first = (int(query.get("page", 1)) - 1) * 100
                found = [objects[kind][key] for key in ids if key in objects[kind]][first : first + 100]
                items = [{"data": data, "meta": {"type": kind[:-1]}} for data in found]
                return as_json({"items": items, "meta": {"type": "collection", "count": len(items)}})
            case "GET", [("deal_sources" | "lead_sources")]:
                return as_json({"items": [], "meta": {"type": "collection", "count": 0}})
        return None

    def _smith(self, method: str, rest: list[str]) -> Answer | None:
        syncs, runs = self.content["syncs"], self.content["runs"]
        match method, rest:
            case "GET", ["syncs"]:
                return as_json(syncs)
            case "GET", ["models"]:
                return as_json([])
            case "GET", ["settings"]:
                return as_json({"timezone": "UTC"})
            case "GET", ["syncs", key]:
                return next((as_json(sync) for sync in syncs if sync["id"] == key), None)
            case "POST", ["syncs", key, "trigger"]:
                times = dict.fromkeys(("created_at", "started_at", "completed_at"), stamp())
                counts = {"rows_synced": 7, "rows_failed": 0, "error_message": ""}
                run = {"id": str(uuid.uuid4()), "sync_id": key, "status": "completed", **times, **counts}
                runs.append({**run, "triggered_by": "api"})
                for sync in syncs:
                    if sync["id"] == key:
                        sync |= {"last_run_id": run["id"], "last_synced_at": run["completed_at"]}
                return as_json(runs[-1], 201)
            case "GET", ["syncs", key, "runs"]:
                return as_json([run for run in reversed(runs) if run["sync_id"] == key])
            case "GET", ["syncs", _, "runs", run_id]:
                return next((as_json(run) for run in runs if run["id"] == run_id), None)
        return None


@contextmanager
def served(account: Account) -> Iterator[dict[str, str]]:
    """Serve it on a free port of 127.0.0.1; gives the environment variables that point there."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def handle_request(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else b""
            parts = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            account.requests.append(f"{self.command} {self.path}")
            found = account.hook(self, parts.path, query) if account.hook else None
            if found is True:
                return
            if not isinstance(found, tuple):
                found = account.answer(self.command, parts.path, query, self.headers, body)
            status, headers, content = found
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        do_GET = do_POST = handle_request  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: the terminal belongs to the tests."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """A client that was killed is nothing to speak of."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield {
            "RALLY_API_URL": f"{url}/rally/api/v1",
            "RALLY_API_KEY": KEY,
            "SELL_API_URL": f"{url}/sell",
            "SELL_ACCESS_TOKEN": TOKEN,
            "SELL_DEVICE_UUID": DEVICE,
            "SIGNALSMITH_API_URL": f"{url}/smith/api/v1",
            "SIGNALSMITH_API_TOKEN": SMITH_TOKEN,
            "SIGNALSMITH_WORKSPACE_ID": WORKSPACE,
        }
    finally:
        server.shutdown()
        server.server_close()


def empty() -> dict[str, Any]:
    """An account without anything in it."""
    kinds = ("accounts", "users", "leads", "contacts", "deals", "loss_reasons", "pipelines", "stages")
    sell: dict[str, Any] = {kind: {} for kind in (*kinds, "notes", "tasks", "tags", "associated_contacts")}
    rally: dict[str, Any] = {entity: {} for entity in RALLY}
    lists: dict[str, Any] = {name: [] for name in ("feed", "queue", "syncs", "runs")}
    return {"rally": rally, "sell": sell, "revision": 1000, "entries": 0, **lists}


def filled(seed: int, *, records: int = 60) -> Account:
    """An account with some of everything."""
    account, dice = Account(), random.Random(seed)
    for number in range(records):
        key, third = (str(uuid.UUID(int=dice.getrandbits(128), version=4)) for _ in range(2))
        person = {"firstName": f"Zoë {number}", "email": f"zoe.{number}@example.org", "leadScore": number}
        account.put("contacts", contact(key, **person))
        if number % 3 == 0:
            account.put(
                "companies", {**_base(key), "name": "Ä & Co.", "annualRevenue": number * 1.25, "tags": ["ü"]}
            )
            account.put("deals", {**_base(third), "name": "Deal", "value": 10.5, "status": "open"})
            account.put("activities", {**_base(third), "subject": "Call", "activityType": "call"})
    # So far back does the feed reach; what else is in the account was made before.
    oldest = datetime.now(UTC) - timedelta(days=3)
    account.content["feed"][1:] = []
    account.content["feed"][0]["changedAt"] = f"{oldest:%Y-%m-%dT%H:%M:%SZ}"
    for number in range(1, 31):
        account.put_sell("contact", sell_contact(number), number)
    for number in range(1, 9):
        name = f"Contacts to tool {number}"
        sync = {
            "id": str(uuid.UUID(int=dice.getrandbits(128), version=4)),
            "workspace_id": WORKSPACE,
            "name": name,
        }
        mapping = [{"source_column": "id", "destination_field": "external_id"}]
        sync |= {"model_id": "m-1", "destination_id": "d-1", "field_mapping": mapping, "sync_mode": "upsert"}
        sync |= {
            "schedule": "*/15 * * * *",
            "config": {},
            "primary_key": "id",
            "status_error": "",
            "description": "",
        }
        sync |= {"status": "active" if number < 3 else "paused", "created_at": stamp(), "updated_at": stamp()}
        account.content["syncs"].append({**sync, "last_synced_at": None, "last_run_id": None})
    return account


def _base(key: str) -> dict[str, Any]:
    return {
        "id": key,
        "tenantId": "b949e761-a9c5-4eb9-8559-8292c81eee34",
        "createdAt": stamp(),
        "updatedAt": stamp(),
    }


def contact(key: str, **fields: Any) -> dict[str, Any]:
    """A contact of Rally that was changed just now."""
    return {**_base(key), "firstName": "Ada", "lastName": "Kim", "email": f"{key[:8]}@example.org", **fields}


def sell_contact(number: int, **fields: Any) -> dict[str, Any]:
    """A contact of Sell that was changed just now."""
    times = {"created_at": stamp(), "updated_at": stamp()}
    return {
        "id": number,
        "name": f"Sell {number}",
        "is_organization": False,
        "tags": ["x"],
        **times,
        **fields,
    }


def _sortable(text: str) -> str:
    moment = datetime.fromisoformat(text)
    return (
        (moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        .astimezone(UTC)
        .isoformat(timespec="microseconds")
    )
