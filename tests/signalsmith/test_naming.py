"""Names are legal everywhere, unique, and never change for an id."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rally_pipeline.signalsmith.naming import assign_slugs, slugify, tag_value


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Contacts to newsletter", "contacts_to_newsletter"),
        ("Überschüsse né à Łódź", "uberschusse_ne_a_odz"),
        ("  A -- b!! ", "a_b"),
        ("../../etc/passwd", "etc_passwd"),
        ("🚀", ""),
        ("注文", ""),
        ("", ""),
        ("x" * 500, "x" * 60),
    ],
)
def test_a_name_becomes_plain_letters(name: str, slug: str) -> None:
    assert slugify(name) == slug


def test_a_renamed_sync_keeps_its_slug() -> None:
    first = assign_slugs([("id-1", "Old name")], {})
    assert assign_slugs([("id-1", "New name")], first) == {"id-1": "old_name"}


def test_of_twins_the_older_one_has_the_plain_slug_and_the_other_a_piece_of_its_id() -> None:
    found = assign_slugs([("aaaa1111-x", "Twins"), ("bbbb2222-x", "Twins"), ("cccc3333-x", "twins!")], {})
    assert found == {"aaaa1111-x": "twins", "bbbb2222-x": "twins_bbbb2222", "cccc3333-x": "twins_cccc3333"}


def test_a_new_sync_cannot_take_the_slug_of_one_that_is_known() -> None:
    assert assign_slugs([("new-1", "Twins")], {"old": "twins"}) == {"new-1": "twins_new1"}


@pytest.mark.parametrize("name", ["Catalog", "runs sensor", "catalog-sensor", "x schedule"])
def test_names_of_the_package_itself_are_not_taken(name: str) -> None:
    slug = assign_slugs([("f00dcafe-1", name)], {})["f00dcafe-1"]
    assert slug == f"{slugify(name)}_f00dcafe"


def test_a_name_without_letters_gets_a_slug_from_the_id() -> None:
    assert assign_slugs([("abcdef123", "🚀🚀")], {}) == {"abcdef123": "sync_abcdef12"}
    assert assign_slugs([("🛰", "🚀")], {})["🛰"].startswith("sync_")


def test_a_damaged_known_slug_is_given_anew() -> None:
    assert assign_slugs([("id-1", "Name")], {"id-1": "../etc"}) == {"id-1": "name"}


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=20), st.text(max_size=30)), unique_by=lambda pair: pair[0]
    )
)
def test_whatever_the_names_all_slugs_are_legal_and_unique(named: list[tuple[str, str]]) -> None:
    found = assign_slugs(named, {})
    assert len(set(found.values())) == len(named)
    assert all(re.fullmatch(r"[a-z0-9_]{1,80}", slug) for slug in found.values())
    assert assign_slugs(named, found) == found


@given(st.text())
def test_any_id_fits_a_tag(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,63}", tag_value(text))
