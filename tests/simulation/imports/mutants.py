"""Known ways to spoil the importer; each one has to make a history fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rally_pipeline.rally.files.answers import ImportResult
from rally_pipeline.rally.files.journal import ImportJournal
from rally_pipeline.rally.files.manifest import StoredChunk
from rally_pipeline.rally.files.matching import RowMatcher
from rally_pipeline.rally.files.uploads import Uploader
from tests.simulation.script import Mutant, patched

_mark_sending = ImportJournal.mark_sending
_post = Uploader._post


@contextmanager
def blind_resend() -> Iterator[None]:
    def settle(self: Uploader, chunk: StoredChunk) -> None:
        self._journal.take_back(self._lease, chunk)

    with patched(Uploader, _settle=settle):
        yield


@contextmanager
def state_after_the_send() -> Iterator[None]:
    def post(self: Uploader, chunk: StoredChunk, own_until: float) -> ImportResult:
        try:
            return _post(self, chunk, own_until)
        finally:
            _mark_sending(self._journal, self._lease, chunk, self._client.server_floor())

    with patched(ImportJournal, mark_sending=lambda *_: None), patched(Uploader, _post=post):
        yield


@contextmanager
def read_back_as_a_set() -> Iterator[None]:
    def assign(
        self: RowMatcher,
        content: Any,
        mask: int,
        wanted: Mapping[bytes, list[int]],
        candidates: dict[str, Any],
        found: set[int],
        doubtful: set[int],
    ) -> None:
        del self
        equal: dict[bytes, list[str]] = defaultdict(list)
        for record_id, one in candidates.items():
            equal[content.of_values(one.values, mask)].append(record_id)
        for key, positions in wanted.items():
            if equal[key]:
                found.update(positions)
                for record_id in equal[key]:
                    del candidates[record_id]

    with patched(RowMatcher, _assign=assign):
        yield


@contextmanager
def counts_not_checked() -> Iterator[None]:
    with patched(ImportResult, adds_up=lambda self, sent: True):
        yield


MUTANTS = (
    Mutant("import-blind-resend", "sends an upload again when its answer is lost", blind_resend, 100),
    Mutant(
        "import-state-after-send", "stores that it sends only after it has sent", state_after_the_send, 500
    ),
    Mutant("import-read-back-as-set", "takes one equal record for all equal rows", read_back_as_a_set, 500),
    Mutant("import-counts-not-checked", "believes counts that do not add up", counts_not_checked, 200),
)
