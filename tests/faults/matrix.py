"""The rows of the fault matrix: number, fault, and what is expected where the fault alone does not say it.

A test that plays a fault carries `@pytest.mark.fault("T5")`, wherever it lives. After every fault, unless a row says
otherwise, the run may fail, but the next one ends equal to the source, row for row, and leaves nothing open.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    `note`: how a fault of another kind of tool is met here. `inapplicable`: why the row cannot apply at all.
    """

    number: str
    fault: str
    note: str = ""
    inapplicable: str = ""

    @property
    def label(self) -> str:
        """As part of a test's name."""
        return f"{self.number} {self.fault}"


GROUPS: dict[str, tuple[Row, ...]] = {
    "Transport": (
        Row("T1", "connection refused"),
        Row("T2", "host name does not resolve"),
        Row("T3", "certificate expired, of another name, or self-signed"),
        Row("T4", "reset before the headers"),
        Row("T5", "body with a length cut"),
        Row("T6", "chunked body cut"),
        Row("T7", "body without a length cut"),
        Row("T8", "host that does not accept"),
        Row("T9", "silence beyond the read timeout"),
        Row("T10", "body that drips"),
        Row("T11", "headers that drip"),
        Row("T12", "kept connection closed by the server"),
        Row("T13", "answer lost after the request was applied"),
        Row("T14", "proxies in the environment"),
        Row("T15", "interim answers and unasked bytes"),
        Row("T16", "two answers on one connection"),
        Row("T17", "host with one address family only"),
    ),
    "Status and headers": (
        Row("H1", "429 with seconds to wait"),
        Row("H2", "429 with a date to wait for"),
        Row("H3", "429 with a nonsensical wait"),
        Row("H4", "429 with a reset in seconds, milliseconds, past, or from now"),
        Row("H5", "429 without a word"),
        Row("H6", "429 for ever"),
        Row("H7", "rate limit nearly used up"),
        Row("H8", "500, 502, 503, 504 once at each request"),
        Row("H9", "503 with a web page"),
        Row("H10", "500 after the request was applied"),
        Row("H11", "200 with a login page"),
        Row("H12", "200 with an error object"),
        Row("H13", "200 without a body"),
        Row("H14", "JSON under another content type or none"),
        Row("H15", "byte-order mark, UTF-16, Latin-1"),
        Row("H16", "204 in place of 200"),
        Row("H17", "203, 206, 226"),
        Row("H18", "redirects"),
        Row("H19", "401 in the middle of a run"),
        Row("H20", "403 for one entity"),
        Row(
            "H21",
            "token that expires",
            note="no system here renews a token; what expires is refused, and a new one goes on without loss",
        ),
        Row("H22", "404 for a whole endpoint"),
        Row("H23", "404 and 410 for one record"),
        Row("H24", "409"),
        Row("H25", "413, 414"),
        Row("H26", "every call fails for ten minutes"),
        Row("H27", "doubled and conflicting headers"),
        Row("H28", "gzip: right, wrong, cut, bomb"),
        Row("H29", "answer larger than the cap"),
        Row("H30", "Date header missing, wrong, jumping"),
    ),
    "Body and paging": (
        Row("B1", "JSON cut at every byte"),
        Row("B2", "a key twice in an object"),
        Row("B3", "NaN, Infinity, 1e999"),
        Row("B4", "integer of 5,000 digits"),
        Row("B5", "nesting 100,000 deep"),
        Row("B6", "array for object and object for array"),
        Row("B7", "bare list, data, items, results"),
        Row("B8", "page larger than asked for"),
        Row("B9", "page smaller than asked for"),
        Row("B10", "empty page in the middle"),
        Row("B11", "offset ignored"),
        Row("B12", "next link backwards, to itself, elsewhere"),
        Row("B13", "row twice in a page and across pages"),
        Row("B14", "insert, update, delete between any two pages"),
        Row("B15", "list in each documented order"),
        Row("B16", "list in random order"),
        Row("B17", "list from a lagging replica"),
        Row("B18", "record without a required field, without an id, with an id of another type"),
        Row("B19", "total that lies"),
    ),
    "Change feed": (
        Row("F1", "equal times across a page's end"),
        Row("F2", "more equal times than a page holds"),
        Row("F3", "late entry within the overlap"),
        Row("F4", "late entry beyond the overlap"),
        Row("F5", "entries out of order in a page"),
        Row("F6", "entries twice"),
        Row("F7", "inclusive since"),
        Row("F8", "many changes of one record"),
        Row("F9", "404 after an update; 404 from a lagging replica alone"),
        Row("F10", "deleted and inserted again in one second"),
        Row("F11", "id used again for another record"),
        Row("F12", "unknown action or entity"),
        Row("F13", "changedAt in the future"),
        Row("F14", "feed cleared"),
        Row("F15", "feed ids start over"),
        Row("F16", "one record fails for ever"),
        Row("F17", "changes without an entry"),
    ),
    "Time": (
        Row("C1", "times with an offset, Z, or without a zone"),
        Row("C2", "no, three, seven digits of a second"),
        Row("C3", "times compared as text"),
        Row("C4", "plus sign in a query"),
        Row("C5", "year 1, year 9999, 24:00, second 60"),
        Row("C6", "local clock hours off and jumping"),
        Row("C7", "server clock put back"),
    ),
    "Sell queue": (
        Row("S1", "kill between fetch, commit, acknowledgement, clearing"),
        Row("S2", "acknowledgement answered 500"),
        Row("S3", "acknowledgement that takes effect late"),
        Row("S4", "lower revision after a higher one"),
        Row("S5", "delete with revision 0, known and unknown"),
        Row("S6", "undelete, and an old state after a delete"),
        Row("S7", "failed objects"),
        Row("S8", "session that expires at any fetch"),
        Row("S9", "no session left"),
        Row("S10", "two drains of one device"),
        Row("S11", "two warehouses with one device"),
        Row("S12", "warehouse restored from a backup"),
        Row("S13", "empty pages, and nothing else"),
        Row("S14", "page torn on its way"),
        Row("S15", "unknown type, unknown event"),
        Row("S16", "item twice, two states on one page"),
        Row("S17", "item that cannot be stored"),
        Row("S18", "too many keys in one acknowledgement"),
    ),
    "Triggers, syncs as files, import": (
        Row("R1", "kill at every step of a trigger"),
        Row(
            "R2",
            "answer lost on create, update, delete",
            note="of syncs kept as files; rows are sent by SignalSmith",
        ),
        Row("R3", "A, B with a lost answer, A again", note="of syncs kept as files"),
        Row("R4", "some rows refused", note="counted from the remote run; refused import rows can be mended"),
        Row("R5", "batch refused as a whole", note="uploads and acknowledgements are made smaller"),
        Row("R6", "remote object deleted by somebody", note="of syncs kept as files"),
        Row("R7", "list empty, far shorter, or cut", note="guards of catalogue, mirror and files"),
        Row("R8", "keys missing, doubled, differing in case", note="of import rows"),
        Row("R9", "rule of conversion changed", note="every row is written anew, none deleted"),
        Row("R10", "other spellings of equal values"),
        Row("R11", "tick twice, tick while running, tick missed"),
        Row("R12", "trigger: answer lost, 409, run vanishes"),
        Row("R13", "run stuck"),
        Row("I1", "import: answer lost before, half-way, after applying"),
        Row("I2", "upload at the size limit to the byte"),
        Row("I3", "row larger than an upload"),
        Row("I4", "kill at every step of an import"),
        Row("I5", "counts that do not add up"),
        Row("I6", "equal activities wanted twice"),
    ),
    "Database and process": (
        Row("D1", "connection lost around a commit"),
        Row("D2", "database locked for a second, for too long"),
        Row("D3", "busy at the commit"),
        Row("D4", "disk full at any write"),
        Row("D5", "read-only file or folder"),
        Row("D6", "DuckDB held by another process", inapplicable="DuckDB is not a warehouse of this package"),
        Row("D7", "PostgreSQL: deadlock, session ended"),
        Row("D8", "PostgreSQL: restart, crash"),
        Row("D9", "corrupt page, cut file, log without file"),
        Row("D10", "state table lost, version older or newer"),
        Row("D11", "more fields than a table can have"),
        Row(
            "D12",
            "names equal after 63 bytes",
            note="names are not shortened: fields without a column are kept in JSON",
        ),
        Row("D13", "field names equal but for case and blanks"),
        Row("P1", "SIGKILL at any step"),
        Row("P2", "SIGTERM and SIGINT"),
        Row("P3", "SIGSTOP past the lease"),
        Row("P4", "two to eight runs at once"),
        Row("P5", "out of memory"),
        Row("P6", "no file descriptors left"),
        Row("P7", "Dagster repeats a step, a run, an asset"),
        Row("P8", "fork with open connections"),
        Row("P9", "older code after a migration"),
    ),
    "Schema and values": (
        Row("V1", "new field"),
        Row("V2", "field that vanishes"),
        Row("V3", "field absent against null"),
        Row("V4", "field of another type"),
        Row("V5", "null in a required field"),
        Row("V6", "new value of an enumeration"),
        Row("V7", "U+0000"),
        Row("V8", "lone surrogates"),
        Row("V9", "emoji, right-to-left marks, combining letters"),
        Row("V10", "integers beyond 64 bits"),
        Row("V11", "decimals of 30 digits, money as number or text"),
        Row("V12", "a value that is too large"),
        Row("V13", "hostile field names"),
        Row("V14", "booleans of other kinds"),
        Row("V15", "empty text against null"),
        Row("V16", "CSV cells with quotes, line breaks, formulas"),
    ),
}

ROWS: dict[str, Row] = {row.number: row for rows in GROUPS.values() for row in rows}
