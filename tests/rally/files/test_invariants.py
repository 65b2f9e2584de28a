"""Each invariant of the imports, broken on purpose: the run stops, names it, and nothing more is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.journal import ImportJournal
from rally_pipeline.rally.files.manifest import ChunkState, Decision
from rally_pipeline.rally.files.outcomes import RowOutcomes
from rally_pipeline.rally.files.tables import import_files
from rally_pipeline.rally.files.uploads import Uploader
from tests.contents import contents
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.desk import Desk, contacts

Patch = pytest.MonkeyPatch


def stops(desk: Desk, name: str, act: Callable[[], object], *, uploads: int) -> str:
    """The message; `uploads` were sent in all, and the step that broke the promise wrote nothing."""
    committed = [contents(desk.warehouse)]

    def watch(step: str) -> None:
        if step.startswith("rally.import") and step.endswith(":after-commit"):
            committed.append(contents(desk.warehouse))

    desk.warehouse._step = watch
    with pytest.raises(InvariantViolation, match=f"invariant {name} does not hold") as stopped:
        act()
    assert desk.uploads() == uploads
    assert contents(desk.warehouse) == committed[-1]
    return str(stopped.value)


@pytest.mark.invariant("IM1")
def test_a_file_that_is_not_fixed_is_not_sent(make_sqlite_desk: MakeDesk, monkeypatch: Patch) -> None:
    desk = make_sqlite_desk()
    path = desk.write(Entity.CONTACTS, contacts(5))
    monkeypatch.setattr(ImportJournal, "fix", lambda *_, **__: None)
    assert "of a file that is staging" in stops(
        desk, "IM1", lambda: desk.run(Entity.CONTACTS, path), uploads=0
    )


@pytest.mark.invariant("IM1")
def test_other_bytes_than_the_stored_ones_are_not_sent(
    make_sqlite_desk: MakeDesk, monkeypatch: Patch
) -> None:
    desk = make_sqlite_desk()
    path = desk.write(Entity.CONTACTS, contacts(5))
    send = Uploader._send

    def altered(self: Uploader, chunk: Any, numbering: Any) -> None:
        object.__setattr__(chunk, "body", chunk.body + b"one more row\n")
        send(self, chunk, numbering)

    monkeypatch.setattr(Uploader, "_send", altered)
    assert "with other bytes" in stops(desk, "IM1", lambda: desk.run(Entity.CONTACTS, path), uploads=0)


@pytest.mark.invariant("IM2")
def test_an_upload_that_may_have_been_applied_is_not_sent_again(
    make_sqlite_desk: MakeDesk, monkeypatch: Patch
) -> None:
    desk = make_sqlite_desk()
    path = desk.write(Entity.CONTACTS, contacts(5))
    desk.sandbox.faults.add("lost_answer", path="/import")
    monkeypatch.setattr(Uploader, "_settle", lambda self, chunk: self._send(chunk, None))
    assert "although it is unknown" in stops(desk, "IM2", lambda: desk.run(Entity.CONTACTS, path), uploads=1)
    assert len(desk.records(Entity.CONTACTS)) == 5


@pytest.mark.invariant("IM3")
def test_outcomes_that_do_not_add_up_are_not_stored(make_sqlite_desk: MakeDesk, monkeypatch: Patch) -> None:
    desk = make_sqlite_desk()
    path = desk.write(Entity.CONTACTS, contacts(5))

    def short(self: Uploader, chunk: Any, decision: Decision) -> None:
        decision.outcomes.pop()
        self._journal.decide(self._lease, chunk, decision, self._client.server_ceiling())

    monkeypatch.setattr(Uploader, "_decide", short)
    assert "5 rows, 4 + 0 outcomes" in stops(desk, "IM3", lambda: desk.run(Entity.CONTACTS, path), uploads=1)


@pytest.mark.invariant("IM3")
def test_an_import_with_rows_unaccounted_for_is_not_closed(
    make_sqlite_desk: MakeDesk, monkeypatch: Patch
) -> None:
    desk = make_sqlite_desk()
    path = desk.write(Entity.CONTACTS, [*contacts(5), {"first_name": "No", "email": "not an address"}])
    monkeypatch.setattr(RowOutcomes, "insert_errors", lambda *_: None)
    stops(desk, "IM3", lambda: desk.run(Entity.CONTACTS, path), uploads=1)
    assert desk.file_row()[import_files.c.status.name] == "open"
    assert ChunkState.DONE in {state for _, state, _, _ in desk.chunks()}
