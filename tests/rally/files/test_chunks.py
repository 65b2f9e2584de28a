"""Uploads stay below 10,000,000 bytes with everything that goes over the wire."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.chunks import ChunkCutter, ChunkLimits, RowEncoder, RowSizeError, read_chunk
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.desk import activities, companies, contacts

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=30), st.integers(100, 400), st.integers(1, 10))
def test_chunks_hold_every_row_once_in_order_within_their_bounds(
    rows: list[tuple[str, str]], max_bytes: int, max_rows: int
) -> None:
    cutter = ChunkCutter(("a", "b"), ChunkLimits(max_bytes, max_rows))
    chunks = [chunk for n, row in enumerate(rows) if (chunk := cutter.add(n, row)) is not None]
    last = cutter.finish()
    assert last is not None
    chunks.append(last)
    read = [
        (number, tuple(cells))
        for c in chunks
        for number, cells in zip(c.rows, read_chunk(c.body)[1], strict=True)
    ]
    assert read == list(enumerate(rows))
    assert all(len(chunk.body) <= max_bytes and len(chunk.rows) <= max_rows for chunk in chunks)
    # Greedy: no chunk could have taken the first row of the next one.
    encode = RowEncoder().encode
    for chunk, after in itertools.pairwise(chunks):
        more = len(encode(rows[after.rows[0]]))
        assert len(chunk.rows) == max_rows or len(chunk.body) + more > max_bytes


@pytest.mark.fault("I2")
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_the_edge_of_the_limit_is_met_to_the_byte(extra: int) -> None:
    encode = RowEncoder().encode
    head, first = len(encode(("a", "b"))), len(encode(("1", "x")))
    cutter = ChunkCutter(("a", "b"), ChunkLimits(1_000, 10))
    cutter.add(1, ("1", "x"))
    filler = 1_000 - head - first - len(encode(("2", ""))) + extra
    full = cutter.add(2, ("2", "y" * filler))
    assert (full is not None) == (extra > 0)
    last = cutter.finish()
    assert last is not None
    assert len(last.body) <= 1_000


@pytest.mark.fault("I3")
def test_a_row_that_no_upload_can_hold_is_refused_and_the_others_go_on(make_sqlite_desk: MakeDesk) -> None:
    cutter = ChunkCutter(("a",), ChunkLimits(100, 10))
    with pytest.raises(RowSizeError, match="as CSV; an upload can hold 100"):
        cutter.add(1, ("x" * 100,))
    desk = make_sqlite_desk(policy={"max_bytes": 1_000})
    rows = activities(3)
    rows[1]["body"] = "x" * 2_000
    report = desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, rows))
    assert (report.imported, report.refused) == (2, 1)
    assert desk.errors() == [(3, None, "refused", "size")]


@pytest.mark.fault("I2")
@pytest.mark.parametrize("limit_counts", ["file", "request"])
def test_ten_megabytes_are_never_reached_whatever_is_counted(
    make_sqlite_desk: MakeDesk, limit_counts: str
) -> None:
    """Rows of many sizes, in letters of 1 to 4 bytes, against the smaller reading of 10 MB."""
    desk = make_sqlite_desk(limit="decimal", limit_counts=limit_counts)
    sizes: list[int] = []
    desk.sandbox.before(None, lambda call: sizes.append(len(call.body)), path="/import", times=10)
    letters = "aé東🙂"
    rows = [{**row, "notes": letters[n % 4] * 24_000} for n, row in enumerate(contacts(250))]
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, rows))
    assert report.imported == 250
    assert report.uploads == len(sizes) > 1
    assert max(sizes) < 10_000_000
    assert max(sizes) > 9_800_000


@pytest.mark.fault("R5", "H25")
def test_a_smaller_limit_than_documented_is_learnt_and_each_row_arrives_once(make_desk: MakeDesk) -> None:
    desk = make_desk(limit_bytes=3_000, policy={"max_bytes": 20_000})
    rows = [{**row, "description": "x" * 400} for row in companies(60)]
    report = desk.run(Entity.COMPANIES, desk.write(Entity.COMPANIES, rows))
    assert report.imported == 60
    assert set(desk.values(Entity.COMPANIES, "name").values()) == {1}
    refused = desk.sandbox.log.matching(path="/import", status=413)
    # The first upload teaches the limit; those after it are divided without asking.
    assert len(refused) == 3
    assert {state for _, state, _, _ in desk.chunks()} == {"done", "split"}


@pytest.mark.fault("R5", "H25")
def test_a_row_that_is_too_large_for_the_server_alone_is_refused(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(limit_bytes=2_000)
    rows = companies(5)
    rows[3]["description"] = "x" * 3_000
    report = desk.run(Entity.COMPANIES, desk.write(Entity.COMPANIES, rows))
    assert (report.imported, report.refused) == (4, 1)
    assert [(row, fault) for row, _, _, fault in desk.errors()] == [(5, "size")]
