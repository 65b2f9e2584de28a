"""The header row: found in any order and spelling, and refused with advice."""

from __future__ import annotations

import pytest

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.headers import arrange, read_template
from rally_pipeline.rally.files.problems import FileError
from rally_pipeline.rally.files.templates import TEMPLATES
from rally_pipeline.sandbox.rally.file_columns import FILE_COLUMNS

CONTACTS = TEMPLATES[Entity.CONTACTS]
COUNTS = {Entity.CONTACTS: 17, Entity.COMPANIES: 15, Entity.DEALS: 10, Entity.ACTIVITIES: 11}


@pytest.mark.parametrize("entity", list(Entity))
def test_the_templates_have_the_documented_number_of_columns_as_the_simulated_ones(entity: Entity) -> None:
    assert len(TEMPLATES[entity].headers) == COUNTS[entity]
    assert TEMPLATES[entity].headers == tuple(column.name for column in FILE_COLUMNS[entity.value])


def test_columns_are_found_in_any_order_case_and_with_blanks_or_hyphens() -> None:
    layout = arrange(
        ["E-Mail".replace("-", ""), "LAST_NAME ", " first name", "Postal-Code", "_note"], CONTACTS
    )
    found = dict(zip(CONTACTS.headers, layout.positions, strict=True))
    assert (found["email"], found["last_name"], found["first_name"], found["postal_code"]) == (0, 1, 2, 3)
    assert found["phone"] is None


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (["first_name", "last_name"], "row 1, column email: required column 'email' is missing"),
        (
            ["first_name", "last_name", "email", "e mail"],
            "'e mail' is not a column of the contacts template: is 'email'",
        ),
        (
            ["firstName", "last_name", "email"],
            "'firstName' is not a column of the contacts template: is 'first_name'",
        ),
        (["first_name", "last_name", "email", "shoe_size"], "remove it, or begin its name with _"),
        (["first_name", "last_name", "email", "Email"], "column 'email' stands twice"),
        (["first_name", "", "last_name", "email"], "a column without a name"),
        (["name", "domain", "industry"], "the columns are those of companies, not of contacts"),
        (["activity_type", "subject"], "import the file as activities"),
    ],
)
def test_headers_that_do_not_fit_are_refused_with_advice(headers: list[str], message: str) -> None:
    with pytest.raises(FileError) as caught:
        arrange(headers, CONTACTS)
    assert message in str(caught.value)


def test_every_wrong_header_is_named_at_once() -> None:
    with pytest.raises(FileError) as caught:
        arrange(["vorname", "last_name", "emale"], CONTACTS)
    assert len(caught.value.problems) == 4
    assert [problem.column for problem in caught.value.problems] == [
        "vorname",
        "emale",
        "first_name",
        "email",
    ]


def test_the_servers_template_decides_which_columns_there_are_and_in_which_order() -> None:
    template = read_template(
        "\ufeffemail,last_name,first_name,shoe_size\r\nsample,sample,sample,\r\n", Entity.CONTACTS
    )
    assert template.headers == ("email", "last_name", "first_name", "shoe_size")
    assert arrange(["shoe_size", "email", "first_name", "last_name"], template).positions == (1, 3, 2, 0)
    with pytest.raises(FileError, match="'phone' is not a column"):
        arrange(["email", "first_name", "last_name", "phone"], template)


@pytest.mark.parametrize("text", ["", "\n", "<html>", "a,b,c", 'email,"first', "email,email,first_name"])
def test_what_is_no_template_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(FileError, match="template"):
        read_template(text, Entity.CONTACTS)
