"""dlt as its documentation shows it, dlt with the best settings that were found, and dlt fed with Arrow tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}

import dlt
import orjson
import pyarrow as pa
from dlt.sources.rest_api import rest_api_source

from benchmarks.first_load.pages import list_pages
from benchmarks.source.contacts import FIELDS

_INITIAL = "2000-01-01T00:00:00Z"
_FAST_FILES = {
    "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "20000",
}
_UPSERT = {"disposition": "merge", "strategy": "upsert"}
_SCHEMA = pa.schema([(name, pa.int64() if name == "leadScore" else pa.string()) for name in FIELDS])


def load_default(*, url: str, database: str, page_size: int, stage: str) -> dict[str, Any]:
    """rest_api with an offset paginator and `merge`."""
    source = _rest_source(url, page_size, stage, "merge")
    _pipeline(database).run(source)
    return {}


def load_tuned(*, url: str, database: str, page_size: int, stage: str) -> dict[str, Any]:
    """Upsert and csv files (PostgreSQL) or primary keys (SQLite), larger buffers, no compression."""
    os.environ |= _FAST_FILES
    if database.startswith("sqlite"):
        _pipeline(database, create_primary_keys=True).run(_rest_source(url, page_size, stage, "merge"))
    else:
        source = _rest_source(url, page_size, stage, _UPSERT)
        _pipeline(database).run(source, loader_file_format="csv")
    return {}


def load_arrow(*, url: str, database: str, page_size: int, stage: str) -> dict[str, Any]:
    """A fetch loop of its own that hands dlt Arrow tables."""
    os.environ |= _FAST_FILES
    sqlite = database.startswith("sqlite")

    def contacts() -> Iterator[pa.Table]:
        state = dlt.current.resource_state()
        since = state.get("since", _INITIAL)
        for body in list_pages(url, page_size, updated_since=since if stage == "changed" else None):
            rows = orjson.loads(body)
            state["since"] = max(state.get("since", ""), *(row["updatedAt"] for row in rows))
            yield pa.Table.from_pylist(rows, schema=_SCHEMA)

    disposition = "merge" if sqlite else _UPSERT
    resource = dlt.resource(contacts, name="contacts", primary_key="id", write_disposition=disposition)
    if sqlite:
        _pipeline(database, create_primary_keys=True).run(resource, loader_file_format="parquet")
    else:
        _pipeline(database).run(resource, loader_file_format="csv")
    return {}


def _rest_source(url: str, page_size: int, stage: str, disposition: Any) -> Any:
    """The list as a resource; its cursor counts for what changed, not for a full re-read."""
    parameters: dict[str, Any] = {}
    if stage != "reread":
        parameters["updatedSince"] = {
            "type": "incremental",
            "cursor_path": "updatedAt",
            "initial_value": _INITIAL,
        }
    paginator = {
        "type": "offset",
        "limit": page_size,
        "total_path": None,
        "stop_after_empty_page": True,
    }
    endpoint = {"path": "contacts", "data_selector": "$", "paginator": paginator, "params": parameters}
    resource = {
        "name": "contacts",
        "primary_key": "id",
        "write_disposition": disposition,
        "endpoint": endpoint,
    }
    return rest_api_source({"client": {"base_url": f"{url}/"}, "resources": [resource]})


def _pipeline(database: str, **destination: Any) -> Any:
    """A pipeline into the schema that connections find first; its working folder lies in `DLT_DATA_DIR`."""
    if database.startswith("sqlite"):
        target = dlt.destinations.sqlalchemy(database, **destination)
        dataset = "main"
    else:
        parts = urlsplit(database)
        folder = quote(parse_qs(parts.query)["host"][0], safe="")
        target = dlt.destinations.postgres(f"postgresql://postgres:none@{folder}:5432{parts.path}")
        dataset = "public"
    return dlt.pipeline("contacts_benchmark", destination=target, dataset_name=dataset)
