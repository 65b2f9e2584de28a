"""The OpenAPI description of the simulated Rally API, as it behaves with all switches at their defaults."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .openapi_files import file_paths
from .openapi_schemas import SCHEMAS, component_schemas, nullable
from .schema import ENTITIES, EntitySpec

Json = dict[str, Any]
_JSON = "application/json"
_PROBLEM = "application/problem+json"
_ERRORS = {
    "400": "A parameter or the body is invalid.",
    "401": "The key is missing, unknown, revoked or expired.",
    "403": "The key lacks the scope.",
    "404": "There is no such record.",
    "409": "The record conflicts with another one.",
    "413": "The file is too large.",
    "415": "The body is not of the type that is wanted.",
    "429": "The rate limit is spent: wait until X-RateLimit-Reset.",
}
_RATE_HEADERS: Json = {
    name: {"schema": {"type": "string"}, "description": text}
    for name, text in (
        ("X-RateLimit-Limit", "Requests allowed in a window."),
        ("X-RateLimit-Remaining", "Requests left in this window."),
        ("X-RateLimit-Reset", "Unix time at which the window resets."),
    )
}


@lru_cache(maxsize=1)
def describe_api() -> Json:
    """The description as an OpenAPI 3.1 document."""
    paths: Json = {}
    for spec in ENTITIES.values():
        paths |= _entity_paths(spec)
    paths |= _deal_paths() | _pipeline_paths() | _key_paths() | file_paths(_answers)
    paths["/sync/changes"] = {"get": _changes_operation()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rally CRM (sandbox)",
            "version": "v1",
            "description": "A simulation for tests. Undocumented behaviour can be switched; this is the default.",
        },
        "servers": [{"url": "/rally/api/v1"}],
        "security": [{"ApiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"ApiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"}},
            "schemas": component_schemas(),
        },
    }


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _answers(status: int, schema: Json | None, *errors: int) -> Json:
    success: Json = {"description": "Success.", "headers": _RATE_HEADERS}
    if schema is not None:
        success["content"] = {_JSON: {"schema": schema}}
    problem = {_PROBLEM: {"schema": _reference("Problem")}}
    answers: Json = {str(status): success}
    for code in (*errors, 401, 403, 429):
        answers[str(code)] = {"description": _ERRORS[str(code)], "content": problem, "headers": _RATE_HEADERS}
    return answers


def _operation(
    summary: str, name: str, answers: Json, *, parameters: list[Json] | None = None, body: Json | None = None
) -> Json:
    operation: Json = {"summary": summary, "operationId": name, "responses": answers}
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
    return operation


def _query(name: str, schema: Json, text: str, *, required: bool = False) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": text, "required": required}


def _id_parameter() -> Json:
    return {"name": "id", "in": "path", "required": True, "schema": SCHEMAS["guid"]}


def _entity_paths(spec: EntitySpec) -> Json:
    name = spec.singular.capitalize()
    record, request = _reference(name), _reference(f"{name}Request")
    whole = {"type": "integer", "maximum": 999_999_999}
    parameters = [
        _query("limit", {**whole, "minimum": 1}, "Rows in the answer; default 50, capped at 1000."),
        _query("offset", {**whole, "minimum": 0}, "Rows to leave out first."),
        _query("updatedSince", SCHEMAS["instant"], "Only records updated at or after this instant."),
        _query("fields", {"type": "string"}, "Comma-separated members to return; id is always there."),
    ]
    bulk_max = {} if spec.name == "deals" else {"maxItems": 100}
    rows = {"type": "array", "items": request, **bulk_max}
    collection = {
        "get": _operation(
            f"List {spec.name}",
            f"list_{spec.name}",
            _answers(200, {"type": "array", "items": _reference(f"{name}Row")}, 400),
            parameters=parameters,
        ),
        "post": _operation(
            f"Create one of {spec.name}",
            f"create_{spec.singular}",
            _answers(201, record, 400, 409, 415),
            body=request,
        ),
    }
    single = {
        "parameters": [_id_parameter()],
        "get": _operation("Get one", f"get_{spec.singular}", _answers(200, record, 404)),
        "put": _operation(
            "Replace one", f"replace_{spec.singular}", _answers(200, record, 400, 404, 409, 415), body=request
        ),
        "delete": _operation("Delete one", f"delete_{spec.singular}", _answers(204, None, 404)),
    }
    bulk_answers = _answers(201, _reference("BulkResult"), 400, 415)
    bulk_answers["200"] = {**bulk_answers["201"], "description": "No row could be created."}
    paths: Json = {
        f"/{spec.name}": collection,
        f"/{spec.name}/{{id}}": single,
        f"/{spec.name}/bulk": {
            "post": _operation("Create many", f"create_{spec.name}", bulk_answers, body=rows)
        },
    }
    if spec.upsert_key:
        answers = _answers(200, record, 400, 409, 415)
        answers["201"] = {**answers["200"], "description": "Created."}
        summary = f"Update or create by {' and '.join(spec.upsert_key)}"
        paths[f"/{spec.name}/upsert"] = {
            "put": _operation(summary, f"upsert_{spec.singular}", answers, body=_reference(f"{name}Upsert"))
        }
    return paths


def _deal_paths() -> Json:
    stage = {"type": "object", "required": ["stageId"], "properties": {"stageId": SCHEMAS["guid"]}}
    return {
        "/deals/{id}/stage": {
            "parameters": [_id_parameter()],
            "patch": _operation(
                "Move to a stage", "move_deal", _answers(200, _reference("Deal"), 400, 404, 415), body=stage
            ),
        },
        "/deals/{id}/bant": {
            "parameters": [_id_parameter()],
            "get": _operation("Get the BANT scores", "get_bant", _answers(200, _reference("Bant"), 404)),
            "put": _operation(
                "Replace the BANT scores",
                "replace_bant",
                _answers(200, _reference("Bant"), 400, 404, 415),
                body=_reference("BantRequest"),
            ),
        },
    }


def _pipeline_paths() -> Json:
    pipeline = _reference("Pipeline")
    return {
        "/pipelines": {
            "get": _operation(
                "List pipelines", "list_pipelines", _answers(200, {"type": "array", "items": pipeline})
            )
        },
        "/pipelines/{id}": {
            "parameters": [_id_parameter()],
            "get": _operation("Get one", "get_pipeline", _answers(200, pipeline, 404)),
        },
    }


def _key_paths() -> Json:
    scopes = {"type": "string", "pattern": "^(read|write|admin)(,(read|write|admin))*$"}
    label = {"type": "string", "minLength": 1, "pattern": r"\S"}
    change = {"type": "object", "properties": {"name": label, "scopes": scopes}}
    create = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": label, "scopes": scopes, "expiresAt": nullable(SCHEMAS["instant"])},
    }
    key = _reference("ApiKey")
    return {
        "/api-keys": {
            "get": _operation("List keys", "list_keys", _answers(200, {"type": "array", "items": key})),
            "post": _operation(
                "Create a key", "create_key", _answers(201, _reference("NewApiKey"), 400, 415), body=create
            ),
        },
        "/api-keys/{id}": {
            "parameters": [_id_parameter()],
            "patch": _operation("Change a key", "change_key", _answers(200, key, 400, 404, 415), body=change),
            "delete": _operation("Revoke a key", "revoke_key", _answers(204, None, 404)),
        },
    }


def _changes_operation() -> Json:
    names = "|".join(ENTITIES)
    parameters = [
        _query("since", SCHEMAS["instant"], "Only changes after this instant.", required=True),
        _query(
            "entities",
            {"type": "string", "pattern": f"^({names})(,({names}))*$"},
            "Comma-separated entities in the plural; all if left out.",
        ),
        _query(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": 999_999_999},
            "Entries in the answer; default 1000, capped at 1000.",
        ),
    ]
    changes = {"type": "array", "items": _reference("Change")}
    return _operation(
        "Changes by time, oldest first", "list_changes", _answers(200, changes, 400), parameters=parameters
    )
