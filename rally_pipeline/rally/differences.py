"""The rows that differ, as a full scan finds them: on disk, since a whole table can differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from tempfile import SpooledTemporaryFile

import msgspec

from rally_pipeline.rally.records import keys_of

MISSING, EXTRA, STALE = "missing", "extra", "stale"
_IN_MEMORY_BYTES = 1 << 20
_BATCH = 500


class Difference(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row that is not as the record is. Fingerprints tell contents apart within one process."""

    id: str
    kind: str
    """`missing`: only in Rally; `extra`: only in the warehouse; `stale`: in both, with different values."""
    updated_at: str | None
    """Of the record; None for `extra`."""
    recent: bool
    """The record or the row was updated so lately that the feed may not have told it yet."""
    record: int | None
    """Fingerprint of the row that the record would give."""
    row: int | None
    """Fingerprint of the stored row."""


class Differences:
    """Differences in the order in which they were found. To be closed (a context manager)."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, mode="w+b")  # noqa: SIM115 (closed by close)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(Difference).decode
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Differences:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def add(self, found: Iterable[Difference]) -> None:
        """Append."""
        self._file.seek(0, 2)
        for difference in found:
            self._file.write(self._encode(difference) + b"\n")
            self._count += 1

    def batches(self) -> Iterator[list[Difference]]:
        """All of them, a few hundred at a time; nothing may be added meanwhile."""
        self._file.seek(0)
        lines = iter(self._file)
        while batch := [self._decode(line) for line in islice(lines, _BATCH)]:
            yield batch

    def without_repeats(self) -> Differences:
        """One difference an id, the first: a scan that steps back shows rows again.

        Memory: 16 bytes a difference.
        """
        import numpy as np

        packed = b"".join(key for batch in self.batches() for key in keys_of([one.id for one in batch]))
        keys = np.frombuffer(packed, dtype="V16")
        _, first = np.unique(keys, return_index=True)
        kept, place = Differences(), 0
        chosen = np.zeros(len(keys), dtype=bool)
        chosen[first] = True
        for batch in self.batches():
            kept.add(one for number, one in enumerate(batch, place) if chosen[number])
            place += len(batch)
        return kept
