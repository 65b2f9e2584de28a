"""The records of several pages as one batch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from rally_pipeline.rally.page_rows import PageRows, without_repeats
from rally_pipeline.rally.passes import PassPage, PassState
from rally_pipeline.rally.records import DecodedRows

BEGUN = datetime(2026, 3, 2, 9, tzinfo=UTC)


def page(*ids: str, repeated: str = "", **fields: Any) -> PassPage:
    """A page whose rows are known by one letter; `repeated`: those that an earlier page showed."""
    return PassPage(
        **{
            "rows": [msgspec.Raw(entity_id.encode()) for entity_id in ids],
            "ids": list(ids),
            "keys": [entity_id.encode() for entity_id in ids],
            "versions": [ord(entity_id) for entity_id in ids],
            "nameless": [],
            "begun": BEGUN,
            "asked": 10,
            "decoded": None,
            "repeated": frozenset(letter.encode() for letter in repeated),
            "offset": 0,
            "last": False,
            "after": PassState(),
            **fields,
        }
    )


def decoded(*ids: str, refused: tuple[int, ...] = ()) -> DecodedRows:
    places = [place for place in range(len(ids)) if place not in refused]
    return DecodedRows([(ids[place],) for place in places], places, [(place, "because") for place in refused])


@pytest.mark.parametrize(
    ("ids", "repeated", "drop", "kept"),
    [
        ("abcd", "", "", "abcd"),
        ("abcd", "ab", "", "cd"),
        ("abcd", "bc", "", "ad"),
        ("abcd", "abcd", "", ""),
        ("abca", "a", "", "bc"),
        ("abcd", "a", "c", "bd"),
        ("abcd", "", "xd", "abc"),
    ],
)
def test_only_what_is_new_and_unmarked_is_kept(ids: str, repeated: str, drop: str, kept: str) -> None:
    rows = PageRows.of(page(*ids, repeated=repeated, decoded=decoded(*ids)), set(drop))
    assert "".join(rows.ids) == kept
    assert [bytes(raw).decode() for raw in rows.raws] == [*kept]
    assert [*rows.versions] == [ord(letter) for letter in kept]
    assert rows.decoded is not None
    assert rows.decoded.rows == [(letter,) for letter in kept]
    assert [*rows.decoded.places] == [*range(len(kept))]


def test_refused_records_keep_their_places_when_pages_are_joined() -> None:
    first = PageRows.of(page(*"abc", decoded=decoded(*"abc", refused=(1,))))
    second = PageRows.of(page(*"cde", repeated="c", decoded=decoded(*"cde", refused=(2,))))
    joined = PageRows.joined([first, second])
    assert [*joined.ids] == [*"abcde"]
    assert joined.decoded is not None
    assert joined.decoded.rows == [("a",), ("c",), ("d",)]
    assert [*joined.decoded.places] == [0, 2, 3]
    assert joined.decoded.refused == [(1, "because"), (4, "because")]


def test_pages_are_decoded_together_where_one_of_them_is_not_decoded_yet() -> None:
    parts = [PageRows.of(page(*"ab", decoded=decoded(*"ab"))), PageRows.of(page(*"cd"))]
    assert PageRows.joined(parts).decoded is None


def test_a_record_that_comes_twice_begins_another_batch() -> None:
    parts = [PageRows.of(page(*ids)) for ids in ("ab", "cd", "be", "fa", "g")]
    batches = ["".join(rows.ids) for rows in without_repeats(parts)]
    assert batches == ["abcd", "befag"]
