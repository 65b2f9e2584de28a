"""No accepted expression can break a consumer, and every accepted one means what the remote means."""

from __future__ import annotations

import contextlib
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from dagster._utils.schedules import is_valid_cron_schedule, schedule_execution_time_iterator
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rally_pipeline.signalsmith.cron import CronError, check_zone, read_cron
from rally_pipeline.signalsmith.schedules import deadline

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/St_Johns",
]


@pytest.mark.parametrize(
    ("original", "written"),
    [
        ("0 * * * *", ["0 * * * *"]),
        ("*/15 * * * *", ["*/15 * * * *"]),
        ("  5   4 * * *\t", ["5 4 * * *"]),
        ("00 03 * * *", ["0 3 * * *"]),
        ("0 9 * JAN-mar MON,Fri", ["0 9 * 1-3 1,5"]),
        ("0 0 * * 7", ["0 0 * * 0"]),
        ("0 0 * * 5-7", ["0 0 * * 0,5-6"]),
        ("0 0 * * 0-7", ["0 0 * * *"]),
        ("0 0 * * sat-mon", ["0 0 * * 0-1,6"]),
        ("0 22-2 * * *", ["0 0-2,22-23 * * *"]),
        ("0 0 ? * 1", ["0 0 * * 1"]),
        ("@daily", ["0 0 * * *"]),
        ("@Weekly", ["0 0 * * 0"]),
        ("*/90 * * * *", ["0 * * * *"]),
        ("5/20 * * * *", ["5,25,45 * * * *"]),
        ("0 0 1-1 * *", ["0 0 1 * *"]),
        ("0 2 L * *", ["0 2 L * *"]),
        ("0 2 15,L * *", ["0 2 15,L * *"]),
        ("0 0 * * 5#2", ["0 0 * * 5#2"]),
        ("0 0 * * L5", ["0 0 * * L5"]),
        ("0 0 31 2 1", ["0 0 * 2 1"]),
        ("0 0 29,30 2 *", ["0 0 29 2 *"]),
        ("0 7 29 * *", ["0 7 29 1,3-12 *", "0 7 29 2 *"]),
    ],
)
def test_an_expression_is_written_in_plain_numbers(original: str, written: list[str]) -> None:
    assert list(read_cron(original).expressions) == written
    assert read_cron(original).original == original


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "0 0 31 4 *", "0 0 31 4,6 *", "0 0 31 2,4 *", "0 0 30,31 2 *", "R * * * *", "* R * * *", "H * * * *",
        "0 0 12 * * *", "0 0 12 * * * 2026", "* * * *", "@reboot", "@every 1h", "TZ=UTC 0 0 * * *",
        "CRON_TZ=Europe/Berlin 0 0 * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 32 * *", "0 0 * 13 *",
        "0 0 * * 8", "*/0 * * * *", "-1 * * * *", "0 0 15W * *", "0 0 LW * *", "0 0 L-3 * *", "0 0 * * 1#6",
        "0 0 * * 1#0", "0 0 * * 1#1,3", "0 0 15 * 5#2", "0 0 * * *#1", "0 0 , * *", "0 0 1,,2 * *", "0 0 1- * *",
        "1_0 0 * * *", "+1 0 * * *", "１ 0 * * *", "0 0 * * *\x00", "0 0 \n * *", "every day", "0 0 * 2 1#5",
        "0 0 1-31 * 1", "0 0 15 * 0-6", "0 22-2/3 * * *", "0," * 200 + "0 * * * *", "0 0 1 1 * ; drop",
    ],
)  # fmt: skip
def test_what_cannot_be_scheduled_safely_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(CronError) as caught:
        read_cron(text)
    assert 5 < len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("*/90 * * * *", "step /90 is wider than the minute field"),
        ("*/60 * * * *", "step /60 is wider than the minute field"),
        ("0 0 15 * 1", "fires on either"),
        ("*/5 * * * *", "5 min apart"),
        ("0 9 * * MON", "outside the documented dialect"),
        ("0 9 * * 7", "0 is Sunday"),
        ("0 0 L * *", "'L'"),
        ("@hourly", "macro"),
        ("0 0 * * sat-mon", "wraps around"),
    ],
)
def test_what_the_remote_may_read_differently_is_a_warning(text: str, warning: str) -> None:
    assert any(warning in found for found in read_cron(text).warnings)


def test_the_documented_dialect_gives_no_warning() -> None:
    for text in ("0 * * * *", "15,45 */4 1-15 1-6 *", "0 6 * * 1-5"):
        assert read_cron(text).warnings == ()


def part(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high).map(str)
    ranges = st.tuples(st.integers(low, high), st.integers(low, high)).filter(lambda pair: pair[0] != pair[1])
    return st.one_of(
        st.just("*"),
        value,
        value,
        ranges.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.tuples(ranges, st.integers(1, 7)).map(lambda both: f"{both[0][0]}-{both[0][1]}/{both[1]}"),
    )


