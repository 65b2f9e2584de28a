"""Rows and objects out of answers; everything else is an error, never an empty page."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rally_pipeline.http.envelope import decode, duplicate_key, read_rows
from rally_pipeline.http.errors import BadAnswer
from rally_pipeline.http.transport import Caller, Response

ROWS = [{"id": "1", "name": 'Zoë, {]} "x": ', "tags": ["a", "b"], "deal": {"id": 2}}, {"id": "2", "n": 1.50}]
PAGE = json.dumps(ROWS, ensure_ascii=False).encode()


def rows_of(body: bytes, status: int = 200) -> list[Any]:
    return [msgspec.json.decode(row) for row in read_rows(Response(status, {}, body))]


@pytest.mark.fault("B7", "H15")
@pytest.mark.parametrize(
    "body",
    [
        PAGE,
        b"\xef\xbb\xbf" + PAGE,
        b" \r\n\t" + PAGE + b"\n",
        b'{"data": ' + PAGE + b', "total": 2}',
        b'{"items":' + PAGE + b',"meta":{"type":"collection"}}',
        b'{"count": 2, "results" : ' + PAGE + b" }",
        b'{"data": null, "items": ' + PAGE + b"}",
        b'{"error": null, "data": ' + PAGE + b"}",
        b'{"pagination": {"a\\":": 1, "data": [9]}, "data": ' + PAGE + b"}",
    ],
)
def test_rows_are_found_in_every_known_envelope(body: bytes) -> None:
    assert rows_of(body) == ROWS


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b'{"data": []}', b'{"items":[ ],"total":0}'])
def test_an_honest_empty_page_is_empty(body: bytes) -> None:
    assert rows_of(body) == []


@pytest.mark.fault("H11", "H12", "H13", "H15", "B2", "B5", "B6")
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no content where JSON was expected"),
        (b" \n", "no content"),
        (b"\xef\xbb\xbf", "no content"),
        (b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>", "HTML or XML instead"),
        (b"<?xml version='1.0'?><rows/>", "HTML or XML instead"),
        (b"Service temporarily unavailable", "something else instead"),
        (b"null", "something else instead"),
        (b"0", "something else instead"),
        (b'"[]"', "something else instead"),
        (b"NaN", "something else instead"),
        (b'{"error": "no"}', "without rows"),
        (b'{"error": {"code": 1}, "data": []}', "without rows"),
        (b'{"message": "no"}', "without rows"),
        (b"{}", "without rows"),
        (b'{"data": {"id": 1}}', "without rows"),
        (b'{"rows": []}', "without rows"),
        (b'{"data": [], "data": [{"id": 1}]}', "a key occurs twice"),
        (b'{"data" : [], "data" : [{"id": 1}]}', "a key occurs twice"),
        (b'{"data": [{"id": 1}], "data": [{"id": 1}]}', "a key occurs twice"),
        (b'{"data" :[{"id":1}],"data" :[]}', "a key occurs twice"),
        (b'{"name":"name","name":"name","data":[]}', "a key occurs twice"),
        (b'{"[{\\"id\\":1}]":1, "data":[{"id":1}], "data":[{"id":1}]}', "a key occurs twice"),
        ("[]".encode("utf-16"), "UTF-16 or UTF-32"),
        ("[]".encode("utf-16-le"), "UTF-16 or UTF-32"),
        ("[]".encode("utf-32"), "UTF-16 or UTF-32"),
        ('[{"name": "Zoë"}]'.encode("latin-1"), "not UTF-8 (byte 13)"),
        (b'["' + "Zoë".encode() * 2_000 + b'\xff"]', "not UTF-8 (byte 8002)"),
        (b'["' + "ë".encode() * 2_000 + b"\xc3", "not UTF-8 (byte 4002)"),
        (b"[] []", "something follows"),
        (b"[{}]x", "something follows"),
        (b"[{},]", "an element is missing"),
        (b"[,{}]", "an element is missing"),
        (b'[{"a": 1}}', "brackets do not match"),
        (b"[error, please retry]", "malformed JSON"),
        (b"[" * 100_000, "malformed JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "without rows"),
    ],
)
def test_anything_else_is_an_error(body: bytes, why: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        rows_of(body)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.fault("H16")
def test_204_is_no_page() -> None:
    with pytest.raises(BadAnswer, match="204: no content"):
        rows_of(b"", 204)


@pytest.mark.fault("B1")
@pytest.mark.parametrize("wrap", [b"%b", b'{"data": %b, "total": 2}', b'{"total": 2, "items": %b}'])
def test_a_page_cut_at_any_byte_is_an_error(wrap: bytes) -> None:
    body = wrap % PAGE
    for end in range(len(body)):
        with pytest.raises(BadAnswer):
            rows_of(body[:end])
    assert rows_of(body) == ROWS


@pytest.mark.fault("B3", "B4", "B5")
@pytest.mark.parametrize(
    "bad",
    [
        b'{"id": "2", "name": "\\ud800"}',
        b'{"id": "2", "n": NaN}',
        b'{"id": "2", "n": 1e999}',
        b'{"id": "2", "n": ' + b"9" * 5_000 + b"}",
        b'{"id": "2", "n": Infinity}',
        b'{"id": "2", "n": 01}',
        b'{"id": "2", "x": "tab\there"}',
        b'{"id": "2", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id": "2", "x": nothing}',
        b'{"id": "2",}',
    ],
)
@pytest.mark.parametrize("wrap", [b"[%b]", b'{"data": [%b], "total": 3}'])
def test_one_bad_row_does_not_take_the_page_down(bad: bytes, wrap: bytes) -> None:
    body = wrap % b", ".join([b'{"id": "1"}', bad, b'{"id": "3", "s": "]}, {[ \\" "}'])
    rows = read_rows(Response(200, {}, body))
    assert len(rows) == 3
    assert bytes(rows[1]) == bad
    assert msgspec.json.decode(rows[0]) == {"id": "1"}
    assert msgspec.json.decode(rows[2]) == {"id": "3", "s": ']}, {[ " '}
    with pytest.raises((msgspec.MsgspecError, RecursionError, ValueError)):
        msgspec.json.decode(rows[1])


@pytest.mark.parametrize("rows", [b'["\\ud800"]', b"[1, NaN]", b'[{"id": 1}, NaN]'])
def test_rows_that_are_no_objects_are_not_guessed_at(rows: bytes) -> None:
    with pytest.raises(BadAnswer, match="malformed JSON"):
        read_rows(Response(200, {}, rows))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text(), json_values, max_size=5), max_size=6),
    ascii_only=st.booleans(),
    spaced=st.booleans(),
)
def test_every_page_reads_as_the_standard_library_reads_it(
    rows: list[Any], ascii_only: bool, spaced: bool
) -> None:
    text = json.dumps(rows, ensure_ascii=ascii_only, indent=1 if spaced else None)
    body = text.encode("utf-8", "surrogatepass")
    assert [json.loads(bytes(row)) for row in read_rows(Response(200, {}, body))] == rows


@pytest.mark.fault("B1", "T7")
@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=4),
    cut=st.floats(0, 1, exclude_max=True),
)
def test_no_cut_page_is_ever_taken_for_a_page(rows: list[Any], cut: float) -> None:
    body = json.dumps(rows).encode()
    with pytest.raises(BadAnswer):
        read_rows(Response(200, {}, body[: int(len(body) * cut)]))


class Record(msgspec.Struct):
    id: int
    name: str = ""


def test_an_object_is_decoded_into_its_type() -> None:
    assert decode(Response(200, {}, b'\xef\xbb\xbf{"id": 7, "name": "x", "new": 1}'), Record) == Record(
        7, "x"
    )
    assert decode(Response(200, {}, b'{"id": 7}'), dict[str, Any]) == {"id": 7}
    assert decode(Response(200, {}, b'[{"id": 7}]'), list[Record]) == [Record(7)]


@pytest.mark.fault("H12")
@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "No such thing"}',
        b'{"errors": [{"error": {"message": "no"}}], "meta": {"http_status": "500"}}',
        b'{"type": "about:blank", "title": "Bad", "status": 500, "traceId": "x"}',
        b'{"success": false, "message": "no"}',
        b'{"message": "Internal error"}',
    ],
)
def test_an_error_object_is_no_content(body: bytes) -> None:
    with pytest.raises(BadAnswer, match="error object"):
        decode(Response(200, {}, body), dict[str, Any])


@pytest.mark.parametrize(
    "body",
    [
        b'{"totalRows": 2, "imported": 1, "skipped": 1, "errors": ["Row 2: no email"]}',
        b'{"id": "1", "status": "failed", "error": "destination down"}',
        b'{"success": true, "message": "Sync deleted"}',
        b'{"status": "ok"}',
        b"{}",
    ],
)
def test_an_object_that_only_mentions_errors_is_content(body: bytes) -> None:
    assert decode(Response(200, {}, body), dict[str, Any]) == json.loads(body)


@pytest.mark.fault("B2", "B6")
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"id": "x"}', "does not fit: Expected `int`, got `str` - at `$.id`"),
        (b'{"name": "x"}', "missing required field `id`"),
        (b'[{"id": 1}]', "Expected `object`, got `array`"),
        (b'{"id": 1, "id": 2}', "a key occurs twice"),
        (b'{"id": 1, "deep": {"a": 1, "a": 2}}', "a key occurs twice"),
        (b'{"id": NaN}', "malformed JSON"),
        (b'{"id": 1', "malformed JSON"),
        (b'{"id": 1e999}', "does not fit"),
        (b'{"id": ' + b"9" * 5000 + b"}", "does not fit"),
        (b"<html></html>", "HTML"),
        (b"", "no content"),
        (b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "t"),
    ],
)
def test_an_object_that_does_not_fit_is_an_error(body: bytes, why: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        decode(Response(200, {}, body), Record)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"a": 1, "b": {"a": 2}}', None),
        (b'{"a": 1, "a": 1}', "a"),
        (b'[{"a": 1}, {"b": [{"c": {}, "d": 1, "c": []}]}]', "c"),
        (b'{"a" : 1, "b" : 2}', None),
        (b'{"a" : 1, "a" : 2}', "a"),
        (b'{"a" :1,"a" :"\\":"}', "a"),
        (b'{"a": "\\":", "b": "x\\":y"}', None),
        (b'{"a": "\\":", "a": 1}', "a"),
        (b'{"\\u0061":1,"a":2}', "a"),
        (b"[]", None),
    ],
)
def test_a_key_that_occurs_twice_is_found(text: bytes, key: str | None) -> None:
    assert duplicate_key(text) == key
    assert duplicate_key(msgspec.Raw(text)) == key


MEMBER_NAMES = st.sampled_from(['"data"', '"a"', '"[1]"', '"[]"', '"[{\\"a\\":1}]"', '":"', '""'])
MEMBER_VALUES = st.sampled_from(
    ["[1]", "[]", '[{"a":1}]', '"a"', '"[1]"', '"[{\\"a\\":1}]"', '{"a":[1]}', '":"', "1"]
)


@given(
    members=st.lists(st.tuples(MEMBER_NAMES, MEMBER_VALUES), max_size=5),
    colon=st.sampled_from([":", " :", ": "]),
    comma=st.sampled_from([",", " , "]),
)
def test_a_page_is_refused_just_where_a_member_stands_twice(
    members: list[tuple[str, str]], colon: str, comma: str
) -> None:
    written = [*members, ('"items"', '[{"a":1}]')]
    body = "{" + comma.join(f"{name}{colon}{value}" for name, value in written) + "}"
    names = {name for name, _ in written}
    if len(names) == len(written):
        content = json.loads(body)
        data = content.get("data")
        assert rows_of(body.encode()) == (data if isinstance(data, list) else content["items"])
    else:
        with pytest.raises(BadAnswer, match="a key occurs twice"):
            rows_of(body.encode())


@pytest.mark.security("12")
def test_the_error_names_the_call_and_masks_its_secrets() -> None:
    response = Response(200, {}, b"<html><title>hello test_secret_1</title>")
    response.caller = Caller("rally", "GET", "/contacts", ("test_secret_1",))
    with pytest.raises(BadAnswer) as caught:
        read_rows(response)
    assert str(caught.value) == (
        "rally GET /contacts: 200: HTML or XML instead of a JSON list or object: HTML: hello ***"
    )


@pytest.mark.security("17")
def test_records_are_never_quoted() -> None:
    response = Response(200, {}, b'[{"email": "ada@example.org"}')
    with pytest.raises(BadAnswer) as caught:
        read_rows(response)
    assert "ada" not in str(caught.value)


@pytest.mark.security("48")
@pytest.mark.parametrize(
    "body",
    [b'["' + b"\\" * 2_000_001, b'[{"a":"' + b'\\"' * 1_000_000, b"[" + b'"",' * 200_000, b"{" * 300_000],
)
def test_hostile_text_takes_no_hostile_time(body: bytes) -> None:
    start = time.process_time()
    with pytest.raises(BadAnswer):
        read_rows(Response(200, {}, body))
    assert time.process_time() - start < 2


@pytest.mark.security("10")
@pytest.mark.parametrize(
    "body", [b"[" + b"{}," * 8_000_000 + b"{}]", b'{"data": [' + b"1," * 12_000_000 + b"1]}"]
)
def test_a_flood_of_elements_is_refused_before_it_is_decoded(body: bytes) -> None:
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(BadAnswer, match="more than 2000000 elements"):
        read_rows(Response(200, {}, body))
    assert time.process_time() - start < 2
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_large_body_is_not_searched_for_single_bad_rows() -> None:
    start = time.process_time()
    with pytest.raises(BadAnswer, match="too large to look"):
        read_rows(Response(200, {}, b'[{"x": "' + b"y" * 17_000_000 + b'"}, {"x": NaN}]'))
    assert time.process_time() - start < 2
