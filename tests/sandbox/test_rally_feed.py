"""The change feed of the simulated Rally and every switch that changes it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rally_pipeline.sandbox.rally.feed import ChangeFeed
from tests.sandbox.talk import Talk, small

START = "2026-03-02T08:00:00Z"
BEFORE = "2026-03-02T07:59:59Z"


def insert(talk: Talk, times: int = 1) -> list[str]:
    """Make companies and give their ids in the order in which they were made."""
    known = set(talk.rally.ids("companies"))
    made = []
    for _ in range(times):
        made.append(talk.rally.create("companies", {"name": f"Company {len(made)}"})["id"])
    assert not known & set(made)
    return made


def entity_ids(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["entityId"] for entry in entries]


# -- what an entry is -------------------------------------------------------------------------------------------


def test_each_change_makes_an_entry_in_order() -> None:
    talk = small(records=0, changed_by="email")
    (company,) = insert(talk)
    talk.sandbox.clock.advance(1)
    talk.rally.update("companies", company, {"notes": "x"})
    talk.sandbox.clock.advance(1)
    talk.rally.delete("companies", company)
    entries = talk.changes(BEFORE)
    assert [list(entry) for entry in entries] == [
        ["id", "entityType", "entityId", "action", "changedAt", "changedBy"]
    ] * 3
    assert [entry["action"] for entry in entries] == ["inserted", "updated", "deleted"]
    assert {entry["entityType"] for entry in entries} == {"company"}
    assert [entry["changedAt"] for entry in entries] == [
        f"2026-03-02T08:00:0{second}Z" for second in range(3)
    ]
    assert [entry["id"] for entry in entries] == [1, 2, 3]
    assert all(entry["changedBy"].endswith("@example.org") for entry in entries)


def test_entry_and_record_carry_the_same_time() -> None:
    talk = small()
    talk.rally.mutate(20, ["update"], over_seconds=20)
    newest = {entry["entityId"]: entry["changedAt"] for entry in talk.changes(BEFORE)}
    rows = {row["id"]: row for rows in talk.rally.truth().values() for row in rows}
    assert newest
    assert all(rows[record_id]["updatedAt"] == time for record_id, time in newest.items())


def test_population_left_its_entries() -> None:
    talk = small()
    actions = Counter(entry["action"] for entry in talk.changes())
    assert actions["inserted"] == 60
    assert actions["updated"] > 10


def test_changes_through_the_api_name_the_key() -> None:
    talk = small(records=0)
    talk.json("POST", "/companies", {"name": "N"}, status=201)
    assert [entry["changedBy"] for entry in talk.changes(BEFORE)] == ["api-key:sandbox admin"]


@pytest.mark.parametrize(
    ("rule", "author"),
    [("null", None), ("email", "ops@example.org"), ("key", "api-key:sandbox admin")],
)
def test_changes_through_the_api_name_whom_the_switch_says(rule: str, author: str | None) -> None:
    talk = small(records=0, changed_by=rule)
    talk.json("POST", "/companies", {"name": "N"}, status=201)
    assert [entry["changedBy"] for entry in talk.changes(BEFORE)] == [author]


def test_feed_scope_may_be_wider_than_read() -> None:
    talk = small(feed_scope="write")
    path = f"/sync/changes?since={START}"
    statuses = [
        talk.send("GET", path, **{"X-Api-Key": talk.rally.key(scope)}).status
        for scope in ("read", "write", "admin")
    ]
    assert statuses == [403, 200, 200]


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [("null", {"null"}), ("key", {"key"}), ("email", {"email"}), ("mixed", {"null", "key", "email"})],
)
def test_changed_by_is_of_the_kind_asked_for(rule: str, kinds: set[str]) -> None:
    talk = small(records=0, changed_by=rule)
    insert(talk, 30)
    found = {
        "null" if who is None else "email" if "@" in who else "key"
        for who in (entry["changedBy"] for entry in talk.changes(BEFORE))
    }
    assert found == kinds


# -- since, entities, limit -------------------------------------------------------------------------------------


def test_since_is_required_and_must_be_a_time() -> None:
    talk = small()
    assert talk.get("/sync/changes").status == 400
    assert talk.get("/sync/changes?since=now").status == 400
    assert talk.get("/sync/changes?since=2026-02-30T00:00:00Z").status == 400


@pytest.mark.parametrize(("reading", "count"), [("exclusive", 0), ("inclusive", 1)])
def test_feed_since_is_exclusive_or_inclusive(reading: str, count: int) -> None:
    talk = small(records=0, feed_since=reading)
    insert(talk)
    assert len(talk.changes(START)) == count


@pytest.mark.parametrize(
    ("printed", "compared", "text", "again"),
    [
        (0, 0, "07Z", 0),
        (0, 7, "07Z", 1),
        (3, 3, "07.123Z", 0),
        (3, 7, "07.123Z", 1),
        (7, 7, "07.1234560Z", 0),
    ],
)
def test_feed_digits_and_feed_compare_digits(printed: int, compared: int, text: str, again: int) -> None:
    """Output coarser than the comparison gives an entry again that was asked for with its own time."""
    talk = small(records=0, feed_digits=printed, feed_compare_digits=compared)
    talk.sandbox.clock.advance(7.123456)
    insert(talk)
    (entry,) = talk.changes(START)
    assert entry["changedAt"].endswith(text)
    assert len(talk.changes(entry["changedAt"])) == again


def test_since_may_have_an_offset() -> None:
    talk = small(records=0)
    insert(talk)
    assert len(talk.changes("2026-03-02T09:59:59%2B02:00")) == 1
    assert len(talk.changes("2026-03-02T10:00:00%2B02:00")) == 0


def test_plus_that_was_not_encoded_arrives_as_a_space() -> None:
    assert small().get("/sync/changes?since=2026-03-02T09:59:59+02:00").status == 400


@pytest.mark.parametrize(("rule", "status"), [("utc", 200), ("refuse", 400), ("misread", 200)])
def test_feed_naive_since(rule: str, status: int) -> None:
    talk = small(records=0, feed_naive_since=rule)
    insert(talk)
    answer = talk.get("/sync/changes?since=2026-03-02T08:00:01")
    assert answer.status == status
    assert (b"inserted" in answer.body) == (rule == "misread")


@pytest.mark.parametrize(("rule", "status"), [("accept", 200), ("refuse", 400), ("misread", 200)])
def test_feed_offset_since(rule: str, status: int) -> None:
    talk = small(records=0, feed_offset_since=rule)
    insert(talk)
    answer = talk.get("/sync/changes?since=2026-03-02T09:59:00%2B02:00")
    assert answer.status == status
    assert (b"inserted" in answer.body) == (rule == "accept")
    assert talk.get(f"/sync/changes?since={START}").status == 200


def test_entities_limit_the_types() -> None:
    talk = small()
    assert {entry["entityType"] for entry in talk.changes(more="&entities=companies,deals")} == {
        "company",
        "deal",
    }
    assert len(talk.changes(more="&entities=")) == len(talk.changes())


@pytest.mark.parametrize(("rule", "status"), [("refuse", 400), ("ignore", 200)])
def test_unknown_entities(rule: str, status: int) -> None:
    talk = small(unknown_entities=rule)
    assert talk.get(f"/sync/changes?since={BEFORE}&entities=contacts,quotes").status == status
    assert talk.get(f"/sync/changes?since={BEFORE}&entities=contact").status == status
    if rule == "ignore":
        assert talk.changes(more="&entities=quotes") == []
        assert {entry["entityType"] for entry in talk.changes(more="&entities=quotes,deals")} == {"deal"}


def test_feed_limit_has_a_default_and_a_cap() -> None:
    talk = small(feed_default_limit=5, feed_max_limit=8)
    assert len(talk.changes()) == 5
    assert len(talk.changes(more="&limit=7")) == 7
    assert len(talk.changes(more="&limit=1000")) == 8
    assert talk.get(f"/sync/changes?since={START}&limit=0").status == 400


def test_feed_limit_over_the_cap_can_be_refused() -> None:
    talk = small(feed_max_limit=8, feed_over_limit="refuse")
    assert talk.get(f"/sync/changes?since={START}&limit=9").status == 400


def test_documented_loop_reads_every_entry_when_there_are_no_ties() -> None:
    talk = small(records=0)
    for _ in range(25):
        insert(talk)
        talk.sandbox.clock.advance(1)
    since, ids = BEFORE, []
    while page := talk.changes(since, "&limit=4"):
        ids += [entry["id"] for entry in page]
        since = page[-1]["changedAt"]
    assert ids == list(range(1, 26))


# -- order ------------------------------------------------------------------------------------------------------


def test_tie_group_is_cut_by_the_page_end() -> None:
    talk = small(records=0)
    made = insert(talk, 10)
    assert entity_ids(talk.changes(BEFORE, "&limit=4")) == made[:4]
    assert talk.changes(START, "&limit=4") == []


def test_feed_ties_in_reverse() -> None:
    talk = small(records=0, feed_ties="reversed")
    made = insert(talk, 10)
    talk.sandbox.clock.advance(1)
    later = insert(talk, 2)
    assert entity_ids(talk.changes(BEFORE, "&limit=4")) == made[:-5:-1]
    assert entity_ids(talk.changes(BEFORE)) == [*made[::-1], *later[::-1]]


def test_feed_ties_shuffled_anew_for_each_answer() -> None:
    talk = small(records=0, feed_ties="shuffled")
    made = insert(talk, 30)
    talk.sandbox.clock.advance(1)
    later = insert(talk, 3)
    pages = {tuple(entity_ids(talk.changes(BEFORE, "&limit=5"))) for _ in range(20)}
    assert len(pages) > 10
    assert {each for page in pages for each in page} <= set(made)
    whole = entity_ids(talk.changes(BEFORE))
    assert (set(whole[:30]), set(whole[30:])) == (set(made), set(later))


def test_feed_page_order_may_be_shuffled() -> None:
    talk = small(records=0, feed_page_order="shuffled")
    for _ in range(20):
        insert(talk)
        talk.sandbox.clock.advance(1)
    times = [entry["changedAt"] for entry in talk.changes(BEFORE, "&limit=10")]
    assert times != sorted(times)
    assert max(times) == "2026-03-02T08:00:09Z"


def test_feed_duplicates_count_against_the_limit() -> None:
    talk = small(records=0, feed_duplicate_share=0.5)
    made = insert(talk, 40)
    found = entity_ids(talk.changes(BEFORE))
    assert set(found) == set(made)
    assert 50 < len(found) < 72
    assert len(talk.changes(BEFORE, "&limit=10")) == 10


# -- when an entry is visible -----------------------------------------------------------------------------------


def test_entries_may_be_late_and_then_have_a_higher_id_and_an_earlier_time() -> None:
    talk = small(records=0, late_seconds=60, late_share=0.5)
    for _ in range(40):
        insert(talk)
        talk.sandbox.clock.advance(1)
    seen = {entry["id"] for entry in talk.changes(BEFORE)}
    assert 10 < len(seen) < 40
    talk.sandbox.clock.advance(60)
    entries = talk.changes(BEFORE)
    assert len(entries) == 40
    times = [entry["changedAt"] for entry in entries]
    assert times == sorted(times)
    ids = [entry["id"] for entry in entries]
    assert sorted(ids) == list(range(1, 41))
    assert ids != sorted(ids)
    assert min(set(ids) - seen) > max(seen)


def test_feed_ids_may_follow_the_change_instead() -> None:
    talk = small(records=0, late_seconds=60, late_share=0.5, feed_ids="change")
    for _ in range(20):
        insert(talk)
        talk.sandbox.clock.advance(1)
    seen = {entry["id"] for entry in talk.changes(BEFORE)}
    talk.sandbox.clock.advance(60)
    ids = [entry["id"] for entry in talk.changes(BEFORE)]
    assert ids == list(range(1, 21))
    assert min(set(ids) - seen) < max(seen)


def test_every_entry_may_be_delayed() -> None:
    talk = small(records=0, feed_delay_seconds=20)
    insert(talk)
    talk.sandbox.clock.advance(19.9)
    assert talk.changes(BEFORE) == []
    talk.sandbox.clock.advance(0.1)
    (entry,) = talk.changes(BEFORE)
    assert entry["changedAt"] == START


def test_entries_may_lie_in_the_future() -> None:
    talk = small(records=0, ahead_seconds=3600, ahead_share=0.5)
    insert(talk, 40)
    times = [entry["changedAt"] for entry in talk.changes(BEFORE)]
    assert len(times) == 40
    assert times == sorted(times)
    assert times[0] == START
    assert "2026-03-02T08:10:00Z" < times[-1] <= "2026-03-02T09:00:00Z"


def test_clock_put_back_makes_entries_earlier_and_hides_none() -> None:
    talk = small(records=0)
    first = insert(talk)
    talk.sandbox.clock.set(talk.sandbox.clock.now().replace(hour=7, minute=55))
    second = insert(talk)
    assert entity_ids(talk.changes("2026-03-02T07:00:00Z")) == [*second, *first]


# -- ids, retention, missing and odd entries --------------------------------------------------------------------


def test_ids_may_have_gaps() -> None:
    talk = small(records=0, feed_id_gap=10)
    insert(talk, 20)
    ids = [entry["id"] for entry in talk.changes(BEFORE)]
    assert ids == sorted(set(ids))
    assert 30 < ids[-1] <= 20 * 11


def test_ids_may_start_over() -> None:
    talk = small(records=0)
    insert(talk, 5)
    talk.rally.restart_feed_ids()
    insert(talk, 3)
    assert [entry["id"] for entry in talk.changes(BEFORE)] == [1, 2, 3, 4, 5, 1, 2, 3]


def test_retention_lets_old_entries_vanish_silently() -> None:
    talk = small(records=0, retention_seconds=60)
    insert(talk, 3)
    talk.sandbox.clock.advance(61)
    late = insert(talk)
    assert entity_ids(talk.changes("2020-01-01T00:00:00Z")) == late


def test_retention_answer_may_be_an_error() -> None:
    talk = small(records=0, retention_seconds=60, retention_answer="error")
    talk.sandbox.clock.advance(100)
    assert talk.get(f"/sync/changes?since={START}").status == 400
    assert talk.get("/sync/changes?since=2026-03-02T08:00:41Z").status == 200


def test_feed_can_be_cleared() -> None:
    talk = small(late_seconds=10)
    insert(talk, 5)
    talk.rally.clear_feed()
    talk.sandbox.clock.advance(20)
    assert talk.changes() == []
    assert talk.rally.entries() == []


def test_entries_may_be_merged_for_each_record() -> None:
    talk = small(records=0, merge_entries=True)
    first, second, third = insert(talk, 3)
    talk.sandbox.clock.advance(1)
    talk.rally.update("companies", first, {"notes": "x"})
    talk.rally.delete("companies", second)
    talk.sandbox.clock.advance(1)
    talk.rally.update("companies", first, {"notes": "y"})
    talk.rally.revive("companies", second)
    found = [(entry["entityId"], entry["action"], entry["id"]) for entry in talk.changes(BEFORE)]
    assert found == [(third, "inserted", 3), (first, "inserted", 6), (second, "inserted", 7)]


def test_merged_feed_stays_right_over_many_changes() -> None:
    talk = small(merge_entries=True, late_seconds=20)
    for _ in range(10):
        talk.rally.mutate(50, over_seconds=30)
    talk.sandbox.clock.advance(30)
    entries = talk.changes()
    assert len({entry["entityId"] for entry in entries}) == len(entries)
    present = {record_id for entity in talk.rally.counts() for record_id in talk.rally.ids(entity)}
    assert {entry["entityId"] for entry in entries if entry["action"] != "deleted"} == present


def test_changes_may_get_no_entry() -> None:
    talk = small(records=0, no_entry_share=0.5)
    insert(talk, 60)
    assert 15 < len(talk.changes(BEFORE)) < 45


def test_unknown_actions_and_types_may_be_mixed_in() -> None:
    talk = small(records=0, unknown_entry_share=0.5)
    insert(talk, 60)
    entries = talk.changes(BEFORE)
    odd = [entry for entry in entries if (entry["entityType"], entry["action"]) != ("company", "inserted")]
    assert 15 < len(odd) < 45
    assert {"merged", "restored", "inserted"} >= {entry["action"] for entry in odd}


def test_any_entry_can_be_injected() -> None:
    talk = small(records=0)
    talk.rally.entry("quote", "../../x?a=b", "exploded", changed_at="2026-03-02T07:59:00Z", id=99)
    talk.rally.entry("deal", "d", visible_in=10, changed_by='"quoted"')
    assert talk.changes("2026-03-02T07:00:00Z") == [
        {
            "id": 99,
            "entityType": "quote",
            "entityId": "../../x?a=b",
            "action": "exploded",
            "changedAt": "2026-03-02T07:59:00Z",
            "changedBy": None,
        }
    ]
    talk.sandbox.clock.advance(10)
    assert talk.changes(BEFORE)[0]["changedBy"] == '"quoted"'


# -- effects on other records -----------------------------------------------------------------------------------


def linked(talk: Talk) -> tuple[str, str, str, str]:
    """A company, a contact of it, a deal of both, an activity of the deal."""
    company = talk.rally.create("companies", {"name": "Old"})["id"]
    contact = talk.rally.create(
        "contacts", {"firstName": "A", "lastName": "B", "email": "a@example.org", "companyId": company}
    )["id"]
    pipeline = talk.rows("/pipelines")[0]
    deal = talk.rally.create(
        "deals",
        {
            "name": "D",
            "pipelineId": pipeline["id"],
            "stageId": pipeline["stages"][0]["id"],
            "companyId": company,
            "contactId": contact,
        },
    )["id"]
    activity = talk.rally.create("activities", {"activityType": "call", "subject": "S", "dealId": deal})["id"]
    talk.sandbox.clock.advance(10)
    return company, contact, deal, activity


SINCE_LINKED = "2026-03-02T08:00:05Z"
EFFECTS = ["off", "silent", "touch", "entry"]


def seen_effect(talk: Talk, entity: str, record_id: str, changed: bool) -> str:
    """What the effect on a record looks like from outside."""
    row = talk.rally.record(entity, record_id)
    assert row is not None
    entries = [entry for entry in talk.changes(SINCE_LINKED) if entry["entityId"] == record_id]
    if entries:
        return "entry"
    if row["updatedAt"] > SINCE_LINKED:
        return "touch"
    return "silent" if changed else "off"


@pytest.mark.parametrize("effect", EFFECTS)
def test_cascade_clears_links_to_what_was_deleted(effect: str) -> None:
    talk = small(records=0, cascade=effect)
    company, contact, deal, activity = linked(talk)
    talk.rally.delete("companies", company)
    for entity, record_id in (("contacts", contact), ("deals", deal)):
        row = talk.rally.record(entity, record_id)
        assert row is not None
        assert seen_effect(talk, entity, record_id, row["companyId"] is None) == effect
    row = talk.rally.record("deals", deal)
    assert row is not None
    assert row["companyName"] == ("Old" if effect == "off" else None)
    talk.rally.delete("deals", deal)
    row = talk.rally.record("activities", activity)
    assert row is not None
    assert (row["dealId"] is None) == (effect != "off")


@pytest.mark.parametrize("effect", EFFECTS)
def test_rename_copies_the_name_into_deals(effect: str) -> None:
    talk = small(records=0, rename_copies=effect)
    company, contact, deal, _ = linked(talk)
    talk.rally.update("companies", company, {"notes": "no rename"})
    assert seen_effect(talk, "deals", deal, False) == "off"
    talk.rally.update("companies", company, {"name": "New"})
    row = talk.rally.record("deals", deal)
    assert row is not None
    assert row["companyName"] == ("Old" if effect == "off" else "New")
    assert seen_effect(talk, "deals", deal, row["companyName"] == "New") == effect
    talk.rally.update("contacts", contact, {"lastName": "C"})
    row = talk.rally.record("deals", deal)
    assert row is not None
    assert row["contactName"] == ("A B" if effect == "off" else "A C")


@pytest.mark.parametrize("effect", EFFECTS)
def test_last_activity_of_a_deal(effect: str) -> None:
    talk = small(records=0, last_activity=effect)
    *_, deal, _ = linked(talk)
    talk.rally.create("activities", {"activityType": "note", "subject": "S", "dealId": deal})
    row = talk.rally.record("deals", deal)
    assert row is not None
    changed = row["lastActivityAt"] == "2026-03-02T08:00:10Z"
    assert seen_effect(talk, "deals", deal, changed) == effect


@pytest.mark.parametrize("effect", EFFECTS)
def test_bant_effect_on_its_deal(effect: str) -> None:
    talk = small(records=0, bant_effect=effect)
    *_, deal, _ = linked(talk)
    talk.json("PUT", f"/deals/{deal}/bant", {"budget": 80, "need": 41})
    assert talk.json("GET", f"/deals/{deal}/bant")["score"] == 60
    assert seen_effect(talk, "deals", deal, False) == ("off" if effect == "silent" else effect)
    talk.sandbox.clock.advance(10)
    talk.json("PUT", f"/deals/{deal}/bant", {"budget": 80, "need": 41})
    assert talk.changes("2026-03-02T08:00:15Z") == []


def test_updated_at_may_stay_frozen() -> None:
    talk = small(records=0, frozen_updated_at_share=1.0)
    company, *_ = linked(talk)
    talk.rally.update("companies", company, {"notes": "x"})
    row = talk.rally.record("companies", company)
    assert row is not None
    assert (row["notes"], row["updatedAt"]) == ("x", START)
    assert len(talk.changes(SINCE_LINKED)) == 1


def test_record_may_change_without_any_sign() -> None:
    talk = small(records=0)
    company, *_ = linked(talk)
    talk.rally.change_silently("companies", company, {"notes": "x"})
    row = talk.rally.record("companies", company)
    assert row is not None
    assert (row["notes"], row["updatedAt"]) == ("x", START)
    assert talk.changes(SINCE_LINKED) == []


# -- size -------------------------------------------------------------------------------------------------------


def test_page_of_a_long_feed_touches_only_its_own_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = small(records=2000)
    made: list[int] = []
    original = ChangeFeed._entry

    def counting(feed: ChangeFeed, at: int) -> Any:
        made.append(at)
        return original(feed, at)

    monkeypatch.setattr(ChangeFeed, "_entry", counting)
    talk.changes("2026-01-01T00:00:00Z", "&limit=10")
    assert len(made) == 10
