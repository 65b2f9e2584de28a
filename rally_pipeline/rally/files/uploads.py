"""Sending uploads so that each row arrives once, whatever happens to the answer.

Invariants: IM1 bytes are fixed and stored before the first send; IM2 after an unclear answer nothing is sent
before a read-back; IM3 every row ends imported, duplicate, refused or unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rally_pipeline.http.errors import (
    ApiError,
    BadAnswer,
    Forbidden,
    NoAnswer,
    NotFound,
    Redirected,
    ServerFailed,
    Throttled,
    TooLarge,
    Unauthorized,
)
from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.answers import Attribution, ImportResult, Numbering, RowText, attribute
from rally_pipeline.rally.files.cells import Fault
from rally_pipeline.rally.files.chunks import Chunk, RowEncoder
from rally_pipeline.rally.files.journal import ImportJournal
from rally_pipeline.rally.files.known import find_existing
from rally_pipeline.rally.files.manifest import (
    ChunkState,
    Decision,
    PlannedChunk,
    StoredChunk,
)
from rally_pipeline.rally.files.matching import RowMatcher, Sighting
from rally_pipeline.rally.files.newcomers import read_records
from rally_pipeline.rally.files.problems import Problem
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.rally.files.validation import Outcome
from rally_pipeline.rally.records import RecordDecoder, RecordError
from rally_pipeline.warehouse import FenceLost

if TYPE_CHECKING:
    from rally_pipeline.rally.client import RallyClient
    from rally_pipeline.rally.files.endpoints import FileEndpoints
    from rally_pipeline.rally.files.policy import ImportPolicy
    from rally_pipeline.warehouse import Lease, Warehouse

_REQUEST_TIMEOUT = 408
_THROTTLE_SECONDS = 30.0
_COARSENESS = timedelta(seconds=2)
"""Of the server's timestamps and of its comparison."""


