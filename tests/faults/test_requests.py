"""A fault at each request of a cycle in turn: what a repetition can heal is healed within the run, nothing else is
used, and the next run ends equal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rally_pipeline.http.errors import (
    ApiError,
    BadAnswer,
    Forbidden,
    NoAnswer,
    NotFound,
    NotTheApi,
    Redirected,
    Throttled,
    Unauthorized,
)
from tests.faults.cycles import (
    SMALL,
    case,
    fault_after,
    play_at_every_third_request,
    play_from_request_to_request,
)
from tests.rally.conftest import MakeWorld

HEALED = [
    case("T4", "reset_before_headers"),
    case("T5", "cut_body"),
    case("T5", "reset_in_body"),
    case("T6", "cut_chunked"),
    case("T9", "stall"),
    case("T10", "drip_body"),
    case("T11", "drip_headers"),
    case("T12", "close_before_headers"),
    case("T13", "lost_answer"),
    case("H8", "status_500"),
    case("H8", "status_502"),
    case("H8", "status_503"),
    case("H8", "status_504"),
    case("H9", "html_503"),
    case("H14", "wrong_type"),
    case("H14", "no_type"),
    case("H15", "byte_order_mark"),
    case("H28", "gzip_body"),
    case("T7", "cut_close_delimited"),
    case("H11", "html_200"),
    case("H12", "error_200"),
    case("H13", "empty_200"),
    case("H15", "utf_16"),
    case("H15", "latin_1"),
    case("H16", "status_204"),
    case("H17", "odd_success"),
    case("H28", "wrong_gzip"),
    case("H28", "cut_gzip"),
    case("B1", "cut_json"),
    case("B6", "wrong_shape"),
]


@pytest.mark.parametrize("fault", HEALED)
def test_a_fault_that_a_repetition_heals_costs_no_run(make_sqlite_world: MakeWorld, fault: str) -> None:
    world = make_sqlite_world(**SMALL)
    limits = world.http._limits
    played = play_at_every_third_request(
        world, fault, **({"seconds": limits.read_seconds + 1} if fault == "stall" else {})
    )
    assert played.failures == []
    # A drip ends at the total time of an answer, silence at the read timeout; then a pause and the repetition.
    patience = {
        "stall": limits.read_seconds,
        "drip_body": limits.total_seconds,
        "drip_headers": limits.total_seconds,
    }
    assert played.waited <= played.requests * (patience.get(fault, 0) + 2)


REFUSED = [
    case("T7", "cut_close_delimited", BadAnswer),
    case("H11", "html_200", BadAnswer),
    case("H12", "error_200", BadAnswer),
    case("H13", "empty_200", BadAnswer),
    case("H15", "utf_16", BadAnswer),
    case("H15", "latin_1", BadAnswer),
    case("H16", "status_204", BadAnswer),
    case("H17", "odd_success", BadAnswer),
    case("H18", "redirect", Redirected),
    case("H28", "wrong_gzip", BadAnswer),
    case("H28", "cut_gzip", BadAnswer),
    case("B1", "cut_json", BadAnswer),
    case("B6", "wrong_shape", BadAnswer),
]


@pytest.mark.parametrize(("fault", "kind"), REFUSED)
def test_an_answer_that_cannot_be_the_right_one_is_not_used(
    make_sqlite_world: MakeWorld, fault: str, kind: type[ApiError]
) -> None:
    world = make_sqlite_world(**SMALL)
    # As often as a request is repeated.
    times = world.http._policy.max_attempts
    played = play_from_request_to_request(world, fault_after(world, fault, times=times), stride=3)
    # A web page before any other answer means the wrong address.
    assert {type(failure) for failure in played.failures} - {NotTheApi} == {kind}
    # A single look that fails is put off; every other request of the cycle fails its part.
    assert len(played.failures) >= 2
    assert max(len(str(failure)) for failure in played.failures) < 400


LASTING = [
    case("H6", "always_429", Throttled),
    case("H19", "unauthorized", Unauthorized),
    case("H20", "forbidden", Forbidden),
    case("H22", "hidden", NotFound),
]


@pytest.mark.parametrize(("fault", "kind"), LASTING)
def test_a_refusal_that_lasts_from_any_request_on_moves_nothing_and_is_named(
    make_world: MakeWorld, fault: str, kind: type[ApiError]
) -> None:
    world = make_world(**SMALL)
    cursors: list[object] = []
    begin = fault_after(world, fault, times=None)

    def watched(after: int) -> Callable[[], bool]:
        before = world.mirror.status().synced_through
        end = begin(after)

        def stop() -> bool:
            met = end()
            if met and after == 0:
                cursors.extend((before, world.mirror.status().synced_through))
            return met

        return stop

    played = play_from_request_to_request(world, watched, stride=3)
    assert {type(failure) for failure in played.failures} == {kind}
    assert cursors[0] == cursors[1]


@pytest.mark.fault("T1")
def test_a_port_that_is_closed_from_any_request_on_fails_the_run_and_moves_nothing(
    make_world: MakeWorld,
) -> None:
    world = make_world(**SMALL)

    def begin(after: int) -> Callable[[], bool]:
        sent = len(world.sandbox.log) + after
        normal = world.http._transport.send

        def send(request: object, limits: object) -> object:
            world.http._transport.refusing = len(world.sandbox.log) >= sent  # type: ignore[attr-defined]
            return normal(request, limits)  # type: ignore[arg-type]

        world.http._transport.send = send  # type: ignore[method-assign, assignment]

        def end() -> bool:
            met: bool = world.http._transport.refusing  # type: ignore[attr-defined]
            world.http._transport.refusing = False  # type: ignore[attr-defined]
            world.http._transport.send = normal  # type: ignore[method-assign]
            return met

        return end

    played = play_from_request_to_request(world, begin, stride=3)
    assert {type(failure) for failure in played.failures} == {NoAnswer}
    assert all(
        "connection refused" in str(failure) or "not sent" in str(failure) for failure in played.failures
    )
    assert not any(failure.sent for failure in played.failures if isinstance(failure, NoAnswer))
    # Three parts of a cycle, four attempts each, with their pauses: bounded.
    assert played.waited < 60
