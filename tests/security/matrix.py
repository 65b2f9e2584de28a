"""The rows of the security list: number, threat, what holds against it; and why a row has no test.

A test that covers a row carries `@pytest.mark.security("8")`, wherever it lives. `python -m tests.security` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `limits`: what its tests do not show. `untested`: why there is no test at all."""

    number: str
    threat: str
    defence: str
    limits: str = ""
    untested: str = ""


ROWS: dict[str, Row] = {
    row.number: row
    for row in (
        Row("1", "key sent elsewhere by a redirect", "redirects are never followed"),
        Row("2", "key sent to a link of an answer", "URLs come from configuration alone; links are data"),
        Row("3", "requests to inner addresses by setting or id", "one origin a client; ids are quoted"),
        Row("4", "netrc replaces our credentials", "the environment is not asked"),
        Row("5", "proxies of the environment reroute", "never for loopback; TLS ends at the server"),
        Row("6", "TLS check switched off", "no code does it; wrong certificates fail for good"),
        Row("7", "downgrade to http", "http is for loopback only"),
        Row("8", "decompression bomb", "decoded bytes are counted and capped"),
        Row("9", "body or headers without end, drip", "caps and a total deadline"),
        Row("10", "JSON bombs", "elements, depth and digits are bounded"),
        Row("11", "secrets in logs", "masked; canaries over all output of the suite"),
        Row("12", "secrets in errors and URLs", "tokens in headers only, errors masked"),
        Row("13", "secrets in Dagster's storage", "resolved from the environment at run time"),
        Row("14", "secrets in the warehouse or in recordings", "never stored"),
        Row("15", "database password in logs", "errors are written by us, without the URL"),
        Row("16", "people's data in SQL errors", "messages name keys and columns, never values"),
        Row("17", "people's data in logs", "ids and counts only"),
        Row("18", "SQL by values", "values are always bound"),
        Row("19", "SQL by remote field names", "they never become identifiers: unknown fields are JSON"),
        Row("20", "SQL by names from configuration", "allow-list, and every identifier quoted"),
        Row("21", "hostile partition and run keys", "checked before use"),
        Row("22", "formulas in exports", "guarded in files for people"),
        Row("23", "XLSX bomb", "entries, ratio and sizes are checked before parsing"),
        Row("24", "external and nested entities", "document types are refused"),
        Row("25", "names in archives", "nothing is unpacked to disk"),
        Row("26", "CSV tricks", "cells and lines are capped"),
        Row("27", "unsafe deserialisation", "no pickle, no eval, no unsafe YAML"),
        Row("28", "forged log lines", "control characters are escaped"),
        Row("29", "markup in Dagster's pages", "remote text is text or a table cell"),
        Row("30", "UI open to the network", "started on 127.0.0.1, with no option for more"),
        Row(
            "31",
            "UI on loopback reached by a web page",
            "proxy snippet; dangerous words are no run config",
            limits="the snippet's rules are read, not run: nginx is no dependency",
        ),
        Row("32", "old holes of the UI", "a minimum version"),
        Row(
            "33", "sandbox as a door", "loopback only, other hosts and origins refused, imported by no engine"
        ),
        Row("34", "production and sandbox mixed up", "the marker of its answers is required or refused"),
        Row("35", "another tenant or account", "remembered with the warehouse, a mismatch stops"),
        Row(
            "36",
            "deleted people live on in copies",
            "a settled delete removes row, raw copy and quarantine",
            limits="files for people and backups follow their own retention; there is no command that erases by hand",
        ),
        Row(
            "37",
            "deleted bytes stay in files",
            "secure_delete, and the log is emptied",
            limits="SQLite; PostgreSQL needs VACUUM",
        ),
        Row(
            "38",
            "deleted people come back",
            "late states need a look; a restored backup begins a new lineage",
            limits="no list of erased people is kept: a record that is live at the source is mirrored",
        ),
        Row("39", "raw copies for ever", "acknowledged items and exports have a retention"),
        Row("40", "telemetry", "off in every shipped file; nothing but loopback is called"),
        Row(
            "41",
            "changed packages",
            "exact versions for everything that is installed",
            limits="versions, not hashes: wheels differ by platform",
        ),
        Row(
            "42",
            "known holes in packages",
            "",
            untested="advisories come from a service on the internet: `pip-audit -r constraints.txt`",
        ),
        Row(
            "43",
            "unknown contents",
            "",
            untested="no bill of materials is shipped; constraints.txt is the list",
        ),
        Row("44", "dependency confusion", "one index: no other index, URL or repository is named"),
        Row("45", "too many rights", "a read key and a role of one schema are enough"),
        Row("46", "files that others can read", "0600 and 0700, whatever the umask"),
        Row("47", "file names that lead elsewhere", "names are made by us or checked"),
        Row("48", "patterns that take for ever", "linear patterns, lengths capped first"),
        Row("49", "race between check and use", "compare and set in one statement"),
        Row("50", "a guard that fails lets pass", "an error in a guard stops the run"),
        Row("51", "webhooks and event streams", "", untested="there are none: the package opens no port"),
        Row(
            "52", "test keys taken for real ones", "test and sandbox prefixes, searched for in the repository"
        ),
    )
}
