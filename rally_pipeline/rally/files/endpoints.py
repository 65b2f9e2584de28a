"""The sixteen import/export endpoints as typed calls. Source: API page "import-export"."""

from __future__ import annotations

import codecs
from dataclasses import replace
from os import SEEK_END
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from rally_pipeline.http.answers import bad_answer
from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.errors import BadAnswer, NotFound
from rally_pipeline.http.transport import Limits
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.answers import ImportResult
from rally_pipeline.rally.files.headers import read_template
from rally_pipeline.rally.files.problems import FileError

if TYPE_CHECKING:
    from rally_pipeline.http.transport import Response
    from rally_pipeline.rally.files.templates import Template

CSV_TYPE = "text/csv; charset=utf-8"
_TRANSFER_SECONDS = 900.0
"""Rally answers an upload when it has worked through it, and an export perhaps when it has read everything;
nobody says how long that takes."""
MAX_EXPORT_BYTES = 2 << 30
_START = 512
_MAX_TEMPLATE_BYTES = 1 << 20
_MAX_RESULT_BYTES = 64 << 20
_read_result = msgspec.json.Decoder(ImportResult).decode


class _Pipeline(msgspec.Struct):
    id: str
    name: str


class FileEndpoints:
    """Templates, uploads and exports of one tenant."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def get_template(self, entity: Entity) -> tuple[bytes, Template]:
        """The CSV template as the server gives it, and the columns that an import may have by it.

        Raises:
            BadAnswer: what the server gives is no template of this entity.
        """
        path = f"/importexport/{entity.value}/template"
        limits = replace(Limits(), max_body_bytes=_MAX_TEMPLATE_BYTES)

        def decode(response: Response) -> Template:
            try:
                return read_template(response.body.decode("utf-8-sig"), entity)
            except (UnicodeDecodeError, FileError) as error:
                raise bad_answer(response, f"the template cannot be used: {error}") from None

        response, template = self._http.read(path, decode, headers=_ANY, limits=limits)
        return response.body, template

    def post_import(self, entity: Entity, file_name: str, body: bytes) -> ImportResult:
        """Upload a CSV, once: whatever happens, it is not sent again by this call.

        Raises:
            BadAnswer: a 2xx that is no `ImportResultDto`; the upload may have been applied.
            ApiError: see `HttpClient.request`.
        """
        limits = replace(
            Limits(),
            read_seconds=_TRANSFER_SECONDS,
            total_seconds=_TRANSFER_SECONDS,
            max_body_bytes=_MAX_RESULT_BYTES,
        )
        path = f"/importexport/{entity.value}/import"
        response = self._http.post(
            path, files=("file", file_name, body, CSV_TYPE), repeat=False, limits=limits
        )
        return _result_of(response, path)

    def download_export(self, entity: Entity, file_format: str, sink: BinaryIO) -> Response:
        """Stream an export, `csv` or `xlsx`, into a file; the answer's `framed` says whether a cut would
        show.

        Raises:
            BadAnswer: what comes is no such file.
            ApiError: see `HttpClient.request`.
        """
        limits = replace(
            Limits(),
            read_seconds=_TRANSFER_SECONDS,
            total_seconds=_TRANSFER_SECONDS,
            max_body_bytes=MAX_EXPORT_BYTES,
        )

        def check(response: Response) -> None:
            sink.seek(0)
            start = sink.read(_START).removeprefix(codecs.BOM_UTF8).lstrip()
            sink.seek(0, SEEK_END)
            if not start:
                raise bad_answer(response, "an empty file instead of the export")
            if start[:1] == b"<":
                raise bad_answer(response, "HTML or XML instead of the export")

        path = f"/importexport/{entity.value}/export"
        if file_format == "xlsx":
            path = f"{path}/excel"
        return self._http.read(path, check, headers=_ANY, limits=limits, sink=sink)[0]

    def read_pipelines(self) -> dict[str, str]:
        """Names of the pipelines by id. No page documents this endpoint: nothing is known where it is missing
        or answers in another shape."""
        try:
            rows = _rows_of(self._http.get("/pipelines"))
        except (NotFound, BadAnswer):
            return {}
        return {row.id: row.name for row in rows}


def _result_of(response: Response, path: str) -> ImportResult:
    try:
        return _read_result(response.body)
    except (msgspec.MsgspecError, RecursionError) as error:
        detail = f"the answer is no import result ({error})"
        raise BadAnswer("rally", "POST", path, status=response.status, detail=detail) from None


def _rows_of(response: Response) -> list[_Pipeline]:
    from rally_pipeline.http.envelope import read_rows

    pipelines = []
    for raw in read_rows(response):
        try:
            pipelines.append(msgspec.json.decode(raw, type=_Pipeline))
        except msgspec.MsgspecError:
            return []
    return pipelines


_ANY = {"Accept": "*/*"}
