"""Unclear answers: whatever Rally applied before the answer was lost, each row is there once."""

from __future__ import annotations

import pytest

from rally_pipeline.rally.entities import Entity
from tests.rally.files.conftest import MakeDesk
from tests.rally.files.desk import NAMES, ROWS, activities, companies, contacts, deals

CHUNKS = 3
ROWS_IN_CHUNK = 7


@pytest.mark.fault("I1", "T13")
@pytest.mark.parametrize("lost", ["before", "half", "after"])
@pytest.mark.parametrize("entity", list(Entity))
def test_each_row_arrives_once_when_the_answer_of_any_upload_is_lost(
    make_desk: MakeDesk, entity: Entity, lost: str
) -> None:
    desk = make_desk(policy={"max_rows": ROWS_IN_CHUNK})
    column, field = NAMES[entity]
    count = CHUNKS * ROWS_IN_CHUNK
    sent: dict[str, int] = {}
    for upload in range(1, CHUNKS + 1):
        desk.files.switch(lost=lost, lost_uploads=[upload])
        rows = ROWS[entity](count, start=1 + upload * count)
        sent |= {row[column]: 1 for row in rows}
        report = desk.run(entity, desk.write(entity, rows, name=f"{upload}.csv"))
        assert desk.values(entity, field) == sent, upload
        assert (report.imported, report.rows, report.succeeded) == (count, count, True)
        # Nothing is sent again that arrived: the rest of one upload is the only further one.
        assert report.uploads == CHUNKS + (lost != "after")


@pytest.mark.parametrize("lost", ["before", "half", "after"])
@pytest.mark.parametrize("entity", list(Entity))
def test_answers_lost_at_every_upload_and_every_repetition_end_with_each_row_once(
    make_sqlite_desk: MakeDesk, entity: Entity, lost: str
) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 8, "most_rounds": 6}, lost=lost)
    path = desk.write(entity, ROWS[entity](16))
    if lost == "before":
        # Nothing ever arrives; after some rounds a person must look, and no row is claimed to be there.
        report = desk.run(entity, path)
        assert (report.unknown, desk.records(entity)) == (16, [])
        assert report.rejects is not None
        return
    report = desk.run(entity, path)
    column, field = NAMES[entity]
    assert desk.values(entity, field) == {row[column]: 1 for row in ROWS[entity](16)}
    assert report.imported == 16


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_a_server_error_after_applying_is_read_back_and_not_sent_again(
    make_sqlite_desk: MakeDesk, status: int
) -> None:
    desk = make_sqlite_desk(lost="after", lost_status=status)
    report = desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, activities(5)))
    assert (report.imported, report.uploads, desk.uploads()) == (5, 1, 1)
    assert len(desk.records(Entity.ACTIVITIES)) == 5


def test_rows_that_rally_still_works_through_are_waited_for(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(lost="half", lost_uploads=[1], late_seconds=45)
    report = desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, activities(10)))
    assert (report.imported, report.uploads) == (10, 1)
    assert set(desk.values(Entity.ACTIVITIES, "subject").values()) == {1}


@pytest.mark.fault("I6")
@pytest.mark.parametrize("lost", ["before", "half", "after"])
def test_equal_activities_wanted_twice_are_there_twice_after_a_lost_answer(
    make_sqlite_desk: MakeDesk, lost: str
) -> None:
    desk = make_sqlite_desk(policy={"max_rows": 3}, lost=lost, lost_uploads=[2])
    rows = activities(1) * 2 + activities(4, start=2) + activities(1)
    report = desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, rows))
    found = desk.values(Entity.ACTIVITIES, "subject")
    assert found == {"Call 1": 3, "Call 2": 1, "Call 3": 1, "Call 4": 1, "Call 5": 1}
    assert report.imported == 7


def test_equal_activities_of_an_import_just_before_are_not_taken_for_those_of_a_lost_answer(
    make_sqlite_desk: MakeDesk,
) -> None:
    desk = make_sqlite_desk()
    desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, activities(3), name="first.csv"))
    desk.files.switch(lost="half", lost_uploads=[1])
    again = [*activities(3), *activities(1, start=9)]
    report = desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, again, name="second.csv"))
    assert report.imported == 4
    assert desk.values(Entity.ACTIVITIES, "subject") == {"Call 1": 2, "Call 2": 2, "Call 3": 2, "Call 9": 1}


def test_contacts_that_exist_already_are_duplicates_although_the_answer_was_lost(
    make_sqlite_desk: MakeDesk,
) -> None:
    desk = make_sqlite_desk(lost="after", lost_uploads=[1])
    desk.sandbox.rally.create(
        "contacts", {"firstName": "Old", "lastName": "Friend", "email": "Person.2@import.example"}
    )
    desk.pass_time(3_600)
    report = desk.run(Entity.CONTACTS, desk.write(Entity.CONTACTS, contacts(4)))
    assert (report.imported, report.duplicate) == (3, 1)
    assert [error[0] for error in desk.errors()] == [3]


def test_a_deal_is_found_although_another_pipeline_has_one_of_its_name(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(lost="half", lost_uploads=[1])
    twin = {**deals(1)[0], "pipeline_name": "Renewals", "stage_name": "Upcoming"}
    report = desk.run(Entity.DEALS, desk.write(Entity.DEALS, [*deals(3), twin]))
    assert report.imported == 4
    assert desk.values(Entity.DEALS, "name") == {"Deal 1": 2, "Deal 2": 1, "Deal 3": 1}
    assert desk.values(Entity.DEALS, "stageName") == {"Proposal": 3, "Upcoming": 1}


def test_a_record_that_rally_altered_makes_the_row_unknown_and_is_not_doubled(
    make_sqlite_desk: MakeDesk,
) -> None:
    desk = make_sqlite_desk(lost="after", lost_uploads=[1])

    def alter() -> None:
        for record in desk.records(Entity.ACTIVITIES):
            if record["subject"] == "Call 2":
                desk.sandbox.rally.change_silently(
                    "activities", record["id"], {"body": "added", "priority": "high"}
                )

    rows = activities(3)
    rows[1]["priority"] = "low"
    desk.sandbox.before(1, alter, path="/activities", method="GET")
    report = desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, rows))
    assert (report.imported, report.unknown) == (2, 1)
    assert len(desk.records(Entity.ACTIVITIES)) == 3
    assert desk.errors() == [(3, None, "unknown", "undecided")]


@pytest.mark.fault("I5")
@pytest.mark.parametrize("wrong", ["total", "imported"])
def test_counts_that_do_not_add_up_are_read_back(make_sqlite_desk: MakeDesk, wrong: str) -> None:
    desk = make_sqlite_desk(wrong_counts=wrong)
    report = desk.run(Entity.COMPANIES, desk.write(Entity.COMPANIES, companies(6)))
    assert (report.imported, report.uploads) == (6, 1)
    assert "do not add up" in str(desk.chunk_message(1))


def test_a_read_back_finds_rows_on_a_list_in_random_order(make_sqlite_desk: MakeDesk) -> None:
    desk = make_sqlite_desk(
        records={"activities": 50},
        mirrored=False,
        rally={"list_order": "random", "max_limit": 20},
        lost="half",
        lost_uploads=[1],
    )
    report = desk.run(Entity.ACTIVITIES, desk.write(Entity.ACTIVITIES, activities(60)))
    assert report.imported == 60
    assert sum(desk.values(Entity.ACTIVITIES, "subject").values()) == 110