class Uploader:
    """Takes one import's uploads from `planned` to their end, one after the other."""

    def __init__(
        self,
        warehouse: Warehouse,
        journal: ImportJournal,
        entity: Entity,
        client: RallyClient,
        endpoints: FileEndpoints,
        policy: ImportPolicy,
        lease: Lease,
    ) -> None:
        self._warehouse = warehouse
        self._journal = journal
        self._entity = entity
        self._client = client
        self._endpoints = endpoints
        self._policy = policy
        self._lease = lease

    def advance(self, chunk: StoredChunk, *, limit: int | None, numbering: Numbering | None) -> None:
        """Do the next thing for an upload: send it, divide it, or find out what became of it.

        Raises:
            ApiError: Rally cannot be used now; the upload keeps a state from which a later run goes on.
        """
        if chunk.state is not ChunkState.PLANNED:
            # `sending` after a crash: whether the request left, and what it did, is not known.
            self._settle(chunk)
        elif limit is not None and len(chunk.body) > limit and len(chunk.rows) > 1:
            self._journal.split(self._lease, chunk, _halves(chunk), None)
        else:
            self._send(chunk, numbering)

    # Sending

    def _send(self, chunk: StoredChunk, numbering: Numbering | None) -> None:
        sent_at = self._client.server_floor()
        own_until = self._client.clock.monotonic() + self._lease.ttl_seconds
        self._journal.mark_sending(self._lease, chunk, sent_at)
        try:
            result = self._post(chunk, own_until)
        except (Unauthorized, Forbidden, NotFound, Redirected, Throttled):
            self._journal.take_back(self._lease, chunk)
            raise
        except TooLarge:
            self._divide(chunk)
        except NoAnswer as error:
            if not error.sent:
                self._journal.take_back(self._lease, chunk)
                raise
            self._journal.mark_unknown(self._lease, chunk, str(error), None)
        except (ServerFailed, BadAnswer) as error:
            self._journal.mark_unknown(self._lease, chunk, str(error), None)
        except ApiError as error:
            if error.status == _REQUEST_TIMEOUT:
                self._journal.mark_unknown(self._lease, chunk, str(error), None)
            else:
                self._refuse(chunk, str(error))
        else:
            self._take_result(chunk, result, numbering, sent_at)

    def _post(self, chunk: StoredChunk, own_until: float) -> ImportResult:
        """One upload; an answer 429 says that it was not applied, so only that is waited for.

        Not after `own_until` (monotonic seconds): no fence protects Rally from a process that was stopped before
        the request, lost its lease meanwhile, and wakes up.
        """
        name = f"{self._entity.value}-{chunk.number:04d}.csv"
        for _ in range(self._policy.most_throttles):
            if self._client.clock.monotonic() >= own_until:
                raise FenceLost(self._lease.stream, self._lease.fence)
            try:
                return self._endpoints.post_import(self._entity, name, chunk.body)
            except Throttled as error:
                self._client.clock.sleep(error.wait_seconds or _THROTTLE_SECONDS)
        return self._endpoints.post_import(self._entity, name, chunk.body)

    def _divide(self, chunk: StoredChunk) -> None:
        if len(chunk.rows) > 1:
            self._journal.split(self._lease, chunk, _halves(chunk), len(chunk.body) - 1)
            return
        size = f"Rally refuses the row as too large: {len(chunk.body):,} bytes"
        self._decide(chunk, self._refusal(chunk, Fault.SIZE, size))

    def _refuse(self, chunk: StoredChunk, message: str) -> None:
        self._decide(chunk, self._refusal(chunk, Fault.OTHER, f"Rally refused the upload: {message}"))

    def _refusal(self, chunk: StoredChunk, fault: Fault, message: str) -> Decision:
        problems = {
            place: [Problem(fault, message, number, line)] for place, (number, line) in enumerate(chunk.rows)
        }
        return Decision(
            ChunkState.REFUSED, [Outcome.REFUSED] * len(chunk.rows), problems, message=message[:500]
        )

    # Definite answers

    def _take_result(
        self, chunk: StoredChunk, result: ImportResult, numbering: Numbering | None, sent_at: datetime
    ) -> None:
        if not result.adds_up(len(chunk.rows)):
            counts = f"{result.imported} imported + {result.skipped} skipped of {result.total_rows}"
            message = f"the counts do not add up: {counts}, but {len(chunk.rows)} rows were sent"
            self._journal.mark_unknown(self._lease, chunk, message, result)
            return
        if result.skipped == 0:
            imported = [Outcome.IMPORTED] * len(chunk.rows)
            self._decide(chunk, Decision(ChunkState.DONE, imported, result=result))
            return
        headers, rows = chunk.read()
        attribution = attribute(result.errors, headers, rows, numbering)
        skipped = self._find_skipped(chunk, result, attribution, sent_at)
        if skipped is None:
            decision = _undetermined(chunk, attribution, result)
        else:
            decision = _explain(chunk, attribution, skipped, self._existing(rows, skipped))
        decision.result = result
        self._decide(chunk, decision)

    def _find_skipped(
        self, chunk: StoredChunk, result: ImportResult, attribution: Attribution, sent_at: datetime
    ) -> set[int] | None:
        """Positions of the skipped rows, or None if neither the texts nor Rally's lists tell."""
        everything = set(range(len(chunk.rows)))
        if result.imported == 0:
            return everything
        if len(attribution.texts) == result.skipped:
            return set(attribution.texts)
        # Fewer texts than skipped rows, or texts that fit several rows: the lists say which rows are there.
        for attempt in range(self._policy.most_readbacks):
            if attempt:
                self._wait(self._policy.staleness_seconds)
            for sighting in self._read_back(chunk, sent_at, (timedelta(0), self._policy.overlap)):
                if len(sighting.found) == result.imported and not sighting.doubtful:
                    return everything - sighting.found
        return None

    def _existing(self, rows: Sequence[Sequence[str]], skipped: set[int]) -> set[int]:
        """Those of the skipped rows that the mirror knows: without a text, they are duplicates."""
        places = sorted(skipped)
        known = find_existing(self._warehouse, TEMPLATES[self._entity], [rows[place] for place in places])
        return {place for place, exists in zip(places, known, strict=True) if exists}

    # Unclear answers

    def _settle(self, chunk: StoredChunk) -> None:
        """Read back until two sightings in a row are equal, then send what is missing in a new upload."""
        sent_at = chunk.sent_at
        if sent_at is None:
            raise InvariantViolation("IM2", f"upload {chunk.number} is {chunk.state} but was never sent")
        before: Sighting | None = None
        for _ in range(self._policy.most_readbacks):
            self._wait(self._policy.quiet_seconds)
            (sighting,) = self._read_back(chunk, sent_at, (self._policy.overlap,))
            if sighting == before:
                self._decide(chunk, self._remainder(chunk, sighting))
                return
            before = sighting
        seen = before.found if before is not None else frozenset[int]()
        message = "Rally's list kept changing while the row was looked for"
        doubtful = frozenset(range(len(chunk.rows))) - seen
        self._decide(chunk, self._remainder(chunk, Sighting(seen, doubtful), message))

    def _read_back(
        self, chunk: StoredChunk, sent_at: datetime, margins: Sequence[timedelta]
    ) -> list[Sighting]:
        """What Rally's list shows of the upload, believing records from each of `margins` before the sending
        on."""
        headers, rows = chunk.read()
        template = TEMPLATES[self._entity].following(headers)
        earlier, base = self._earlier(chunk, sent_at)
        matchers = [RowMatcher(template, rows, base - margin, sent_at, earlier) for margin in margins]
        since = base - max(margins) - _COARSENESS
        records = list(self._records(since, matchers[0].fields))
        return [matcher.match(records) for matcher in matchers]

    def _earlier(self, chunk: StoredChunk, sent_at: datetime) -> tuple[Counter[bytes], datetime]:
        """Equal activities of other uploads, which the read-back will meet as well, and when the first was
        sent."""
        if self._entity is not Entity.ACTIVITIES:
            return Counter(), sent_at
        # The read-back begins before the first of them, so those that ended shortly before that one count as well.
        base = sent_at
        while True:
            earlier, first = self._journal.earlier_imports(chunk, base - self._policy.overlap)
            if first is None or first >= base:
                return earlier, base
            base = first

    def _records(self, since: datetime, fields: frozenset[str]) -> Iterable[dict[str, Any]]:
        decoder = RecordDecoder(self._entity)
        names = [
            (place, field.name) for place, field in enumerate(self._entity.fields) if field.name in fields
        ]
        for raw in read_records(self._client, self._entity, since):
            try:
                values = decoder.decode(memoryview(raw), synced_at="")
            except RecordError:
                continue
            yield {name: values[place] for place, name in names}

    def _remainder(self, chunk: StoredChunk, sighting: Sighting, why: str | None = None) -> Decision:
        again = chunk.round < self._policy.most_rounds
        outcomes: list[Outcome] = []
        problems: dict[int, list[Problem]] = {}
        missing: list[int] = []
        for place, (number, line) in enumerate(chunk.rows):
            if place in sighting.found:
                outcomes.append(Outcome.IMPORTED)
            elif place in sighting.doubtful or not again:
                reason = why or (_GIVEN_UP if place not in sighting.doubtful else _DOUBTFUL)
                outcomes.append(Outcome.UNKNOWN)
                problems[place] = [Problem(Fault.UNDECIDED, reason, number, line)]
            else:
                outcomes.append(Outcome.STAGED)
                missing.append(place)
        resend = _part(chunk, missing) if missing else None
        return Decision(ChunkState.SETTLED, outcomes, problems, resend=resend)

    def _wait(self, seconds: float) -> None:
        self._journal.keep_lease(self._lease)
        self._client.clock.sleep(seconds)

    def _decide(self, chunk: StoredChunk, decision: Decision) -> None:
        self._journal.decide(self._lease, chunk, decision, self._client.server_ceiling())


