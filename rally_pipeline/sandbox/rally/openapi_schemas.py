"""The schemas of the OpenAPI description: records, requests, entries, keys, results."""

from __future__ import annotations

from typing import Any

from .openapi_files import import_result_schema
from .qualification import SCORES
from .schema import ENTITIES, EntitySpec, FieldSpec
from .validation import GREATEST_DECIMAL

Json = dict[str, Any]
GREATEST = int(GREATEST_DECIMAL)
SCHEMAS: dict[str, Json] = {
    "text": {"type": "string"},
    "email": {"type": "string", "format": "email", "maxLength": 254},
    "guid": {"type": "string", "format": "uuid"},
    "integer": {"type": "integer"},
    "decimal": {"type": "number", "minimum": -GREATEST, "maximum": GREATEST},
    "instant": {"type": "string", "format": "date-time"},
    "tags": {"type": "array", "items": {"type": "string"}},
}


def component_schemas() -> Json:
    """All named schemas."""
    schemas: Json = {}
    for spec in ENTITIES.values():
        name = spec.singular.capitalize()
        schemas[name] = _answer_schema(spec)
        schemas[f"{name}Row"] = {**schemas[name], "required": ["id"]}
        schemas[f"{name}Request"] = _request_schema(
            spec, [field.name for field in spec.fields if field.required]
        )
        if spec.upsert_key:
            schemas[f"{name}Upsert"] = _request_schema(spec, list(_upsert_fields(spec)))
    schemas["Change"] = _object(
        {
            "id": {"type": "integer"},
            "entityType": {"type": "string", "enum": [spec.singular for spec in ENTITIES.values()]},
            "entityId": SCHEMAS["guid"],
            "action": {"type": "string", "enum": ["inserted", "updated", "deleted"]},
            "changedAt": SCHEMAS["instant"],
            "changedBy": {"type": ["string", "null"]},
        }
    )
    schemas["Problem"] = {
        "type": "object",
        "required": ["title", "status"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "string"}},
            },
        },
    }
    stage = _object(
        {
            "id": SCHEMAS["guid"],
            "name": {"type": "string"},
            "probability": {"type": "integer"},
            "order": {"type": "integer"},
        }
    )
    schemas["Pipeline"] = _object(
        {
            "id": SCHEMAS["guid"],
            "name": {"type": "string"},
            "isDefault": {"type": "boolean"},
            "stages": {"type": "array", "items": stage},
        }
    )
    score = {"type": ["integer", "null"], "minimum": 0, "maximum": 100}
    schemas["BantRequest"] = {"type": "object", "properties": dict.fromkeys(SCORES, score)}
    schemas["Bant"] = _object({"dealId": SCHEMAS["guid"], **dict.fromkeys(SCORES, score), "score": score})
    schemas["ImportResult"] = import_result_schema()
    schemas["ApiKey"] = _key_schema()
    schemas["NewApiKey"] = _object({"key": {"type": "string"}, **_key_schema()["properties"]})
    schemas["BulkResult"] = _object(
        {
            "total": {"type": "integer"},
            "created": {"type": "integer"},
            "failed": {"type": "integer"},
            "errors": {"type": "array", "items": {"type": "object"}},
            "items": {"type": "array", "items": {"type": "object"}},
        }
    )
    return schemas


def _key_schema() -> Json:
    return _object(
        {
            "id": SCHEMAS["guid"],
            "keyPrefix": {"type": "string"},
            "name": {"type": "string"},
            "scopes": {"type": "string"},
            "expiresAt": nullable(SCHEMAS["instant"]),
            "lastUsedAt": nullable(SCHEMAS["instant"]),
            "isActive": {"type": "boolean"},
            "createdAt": SCHEMAS["instant"],
            "createdBy": {"type": ["string", "null"]},
        }
    )


def _object(properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def nullable(schema: Json) -> Json:
    """The schema, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def _field_schema(field: FieldSpec) -> Json:
    schema = dict(SCHEMAS[field.kind])
    if field.limits is not None:
        schema["minimum"], schema["maximum"] = field.limits
    if field.choices:
        schema["enum"] = list(field.choices)
    return schema


def _answer_schema(spec: EntitySpec) -> Json:
    properties: Json = {}
    for name in spec.order:
        field = spec.by_name.get(name)
        if field is None:
            kind = "guid" if name in ("id", "tenantId") else "instant" if name.endswith("At") else "text"
            properties[name] = dict(SCHEMAS[kind])
        elif not field.detail:
            schema = _field_schema(field)
            properties[name] = schema if field.required else _with_null(schema)
    return _object(properties)


def _upsert_fields(spec: EntitySpec) -> dict[str, None]:
    """The fields that an upsert must give, in their order."""
    return {field.name: None for field in spec.fields if field.required or field.name in spec.upsert_key}


def _request_schema(spec: EntitySpec, required: list[str]) -> Json:
    properties: Json = {}
    for field in spec.fields:
        if field.writable:
            schema = _field_schema(field)
            if field.name in required and field.kind == "text" and not field.choices:
                schema |= {"minLength": 1, "pattern": r"\S"}
            properties[field.name] = schema if field.name in required else _with_null(schema)
    return {"type": "object", "required": required, "properties": properties}


def _with_null(schema: Json) -> Json:
    if "enum" in schema:
        return {**nullable(schema), "enum": [*schema["enum"], None]}
    return nullable(schema)
