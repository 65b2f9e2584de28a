"""Syncs as YAML files, one a file, with the API's own fields; every mistake is named with its file and line.

`id` is optional and binds the file to one sync; without it the name does. `signalsmith.yaml` holds the options of
Dagster instead and is not a sync.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rally_pipeline.signalsmith import options
from rally_pipeline.signalsmith.cron import CronError, read_cron
from rally_pipeline.signalsmith.records import MODES

REQUIRED = ("name", "model_id", "destination_id", "field_mapping", "sync_mode", "primary_key")
OPTIONAL = ("description", "schedule", "config", "status")
WRITABLE = (*REQUIRED, *OPTIONAL)
STATUSES = ("active", "paused", "draft")
CASTS = ("string", "number", "integer", "boolean", "date", "datetime", "timestamp", "json")
MAPPING_FIELDS = ("source_column", "destination_field", "type_cast")
LARGEST_FILE = 1_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a file that a person should know; with `fatal` the file cannot be applied."""

    path: Path
    line: int
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class SyncFile:
    """A valid file: the fields that it states, as they go to the API; `lines` say where each one stands."""

    path: Path
    sync_id: str | None
    fields: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.fields["name"])


def read_folder(folder: Path) -> tuple[list[SyncFile], list[Finding]]:
    """All valid files of the folder and what was found in all of them. A missing folder has none."""
    files, findings = [], []
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        if path.name == options.FILE_NAME:
            continue
        read, found = read_file(path)
        findings += found
        if read is not None:
            files.append(read)
    doubles = _find_doubles(files)
    findings += doubles
    named = {finding.path for finding in doubles if finding.fatal}
    return [file for file in files if file.path not in named], findings


def read_file(path: Path) -> tuple[SyncFile | None, list[Finding]]:
    """One file; None where a finding is fatal."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return None, [Finding(path, 1, f"larger than {LARGEST_FILE:,} bytes")]
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return None, [Finding(path, 1, f"cannot be read: {error}")]
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            return None, [Finding(path, 1, "must hold one sync: a mapping with name, model_id and so on")]
        content = loader.construct_document(node)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return None, [_syntax_finding(path, error)]
    finally:
        loader.dispose()
    reader = _FileReader(path, node, content)
    reader.check()
    if any(finding.fatal for finding in reader.findings):
        return None, reader.findings
    sync_id = content.get("id")
    fields = {key: value for key, value in content.items() if key != "id"}
    return SyncFile(path, sync_id, _normal(fields), reader.lines), reader.findings


class _FileReader:
    """Checks one file's mapping field by field."""

    def __init__(self, path: Path, node: yaml.MappingNode, content: Mapping[Any, Any]) -> None:
        self.findings: list[Finding] = []
        self._path = path
        self._content = content
        self._nodes = {key.value: (key, value) for key, value in node.value}
        self.lines = {str(name): key.start_mark.line + 1 for name, (key, _) in self._nodes.items()}
        for name, line in _doubled_keys(node):
            self._add(line, f"'{name}' is given twice")

    def check(self) -> None:
        """Fill `findings`."""
        for key in self._content:
            if key not in (*WRITABLE, "id"):
                self._at(str(key), f"unknown field '{key}' (known: id, {', '.join(WRITABLE)})")
        for name in REQUIRED:
            if self._content.get(name) in (None, ""):
                self._at(name, f"'{name}' is required")
        for name in ("id", "name", "model_id", "destination_id", "sync_mode", "primary_key", "description"):
            value = self._content.get(name)
            if value is not None and not isinstance(value, str) and name in self._nodes:
                self._at(name, f"'{name}' must be text{_quote_hint(value)}")
        self._check_key()
        self._check_choice("sync_mode", MODES)
        self._check_choice("status", STATUSES)
        if not isinstance(self._content.get("config") or {}, Mapping):
            self._at("config", "'config' must be a mapping")
        self._check_schedule()
        self._check_mapping()

    def _check_key(self) -> None:
        key = self._content.get("primary_key")
        if isinstance(key, list) or (isinstance(key, str) and "," in key):
            self._at("primary_key", "the primary key is one column: build a key column in the model's SQL")

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        value = self._content.get(name)
        if not isinstance(value, str) or value in allowed:
            return
        hint = " (the API's name for append is insert)" if value == "append" else ""
        self._at(name, f"'{value}' is no {name}: choose from {', '.join(allowed)}{hint}")

    def _check_schedule(self) -> None:
        schedule = self._content.get("schedule")
        if schedule in (None, ""):
            return
        if not isinstance(schedule, str):
            self._at("schedule", f"'schedule' must be a cron expression{_quote_hint(schedule)}")
            return
        try:
            cron = read_cron(schedule)
        except CronError as error:
            self._at("schedule", str(error))
            return
        for warning in cron.warnings:
            self._at("schedule", warning, fatal=False)

    def _check_mapping(self) -> None:
        mapping = self._content.get("field_mapping")
        if mapping in (None, ""):
            return
        node = self._nodes["field_mapping"][1]
        if not isinstance(mapping, list) or not isinstance(node, yaml.SequenceNode):
            self._at("field_mapping", "'field_mapping' must be a list of entries")
            return
        targets: dict[str, int] = {}
        for entry, entry_node in zip(mapping, node.value, strict=True):
            line = entry_node.start_mark.line + 1
            self._check_entry(entry, line)
            target = entry.get("destination_field") if isinstance(entry, Mapping) else None
            if isinstance(target, str) and target in targets:
                self._add(
                    line, f"destination_field '{target}' is mapped twice (first in line {targets[target]})"
                )
            elif isinstance(target, str):
                targets[target] = line
        sources = [entry.get("source_column") for entry in mapping if isinstance(entry, Mapping)]
        key = self._content.get("primary_key")
        if isinstance(key, str) and key and key not in sources:
            self._at("primary_key", f"the primary key '{key}' is not among the mapped columns", fatal=False)

    def _check_entry(self, entry: object, line: int) -> None:
        if not isinstance(entry, Mapping):
            self._add(line, "an entry needs source_column and destination_field")
            return
        for name in ("source_column", "destination_field"):
            if not isinstance(entry.get(name), str) or not entry[name]:
                self._add(line, f"an entry needs {name} as text{_quote_hint(entry.get(name))}")
        for name in entry:
            if name not in MAPPING_FIELDS:
                self._add(line, f"unknown field '{name}' in an entry (known: {', '.join(MAPPING_FIELDS)})")
        cast = entry.get("type_cast")
        if cast is not None and (not isinstance(cast, str) or not cast):
            self._add(line, "type_cast must be text")
        elif isinstance(cast, str) and cast.lower() not in CASTS:
            self._add(line, f"type_cast '{cast}' is not known; SignalSmith documents 'number'", fatal=False)

    def _at(self, name: str, text: str, *, fatal: bool = True) -> None:
        self._add(self.lines.get(name, 1), text, fatal=fatal)

    def _add(self, line: int, text: str, *, fatal: bool = True) -> None:
        self.findings.append(Finding(self._path, line, text, fatal))


