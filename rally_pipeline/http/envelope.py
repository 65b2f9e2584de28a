"""What an answer holds: rows or an object; anything else is refused, never taken for an empty page."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, TypeVar

import msgspec

from rally_pipeline.http.answers import bad_answer
from rally_pipeline.http.redaction import escape
from rally_pipeline.http.transport import Response

T = TypeVar("T")

ROW_KEYS = ("data", "items", "results")
_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")
_SPACE = b" \t\r\n"
# Members of the error objects that are in use: an object of nothing else is an error, never a record.
_FAULTS = frozenset({"error", "errors", "error_description", "message", "title", "detail", "details"})
_ERROR_MEMBERS = _FAULTS | {
    "type",
    "code",
    "status",
    "instance",
    "traceId",
    "trace_id",
    "request_id",
    "requestId",
}
_ERROR_MEMBERS |= {"timestamp", "path", "meta", "success", "ok"}
_MOST_ELEMENTS = 2_000_000
_LARGEST_SPLIT = 16 * 1024 * 1024
APART = re.compile(rb'"[ \t\r\n]+:')
"""A key with blanks before its colon, which a search for the two together does not find."""
_PIECE = 4096
_PROBE = 64
_UNSET = (b"null", b"false", b'""', b"[]", b"{}")
# A whole string, or one structural character, or the quote of a string that never ends; linear in the text.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)


def read_rows(response: Response) -> list[msgspec.Raw]:
    """The rows of a list answer, each still encoded, in the order received.

    Accepted are a bare array, or an object with an array under `data`, `items` or `results` (the first of these
    that holds one). A row that is not strict JSON (a lone surrogate, NaN, nesting without end) is returned as it
    came, so that one bad row does not take the page down: decoding it fails and the caller sets it aside.

    Raises:
        BadAnswer: anything else, above all HTML, an empty or cut body, or an error object.
    """
    text = _json_text(response)
    if text[:1] == b"[":
        return _split_rows(response, text)
    members = _members(response, text)
    if not _is_set(members.get("error")):
        for key in ROW_KEYS:
            if key in members and bytes(members[key])[:1] == b"[":
                return _split_rows(response, bytes(members[key]))
    raise bad_answer(response, "an object without rows under data, items or results", quote=True)


def decode(response: Response, type: type[T]) -> T:
    """The body as `type`: whatever msgspec decodes into, such as a Struct, `dict[str, Any]` or `list[Struct]`.

    Raises:
        BadAnswer: empty, cut, HTML, not strict JSON, a key twice in one object, an error object, or it does not
            fit `type`.
    """
    text = _json_text(response)
    if text[:1] == b"{":
        members = _members(response, text)
        if _is_error(members):
            raise bad_answer(response, "an error object instead of the content", quote=True)
    try:
        content = msgspec.json.decode(text, type=type)
        twice = duplicate_key(text)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise bad_answer(response, _malformed(error)) from None
    if twice is not None:
        raise bad_answer(response, "a key occurs twice in one object")
    return content


def duplicate_key(text: bytes | msgspec.Raw) -> str | None:
    """A key that occurs twice in one object of a JSON text, at any depth; None if there is none.

    JSON parsers disagree on which of the two counts (msgspec takes the last), so such a text is not to be trusted.
    Costs about as much as decoding the text once more.

    Raises:
        msgspec.MsgspecError, RecursionError, ValueError: the text is not strict JSON.
    """
    data = bytes(text)
    if has_single_keys(data, msgspec.json.decode(data)):
        return None
    # Quotes inside strings also bring the two counts apart: look closely.
    found: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            names = [name for name, _ in pairs]
            found.append(next(name for name in names if names.count(name) > 1))
        return members

    json.loads(data, object_pairs_hook=check, parse_int=str, parse_float=str)
    return found[0] if found else None


def has_single_keys(text: bytes, content: object) -> bool:
    """Whether it is plain that no key stands twice in an object of the JSON text, of which `content` was decoded.

    Costs little of what `duplicate_key` does, which is to be asked where this says no.
    """
    return text.count(b'":') == _count_keys(content) and not APART.search(text)


def _count_keys(content: object) -> int:
    """Keys at every depth; cheap where most values are plain."""
    count = len(content) if type(content) is dict else 0
    parts = content.values() if type(content) is dict else content if type(content) is list else ()
    for value in parts:
        if type(value) is dict or type(value) is list:
            count += _count_keys(value)
    return count


def _json_text(response: Response) -> bytes:
    """The body as UTF-8 text that begins like an array or an object, without byte-order mark and blanks."""
    text = response.body.removeprefix(_BOM).lstrip(_SPACE)
    if not text:
        raise bad_answer(response, "no content where JSON was expected")
    if text.startswith(_OTHER_BOMS) or b"\0" in text[:4]:
        raise bad_answer(response, "UTF-16 or UTF-32 instead of UTF-8")
    if text[:1] not in (b"[", b"{"):
        kind = "HTML or XML" if text[:1] == b"<" else "something else"
        raise bad_answer(response, f"{kind} instead of a JSON list or object", quote=True)
    if len(text) > _MOST_ELEMENTS and text.count(b",") > _MOST_ELEMENTS:
        raise bad_answer(response, f"more than {_MOST_ELEMENTS} elements")
    wrong = None if text.isascii() else _not_utf8(text)
    if wrong is not None:
        raise bad_answer(response, f"not UTF-8 (byte {wrong})")
    return text


def _not_utf8(text: bytes) -> int | None:
    """The place of the first byte that is not UTF-8; looks at pieces, as one text of it all would cost memory anew."""
    view, place = memoryview(text), 0
    while place < len(text):
        end = place + _PIECE
        try:
            place += codecs.utf_8_decode(view[place:end], "strict", end >= len(text))[1]
        except UnicodeDecodeError as error:
            return place + error.start
    return None


def _members(response: Response, text: bytes) -> dict[str, msgspec.Raw]:
    """The members of an object, undecoded; refuses an object with the same member twice."""
    members = _plain_members(text)
    if members is not None:
        return members
    try:
        pairs = [_split_member(member) for member in _elements(text)]
    except ValueError as error:
        raise bad_answer(response, str(error)) from None
    if len(dict(pairs)) < len(pairs):
        raise bad_answer(response, "a key occurs twice in one object")
    return dict(pairs)


def _plain_members(text: bytes) -> dict[str, msgspec.Raw] | None:
    """The quick way: None if something inside is not strict JSON, or if a member may occur twice."""
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        return None
    values = [bytes(value) for value in members.values()]
    # The rows make up nearly all of the text: searching what is around them is enough where they are found in it. Only
    # an array: what is around a string may show one key less without it, and so hide one that stands twice.
    rows = max(values, key=len, default=b"")
    start = text.find(rows[:_PROBE])
    if rows[:1] == b"[" and text.startswith(rows, start):
        values.remove(rows)
        text = text[:start] + text[start + len(rows) :]
    # What counts as a key has its colon right behind it; where blanks stand between, a closer look is needed.
    apart = len(APART.findall(text)) - sum(len(APART.findall(value)) for value in values)
    keys = text.count(b'":') - sum(value.count(b'":') for value in values)
    return members if keys == len(members) and not apart else None


def _split_member(member: bytes) -> tuple[str, msgspec.Raw]:
    name = _TOKEN.match(member)
    rest = member[name.end() :].lstrip(_SPACE) if name is not None and len(name[0]) > 1 else b""
    if name is None or rest[:1] != b":":
        raise ValueError("malformed JSON: a member without a name")
    return str(json.loads(name[0])), msgspec.Raw(rest[1:].lstrip(_SPACE))


def _split_rows(response: Response, text: bytes) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(text, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError) as error:
        problem = _malformed(error)
    try:
        rows = _elements(text)
    except ValueError as error:
        raise bad_answer(response, str(error)) from None
    if not all(row[:1] == b"{" and row[-1:] == b"}" for row in rows):
        raise bad_answer(response, problem)
    return [msgspec.Raw(row) for row in rows]


def _elements(text: bytes) -> list[bytes]:
    """The elements of the outermost array, or the members of the outermost object, as texts.

    Looks at brackets, commas and strings only, without recursion, so that nothing inside an element matters.

    Raises:
        ValueError: the text is too large for that, or it is cut, its brackets do not match, an element is missing, or
            something follows it.
    """
    if len(text) > _LARGEST_SPLIT:
        raise ValueError("malformed JSON in a body too large to look for the place")
    parts: list[bytes] = []
    closers = bytearray()
    start = 1
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if len(mark) > 1:
            continue
        if mark in b"[{":
            closers += b"]" if mark == b"[" else b"}"
        elif mark in b"]}":
            if mark[0] != closers.pop():
                raise ValueError("malformed JSON: brackets do not match")
            if not closers:
                break
        elif mark == b"," and len(closers) == 1:
            parts.append(text[start : token.start()].strip(_SPACE))
            start = token.end()
        elif mark == b'"':
            raise ValueError("malformed JSON: the text is cut inside a string")
    else:
        raise ValueError("malformed JSON: the text is cut")
    if text[token.end() :].strip(_SPACE):
        raise ValueError("malformed JSON: something follows the end")
    last = text[start : token.start()].strip(_SPACE)
    if last or parts:
        parts.append(last)
    if not all(parts):
        raise ValueError("malformed JSON: an element is missing")
    return parts


def _is_set(value: msgspec.Raw | None) -> bool:
    return value is not None and bytes(value) not in _UNSET


def _is_error(members: dict[str, msgspec.Raw]) -> bool:
    if not members or not _ERROR_MEMBERS.issuperset(members):
        return False
    done = any(bytes(members[word]) == b"true" for word in ("success", "ok") if word in members)
    return not done and any(_is_set(members.get(word)) for word in _FAULTS)


def _malformed(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "malformed JSON: nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        return f"the content does not fit: {escape(str(error))[:200]}"
    return f"malformed JSON: {escape(str(error)).removeprefix('JSON is malformed: ')[:200]}"
