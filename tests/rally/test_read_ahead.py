"""Pages in batches, read by a thread or not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import chain

import pytest

from rally_pipeline.rally.read_ahead import in_batches, read_ahead


def numbers(count: int, *, then: Exception | None = None) -> Iterator[int]:
    yield from range(count)
    if then is not None:
        raise then


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("most", [1, 3, 100])
def test_every_page_comes_once_and_in_order(ahead: bool, most: int) -> None:
    batches = list(in_batches(numbers(50), most=most, ahead=ahead))
    assert [number for batch in batches for number in batch] == [*range(50)]
    assert all(1 <= len(batch) <= most for batch in batches)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_failure_comes_after_the_pages_before_it(ahead: bool) -> None:
    found: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        found.extend(
            chain.from_iterable(in_batches(numbers(5, then=ValueError("broken")), most=3, ahead=ahead))
        )
    assert found == [*range(5)]


def test_what_came_while_the_consumer_was_busy_is_one_batch() -> None:
    with closing(in_batches(iter(range(9)), most=20, ahead=True)) as batches:
        first = next(batches)
        for thread in threading.enumerate():
            if thread.name == "list-page":
                thread.join()
        rest = list(batches)
    assert rest == ([[*range(len(first), 9)]] if len(first) < 9 else [])


def test_no_more_than_the_bound_is_read_ahead() -> None:
    read = 0

    def pages() -> Iterator[int]:
        nonlocal read
        for number in range(1_000):
            read += 1
            yield number

    with closing(in_batches(pages(), most=3, ahead=True)) as batches:
        taken = 0
        for batch in batches:
            taken += len(batch)
            assert read <= taken + 3
            if taken > 500:
                break


def test_closing_ends_the_thread() -> None:
    with closing(in_batches(iter(range(10**9)), most=2, ahead=True)) as batches:
        next(batches)
        assert "list-page" in {thread.name for thread in threading.enumerate()}
    assert "list-page" not in {thread.name for thread in threading.enumerate()}


def test_a_failing_consumer_ends_the_thread() -> None:
    def fail(page: int) -> None:
        raise RuntimeError(page)

    def consume() -> None:
        for page in read_ahead(iter(range(10**9)), ahead=True):
            fail(page)

    with pytest.raises(RuntimeError):
        consume()
    assert "list-page" not in {thread.name for thread in threading.enumerate()}


def test_a_stalled_request_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rally_pipeline.rally.read_ahead.PATIENCE_SECONDS", 0.01)
    answered = threading.Event()

    def pages() -> Iterator[int]:
        yield 0
        answered.wait(timeout=60)
        yield 1

    with closing(in_batches(pages(), most=2, ahead=True)) as batches:
        assert next(batches) == [0]
    stalled = [thread for thread in threading.enumerate() if thread.name == "list-page"]
    assert [thread.daemon for thread in stalled] == [True]
    answered.set()
    stalled[0].join()
