"""Calls and answers as values."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from rally_pipeline.sandbox import Answer, Call, MalformedBodyError

AT = datetime(2026, 1, 1, tzinfo=UTC)


def call(target: str = "/x", body: bytes = b"") -> Call:
    return Call.of("GET", target, AT, {"X-Api-Key": "k"}, body)


def test_query_is_decoded_and_a_bare_plus_is_a_space() -> None:
    parsed = call("/a/b?since=2026-01-01T00:00:00+00:00&x=%2B&x=2&empty=")
    assert parsed.path == "/a/b"
    assert parsed.first("since") == "2026-01-01T00:00:00 00:00"
    assert parsed.query["x"] == ["+", "2"]
    assert parsed.first("empty") == ""
    assert parsed.first("absent") is None
    assert parsed.query_pairs() == [
        ("since", "2026-01-01T00:00:00 00:00"),
        ("x", "+"),
        ("x", "2"),
        ("empty", ""),
    ]


def test_segments_are_decoded_one_by_one() -> None:
    assert call("/rally/api/v1/contacts/a%2Fb//%3Fc").segments("/rally/api/v1") == ["contacts", "a/b", "?c"]


def test_header_names_are_lower_case() -> None:
    assert call().headers == {"x-api-key": "k"}


def test_body_keeps_decimals_exact() -> None:
    assert call(body=b'{"value": 12400000.50}').json() == {"value": Decimal("12400000.50")}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"NaN", b"[1, Infinity]", b"\xff", b"[" * 100_000, b"9" * 5000], ids=repr
)
def test_malformed_body_is_one_kind_of_error(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        call(body=body).json()


def test_answers_carry_their_type() -> None:
    assert Answer.json({"a": Decimal("1.50")}).body == b'{"a":1.50}'
    assert Answer.json([]).headers["Content-Type"].startswith("application/json")
    assert Answer.text("é").body == "é".encode()
    assert Answer.empty().status == 204
    assert Answer.raw_json(b"[1]").decoded() == [1]
