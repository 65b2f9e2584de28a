"""Bulk creation: `POST /{entity}/bulk`."""

from __future__ import annotations

from typing import Any

from rally_pipeline.sandbox.wire import Answer

from .errors import RallyError
from .field_index import fold_email
from .records import Record
from .writes import Writer


def create_many(writer: Writer, entity: str, body: object, *, by: str | None) -> Answer:
    """Create all rows of the body, or each that can be, as the switch `bulk_mode` says. Raises `RallyError`
    400.
    """
    rows = _read_rows(entity, body)
    switches = writer.store.switches
    greatest = switches.deals_bulk_max if entity == "deals" else switches.bulk_max
    if greatest is not None and len(rows) > greatest:
        raise RallyError(400, f"At most {greatest} records can be created at once.")
    if switches.bulk_mode == "all_or_nothing":
        problems = _find_problems(writer, entity, rows)
        if problems:
            raise RallyError(400, "No record was created.", problems)
    created: list[Record] = []
    errors: list[dict[str, object]] = []
    for at, row in enumerate(rows):
        try:
            created.append(writer.create(entity, row, by=by))
        except RallyError as error:
            errors.append({"index": at, "status": error.status, "messages": error.messages()})
    items = b",".join(writer.store.body(entity, record) for record in created)
    report = Answer.json(
        {"total": len(rows), "created": len(created), "failed": len(errors), "errors": errors}
    )
    report.body = report.body[:-1] + b',"items":[' + items + b"]}"
    report.status = switches.create_status if created or not rows else 200
    return report


def _read_rows(entity: str, body: object) -> list[Any]:
    rows = body.get(entity, body.get("items")) if isinstance(body, dict) else body
    if not isinstance(rows, list):
        raise RallyError(400, f"The body is neither a JSON array nor an object with '{entity}' or 'items'.")
    return rows


def _find_problems(writer: Writer, entity: str, rows: list[Any]) -> dict[str, list[str]]:
    problems: dict[str, list[str]] = {}
    emails: set[str] = set()
    for at, row in enumerate(rows):
        try:
            fields = writer.check(entity, row)
        except RallyError as error:
            problems[f"[{at}]"] = error.messages()
            continue
        if entity == "contacts" and writer.store.switches.unique_emails:
            email = fold_email(fields["email"])
            if email in emails:
                problems[f"[{at}]"] = [f"The email '{fields['email']}' stands in the body twice."]
            emails.add(email)
    return problems
