"""The sixteen import/export endpoints: `/importexport/{entity}/export`, `/export/excel`, `/import`,
`/template`."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rally_pipeline.sandbox.wire import Answer, Call, Delivery, WireFault

from .errors import RallyError, error_answer
from .file_columns import FILE_COLUMNS
from .file_rows import RowImporter, export_headers, export_rows
from .file_switches import MEGABYTES, FileSwitches, changed_file_switches
from .instants import TICKS_PER_SECOND
from .keys import ApiKeys
from .schema import ENTITIES
from .store import Moment, Store
from .tenant import Tenant
from .workbook import make_workbook
from .writes import Writer

CSV_TYPE = "text/csv; charset=utf-8"
XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@dataclass(slots=True)
class _Late:
    """The rest of an upload whose answer was lost: applied when the clock has passed `due` (elapsed
    ticks)."""

    due: int
    entity: str
    rows: list[dict[str, str]]
    by: str


class FileExchange:
    """Answers everything below `/importexport`, and counts uploads for the switch `lost_uploads`."""

    def __init__(
        self, store: Store, writer: Writer, tenant: Tenant, keys: ApiKeys, dice: random.Random
    ) -> None:
        self._store = store
        self._writer = writer
        self._tenant = tenant
        self._keys = keys
        self._dice = dice
        self.switches = FileSwitches()
        self.uploads = 0
        self._late: list[_Late] = []

    def switch(self, **changes: Any) -> dict[str, Any]:
        """Change switches and return all of them; uploads are counted anew."""
        self.switches = changed_file_switches(self.switches, changes)
        self.uploads = 0
        shown: dict[str, Any] = msgspec.structs.asdict(self.switches)
        return shown

    def catch_up(self) -> None:
        """Apply what was delayed and is due now. Called before each request of a sandbox that delays
        anything."""
        now = self._store.moment()
        due = [late for late in self._late if late.due <= now.elapsed]
        self._late = [late for late in self._late if late.due > now.elapsed]
        for late in due:
            self._apply(late.entity, late.rows, late.by, now)

    def handle(self, call: Call, segments: list[str]) -> Answer:
        """One request; `segments` are those after `importexport`. Raises `RallyError`."""
        self.catch_up()
        entity, action = (segments[0] if segments else ""), tuple(segments[1:])
        method = {("export",): "GET", ("export", "excel"): "GET", ("template",): "GET", ("import",): "POST"}
        if entity not in ENTITIES or action not in method:
            raise RallyError(404, "There is no such endpoint.")
        if call.method != method[action]:
            answer = error_answer(RallyError(405, "The method is not allowed."), self._store.switches)
            answer.headers["Allow"] = method[action]
            return answer
        key = self._keys.authenticate(call, "write" if action == ("import",) else "read")
        if action == ("template",):
            return self._csv(f"{entity}_template.csv", [self._headers(entity), *self._samples(entity)])
        if action == ("import",):
            return self._import(entity, call, f"api-key:{key.name}")
        rows = export_rows(self._store, self._tenant, self.switches, entity, self._store.moment())
        headers = export_headers(entity, self.switches)
        if action == ("export",):
            return self._csv(f"{entity}.csv", [headers, *rows])
        body = make_workbook(entity, headers, rows, formulas=self.switches.workbook_formulas)
        return _download(Answer(200, {"Content-Type": XLSX_TYPE}, body), f"{entity}.xlsx")

    # -- downloads
    # ----------------------------------------------------------------------------------------------

    def _headers(self, entity: str) -> list[str]:
        return [column.name for column in FILE_COLUMNS[entity]]

    def _samples(self, entity: str) -> list[list[str]]:
        return [
            [f"sample {number}" if column.required else "" for column in FILE_COLUMNS[entity]]
            for number in range(1, self.switches.template_rows + 1)
        ]

    def _csv(self, name: str, rows: Sequence[Sequence[str]]) -> Answer:
        text = io.StringIO()
        csv.writer(text, lineterminator=self.switches.line_end).writerows(rows)
        mark = b"\xef\xbb\xbf" if self.switches.byte_order_mark else b""
        return _download(Answer(200, {"Content-Type": CSV_TYPE}, mark + text.getvalue().encode()), name)

    # -- uploads
    # ------------------------------------------------------------------------------------------------

    def _import(self, entity: str, call: Call, by: str) -> Answer:
        content = read_upload(call)
        self._check_size(call, content)
        rows = read_rows(entity, content)
        self.uploads += 1
        switches = self.switches
        moment = self._store.moment()
        wanted = switches.lost_uploads
        if switches.lost != "none" and (wanted is None or self.uploads in wanted):
            return self._lose(entity, rows, by, moment)
        if switches.wrong_counts == "half":
            rows = rows[: (len(rows) + 1) // 2]
        answer = self._result(self._apply(entity, [cells for _, cells in rows], by, moment), rows)
        if switches.slow_seconds:
            answer.fault = WireFault(Delivery.STALL, seconds=switches.slow_seconds)
        return answer

    def _check_size(self, call: Call, content: bytes) -> None:
        switches = self.switches
        most = MEGABYTES[switches.limit] if switches.limit_bytes is None else switches.limit_bytes
        size = len(content) if switches.limit_counts == "file" else len(call.body)
        if size > most:
            raise RallyError(413, "The file is larger than 10 MB.")

    def _lose(self, entity: str, rows: list[tuple[int, dict[str, str]]], by: str, moment: Moment) -> Answer:
        switches = self.switches
        share = {"before": 0, "half": (len(rows) + 1) // 2, "after": len(rows)}[switches.lost]
        cells = [each for _, each in rows]
        self._apply(entity, cells[:share], by, moment)
        if switches.late_seconds and share < len(rows):
            due = self._store.moment().elapsed + round(switches.late_seconds * TICKS_PER_SECOND)
            self._late.append(_Late(due, entity, cells[share:], by))
        if switches.lost_status:
            return error_answer(RallyError(switches.lost_status, "The server failed."), self._store.switches)
        return Answer(200, fault=WireFault(Delivery.RESET_BEFORE_HEADERS))

    def _apply(self, entity: str, rows: Sequence[dict[str, str]], by: str, moment: Moment) -> list[list[str]]:
        """Import the rows; returns the problems of each, none for those that were imported."""
        importer = RowImporter(self._store, self._writer, self._tenant, self.switches, entity)
        found = [importer.read(cells) for cells in rows] if self.switches.atomic else []
        refused = any(problems for _, problems in found)
        outcome: list[list[str]] = []
        begun = self._begin(moment, len(rows))
        for place, cells in enumerate(rows):
            fields, problems = importer.read(cells)
            if not problems and not refused:
                importer.create(fields, self._dice, self._later(begun, place), by)
            outcome.append(problems or (["Another row of the file is invalid"] if refused else []))
        return outcome

    def _begin(self, moment: Moment, rows: int) -> Moment:
        """When the first row is stored, so that all are stored one after the other up to now.

        A virtual clock is advanced by the time that the upload takes. A running clock cannot be stopped for
        it: there the work counts as done in the seconds before the request.
        """
        if self._store.clock.is_virtual:
            self._store.clock.advance(rows / self.switches.rows_per_second)
            return moment
        return self._later(moment, -rows)

    def _later(self, moment: Moment, rows: int) -> Moment:
        ticks = round(rows * TICKS_PER_SECOND / self.switches.rows_per_second)
        return Moment(moment.wall + ticks, moment.elapsed + max(0, ticks))

    def _result(self, outcome: list[list[str]], rows: list[tuple[int, dict[str, str]]]) -> Answer:
        switches = self.switches
        skipped = [place for place, problems in enumerate(outcome) if problems]
        errors = [
            f"Row {self._number(place, rows)}: {problem}"
            for place in skipped
            for problem in (outcome[place] if switches.all_errors else outcome[place][:1])
        ]
        total, imported = len(rows), len(rows) - len(skipped)
        if switches.wrong_counts == "total":
            total += 1
        elif switches.wrong_counts == "imported":
            imported = max(0, imported - 1)
        result = {
            "totalRows": total,
            "imported": imported,
            "skipped": len(skipped),
            "errors": errors[: switches.errors_limit],
        }
        return Answer.json(result, switches.skipped_status if skipped else 200)

    def _number(self, place: int, rows: list[tuple[int, dict[str, str]]]) -> int:
        return {"data": place + 1, "file": place + 2, "index": place, "line": rows[place][0]}[
            self.switches.numbering
        ]


def read_upload(call: Call) -> bytes:
    """The content of the multipart part `file`. Raises `RallyError` 400, 415."""
    kind, _, rest = call.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise RallyError(415, "The body must be multipart/form-data.")
    parameters = dict(part.strip().partition("=")[::2] for part in rest.split(";"))
    boundary = parameters.get("boundary", "").strip('"')
    if not boundary:
        raise RallyError(400, "The multipart boundary is missing.")
    for part in call.body.split(b"--" + boundary.encode())[1:]:
        head, gap, content = part.partition(b"\r\n\r\n")
        if gap and b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    raise RallyError(400, "No file was uploaded: the part must be named 'file'.")


def read_rows(entity: str, content: bytes) -> list[tuple[int, dict[str, str]]]:
    """Rows below the header as (line of the text, cells by header). Raises `RallyError` 400."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RallyError(400, "The file is not valid UTF-8.") from None
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        headers = next(reader, [])
        missing = [
            column.name for column in FILE_COLUMNS[entity] if column.required and column.name not in headers
        ]
        if missing:
            raise RallyError(400, f"The column '{missing[0]}' is missing.")
        rows: list[tuple[int, dict[str, str]]] = []
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                rows.append((line, dict(zip(headers, cells, strict=False))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise RallyError(400, f"The file is not a CSV: {error}") from None
    return rows


def _download(answer: Answer, name: str) -> Answer:
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer
