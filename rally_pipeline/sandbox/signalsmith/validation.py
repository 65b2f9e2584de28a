"""What the server checks in a body: required fields, known values, existing references, the cron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .cron import BadCronError, CronRule

MODES = ("upsert", "insert", "update", "mirror")
STATUSES = ("draft", "active", "paused", "error")
_REQUIRED = ("name", "model_id", "destination_id", "field_mapping", "sync_mode", "primary_key")
_WRITABLE = (*_REQUIRED, "description", "schedule", "config")


class InvalidBodyError(ValueError):
    """The body is refused with 400; the text is the answer's."""


def check_create(body: object, models: Mapping[str, Any], destinations: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a new sync; unknown ones and `status` are ignored. Raises `InvalidBodyError`."""
    fields = _fields(body, _WRITABLE)
    for name in _REQUIRED:
        if fields.get(name) in (None, ""):
            raise InvalidBodyError(f"{name} is required")
    _check(fields, models, destinations)
    fields.setdefault("schedule", "")
    fields.setdefault("config", {})
    return fields


def check_update(body: object, models: Mapping[str, Any], destinations: Mapping[str, Any]) -> dict[str, Any]:
    """The changed fields. Raises `InvalidBodyError`."""
    fields = _fields(body, (*_WRITABLE, "status"))
    for name in _REQUIRED:
        if name in fields and fields[name] in (None, ""):
            raise InvalidBodyError(f"{name} cannot be empty")
    if fields.get("status", "active") not in STATUSES:
        raise InvalidBodyError(f"unsupported status: {fields['status']}")
    _check(fields, models, destinations)
    return fields


def _fields(body: object, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidBodyError("request body must be a JSON object")
    return {name: body[name] for name in names if name in body}


def _check(fields: dict[str, Any], models: Mapping[str, Any], destinations: Mapping[str, Any]) -> None:
    for name in ("name", "model_id", "destination_id", "sync_mode", "primary_key", "description"):
        if name in fields and not isinstance(fields[name], str):
            raise InvalidBodyError(f"{name} must be a string")
    if fields.get("sync_mode", "upsert") not in MODES:
        raise InvalidBodyError(f"unsupported sync_mode: {fields['sync_mode']}")
    if "," in fields.get("primary_key", ""):
        raise InvalidBodyError("primary_key must be one column")
    if fields.get("model_id") not in (None, *models):
        raise InvalidBodyError("model not found")
    if fields.get("destination_id") not in (None, *destinations):
        raise InvalidBodyError("destination not found")
    if not isinstance(fields.get("config", {}), dict):
        raise InvalidBodyError("config must be an object")
    _check_mapping(fields.get("field_mapping", []))
    schedule = fields.get("schedule")
    if schedule is not None and not isinstance(schedule, str):
        raise InvalidBodyError("schedule must be a string")
    if schedule:
        try:
            CronRule.read(schedule)
        except BadCronError as error:
            raise InvalidBodyError(str(error)) from None


def _check_mapping(mapping: object) -> None:
    if not isinstance(mapping, list):
        raise InvalidBodyError("field_mapping must be an array")
    for entry in mapping:
        if (
            not isinstance(entry, dict)
            or not entry.get("source_column")
            or not entry.get("destination_field")
        ):
            raise InvalidBodyError("field_mapping entries need source_column and destination_field")
