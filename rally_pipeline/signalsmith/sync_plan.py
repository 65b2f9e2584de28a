"""The difference between the files and SignalSmith, as actions that a person can read before they happen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rally_pipeline.signalsmith.records import Sync
from rally_pipeline.signalsmith.sync_files import Finding, SyncFile

SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs."""

    field: str
    before: Any
    after: Any

    def lines(self) -> list[str]:
        """For a terminal; a mapping is shown entry by entry."""
        if self.field != "field_mapping":
            return [f"{self.field}: {_shown(self.before)} -> {_shown(self.after)}"]
        before, after = _by_target(self.before), _by_target(self.after)
        found = [f"- {_entry(before[target])}" for target in before if target not in after]
        found += [f"+ {_entry(after[target])}" for target in after if target not in before]
        found += [
            f"~ {_entry(before[target])} -> {_entry(after[target])}"
            for target in after
            if target in before and before[target] != after[target]
        ]
        return [f"field_mapping: {line}" for line in found]


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done to one sync. `kind`: create, update, pause, resume, delete."""

    kind: str
    name: str
    sync_id: str | None = None
    file: SyncFile | None = None
    changes: tuple[Change, ...] = ()

    @property
    def fields(self) -> dict[str, Any]:
        """Just the changed fields, or all of a new sync."""
        return {change.field: change.after for change in self.changes}

    def lines(self) -> list[str]:
        """For a terminal: what and, below it, the details."""
        where = f" ({self.file.path.name})" if self.file is not None else ""
        head = f"{self.kind} {self.name or self.sync_id}{where}"
        if self.kind == "create":
            return [head, *(f"  {change.field}: {_shown(change.after)}" for change in self.changes)]
        return [head, *(f"  {line}" for change in self.changes for line in change.lines())]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "action": self.kind,
            "id": self.sync_id,
            "name": self.name,
            "file": str(self.file.path) if self.file is not None else None,
            "changes": {
                change.field: {"before": change.before, "after": change.after} for change in self.changes
            },
        }


@dataclass(frozen=True, slots=True)
class FilePlan:
    """All actions in the order in which they are taken. `unmanaged` syncs have no file; they are deleted only with
    pruning."""

    actions: tuple[Action, ...]
    unchanged: tuple[str, ...]
    unmanaged: tuple[str, ...]
    findings: tuple[Finding, ...] = field(default=())


def make_plan(files: list[SyncFile], syncs: list[Sync], *, prune: bool = False) -> FilePlan:
    """Compare. Only the fields that a file states count; all others are left as they are in SignalSmith."""
    by_id = {sync.id: sync for sync in syncs}
    matched: set[str] = set()
    actions: list[Action] = []
    unchanged: list[str] = []
    findings: list[Finding] = []
    for file in files:
        sync, problem = _match(file, syncs, by_id)
        if problem:
            findings.append(Finding(file.path, file.lines.get("id", file.lines.get("name", 1)), problem))
            continue
        if sync is None:
            changes = tuple(Change(name, None, value) for name, value in file.fields.items())
            actions.append(Action("create", file.name, None, file, changes))
            continue
        matched.add(sync.id)
        changes = _compare(file, sync)
        if changes:
            actions.append(Action(_kind(changes), sync.name, sync.id, file, changes))
            findings += _mirror_warning(file, changes)
        else:
            unchanged.append(sync.name or sync.id)
    # a file that could not be matched may belong to any of them
    strays = [] if any(finding.fatal for finding in findings) else [s for s in syncs if s.id not in matched]
    if prune:
        actions += [Action("delete", sync.name, sync.id) for sync in strays]
    order = ("create", "update", "resume", "pause", "delete")
    actions.sort(key=lambda action: order.index(action.kind))
    return FilePlan(
        tuple(actions),
        tuple(unchanged),
        () if prune else tuple(sync.name or sync.id for sync in strays),
        tuple(findings),
    )


def _match(file: SyncFile, syncs: list[Sync], by_id: Mapping[str, Sync]) -> tuple[Sync | None, str]:
    if file.sync_id is not None:
        found = by_id.get(file.sync_id)
        problem = "" if found else f"SignalSmith has no sync {file.sync_id}: remove 'id' to create one"
        return found, problem
    named = [sync for sync in syncs if sync.name == file.name]
    if len(named) > 1:
        ids = ", ".join(sync.id for sync in named[:3])
        return None, f"SignalSmith has {len(named)} syncs of this name ({ids}): say which one with 'id'"
    return (named[0] if named else None), ""


def _compare(file: SyncFile, sync: Sync) -> tuple[Change, ...]:
    present = remote_fields(sync)
    changes = []
    for name, wanted in file.fields.items():
        if not same(name, wanted, present[name]):
            changes.append(Change(name, present[name], wanted))
    return tuple(changes)


def remote_fields(sync: Sync) -> dict[str, Any]:
    """The writable fields of a sync as a file would state them."""
    return {
        "name": sync.name,
        "description": sync.description,
        "model_id": sync.model_id,
        "destination_id": sync.destination_id,
        "field_mapping": [entry.as_api() for entry in sync.field_mapping],
        "sync_mode": sync.sync_mode,
        "schedule": sync.schedule,
        "config": dict(sync.config),
        "primary_key": sync.primary_key,
        "status": sync.status,
    }


def same(name: str, one: Any, other: Any) -> bool:
    """Whether two values of a field mean the same."""
    return _canonical(name, one) == _canonical(name, other)


def _canonical(name: str, value: Any) -> str:
    """Equal for equal meaning: the order of a mapping's entries does not count."""
    if name == "field_mapping" and isinstance(value, list):
        value = sorted(value, key=lambda entry: str(entry.get("destination_field")))
    return json.dumps(value, sort_keys=True, default=str)


def _kind(changes: tuple[Change, ...]) -> str:
    if len(changes) == 1 and changes[0].field == "status":
        return {"paused": "pause", "active": "resume"}.get(str(changes[0].after), "update")
    return "update"


def _mirror_warning(file: SyncFile, changes: tuple[Change, ...]) -> list[Finding]:
    if any(change.field == "sync_mode" and change.after == "mirror" for change in changes):
        text = (
            "mirror deletes every record of the destination that the model does not have, also foreign ones"
        )
        return [Finding(file.path, file.lines.get("sync_mode", 1), text, fatal=False)]
    return []


def _by_target(entries: Any) -> dict[str, Mapping[str, str]]:
    return {entry["destination_field"]: entry for entry in entries or []}


def _entry(entry: Mapping[str, str]) -> str:
    cast = f" ({entry['type_cast']})" if entry.get("type_cast") else ""
    return f"{entry['source_column']} > {entry['destination_field']}{cast}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
