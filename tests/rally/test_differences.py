"""What a comparison found lies on disk, in order, and once an id where it is asked so."""

from __future__ import annotations

from rally_pipeline.rally.differences import EXTRA, MISSING, STALE, Difference, Differences


def difference(entity_id: str, kind: str = STALE) -> Difference:
    return Difference(entity_id, kind, "2026-01-01T00:00:00.000000Z", False, -(2**63), None)


def listed(found: Differences) -> list[Difference]:
    return [one for batch in found.batches() for one in batch]


def test_more_than_fits_into_memory_comes_back_as_it_was() -> None:
    expected = [difference(f"{number:08}-0000-4000-8000-000000000000 \u00e9\n") for number in range(20_000)]
    with Differences() as found:
        for start in range(0, len(expected), 7_000):
            found.add(expected[start : start + 7_000])
        assert len(found) == 20_000
        assert listed(found) == expected
        assert max(len(batch) for batch in found.batches()) == 500
        assert found._file._rolled  # type: ignore[attr-defined]  # on disk


def test_a_row_that_the_scan_showed_twice_counts_once() -> None:
    with Differences() as found:
        found.add([difference("b"), difference("a", MISSING), difference("b", EXTRA), difference("c")])
        with found.without_repeats() as once:
            assert [(one.id, one.kind) for one in listed(once)] == [
                ("b", STALE),
                ("a", MISSING),
                ("c", STALE),
            ]
    with Differences() as none, none.without_repeats() as still_none:
        assert listed(still_none) == []
