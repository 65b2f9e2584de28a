"""Carry a plan out, action by action; each one is read back, because the API has neither versions nor locks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rally_pipeline.http.errors import ApiError, BadAnswer, NoAnswer, NotFound, ServerFailed
from rally_pipeline.signalsmith.catalog import read_rows
from rally_pipeline.signalsmith.client import SignalSmithClient
from rally_pipeline.signalsmith.records import Sync
from rally_pipeline.signalsmith.sync_plan import Action, remote_fields, same


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one action; `problem` is empty where it was carried out and read back."""

    action: Action
    sync_id: str | None
    problem: str = ""


def apply_action(client: SignalSmithClient, action: Action, *, force: bool = False) -> Applied:
    """Carry one action out. Its own failure is part of the result, so that the others still happen."""
    try:
        if action.kind == "create":
            return _create(client, action)
        if action.kind == "delete":
            return _delete(client, action, force=force)
        return _update(client, action)
    except ApiError as error:
        return Applied(action, action.sync_id, str(error))


def _create(client: SignalSmithClient, action: Action) -> Applied:
    fields = {name: value for name, value in action.fields.items() if name != "status"}
    before = {sync.id for sync in _list(client)}
    try:
        made = client.create_sync(fields)
    except (NoAnswer, ServerFailed, BadAnswer) as error:
        if isinstance(error, NoAnswer) and not error.sent:
            raise
        made = _find_new(client, action, before)
        if made is None:
            return Applied(
                action, None, f"{error}; it has not appeared: run plan again before creating it anew"
            )
    made = made or _find_new(client, action, before)
    if made is None:
        return Applied(
            action, None, "SignalSmith did not say which sync it made, and none of this name is new"
        )
    wanted = action.fields.get("status")
    if wanted is not None and made.status != wanted:
        made = client.update_sync(made.id, {"status": wanted})
    return Applied(action, made.id, _differences(made, action.fields))


def _find_new(client: SignalSmithClient, action: Action, before: set[str]) -> Sync | None:
    """The sync that a create without a usable answer made."""
    found = [sync for sync in _list(client) if sync.id not in before and sync.name == action.fields["name"]]
    return found[0] if len(found) == 1 else None


def _update(client: SignalSmithClient, action: Action) -> Applied:
    assert action.sync_id is not None
    try:
        present = remote_fields(client.get_sync(action.sync_id))
    except NotFound:
        return Applied(action, action.sync_id, "the sync does not exist any more: run plan again")
    moved = [
        change.field
        for change in action.changes
        if not same(change.field, present[change.field], change.before)
    ]
    if moved:
        return Applied(
            action, action.sync_id, f"{', '.join(moved)} changed in SignalSmith meanwhile: run plan again"
        )
    client.update_sync(action.sync_id, action.fields)
    return Applied(action, action.sync_id, _differences(client.get_sync(action.sync_id), action.fields))


def _delete(client: SignalSmithClient, action: Action, *, force: bool) -> Applied:
    assert action.sync_id is not None
    try:
        live = [run.id for run in client.list_runs(action.sync_id) if not run.is_terminal]
    except NotFound:
        return Applied(action, action.sync_id)
    if live and not force:
        return Applied(
            action,
            action.sync_id,
            f"run {live[0]} is under way and its outcome would be unknown: wait, or use --force",
        )
    client.delete_sync(action.sync_id)
    return Applied(action, action.sync_id)


def _differences(sync: Sync, wanted: Mapping[str, Any]) -> str:
    present = remote_fields(sync)
    wrong = [name for name, value in wanted.items() if not same(name, present[name], value)]
    return f"SignalSmith took the change but not {', '.join(wrong)}" if wrong else ""


def _list(client: SignalSmithClient) -> list[Sync]:
    return read_rows(client.list_syncs())[0]