def cron_field(low: int, high: int, *words: str) -> st.SearchStrategy[str]:
    lists = st.lists(part(low, high), min_size=1, max_size=3).map(",".join)
    return st.one_of(lists, st.sampled_from(words)) if words else lists


EXPRESSIONS = st.builds(
    lambda *fields: " ".join(fields),
    cron_field(0, 59),
    cron_field(0, 23),
    cron_field(1, 31, "*", "?", "L", "15,L", "29", "31", "30,31"),
    cron_field(1, 12, "*", "2", "feb", "apr", "2,4", "jan-mar"),
    cron_field(0, 7, "*", "?", "5#2", "L5", "mon#1,tue#3", "1#5", "sat,sun"),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EXPRESSIONS, st.integers(1_700_000_000, 2_200_000_000), st.sampled_from(ZONES))
@example("0 7 29 * *", 1_835_000_000, "UTC")  # March 2028: Dagster raises for this expression as it stands
@example("53,56,59 7 29 * *", 1_709_806_536, "Europe/Berlin")
@example("0 0 29-31 * *", 1_835_500_000, "UTC")
@example("0 0 31 * 1", 1_835_500_000, "UTC")
def test_dagster_can_always_compute_the_next_ticks(text: str, start: int, zone: str) -> None:
    try:
        cron = read_cron(text)
    except CronError:
        return
    expressions = list(cron.expressions)
    assert is_valid_cron_schedule(expressions)
    for chosen in ("UTC", zone):
        ticks = list(itertools.islice(schedule_execution_time_iterator(start, expressions, chosen), 5))
        assert ticks == sorted(set(ticks))
    ticks = list(itertools.islice(schedule_execution_time_iterator(start, expressions, "UTC"), 5))
    gaps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    assert cron.cadence.shortest <= min(gaps)
    assert max(gaps) <= cron.cadence.longest


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EXPRESSIONS, st.integers(1_700_000_000, 1_800_000_000))
def test_it_fires_when_the_expression_as_given_fires(text: str, start: int) -> None:
    """Dagster's own reader is the yardstick wherever it reads the original at all."""
    try:
        written = list(read_cron(text).expressions)
        if not is_valid_cron_schedule(text):
            return
        given_ticks = list(itertools.islice(schedule_execution_time_iterator(start, text, "UTC"), 6))
    except (CronError, Exception):  # noqa: BLE001 - it may break on the original; that is why there is a rewriting
        return
    if any(len(part.split("-")) == 2 and part.split("-")[0] == part.split("-")[1] for part in text.split()):
        return
    assert given_ticks == list(itertools.islice(schedule_execution_time_iterator(start, written, "UTC"), 6))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(CronError):
        assert read_cron(text).expressions


def test_a_leap_day_of_every_month_keeps_firing_through_march_of_a_leap_year() -> None:
    """`0 7 29 * *` alone raises in Dagster from 1 to 28 March 2028, which empties the list of all schedules."""
    start = datetime(2028, 3, 5, tzinfo=UTC).timestamp()
    with pytest.raises(Exception, match="Invariant"):
        next(schedule_execution_time_iterator(start, "0 7 29 * *", "UTC"))
    ticks = schedule_execution_time_iterator(start, list(read_cron("0 7 29 * *").expressions), "UTC")
    assert next(ticks) == datetime(2028, 3, 29, 7, tzinfo=UTC)


def test_a_hostile_expression_is_refused_quickly() -> None:
    import time

    begun = time.process_time()
    for text in ("*/1," * 50 + "* * * * *", "0-" * 500, "9" * 10_000, "," * 10_000, "#" * 199, "l" * 199):
        with pytest.raises(CronError):
            read_cron(text)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_an_iana_zone_is_accepted(zone: str) -> None:
    assert check_zone(zone) == zone


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "UTC+2",
        "Mars/Phobos",
        "localtime",
        "posixrules",
        "../../etc/passwd",
        "/etc/passwd",
        "Europe/",
        "a" * 500,
        "Ü",
    ],
)
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(CronError, match="is not a time zone"):
        check_zone(zone)


@pytest.mark.parametrize(
    ("text", "regular"),
    [
        ("0 * * * *", True), ("*/15 * * * *", True), ("0 3 * * *", True), ("0 3 * * 1", True), ("0 3 1 * *", True),
        ("0 9 * * 1-5", False), ("0 9,17 * * *", False), ("0 0 29 2 *", True), ("*/25 * * * *", False),
    ],
)  # fmt: skip
def test_only_a_regular_rhythm_has_a_deadline(text: str, regular: bool) -> None:
    assert (deadline(read_cron(text).cadence) is not None) is regular


def test_a_deadline_leaves_room_for_the_run_and_for_a_change_of_the_clocks() -> None:
    daily = deadline(read_cron("0 3 * * *").cadence)
    assert daily is not None
    assert timedelta(hours=25) < daily.warn < daily.fail == timedelta(hours=30)
    quarterly = deadline(read_cron("*/15 * * * *").cadence)
    assert quarterly is not None
    assert (quarterly.warn, quarterly.fail) == (timedelta(minutes=27), timedelta(minutes=45))
