"""The part of the OpenAPI description that tells of import and export."""

from __future__ import annotations

from typing import Any

from .schema import ENTITIES

Json = dict[str, Any]
CSV = "text/csv"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def file_paths(answers: Any) -> Json:
    """The sixteen paths; `answers(status, schema, *errors)` makes the responses of an operation."""
    paths: Json = {}
    for entity in ENTITIES:
        base = f"/importexport/{entity}"
        paths[f"{base}/export"] = {"get": _download(f"Export {entity}", f"export_{entity}", CSV, answers)}
        paths[f"{base}/export/excel"] = {
            "get": _download(f"Export {entity} as a workbook", f"export_{entity}_workbook", XLSX, answers)
        }
        paths[f"{base}/template"] = {
            "get": _download(f"The columns of a file of {entity}", f"template_{entity}", CSV, answers)
        }
        paths[f"{base}/import"] = {"post": _upload(entity, answers)}
    return paths


def import_result_schema() -> Json:
    """`ImportResultDto`."""
    count = {"type": "integer", "minimum": 0}
    properties: Json = {
        "totalRows": count,
        "imported": count,
        "skipped": count,
        "errors": {"type": "array", "items": {"type": "string"}},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _download(summary: str, name: str, content_type: str, answers: Any) -> Json:
    responses = answers(200, None)
    responses["200"]["content"] = {content_type: {"schema": {"type": "string", "format": "binary"}}}
    return {"summary": summary, "operationId": name, "responses": responses}


def _upload(entity: str, answers: Any) -> Json:
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
    return {
        "summary": f"Import {entity} from CSV",
        "operationId": f"import_{entity}",
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": answers(200, {"$ref": "#/components/schemas/ImportResult"}, 400, 413, 415),
    }