_DOUBTFUL = "no answer came, and Rally has a new record like this row that is not the same in every column"
_GIVEN_UP = "no clear answer came however often the row was sent"


def _explain(chunk: StoredChunk, attribution: Attribution, skipped: set[int], existing: set[int]) -> Decision:
    """Every row that was not skipped is imported; the texts say why the others were."""
    texts = _assigned_texts(attribution, skipped)
    outcomes = [Outcome.IMPORTED] * len(chunk.rows)
    problems: dict[int, list[Problem]] = {}
    for place in skipped:
        number, line = chunk.rows[place]
        found = [
            Problem(text.fault, text.message, number, line, text.column) for text in texts.get(place, [])
        ]
        if not found:
            fault = Fault.DUPLICATE if place in existing else Fault.OTHER
            reason = (
                "it is in Rally already" if place in existing else "Rally skipped the row without a reason"
            )
            found = [Problem(fault, reason, number, line)]
        problems[place] = found
        duplicate = all(problem.fault is Fault.DUPLICATE for problem in found)
        outcomes[place] = Outcome.DUPLICATE if duplicate else Outcome.REFUSED
    return Decision(ChunkState.DONE, outcomes, problems, numbering=attribution.numbering)


def _assigned_texts(attribution: Attribution, skipped: set[int]) -> dict[int, list[RowText]]:
    """Texts by row, also those that several rows were possible for and just one of them was skipped."""
    texts = {place: list(found) for place, found in attribution.texts.items() if place in skipped}
    for text, possible in attribution.loose:
        left = [place for place in possible if place in skipped and place not in attribution.texts]
        if len(left) == 1:
            texts.setdefault(left[0], []).append(text)
    return texts


def _undetermined(chunk: StoredChunk, attribution: Attribution, result: ImportResult) -> Decision:
    """The counts are believed, but which rows they mean could not be found out."""
    told = attribution.texts if len(attribution.texts) <= result.skipped else {}
    decision = _explain(chunk, attribution, set(told), set())
    left = len(chunk.rows) - len(told)
    reason = (
        f"Rally imported {result.imported} of {left} rows, skipped {result.skipped - len(told)} and did not say"
        " which is this one"
    )
    for place, (number, line) in enumerate(chunk.rows):
        if place not in told:
            decision.outcomes[place] = Outcome.UNKNOWN
            decision.problems[place] = [Problem(Fault.UNDECIDED, reason, number, line)]
    return decision


def _part(chunk: StoredChunk, places: Sequence[int]) -> PlannedChunk:
    """An upload of some of the rows of another, byte for byte as they stood there."""
    headers, rows = chunk.read()
    encoder = RowEncoder()
    body = b"".join([encoder.encode(headers), *(encoder.encode(rows[place]) for place in places)])
    numbers, lines = zip(*(chunk.rows[place] for place in places), strict=True)
    return PlannedChunk(Chunk(body, numbers), lines, tuple(chunk.keys[place] for place in places))


def _halves(chunk: StoredChunk) -> list[PlannedChunk]:
    middle = len(chunk.rows) // 2
    return [_part(chunk, range(middle)), _part(chunk, range(middle, len(chunk.rows)))]