def _normal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Absent and empty are the same to the API for these."""
    found = dict(fields)
    for name, empty in (("description", ""), ("schedule", ""), ("config", {})):
        if name in found and found[name] is None:
            found[name] = empty
    return found


def _find_doubles(files: list[SyncFile]) -> list[Finding]:
    """Files that mean the same sync are wrong; two mirrors into one target delete each other's rows."""
    findings = []
    seen: dict[tuple[str, str], SyncFile] = {}
    mirrors: dict[str, SyncFile] = {}
    for file in files:
        identities = [("name", file.name), *([("id", file.sync_id)] if file.sync_id else [])]
        for kind, value in identities:
            first = seen.setdefault((kind, value), file)
            if first is not file:
                findings.append(
                    Finding(
                        file.path, file.lines.get(kind, 1), f"{first.path.name} has the same {kind} '{value}'"
                    )
                )
        if file.fields["sync_mode"] == "mirror":
            target = f"{file.fields['destination_id']} {file.fields.get('config', {})}"
            other = mirrors.setdefault(target, file)
            if other is not file:
                text = f"{other.path.name} mirrors into the same destination: they would delete each other's rows"
                findings.append(Finding(file.path, file.lines.get("sync_mode", 1), text, fatal=False))
    return findings


def _doubled_keys(node: yaml.Node) -> Iterator[tuple[str, int]]:
    """YAML lets a key come twice and takes the last one; nobody means that."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _doubled_keys(item)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield str(key.value), key.start_mark.line + 1
            seen.add(key.value if isinstance(key.value, str) else id(key))
            yield from _doubled_keys(value)


def _quote_hint(value: object) -> str:
    if isinstance(value, bool | int | float):
        return ": put it in quotes"
    return "" if value is None else f", not {type(value).__name__}"


def _syntax_finding(path: Path, error: Exception) -> Finding:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or error).splitlines()[0]
    hint = ": put a cron expression in quotes" if "alphabetic" in problem or "alias" in problem else ""
    return Finding(path, mark.line + 1 if mark is not None else 1, f"not valid YAML: {problem}{hint}")
