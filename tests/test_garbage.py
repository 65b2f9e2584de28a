from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from rally_pipeline.garbage import RARELY, searched_rarely


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_the_search_is_rare_inside_and_as_before_afterwards() -> None:
    @searched_rarely()
    def fail() -> None:
        assert gc.get_threshold() == (RARELY, 10, 10)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert gc.get_threshold() == (700, 10, 10)


def test_the_last_to_leave_restores() -> None:
    first, second = searched_rarely(), searched_rarely()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() == (RARELY, 10, 10)
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("usual", [(0, 10, 10), (RARELY * 2, 5, 5)])
def test_a_search_that_is_off_or_rarer_stays_so(usual: tuple[int, int, int]) -> None:
    gc.set_threshold(*usual)
    with searched_rarely():
        assert gc.get_threshold() == usual
